"""Clients that leave, as clients do all day long, cause no traceback and no line of an error (I8)."""

from __future__ import annotations

import asyncio
import gc
import logging
from functools import partial
from typing import Any

import pytest
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from eyewall import SessionMixin
from eyewall.tornado.websocket import SessionWebSocketMixin
from tests.signin.kit import Deployment, Process
from tests.tornado.sockets.kit import connect, is_empty, until
from tests.tornado.sockets.test_streams import streaming, told

GONE: list[object] = []
"""What the handlers were told, each when it has ended."""


class Feed(SessionMixin, RequestHandler):
    """Says that it has begun, waits, and says that it has ended."""

    async def get(self) -> None:
        try:
            await self.say("begun")
            reason = await self.wait()
            GONE.append(reason)
            await self.say(f"ended: {reason}")
        finally:
            GONE.append(type(self))

    async def say(self, text: str) -> None:
        self.write(f"data: {text}\n\n")
        await self.flush()

    async def wait(self) -> str | None:
        return await self.session_ended


class InTime(Feed):
    """Waits with a timeout, for a heart beat."""

    async def wait(self) -> str | None:
        while True:
            try:
                return await asyncio.wait_for(self.session_ended, 0.01)
            except TimeoutError:
                await self.say("beat")


class Polling(Feed):
    """Waits for the end or for news, whatever comes first."""

    async def wait(self) -> str | None:
        ended = self.session_ended
        while not ended.done():
            await asyncio.wait({ended}, timeout=0.01)
        return ended.result()


class InTasks(Feed):
    """Leaves it to a task to wait, and to another to write."""

    async def wait(self) -> str | None:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(super().wait())
        return waiting.result()


class Regardless(Feed):
    """Has asked, and writes on until it fails."""

    async def wait(self) -> str | None:
        assert not self.session_ended.done()
        while True:
            await self.say("more")
            await asyncio.sleep(0.01)


class NeverAsks(Regardless):
    """Knows nothing of sessions that end."""

    async def wait(self) -> str | None:
        while True:
            await self.say("more")
            await asyncio.sleep(0.01)


FEEDS = (Feed, InTime, Polling, InTasks, Regardless, NeverAsks)


@pytest.fixture(autouse=True)
def routes(process: Process) -> None:
    """Add the feeds."""
    GONE.clear()
    process.application.add_handlers(".*", [(f"/{feed.__name__}", feed) for feed in FEEDS])


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What an operator would have to read."""
    gc.collect()  # a task that failed unseen says so when it goes
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING or record.exc_info or " 500 " in f" {record.getMessage()} "
    ]


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("known", [True, False], ids=["signed in", "a stranger"])
async def test_a_client_that_leaves_a_stream_is_no_error(
    here: Deployment, process: Process, caplog: pytest.LogCaptureFixture, feed: type[Feed], known: bool
) -> None:
    """A traceback for each closed tab: whoever opens and closes streams fills the disk."""
    caplog.set_level(logging.INFO)
    browser = await here.signed_in(process, here.ann) if known else here.browser(process)
    for _ in range(3):
        GONE.clear()
        async with streaming(process, browser, f"/{feed.__name__}") as reader:
            assert await told(reader) == "data: begun"
        await until(lambda: feed in GONE, "the handler ends")
    assert set(GONE) <= {None, feed}, "nobody was signed out"
    await until(partial(is_empty, process.sessions), "nothing is watched any more")
    assert problems(caplog) == []


async def test_an_error_of_the_handler_is_still_told(
    here: Deployment, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Silence about clients that leave must not hide a bug, nor a connection of the handler's own."""

    class Broken(SessionMixin, RequestHandler):
        def get(self) -> None:
            raise StreamClosedError  # of a service it has asked; the client is still there

    process.application.add_handlers(".*", [("/broken", Broken)])
    assert (await here.browser(process).get("/broken")).code == 500
    assert any("Uncaught exception" in line for line in problems(caplog))


async def test_the_end_is_told_with_its_reason_and_leaving_with_none(
    here: Deployment, process: Process
) -> None:
    """A page that takes a closed tab for a sign-out tells a user so who is signed in."""
    browser = await here.signed_in(process, here.ann)
    async with streaming(process, browser, "/Feed") as reader:
        assert await told(reader) == "data: begun"
        await browser.post("/out")
        assert await told(reader) == "data: ended: signed out"
    await until(lambda: len(GONE) == 2, "the handler ends")
    assert GONE[0] == "signed out"


class Answering(SessionWebSocketMixin, WebSocketHandler):
    """Answers after a while; by then its client may be gone."""

    async def on_message(self, message: str | bytes) -> None:
        try:
            self.write_message("wait")
            await self.settings["slow_may_go"].wait()
            for _ in range(3):  # only writing tells that a client has gone, and not the first time
                if message == "change":
                    self.session["said"] = message
                await self.write_message("done")
                await asyncio.sleep(0.02)
        finally:
            GONE.append(message)


class Greeting(SessionWebSocketMixin, WebSocketHandler):
    """Says hello once it has looked something up."""

    async def open(self, *args: Any, **kwargs: Any) -> None:
        try:
            await self.settings["slow_may_go"].wait()
            await self.write_message("hello")
        finally:
            GONE.append("greeting")


@pytest.mark.parametrize("message", ["write", "change"])
@pytest.mark.parametrize("way", ["vanishes", "closes"])
async def test_a_client_that_leaves_before_its_answer_is_no_error(
    here: Deployment, process: Process, caplog: pytest.LogCaptureFixture, message: str, way: str
) -> None:
    """The same over a WebSocket: the tab is closed while its message is being worked on."""
    process.application.add_handlers(".*", [("/answering", Answering)])
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/answering")
    await socket.connection.write_message(message)
    assert await socket.read() == "wait"
    leave = socket.vanish if way == "vanishes" else socket.connection.close
    leave()
    await asyncio.sleep(0.02)
    process.application.settings["slow_may_go"].set()
    await until(lambda: message in GONE, "the message was handled")
    await until(partial(is_empty, process.sessions), "nothing is watched any more")
    await asyncio.sleep(0)
    assert problems(caplog) == []


async def test_a_client_that_leaves_before_it_is_greeted_is_no_error(
    here: Deployment, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """As above, in ``open()``."""
    process.application.add_handlers(".*", [("/greeting", Greeting)])
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/greeting")
    socket.vanish()
    await asyncio.sleep(0.02)
    process.application.settings["slow_may_go"].set()
    await until(lambda: GONE, "open() was done")
    await until(partial(is_empty, process.sessions), "nothing is watched any more")
    assert problems(caplog) == []
