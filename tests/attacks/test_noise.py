"""Logs under fire: an outage or a bug in the background is one line, not one line per request."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any

import pytest

from eyewall.errors import StoreUnavailable
from tests.core.world import World
from tests.tornado.site import Handler, serving


class Write(Handler):
    def get(self) -> None:
        self.s["k"] = "v"


async def test_failing_saves_are_not_one_log_line_each(caplog: pytest.LogCaptureFixture) -> None:
    """Without a cookie anybody can ask for it: a stranger writes the log while the store is down."""
    async with serving("mixin", [("/", Write)]) as site:
        site.store.failures["create"] = StoreUnavailable("gone fishing")
        for _ in range(20):
            assert (await site.fetch("/")).code == 503
    assert len([record for record in caplog.records if record.name == "eyewall"]) <= 3


async def test_a_sweep_that_fails_oddly_is_no_unretrieved_exception() -> None:
    """The loop reports such a task at some later time, with a traceback that names no request."""
    world = World()
    browser = world.browser()
    problems: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context["message"]))

    async def broken(*_: object) -> int:
        raise OSError("disk")

    world.store.sweep = broken  # type: ignore[method-assign, assignment]
    world.pass_time(minutes=5)
    await browser.put(k=1)
    await asyncio.sleep(0.01)
    gc.collect()
    await asyncio.sleep(0)
    assert problems == []


async def test_sweeps_that_hang_do_not_pile_up() -> None:
    """A store that never answers a sweep got one more waiting task a minute, for ever."""
    world = World(ttl=timedelta(hours=2))
    browser = world.browser()
    waiting = 0

    async def hung(*_: object) -> int:
        nonlocal waiting
        waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            waiting -= 1
        return 0

    world.store.sweep = hung  # type: ignore[method-assign, assignment]
    for n in range(5):
        world.pass_time(minutes=5)
        await browser.put(k=n)
        await asyncio.sleep(0)
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    try:
        assert waiting <= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
