"""One, two and four processes on one Redis, and on a cluster of three masters.

    python -m bench.processes [--seconds 2] [--into build/bench]

Writes ``bench/processes.json``. A process gets a core of its own as far as there are any, beside the last
one, which store and load generator share. On two cores all processes therefore share one: then this shows
what sharing a store costs, and that nothing gets lost, but cannot show that more processes serve more. How
far one store goes follows from the CPU time that a request costs the store itself, which is measured here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from bench import machine
from bench.application import ROOT, RunningApplication
from bench.drive import Figures, ask, connected, drive
from bench.loads import BURST, NOTE, Load, Visitor, load_called
from bench.machine import share_of_core
from bench.servers import Places
from tests.servers.group import Cluster
from tests.servers.process import MissingServerError

CONNECTIONS = 64
COUNTS = (1, 2, 4)
LOADS = ("W1", "W2")
ROUNDS = 3
ONE_REDIS, CLUSTER = "one Redis", "a cluster of 3 masters"


class FleetLoad(NamedTuple):
    """What one load did to all processes together. Microseconds; CPU per request, of processes and store."""

    per_second: float
    p99: float
    cpu: float
    store_cpu: float


class FleetFigures(NamedTuple):
    """What was measured of some processes on one store; the loads by name."""

    processes: int
    store: str
    loads: dict[str, FleetLoad]
    kept: int


class Processes(msgspec.Struct):
    """All that was measured, and on how many cores the applications ran."""

    date: str
    machine: dict[str, str]
    cores: int
    fleets: list[FleetFigures]


def read_processes(path: Path) -> Processes:
    """Return what this program wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Processes)


class Fleet:
    """Processes that share a store.

    Args:
        apps: the processes.
        store: what it is called.
        pids: its own processes.
    """

    def __init__(self, apps: list[RunningApplication], store: str, pids: list[int]) -> None:
        self.store = store
        self.apps = apps
        self.runs: dict[str, list[FleetLoad]] = {}
        self._pids = pids
        self._visitors: dict[str, list[list[Visitor]]] = {name: [[] for _ in apps] for name in LOADS}

    async def prepare(self) -> None:
        """Make the visitors of all loads, and have everything loaded."""
        for name in LOADS:
            await self._drive(load_called(name), 0.2)

    async def measure(self, load: Load, seconds: float) -> None:
        """Drive all processes at once, and keep what was measured."""
        runs, share = await asyncio.gather(self._drive(load, seconds), share_of_core(self._pids, seconds))
        total = sum(run.per_second for run in runs)
        own = sum(run.cpu * run.per_second for run in runs) / total
        figures = FleetLoad(total, max(run.p99 for run in runs), own, share / total * 1e6)
        self.runs.setdefault(load.name, []).append(figures)

    async def _drive(self, load: Load, seconds: float) -> list[Figures]:
        count = CONNECTIONS // len(self.apps)
        crowds = zip(self.apps, self._visitors[load.name], strict=True)
        return await asyncio.gather(
            *(drive(app, load, connections=count, seconds=seconds, visitors=crowd) for app, crowd in crowds)
        )

    async def kept(self) -> int:
        """Send a page load's hundred writes on one session to all processes; return how many are kept."""
        shares = [await connected(app.port, 8) for app in self.apps]
        clients = [client for share in shares for client in share]
        visitor, keys = Visitor(), iter(range(BURST))
        await ask(clients[0], visitor, "POST", "/start", NOTE)

        async def write(index: int) -> None:
            for key in keys:
                await ask(clients[index], visitor, "POST", f"/mark?k={key}")

        await asyncio.gather(*map(write, range(len(clients))))
        kept = int(await ask(clients[-1], visitor, "GET", "/marks"))
        for client in clients:
            client.close()
        return kept

    async def figures(self) -> FleetFigures:
        """Return the medians, and how many parallel writes are kept."""
        loads = {
            name: FleetLoad(*(median(values) for values in zip(*runs, strict=True)))
            for name, runs in self.runs.items()
        }
        return FleetFigures(len(self.apps), self.store, loads, await self.kept())


class Stage:
    """Starts stores and fleets, and ends them with ``stack``."""

    def __init__(self, stack: ExitStack, cores: list[int]) -> None:
        self._stack = stack
        self._cores = cores

    def fleets(self) -> Iterator[Fleet]:
        """Yield every fleet that can be made here, running."""
        places = Places(self._stack)
        for count in COUNTS:
            yield self._fleet(count, ONE_REDIS, places.address("redis"), places.server("redis").pids[:1])
        try:
            cluster = self._stack.enter_context(Cluster())
        except MissingServerError as error:
            print(error, file=sys.stderr)
            return
        masters = [member.pids[0] for member in cluster.members]
        for count in COUNTS:
            yield self._fleet(count, CLUSTER, cluster.url, masters)

    def _fleet(self, count: int, store: str, url: str, pids: list[int]) -> Fleet:
        cores = [self._cores[i % len(self._cores)] for i in range(count)]
        apps = [RunningApplication("eyewall_site", "--store", url, core=core) for core in cores]
        for app in apps:
            self._stack.callback(app.stop)
            app.wait_until_ready()
        return Fleet(apps, store, pids)


async def measure(fleets: list[Fleet], seconds: float) -> list[FleetFigures]:
    """Measure the fleets in turns."""
    for fleet in fleets:
        await fleet.prepare()
    for number in range(ROUNDS):
        for name in LOADS:
            for fleet in fleets:
                await fleet.measure(load_called(name), seconds)
        print(f"round {number + 1} of {ROUNDS} done", file=sys.stderr)
    return [await fleet.figures() for fleet in fleets]


def main() -> None:
    """Measure, print, and write the file."""
    parser = argparse.ArgumentParser(prog="processes", description="Several processes on one store.")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run")
    parser.add_argument("--into", type=Path, default=ROOT / "bench", help="the folder of processes.json")
    options = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    cores = allowed[:-1] or allowed
    machine.take_cores()
    with ExitStack() as stack:
        fleets = list(Stage(stack, cores).fleets())
        figures = asyncio.run(measure(fleets, options.seconds))
    now = f"{datetime.now(UTC):%Y-%m-%d}"
    found = Processes(now, machine.describe(machine.OURS), len(cores), figures)
    target = Path(options.into) / "processes.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    print(target.read_text())


if __name__ == "__main__":
    main()
