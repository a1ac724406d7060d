"""What stays flat when the sessions grow to a million, and what an Eyewall process costs in itself.

    python -m bench.scale                         # 1 thousand, 100 thousand, 1 million in three stores
    python -m bench.scale --continue              # the stores that are still missing in bench/scale.json
    python -m bench.scale --sizes 1000,20000 --stores redis --into build/bench

Writes ``bench/scale.json`` after every store; ``python -m bench.report`` puts it into the pages. Per store
and number of live sessions: W1 over HTTP by the owners of sessions strewn over all of them, beside bare
Tornado; bytes per session and per entry of the index by principal; listing and revoking one principal's ten
sessions; and, where the store has to sweep, sweeping all of them beside loads.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from bench import machine, wakeful
from bench.application import ROOT, RunningApplication
from bench.drive import Figures, ask, connected, drive
from bench.filling import (
    DEVICES,
    Filling,
    PostgresFilling,
    RespFilling,
    SqliteFilling,
    anonymous,
    of_principal,
    signed_in,
    with_cookies,
)
from bench.loads import Load, Visitor, load_called
from bench.machine import Cores
from bench.own_costs import OwnCosts, own_costs
from bench.servers import Places
from bench.sweep_effect import SweepEffect, sweep_effect
from tests.servers.resp import RespServer

STORES = ("redis", "postgres", "sqlite")
SIZES = (1_000, 100_000, 1_000_000)
VISITORS = 2_000
"""So many sessions, about, are visited, evenly strewn over all. Fewer than the cookies that a process
remembers to have verified (4,096), so that the sizes differ in nothing but the store."""
CONNECTIONS = 64
ROUNDS = 3
PRINCIPALS = 20
INDEXED = 20_000
"""So many sessions tell what one takes more that is in the index by principal."""


class Size(NamedTuple):
    """What was measured with so many sessions.

    Microseconds: *p99*, *cpu* of the application, *added* to the bare one, *store_cpu* of the server.
    Milliseconds: *find*, *revoke*. Seconds: *filled_in*.
    """

    sessions: int
    per_second: float
    p99: float
    cpu: float
    added: float
    store_cpu: float
    session_bytes: float
    find: float
    revoke: float
    filled_in: float


class StoreScale(msgspec.Struct):
    """All about one store."""

    sizes: list[Size]
    index_bytes: float
    sweep: SweepEffect | None


class Scale(msgspec.Struct):
    """All that was measured.

    Args:
        date: of the day it began.
        machine: what it is, and the versions of what ran on it.
        own: what a process costs in itself.
        stores: by name.
    """

    date: str
    machine: dict[str, str]
    own: OwnCosts
    stores: dict[str, StoreScale] = {}


def read_scale(path: Path) -> Scale:
    """Return what this program wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Scale)


def filling_of(store: str, url: str, places: Places) -> Filling:
    """Return the way to fill the ``store`` at ``url``."""
    if store == "redis":
        server = places.server(store)
        assert isinstance(server, RespServer)
        return RespFilling(server)
    return PostgresFilling(url) if store == "postgres" else SqliteFilling(url)


async def index_bytes(store: str) -> float:
    """Return how many bytes more a session takes that is in the index by principal: two fresh stores."""
    sizes = []
    for records in (anonymous(INDEXED), signed_in(INDEXED)):
        with ExitStack() as stack:
            places = Places(stack)
            filling = filling_of(store, places.address(store), places)
            await filling.add(records)
            sizes.append(await filling.size())
            await filling.close()
    return (sizes[1] - sizes[0]) / INDEXED


async def one_among_all(filling: Filling) -> tuple[float, float]:
    """Return the milliseconds to list, and to end, the ten sessions of one principal."""
    listing, ending = [], []
    for _ in range(PRINCIPALS):
        principal = f"principal-{secrets.token_hex(6)}"
        for record in of_principal(principal):
            assert await filling.store.create(record)
        began = time.perf_counter()
        found = await filling.store.find_principal(principal)
        listed = time.perf_counter()
        gone = await filling.store.delete_principal(principal)
        ending.append(time.perf_counter() - listed)
        listing.append(listed - began)
        assert (len(found), gone) == (DEVICES, DEVICES)
    return median(listing) * 1000, median(ending) * 1000


class Site(NamedTuple):
    """The application on the store, the bare one beside it, the store's process, how long each run takes."""

    app: RunningApplication
    bare: RunningApplication
    server: list[int]
    seconds: float


class Reading(NamedTuple):
    """W1: requests/s, and microseconds."""

    per_second: float
    p99: float
    cpu: float
    added: float
    store_cpu: float


def _reading() -> Load:
    """W1, on sessions that were filled in."""
    return load_called("W1")._replace(accept=lambda _, body: body == b"alice 7")


async def reading(site: Site, visitors: list[Visitor]) -> Reading:
    """Measure W1 beside the bare application; return the medians."""
    await _visit_each(site.app, visitors)
    rounds = [await _one_round(site, visitors) for _ in range(ROUNDS)]
    return Reading(*(median(values) for values in zip(*rounds, strict=True)))


async def _one_round(site: Site, visitors: list[Visitor]) -> Reading:
    load = _reading()
    bare = await _run(site.bare, load.without_sessions(), site.seconds, [Visitor()] * CONNECTIONS)
    run, share = await asyncio.gather(
        _run(site.app, load, site.seconds, visitors), machine.share_of_core(site.server, site.seconds)
    )
    return Reading(run.per_second, run.p99, run.cpu, run.cpu - bare.cpu, share / run.per_second * 1e6)


async def _run(app: RunningApplication, load: Load, seconds: float, visitors: list[Visitor]) -> Figures:
    work = drive(app, load, connections=CONNECTIONS, seconds=seconds, visitors=visitors)
    return await asyncio.to_thread(wakeful.run, work)


async def _visit_each(app: RunningApplication, visitors: list[Visitor]) -> None:
    """Each once: from then on, nobody's last visit is so long ago that it has to be noted again."""
    clients = await connected(app.port, CONNECTIONS)
    shares = [visitors[i::CONNECTIONS] for i in range(CONNECTIONS)]
    for client, own in zip(clients, shares, strict=True):
        for visitor in own:
            assert await ask(client, visitor, "GET", "/read") == b"alice 7"
    for client in clients:
        client.close()


async def measure_sizes(filling: Filling, site: Site, sizes: list[int]) -> list[Size]:
    """Measure one store at every size."""
    have, found = 0, []
    for want in sizes:
        began = time.perf_counter()
        visitors: list[Visitor] = []
        await filling.add(with_cookies(want - have, max(1, (want - have) // VISITORS), visitors))
        filled, have = time.perf_counter() - began, want
        size = await filling.size()
        figures = await reading(site, visitors)
        one = await one_among_all(filling)
        found.append(Size(want, *figures, size / want, *one, filled))
        print(f"  {found[-1]}", file=sys.stderr)
    return found


async def measure_store(
    store: str, filling: Filling, site: Site, sizes: list[int], cores: Cores
) -> StoreScale:
    """Measure one store."""
    try:
        found = await measure_sizes(filling, site, sizes)
        swept = None
        if store != "redis":  # it drops expired sessions by itself
            os.sched_setaffinity(0, {cores.application})  # we are the application now, the server is not
            swept = await sweep_effect(filling, sizes[-1], 4 * site.seconds)
            os.sched_setaffinity(0, {cores.rest})
        return StoreScale(found, await index_bytes(store), swept)
    finally:
        await filling.close()


def measure_store_alone(store: str, sizes: list[int], seconds: float, cores: Cores) -> StoreScale:
    """Start a store and the applications, measure, and end them."""
    with ExitStack() as stack:
        places = Places(stack)
        url = places.address(store)
        apps = [
            RunningApplication("eyewall_site", "--store", url, core=cores.application),
            RunningApplication("tornado_bare", core=cores.application),
        ]
        for app in apps:
            stack.callback(app.stop)
            app.wait_until_ready()
        filling = filling_of(store, url, places)
        server = [] if store == "sqlite" else places.server(store).pids[:1]
        site = Site(apps[0], apps[1], server, seconds)
        return asyncio.run(measure_store(store, filling, site, sizes, cores))


def options_from(words: list[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="scale", description="What stays flat up to a million sessions.")
    parser.add_argument("--continue", action="store_true", dest="goes_on", help="only what is missing")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="live sessions, growing")
    parser.add_argument("--stores", default=",".join(STORES), help="some of redis, postgres, sqlite")
    parser.add_argument("--seconds", type=float, default=2.5, help="of each run")
    parser.add_argument("--into", type=Path, default=ROOT / "bench", help="the folder of scale.json")
    return parser.parse_args(words)


def scale_for(target: Path, *, goes_on: bool) -> Scale:
    """Return the results to add to: those in ``target`` if it goes on, else new ones."""
    facts = machine.describe(machine.OURS)
    if not goes_on or not target.exists():
        return Scale(f"{datetime.now(UTC):%Y-%m-%d}", facts, own_costs())
    found = read_scale(target)
    if found.machine != facts:
        sys.exit(f"scale: {target} is of another machine or other versions: cannot go on with it")
    return found


def main(words: list[str] | None = None) -> None:
    """Do what the command line says."""
    options = options_from(words)
    cores, target = machine.take_cores(), Path(options.into) / "scale.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    scale = scale_for(target, goes_on=options.goes_on)
    sizes = sorted(int(size) for size in options.sizes.split(","))
    for store in options.stores.split(","):
        if store in scale.stores:
            continue
        began = time.monotonic()
        scale.stores[store] = measure_store_alone(store, sizes, options.seconds, cores)
        target.write_bytes(msgspec.json.format(msgspec.json.encode(scale), indent=1) + b"\n")
        print(f"{store} done in {(time.monotonic() - began) / 60:.1f} minutes", file=sys.stderr)
    print(target.read_text())


if __name__ == "__main__":
    main()
