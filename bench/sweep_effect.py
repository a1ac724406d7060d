"""Sweeping a million expired sessions beside readers: how fast it can go, and what the readers notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from itertools import cycle
from typing import NamedTuple

from bench.filling import LIFE, Filling, IndexedStore, anonymous
from eyewall.core.store import utc_now
from eyewall.core.sweeping import BATCH

READERS = 16
PAUSE = 1.0
"""Seconds between two batches: what the manager takes while it is behind."""
OURS = 64
"""Sessions that the readers read."""


class SweepEffect(NamedTuple):
    """What sweeping does to loads. Latencies in milliseconds; *paced* is how Eyewall sweeps."""

    expired: int
    per_second: float
    p99_without: float
    p99_paced: float
    p99_at_most: float


async def sweep_effect(filling: Filling, expired: int, seconds: float) -> SweepEffect:
    """Let the ``expired`` sessions in ``filling`` expire, and sweep them beside readers of others that live.

    Time is an argument of ``sweep``: it is told a moment at which all is dead but what is made here.
    """
    live = list(anonymous(OURS, life=3 * LIFE))
    await filling.add(live)
    store, digests = filling.store, [record.digest for record in live]
    await latencies(store, digests, after(0.5))
    calm = await latencies(store, digests, after(seconds))
    sweeping = asyncio.ensure_future(swept(store, PAUSE))
    paced = await latencies(store, digests, after(seconds))
    sweeping.cancel()
    began, rest = time.perf_counter(), asyncio.ensure_future(swept(store, 0))
    busy = await latencies(store, digests, rest.done)
    rate = await rest / (time.perf_counter() - began)
    return SweepEffect(expired, rate, *map(p99, (calm, paced, busy)))


async def swept(store: IndexedStore, pause: float) -> int:
    """Sweep batch after batch, as if all but our own sessions had expired; return how many went."""
    gone, then = 0, utc_now() + 2 * LIFE
    while went := await store.sweep(then, BATCH):
        gone += went
        await asyncio.sleep(pause)
    return gone


async def latencies(store: IndexedStore, digests: list[bytes], is_over: Callable[[], bool]) -> list[float]:
    """Load again and again, some at once, until it is over; return how long each load took, sorted."""
    taken: list[float] = []

    async def read(own: list[bytes]) -> None:
        for digest in cycle(own):
            if is_over():
                return
            began = time.perf_counter()
            assert await store.load(digest) is not None
            taken.append(time.perf_counter() - began)

    await asyncio.gather(*(read(digests[i::READERS]) for i in range(READERS)))
    return sorted(taken)


def after(seconds: float) -> Callable[[], bool]:
    """Return what says when ``seconds`` are over."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def p99(taken: list[float]) -> float:
    """Return the 99th percentile of sorted times, in milliseconds."""
    return taken[int(len(taken) * 0.99)] * 1000
