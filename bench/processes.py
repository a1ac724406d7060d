"""One, two and four processes on one Redis, and one on a cluster of three masters.

    python -m bench.processes [--seconds 2] [--into bench/PROCESSES.md]

A process gets a core of its own as far as there are any, beside the last one, which store and load generator
share. On two cores all processes therefore share one: then this shows what sharing a store costs, and that
nothing gets lost, but cannot show that more processes serve more.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.application import ROOT, RunningApplication
from bench.drive import Figures, ask, connected, drive
from bench.loads import BURST, NOTE, Load, Visitor, load_called
from bench.results import markdown
from bench.servers import Places
from tests.servers.group import Cluster
from tests.servers.process import MissingServerError

CONNECTIONS = 64
COUNTS = (1, 2, 4)
LOADS = ("W1", "W2")


class Fleet(NamedTuple):
    """Processes that share a store."""

    title: str
    apps: list[RunningApplication]


def fleet_on(title: str, url: str, count: int, stack: ExitStack, allowed: list[int]) -> Fleet:
    """Start ``count`` processes on the store at ``url``."""
    own = allowed[:-1] or allowed
    apps = [RunningApplication("eyewall_site", "--store", url, core=own[i % len(own)]) for i in range(count)]
    for app in apps:
        stack.callback(app.stop)
    for app in apps:
        app.wait_until_ready()
    return Fleet(title, apps)


async def kept_across(fleet: Fleet) -> int:
    """Send a page load's hundred writes on one session to all processes; return how many are kept."""
    shares = [await connected(app.port, 8) for app in fleet.apps]
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


async def measure(fleet: Fleet, load: Load, seconds: float) -> Figures:
    """Drive all processes at once; requests/s add up, the rest is the mean or the worst."""
    share = CONNECTIONS // len(fleet.apps)
    runs = await asyncio.gather(*(drive(app, load, connections=share, seconds=seconds) for app in fleet.apps))
    total = sum(run.per_second for run in runs)
    cpu = sum(run.cpu * run.per_second for run in runs) / total
    return Figures(total, sum(run.p50 for run in runs) / len(runs), max(run.p99 for run in runs), cpu)


def row_of(fleet: Fleet, seconds: float) -> list[str]:
    """Measure one line of the table."""
    cells = [fleet.title]
    for name in LOADS:
        figures = asyncio.run(measure(fleet, load_called(name), seconds))
        cells += [f"{figures.per_second:.0f}", f"{figures.cpu:.0f}", f"{figures.p99 / 1000:.1f}"]
    print(f"{fleet.title} done", file=sys.stderr)
    return [*cells, str(asyncio.run(kept_across(fleet)))]


def rows(seconds: float, allowed: list[int]) -> list[list[str]]:
    """Measure every line of the table."""
    found = []
    with ExitStack() as stack:
        url = Places(stack).address("redis")
        for count in COUNTS:
            with ExitStack() as inner:
                found.append(row_of(fleet_on(f"{count} on one Redis", url, count, inner, allowed), seconds))
    try:
        with Cluster() as cluster, ExitStack() as inner:
            for count in COUNTS[:2]:
                title = f"{count} on a cluster of 3 masters"
                found.append(row_of(fleet_on(title, cluster.url, count, inner, allowed), seconds))
    except MissingServerError as error:
        print(error, file=sys.stderr)
    return found


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="processes", description="Several processes on one store.")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measuring")
    parser.add_argument(
        "--into", type=Path, default=ROOT / "bench" / "PROCESSES.md", help="the page to write"
    )
    options = parser.parse_args()
    allowed = sorted(os.sched_getaffinity(0))
    machine.take_cores()
    headings = ["processes", *(f"{name} {what}" for name in LOADS for what in ("/s", "CPU us", "p99 ms"))]
    table = markdown([*headings, "kept of 100"], rows(options.seconds, allowed))
    facts = ", ".join(f"{name} {value}" for name, value in machine.describe(machine.OURS).items())
    shared = max(len(allowed) - 1, 1)
    options.into.parent.mkdir(parents=True, exist_ok=True)
    page = f"""\
# Results with several processes

Made by `python -m bench.processes`; do not edit. Machine: {facts}. {CONNECTIONS} connections in all.

**This machine lets us use {len(allowed)} core(s): the applications share {shared}, all else the last.**
With fewer cores than processes the figures show that sharing a store costs nothing and loses nothing, not
that it scales. *kept of 100*: of a hundred parallel writes to one session, spread over all processes.

{table}"""
    options.into.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
