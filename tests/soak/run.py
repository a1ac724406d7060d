"""Lets users loose on two servers for each store, and writes down what it was like.

    python -m tests.soak.run --minutes 120 --users 200 --out soak.json

Ends with 1 when a promise was broken. The file is there from the first minute on, and
``python -m tests.soak.report soak.json`` prints what matters in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.machine import cpu_seconds, describe
from bench.servers import Places
from tests.examples.pair import SECRET
from tests.examples.program import Program
from tests.soak.browser import Browser
from tests.soak.crowd import Rhythm, User
from tests.soak.ledger import Ledger
from tests.soak.place import Limits, Place
from tests.soak.sampling import process_sample, store_sample
from tests.soak.verdict import verdict
from tests.soak.visitor import Visitor

STORES: Final = ("redis", "postgres", "sqlite", "file")
APPLICATION: Final = Path(__file__).with_name("application.py")
ROOT: Final = APPLICATION.parents[2]
_GOODBYE: Final = 0.2  # seconds in which connections close
WITNESS: Final = "idle witness"
"""An application without visitors: what its loop is late by, the machine does."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done.

    Args:
        seconds: how long.
        users: how many, over all stores.
        every: seconds between two samples.
        most_cpu: part of one core that everything together may use; users rest longer when it is more.
        seed: of all that is left to chance.
        limits: how long sessions live.
        rhythm: how fast users are.
        broken: what the applications do wrong, to try the judge; see :mod:`tests.soak.broken`.
    """

    seconds: float
    users: int
    every: float = 30.0
    most_cpu: float = 0.15
    seed: int = 10
    limits: Limits = field(default_factory=Limits)
    rhythm: Rhythm = field(default_factory=Rhythm)
    broken: str | None = None


class Soak:
    """One run.

    Args:
        plan: what is to be done.
        addresses: of the stores, by name.
        programs: the servers, by name: two for each store, and the witness.
        out: where the results go.
    """

    def __init__(
        self, plan: Plan, addresses: Mapping[str, str], programs: Mapping[str, Program], out: Path
    ) -> None:
        self._plan = plan
        self._addresses = addresses
        self._programs = programs
        self._out = out
        self._machine = describe()
        self._began = time.monotonic()
        self._cpu = (time.monotonic(), cpu_seconds([os.getpid()]))
        self.ledger = Ledger()
        self.falls: list[str] = []
        self.samples: list[dict[str, Any]] = []

    async def run(self, is_enough: Callable[[dict[str, Any]], object] = lambda _: False) -> dict[str, Any]:
        """Let it run, until ``is_enough(results)`` at the latest; return the results."""
        await self.sample()
        users = list(self._users())
        lives = [asyncio.ensure_future(self._live(user)) for user in users]
        try:
            while (left := self._plan.seconds - (time.monotonic() - self._began)) > 0:
                await asyncio.sleep(min(self._plan.every, left))
                await self.sample()
                if is_enough(self.results()):
                    break
        finally:
            self.ledger.close()
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
            for user in users:
                user.end()
            await asyncio.sleep(_GOODBYE)
        return self.results()

    async def _live(self, user: User) -> None:
        try:
            await user.live()
        except Exception:  # noqa: BLE001 - a judge that falls over has judged nothing: the verdict tells
            self.falls.append(traceback.format_exc())

    def _users(self) -> Iterator[User]:
        places = [self._place(store) for store in self._addresses]
        for number in range(self._plan.users):
            place = places[number % len(places)]
            name = f"{place.store}-{number:03d}"
            address = f"127.7.{number // 250}.{number % 250 + 1}"
            chance = Random(f"{self._plan.seed} {name}")
            yield User(Visitor(place, name, address, chance), self._plan.rhythm)

    def _place(self, store: str) -> Place:
        ports = [self._programs[f"{store} {number}"].port for number in (1, 2)]
        return Place(store=store, ports=ports, limits=self._plan.limits, ledger=self.ledger)

    async def sample(self) -> None:
        """Look at every process and every store, and write it down."""
        browser = Browser([program.port for program in self._programs.values()], "127.0.0.1")
        probes = (process_sample(each.pid, browser, n) for n, each in enumerate(self._programs.values()))
        processes = dict(zip(self._programs, await asyncio.gather(*probes), strict=True))
        browser.close()
        for sample in self.samples[-1:]:
            for process in sample["processes"].values():
                process["lag"].pop("worst", None)  # the newest has them all
        self.samples.append(
            {
                "at": round(time.monotonic() - self._began, 1),
                "cpu": self._adjust(),
                "factor": round(self._plan.rhythm.factor, 2),
                "answers": sum(self.ledger.answers.values()),
                "load": os.getloadavg()[0],
                "processes": processes,
                "stores": {name: await store_sample(url) for name, url in self._addresses.items()},
            }
        )
        written = self._out.with_suffix(".part")
        written.write_text(json.dumps(self.results()))
        written.replace(self._out)

    def _adjust(self) -> float:
        """Return what all of ours used of one core since the last time, and have users rest accordingly."""
        (before, had), (now, has) = self._cpu, (time.monotonic(), cpu_seconds([os.getpid()]))
        self._cpu = (now, has)
        used = max(has - had, 0.0) / (now - before)
        change = min(max(used / self._plan.most_cpu, 0.8), 1.25)
        self._plan.rhythm.factor = min(max(self._plan.rhythm.factor * change, 0.3), 20.0)
        return round(used, 3)

    def results(self) -> dict[str, Any]:
        """Return all that is known so far."""
        results = {
            "plan": asdict(self._plan),
            "machine": self._machine,
            "stores": list(self._addresses),
            "ledger": self.ledger.figures(),
            "fallen": len(self.falls),
            "falls": self.falls[:5],
            "tracebacks": {
                name: program.errors.count("Traceback") for name, program in self._programs.items()
            },
            "log_lines": {name: program.errors.count("\n") for name, program in self._programs.items()},
            "samples": self.samples,
        }
        return {**results, "verdict": verdict(results) if self.samples else ["nothing was sampled"]}


@contextmanager
def servers(plan: Plan, addresses: Mapping[str, str], folder: Path) -> Iterator[dict[str, Program]]:
    """Run two applications for each store, and the witness, each in a folder of its own below ``folder``."""
    words = [str(APPLICATION), *(["--broken", plan.broken] if plan.broken else [])]
    with ExitStack() as stack:
        programs = {}
        for store, url in addresses.items():
            for name in (f"{store} 1", f"{store} 2"):
                programs[name] = Program(*words, folder=_made(folder / name), **_settings(plan, url))
        programs[WITNESS] = Program(str(APPLICATION), folder=_made(folder / WITNESS), **_settings(plan, None))
        for program in programs.values():
            stack.push(program)
        with ThreadPoolExecutor(os.cpu_count()) as threads:  # all at once, each would be late
            list(threads.map(Program.start, programs.values()))
        yield programs


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _settings(plan: Plan, url: str | None) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        "PYTHONPATH": path,
        "EYEWALL_COOKIE_SECRET": SECRET,
        "EYEWALL_STORE_TIMEOUT": "10",  # this is no test of deadlines, and the machine may be busy
        "EYEWALL_TTL": f"{plan.limits.idle:g}",
        "EYEWALL_ABSOLUTE_TTL": f"{plan.limits.absolute:g}",
        "EYEWALL_REMEMBER_TTL": f"{plan.limits.remember:g}",
        **({"EYEWALL_BACKEND": "memory"} if url is None else {"EYEWALL_URL": url}),
    }


def main() -> int:
    """Soak as the command line says; return 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--cpu", type=float, default=0.15, help="part of one core to use at most; 0.15")
    parser.add_argument("--seed", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the results")
    options = parser.parse_args()
    plan = Plan(
        seconds=options.minutes * 60,
        users=options.users,
        most_cpu=options.cpu,
        seed=options.seed,
        rhythm=Rhythm(factor=4.0),
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eyewall-soak-")))
        places = Places(stack)
        addresses = {store: places.address(store) for store in STORES}
        programs = stack.enter_context(servers(plan, addresses, folder))
        os.nice(5)  # the users wait, not the servers
        results = asyncio.run(Soak(plan, addresses, programs, options.out).run())
    for complaint in results["verdict"]:
        print(complaint)  # noqa: T201 - the answer
    return 1 if results["verdict"] else 0


if __name__ == "__main__":
    sys.exit(main())
