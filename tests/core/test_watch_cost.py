"""What watching costs: one call for each batch, and never a long turn of the event loop."""

from __future__ import annotations

import asyncio
import gc
import secrets
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest_asyncio

from eyewall.core.announcements import encode_ended
from eyewall.core.watch import BATCH
from tests.core.watching import Place

SMOOTH = 0.1
"""Seconds for which nothing may hold the event loop."""


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    """In memory."""
    made = Place()
    yield made
    made.store.meddle = None
    await made.manager.aclose()


async def longest_pause(work: Any) -> float:
    """Run ``work``; return the longest time that no other task could run (seconds of this thread's CPU)."""
    longest = 0.0
    gc.collect()
    gc.freeze()  # the collector walks over all that other tests have left in this process
    task = asyncio.ensure_future(work)
    while not task.done():
        before = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - before)
    gc.unfreeze()
    await task
    return longest


async def test_ten_thousand_sockets_cost_one_call_for_each_batch(place: Place) -> None:
    """One call for each socket every five seconds would be the store's whole work; a long turn, ours."""
    place.watch.interval = timedelta(hours=1)  # no re-check of its own in between, however slow the machine
    for _ in range(10_000):
        place.open(await place.session())
    await place.settled()
    place.store.forget_calls()
    pause = await longest_pause(place.watch.check_all())
    assert place.store.loads == 10_000
    assert place.store.turns <= 10_000 / BATCH
    assert pause < SMOOTH, pause
    assert place.ends == []


async def test_many_sockets_of_one_session_cost_one_look(place: Place) -> None:
    """Twenty tabs are one session."""
    session = await place.session()
    for _ in range(20):
        place.open(session)
    place.store.forget_calls()
    await place.watch.check_all()
    assert place.store.loads == 1


async def test_news_of_a_hundred_thousand_sessions_costs_nothing_here(place: Place) -> None:
    """A sweep through all accounts elsewhere must not stop this process."""
    place.open(await place.session())
    await place.settled()
    place.store.forget_calls()
    digests = [secrets.token_bytes(32) for _ in range(100_000)]

    async def hear() -> None:
        for message in encode_ended(digests, "ended"):
            place.watch.heard(message)
            await asyncio.sleep(0)

    assert await longest_pause(hear()) < SMOOTH
    assert place.store.loads == 0


async def test_telling_of_a_hundred_thousand_sessions_does_not_hold_the_loop(place: Place) -> None:
    """Whoever ends all of them at once must not stop the process that does it."""
    place.open(await place.session())
    await place.settled()

    async def tell() -> None:
        for number in range(100_000):
            place.watch.tell_ended(number.to_bytes(32, "big"), "ended")
            if number % 1000 == 0:
                await asyncio.sleep(0)
        await place.settled()

    assert await longest_pause(tell()) < SMOOTH


async def test_a_storm_about_one_session_costs_few_looks(place: Place) -> None:
    """Whoever may publish can name a session of ours again and again: that must not multiply."""
    watched = place.open(await place.session())
    await place.settled()
    place.store.forget_calls()
    (message,) = encode_ended([watched.digest] * 100, "forged")
    for _ in range(1_000):
        place.watch.heard(message)
    assert len(place.manager._background.under_way()) <= 2, "tasks that pile up while the store is slow"
    await place.settled()
    assert place.store.loads <= 2
    assert place.ends == []
