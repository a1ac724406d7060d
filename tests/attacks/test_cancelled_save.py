"""``asyncio.timeout()`` around ``session.save()``: the caller gives up, but the save may have happened."""

from __future__ import annotations

import asyncio
import contextlib

from tests.core.world import World
from tests.tornado.site import WatchedStore


async def test_a_save_given_up_while_queued_stores_its_flash_message_once() -> None:
    """Tried again at the end of the request, the message was stored a second time."""
    world = World()
    world.store = store = WatchedStore(clock=world.clock)
    world.manager = world.another_process()
    browser = world.browser()
    await browser.put(started=True)
    other, session = await browser.open(), await browser.open()
    arrived, release = store.gate("replace")
    other["k"] = 1
    first = asyncio.ensure_future(other.save())
    await arrived.wait()
    session.flash("message", "Added")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.02):
            await session.save()
    release.set()
    await first
    await browser.end(session)
    page = await browser.open()
    assert [message.value for message in page.flash.messages("message")] == ["Added"]


async def test_a_save_given_up_after_it_was_written_stores_its_flash_message_once() -> None:
    """The store had done it; only the acknowledgement was not waited for."""
    world = World()
    world.store = store = WatchedStore(clock=world.clock)
    world.manager = world.another_process()
    browser = world.browser()
    await browser.put(started=True)
    session = await browser.open()
    replace = store.replace

    async def slow_reply(*args: object, **more: object) -> bool:
        done = await replace(*args, **more)  # type: ignore[arg-type]
        store.replace = replace  # type: ignore[method-assign]
        await asyncio.sleep(1)
        return done

    store.replace = slow_reply  # type: ignore[method-assign]
    session.flash("message", "Added")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.02):
            await session.save()
    await browser.end(session)
    page = await browser.open()
    assert [message.value for message in page.flash.messages("message")] == ["Added"]
