"""What Eyewall costs a process that does nothing: its import, and the memory of an open session."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from statistics import median
from typing import NamedTuple

from bench.micro.pieces import loaded_session, make_manager

TIMES = 7
IMPORT = """
import resource, sys, time
def held(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
import tornado.web
before, began = held(), time.perf_counter()
import eyewall
print(time.perf_counter() - began, held() - before, sum(name.startswith("eyewall") for name in sys.modules))
"""


class OwnCosts(NamedTuple):
    """Of ``import eyewall`` beside Tornado: milliseconds, bytes, modules. Of an open session: bytes."""

    import_ms: float
    import_bytes: float
    modules: int
    session_bytes: float


def own_costs() -> OwnCosts:
    """Measure them."""
    runs = [_import() for _ in range(TIMES)]
    return OwnCosts(
        median(run[0] for run in runs) * 1000,
        median(run[1] for run in runs),
        int(runs[0][2]),
        _session_bytes(),
    )


def _import() -> tuple[float, ...]:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))


def _session_bytes(count: int = 2000) -> float:
    """Return how much memory an open session of 500 bytes takes in the process."""
    manager = make_manager()
    kept = [loaded_session(manager)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept += [loaded_session(manager) for _ in range(count)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / count
