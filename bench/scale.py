"""What stays flat when the sessions grow to a million, and what an Eyewall process costs in itself.

    python -m bench.scale                         # 1 thousand, 100 thousand, 1 million: about half an hour
    python -m bench.scale --sizes 1000,10000 --stores redis

Writes ``bench/SCALE.md``. Per store and number of live sessions: W1 over HTTP, bytes per session and per
entry of the index by principal, listing and revoking one principal's ten sessions, and, where the store has
to sweep, sweeping as fast as it can beside loads.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench import machine
from bench.application import ROOT, RunningApplication
from bench.drive import drive
from bench.filling import Filling, IndexedStore, RespFilling, SqlFilling, many_records
from bench.loads import load_called
from bench.micro.pieces import loaded_session, make_manager
from bench.results import markdown
from bench.servers import Places
from eyewall.core.store import utc_now

STORES = ("redis", "postgres", "sqlite")
SIZES = (1_000, 100_000, 1_000_000)
DEVICES = 10
PRINCIPALS = 20
PROBES = 16
SWEEP_AT_ONCE, SWEEP_PAUSE = 1000, 1.0
"""As many in one batch, and as many seconds between two, as the manager takes."""

SIZE_HEADINGS = [
    "store", "sessions", "W1/s", "CPU us", "p99 ms", "bytes", "index bytes", "list ms", "revoke ms",
]  # fmt: skip
SWEEP_HEADINGS = ["store", "expired", "swept/s at most", "load p99 ms", "sweeping", "sweeping at most"]

IMPORT = """
import resource, sys, time
def held(): return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
import tornado.web
before, began = held(), time.perf_counter()
import eyewall
print(time.perf_counter() - began, held() - before, sum(name.startswith("eyewall") for name in sys.modules))
"""


class Size(NamedTuple):
    """What was measured on one store with so many sessions. Milliseconds, bytes, microseconds."""

    store: str
    sessions: int
    per_second: float
    cpu: float
    p99: float
    session_bytes: float
    index_bytes: float
    find: float
    revoke: float


class Sweep(NamedTuple):
    """What sweeping does to loads. Times in milliseconds."""

    store: str
    expired: int
    per_second: float
    before: float
    paced: float
    during: float


def filling_of(store: str, url: str) -> Filling:
    """Return the way to fill ``store``."""
    return RespFilling(url) if store == "redis" else SqlFilling(url)


async def grown(filling: Filling, have: int, want: int) -> float:
    """Add sessions until there are ``want``; return the bytes that one more takes."""
    before = await filling.size()
    await filling.add(many_records(want - have))
    return (await filling.size() - before) / (want - have)


async def index_bytes(filling: Filling, session_bytes: float, *, count: int) -> float:
    """Return how many bytes more a session takes that is in the index by principal."""
    before = await filling.size()
    for i in range(count // DEVICES):
        await filling.add(many_records(DEVICES, principal=f"crowd-{secrets.token_hex(4)}-{i}"))
    return (await filling.size() - before) / (count // DEVICES * DEVICES) - session_bytes


async def one_among_all(filling: Filling) -> tuple[float, float]:
    """Return the milliseconds to list, and to end, the ten sessions of one principal."""
    listing, ending = [], []
    for i in range(PRINCIPALS):
        principal = f"principal-{secrets.token_hex(4)}-{i}"
        await filling.add(many_records(DEVICES, principal=principal))
        began = time.perf_counter()
        found = await filling.store.find_principal(principal)
        listed = time.perf_counter()
        gone = await filling.store.delete_principal(principal)
        ending.append(time.perf_counter() - listed)
        listing.append(listed - began)
        assert (len(found), gone) == (DEVICES, DEVICES)
    return median(listing) * 1000, median(ending) * 1000


async def latencies(store: IndexedStore, digests: list[bytes], is_over: Callable[[], bool]) -> list[float]:
    """Load again and again, some at once, until it is over; return how long each load took."""
    taken: list[float] = []

    async def probe(own: list[bytes]) -> None:
        for digest in cycle(own):
            if is_over():
                return
            began = time.perf_counter()
            assert await store.load(digest) is not None
            taken.append(time.perf_counter() - began)

    await asyncio.gather(*(probe(digests[i::PROBES]) for i in range(PROBES)))
    return sorted(taken)


async def sweep(name: str, filling: Filling, expired: int, seconds: float) -> Sweep:
    """Sweep ``expired`` dead sessions in batches beside loads; before that, the loads alone."""
    live = list(many_records(PROBES * 4))
    await filling.add(live)
    digests = [record.digest for record in live]
    await filling.add(many_records(expired, dead=True))
    calm = await latencies(filling.store, digests, _after(seconds))
    sweeping = asyncio.ensure_future(_sweep_all(filling.store, SWEEP_PAUSE))
    paced = await latencies(filling.store, digests, _after(seconds))
    sweeping.cancel()
    began, rest = time.perf_counter(), asyncio.ensure_future(_sweep_all(filling.store, 0))
    busy = await latencies(filling.store, digests, rest.done)
    took = time.perf_counter() - began
    return Sweep(name, expired, await rest / took, _p99(calm), _p99(paced), _p99(busy))


def _after(seconds: float) -> Callable[[], bool]:
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


async def _sweep_all(store: IndexedStore, pause: float) -> int:
    gone = 0
    while went := await store.sweep(utc_now(), SWEEP_AT_ONCE):
        gone += went
        await asyncio.sleep(pause)
    return gone


def _p99(taken: list[float]) -> float:
    return taken[int(len(taken) * 0.99)] * 1000


async def measure_store(
    name: str, url: str, app: RunningApplication, sizes: list[int], seconds: float
) -> tuple[list[Size], Sweep | None]:
    """Measure one store at every size."""
    filling, have, found = filling_of(name, url), 0, []
    try:
        for want in sizes:
            session_bytes = await grown(filling, have, want)
            have = want
            figures = await drive(app, load_called("W1"), connections=64, seconds=seconds)
            entry = await index_bytes(filling, session_bytes, count=max(1000, want // 100))
            find, revoke = await one_among_all(filling)
            found.append(
                Size(
                    name, want, figures.per_second, figures.cpu, figures.p99 / 1000, session_bytes, entry,
                    find, revoke,
                )
            )  # fmt: skip
            print(f"{name}: {want} sessions done", file=sys.stderr)
        swept = None if name == "redis" else await sweep(name, filling, sizes[-1], seconds)
        return found, swept
    finally:
        await filling.close()


def import_costs() -> tuple[float, float, int]:
    """Return milliseconds and bytes of ``import eyewall`` beside Tornado, and how many modules it is."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(5)
    ]
    return median(float(run[0]) for run in runs) * 1000, median(int(run[1]) for run in runs), int(runs[0][2])


def session_object_bytes(count: int = 2000) -> float:
    """Return how much memory an open session of 500 bytes takes in the process."""
    manager = make_manager()
    kept = [loaded_session(manager)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept += [loaded_session(manager) for _ in range(count)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / count


def page(sizes: list[Size], sweeps: list[Sweep]) -> str:
    """Return the results as a page."""
    took, held, modules = import_costs()
    size_rows = [
        [
            size.store, f"{size.sessions:,}", f"{size.per_second:.0f}", f"{size.cpu:.0f}", f"{size.p99:.1f}",
            f"{size.session_bytes:.0f}", f"{size.index_bytes:.0f}", f"{size.find:.2f}", f"{size.revoke:.2f}",
        ]
        for size in sizes
    ]  # fmt: skip
    sweep_rows = [
        [
            s.store,
            f"{s.expired:,}",
            f"{s.per_second:.0f}",
            f"{s.before:.2f}",
            f"{s.paced:.2f}",
            f"{s.during:.2f}",
        ]
        for s in sweeps
    ]
    facts = ", ".join(f"{name} {value}" for name, value in machine.describe(machine.OURS).items())
    return f"""\
# Results at scale

Made by `python -m bench.scale`; do not edit. Machine: {facts}. W1 at 64 connections; sessions of about 500
bytes; a principal has {DEVICES} sessions; the index entry is what a session takes more when somebody is
signed in.

{markdown(SIZE_HEADINGS, size_rows)}
Sweeping in batches of {SWEEP_AT_ONCE}, beside {PROBES} readers in the same process: *sweeping* with a pause
of {SWEEP_PAUSE:g} s between batches, as Eyewall does it, *at most* without one. Redis drops expired sessions
by itself.

{markdown(SWEEP_HEADINGS, sweep_rows)}
`import eyewall` beside Tornado: {took:.0f} ms, {held / 1e6:.1f} MB, {modules} modules. An open session of 500
bytes takes {session_object_bytes():.0f} bytes in the process.
"""


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="scale", description="What stays flat up to a million sessions.")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="live sessions, growing")
    parser.add_argument("--stores", default=",".join(STORES), help="some of redis, postgres, sqlite")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measuring")
    parser.add_argument("--into", type=Path, default=ROOT / "bench" / "SCALE.md", help="the page to write")
    options = parser.parse_args()
    cores = machine.take_cores()
    sizes: list[Size] = []
    sweeps: list[Sweep] = []
    wanted = sorted(int(size) for size in options.sizes.split(","))
    for store in options.stores.split(","):
        with ExitStack() as stack:
            url = Places(stack).address(store)
            app = RunningApplication("eyewall_site", "--store", url, core=cores.application)
            stack.callback(app.stop)
            app.wait_until_ready()
            found, swept = asyncio.run(measure_store(store, url, app, wanted, options.seconds))
            sizes += found
            sweeps += [swept] if swept is not None else []
    written = page(sizes, sweeps)
    options.into.parent.mkdir(parents=True, exist_ok=True)
    options.into.write_text(written)
    print(written)


if __name__ == "__main__":
    main()
