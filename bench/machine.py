"""The machine: its cores, the CPU time of processes, and what it is called in the results."""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from tests.servers.process import descendants

OURS = (
    "eyewall", "tornado", "msgspec", "redis", "hiredis", "sqlalchemy", "asyncpg", "asyncmy", "pymongo",
    "cryptography",
)  # fmt: skip
PEERS = (
    "starlette", "starsessions", "uvicorn", "uvloop", "aiohttp", "aiohttp-session", "flask", "flask-session",
    "django", "gunicorn",
)  # fmt: skip


class Cores(NamedTuple):
    """The core of the application under test, and the one of everything else."""

    application: int
    rest: int


def take_cores() -> Cores:
    """Choose two cores, and put this process and all it starts from now on onto the second.

    On a machine with a single core both are the same, and requests/s mean little.
    """
    allowed = sorted(os.sched_getaffinity(0))
    cores = Cores(allowed[0], allowed[-1])
    os.sched_setaffinity(0, {cores.rest})
    return cores


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that ``pids`` and their children have used, from the kernel's scheduler.

    ``schedstat`` counts nanoseconds of time on a core, user and system together; ``stat`` counts ticks of
    ten milliseconds and is the fallback.
    """
    return sum(_cpu_of(process) for pid in pids for process in descendants(pid))


def _cpu_of(pid: int) -> float:
    total = 0.0
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            total += _on_core(thread)
    return total


def _on_core(thread: Path) -> float:
    schedstat = thread / "schedstat"
    if schedstat.exists():
        return int(schedstat.read_text().split()[0]) / 1e9
    after_name = (thread / "stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


async def share_of_core(pids: Iterable[int], seconds: float) -> float:
    """Return which part of a core ``pids`` use in the middle of a run that measures for ``seconds``."""
    everyone = list(pids)
    await asyncio.sleep(seconds * 0.4)  # it has connected and is warming up
    used, began = cpu_seconds(everyone), time.perf_counter()
    await asyncio.sleep(seconds * 0.6)
    return (cpu_seconds(everyone) - used) / (time.perf_counter() - began)


def resident_bytes(pid: int) -> int:
    """Return how much memory ``pid`` holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def describe(packages: Iterable[str] = OURS + PEERS) -> dict[str, str]:
    """Return machine and versions, as the results name them."""
    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            facts[package] = version(package)
    return facts


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
