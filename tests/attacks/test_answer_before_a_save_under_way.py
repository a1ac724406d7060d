"""An answer that is finished while ``session.save()`` is still waiting for the store."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from eyewall.errors import StoreUnavailable
from tests.tornado.site import Handler, serving


class SaveBeside(Handler):
    """Starts a save in a task, and finishes without waiting for it."""

    tasks: ClassVar[set[asyncio.Task[None]]] = set()

    async def get(self) -> None:
        self.s["k"] = "v"
        task = asyncio.ensure_future(self.s.save())
        task.add_done_callback(lambda done: done.exception())
        self.tasks.add(task)
        await asyncio.sleep(0.01)
        self.write("told")


async def test_an_answer_waits_for_a_save_under_way() -> None:
    """The answer left before the store acknowledged, and without the new session's cookie."""
    async with serving("mixin", [("/", SaveBeside)]) as site:
        arrived, release = site.store.gate("create")
        answer = asyncio.ensure_future(site.fetch("/"))
        await arrived.wait()
        await asyncio.sleep(0.05)
        assert not answer.done(), "the answer left before the store acknowledged"
        release.set()
        assert "Set-Cookie" in (await answer).headers
        assert (await site.stored())["k"] == "v"


async def test_a_save_under_way_that_fails_takes_the_answer_back() -> None:
    """The client was told 200, and nothing was stored."""
    async with serving("mixin", [("/", SaveBeside)]) as site:
        arrived, release = site.store.gate("create")
        site.store.failures["create"] = StoreUnavailable("gone fishing")
        answer = asyncio.ensure_future(site.fetch("/"))
        await arrived.wait()
        await asyncio.sleep(0.05)
        release.set()
        assert (await answer).code == 503
