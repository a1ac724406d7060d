"""As much as the machine can do: is the loop held while threads write files, SQLite, or hash passwords?

    python -m tests.soak.burst --seconds 60

Prints one line for each scene, and ends with 1 when a loop was held for more than 100 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any, Final

from bench.servers import Places
from tests.examples.program import Program
from tests.soak.browser import Browser
from tests.soak.ledger import Ledger
from tests.soak.place import Limits, Place
from tests.soak.run import WITNESS, Plan, servers
from tests.soak.sampling import process_sample
from tests.soak.verdict import held_loops
from tests.soak.visitor import Visitor

Work = Callable[[Visitor], Awaitable[None]]

AT_ONCE: Final = 8
LIMITS: Final = Limits(idle=600, absolute=3600, remember=3600)


async def write(visitor: Visitor) -> None:
    """Two changes, each of them stored before it is answered."""
    await visitor.put()
    await visitor.count()


async def sign_in(visitor: Visitor) -> None:
    """Verify a password, and store a session under a new ID."""
    await visitor.sign_in(remember=False)


SCENES: Final[Mapping[str, tuple[str, Work]]] = {
    "files, writing": ("file", write),
    "SQLite, writing": ("sqlite", write),
    "argon2, signing in": ("file", sign_in),
}


class Burst:
    """One scene.

    Args:
        place: the two servers.
        work: what everybody does, without a pause.
        seconds: how long.
    """

    def __init__(self, place: Place, work: Work, seconds: float) -> None:
        self._place = place
        self._work = work
        self._seconds = seconds
        self._end = 0.0
        self._waits: list[float] = []

    async def run(self) -> dict[str, Any]:
        """Let everybody work; return how much that was, and how long a passer-by waited (milliseconds)."""
        workers = [self._visitor(number) for number in range(AT_ONCE)]
        for worker in workers:
            await worker.claim()
            await worker.sign_in(remember=False)
        before, self._end = sum(self._place.ledger.answers.values()), time.monotonic() + self._seconds
        await asyncio.gather(self._pass_by(self._visitor(AT_ONCE)), *map(self._toil, workers))
        answered = sum(self._place.ledger.answers.values()) - before - len(self._waits)
        waits = sorted(self._waits)
        return {
            "per_second": round(answered / self._seconds),
            "others_p50": round(waits[len(waits) // 2] * 1000, 1),
            "others_p99": round(waits[int(len(waits) * 0.99)] * 1000, 1),
        }

    def _visitor(self, number: int) -> Visitor:
        name = f"{self._place.store}-{number:03d}"
        return Visitor(self._place, name, f"127.8.0.{number + 1}", Random(name))

    async def _toil(self, visitor: Visitor) -> None:
        while time.monotonic() < self._end:
            await self._work(visitor)

    async def _pass_by(self, visitor: Visitor) -> None:
        while time.monotonic() < self._end:
            asked = time.monotonic()
            await visitor.read_public()
            self._waits.append(time.monotonic() - asked)
            await asyncio.sleep(0.02)


async def play(store: str, work: Work, seconds: float, programs: Mapping[str, Program]) -> dict[str, Any]:
    """Play one scene; return its figures, as a soak's results with one sample."""
    ledger = Ledger()
    ports = [program.port for name, program in programs.items() if name != WITNESS]
    figures = await Burst(Place(store=store, ports=ports, limits=LIMITS, ledger=ledger), work, seconds).run()
    browser = Browser([program.port for program in programs.values()], "127.0.0.1")
    processes = {
        name: await process_sample(program.pid, browser, number)
        for number, (name, program) in enumerate(programs.items())
    }
    browser.close()
    return {**figures, "ledger": ledger.figures(), "samples": [{"processes": processes}]}


def scene(store: str, work: Work, seconds: float) -> dict[str, Any]:
    """Play one scene with servers of its own."""
    plan = Plan(seconds=seconds, users=AT_ONCE, limits=LIMITS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="eyewall-burst-")))
        addresses = {store: Places(stack).address(store)}
        programs = stack.enter_context(servers(plan, addresses, folder))
        return asyncio.run(play(store, work, seconds, programs))


def line(name: str, figures: Mapping[str, Any]) -> str:
    """Return what was measured as one row of a table."""
    lags = {each: process["lag"] for each, process in figures["samples"][0]["processes"].items()}
    ours = [lag for each, lag in lags.items() if each != WITNESS]
    facts = (
        name,
        figures["per_second"],
        max(lag["p99"] for lag in ours),
        max(lag["p99.99"] for lag in ours),
        max(lag["greatest"] for lag in ours),
        lags[WITNESS]["greatest"],
        f"{figures['others_p50']} / {figures['others_p99']}",
    )
    return "| " + " | ".join(map(str, facts)) + " |"


def main() -> int:
    """Play every scene; return 1 when a loop was held, or an answer was wrong."""
    parser = argparse.ArgumentParser(description="Holds the loop to 100 ms under full load.")
    parser.add_argument("--seconds", type=float, default=60, help="for each scene; 60")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    options = parser.parse_args()
    results, wrong = {}, list[str]()
    say = print
    say("| scene | answers/s | held p99 | p99.99 | greatest | idle process | others p50 / p99 |")
    say("|---|---|---|---|---|---|---|")
    for name, (store, work) in SCENES.items():
        results[name] = scene(store, work, options.seconds)
        wrong += held_loops(results[name])
        wrong += [f"{n} times {what}" for what, n in results[name]["ledger"]["complaints"].items() if n]
        say(line(name, results[name]))
    if options.out:
        options.out.write_text(json.dumps(results, indent=1))
    for complaint in wrong:
        say(complaint)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
