"""Answers that stay open for long (server-sent events, long polling) end with their session."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from eyewall import SessionMixin
from eyewall.errors import SessionError
from eyewall.testing.client import Browser
from eyewall.tornado.websocket import SessionWebSocketMixin
from tests.signin.kit import Deployment, Process, copied
from tests.tornado.sockets.kit import PATIENCE, connect, is_empty, until

LOG: list[str] = []
"""What became of the handlers."""


class Polite(SessionMixin, RequestHandler):
    """Server-sent events: a heart beat now and then, until the session ends."""

    async def get(self) -> None:
        await self._say("begun")
        reason = await self.session_ended
        await self._say(f"ended: {reason}")

    async def _say(self, text: str) -> None:
        self.write(f"data: {text}\n\n")
        await self.flush()


class Beating(Polite):
    """Waits with a timeout, as a heart beat wants it."""

    async def get(self) -> None:
        await self._say("begun")
        for _ in range(1_000):
            try:
                reason = await asyncio.wait_for(self.session_ended, 0.01)
            except TimeoutError:
                await self._say("beat")
            else:
                await self._say(f"ended: {reason}")
                return


class Deaf(Polite):
    """Has asked, and goes on regardless."""

    async def get(self) -> None:
        assert not self.session_ended.done()
        try:
            while True:
                await self._say("more")
                await asyncio.sleep(0.01)
        except StreamClosedError:
            LOG.append("cut")
            raise

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Expected."""


ROUTES: list[Any] = [("/polite", Polite), ("/beating", Beating), ("/deaf", Deaf)]


@pytest.fixture(autouse=True)
def routes(process: Process, other: Process) -> None:
    """Add the streams of these tests."""
    LOG.clear()
    for one in (process, other):
        one.application.add_handlers(".*", ROUTES)


@asynccontextmanager
async def streaming(process: Process, browser: Browser, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """Read an answer as it comes."""
    host, port = process.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {copied(browser)}\r\n\r\n"
    writer.write(request.encode())
    await reader.readuntil(b"\r\n\r\n")
    try:
        yield reader
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def told(reader: asyncio.StreamReader) -> str:
    """The next piece of an answer in chunks; "" when it is finished or cut."""
    async with asyncio.timeout(PATIENCE):
        size = int((await reader.readline()).strip() or b"0", 16)
        return (await reader.readexactly(size + 2)).decode().strip()


async def test_a_stream_ends_with_its_session(here: Deployment, process: Process, other: Process) -> None:
    """A feed that runs on after the sign-out shows one user's news to the next (any process)."""
    browser = await here.signed_in(process, here.ann)
    async with streaming(process, browser, "/polite") as one, streaming(other, browser, "/polite") as two:
        for reader in (one, two):
            assert await told(reader) == "data: begun"
        await browser.post("/out")
        for reader in (one, two):
            assert await told(reader) == "data: ended: signed out"
            assert await told(reader) == ""
    for one_process in (process, other):
        await until(partial(is_empty, one_process.sessions), "nothing is watched any more")


async def test_waiting_for_the_end_with_a_timeout_can_be_repeated(here: Deployment, process: Process) -> None:
    """``asyncio.wait_for`` cancels what it waits for: the second heart beat would end the stream."""
    browser = await here.signed_in(process, here.ann)
    async with streaming(process, browser, "/beating") as reader:
        for expected in ("begun", "beat", "beat", "beat"):
            assert await told(reader) == f"data: {expected}"
        await browser.post("/out")
        while (said := await told(reader)) == "data: beat":
            pass
        assert said == "data: ended: signed out"


async def test_a_stream_ends_by_the_re_check_when_the_session_expires(
    here: Deployment, process: Process
) -> None:
    """Nobody announces that time has passed."""
    browser = await here.signed_in(process, here.ann)
    async with streaming(process, browser, "/polite") as reader:
        assert await told(reader) == "data: begun"
        here.clock.advance(process.sessions.settings.ttl)
        await process.sessions.watch.check_all()
        assert await told(reader) == "data: ended: expired"


async def test_a_new_id_leaves_a_stream_open(here: Deployment, process: Process) -> None:
    """A step-up in another tab must not stop the news."""
    browser = await here.signed_in(process, here.ann)
    async with streaming(process, browser, "/polite") as reader:
        assert await told(reader) == "data: begun"
        await browser.post("/change/regenerate")
        await process.sessions.watch.check_all()
        await browser.post("/out")
        assert await told(reader) == "data: ended: signed out"


async def test_a_handler_that_goes_on_regardless_is_cut_and_learns_it(
    here: Deployment, process: Process
) -> None:
    """Otherwise it runs for ever, and writes into nothing."""
    browser = await here.signed_in(process, here.ann)
    async with streaming(process, browser, "/deaf") as reader:
        assert await told(reader) == "data: more"
        await browser.post("/out")
        async with asyncio.timeout(PATIENCE):
            await reader.read(-1)
        await until(lambda: LOG == ["cut"], "its flush() fails as ever")
        await until(lambda: is_empty(process.sessions), "nothing is watched any more")


@pytest.mark.parametrize("path", ["/polite", "/beating"])
async def test_a_client_that_goes_leaves_nothing(here: Deployment, process: Process, path: str) -> None:
    """Feeds come and go with every page; each that stays watched is memory for ever."""
    browser = await here.signed_in(process, here.ann)
    async with streaming(process, browser, path) as reader:
        assert await told(reader) == "data: begun"
    await until(lambda: is_empty(process.sessions), "nothing is watched any more")


async def test_asking_after_the_answer_watches_nothing(here: Deployment, process: Process) -> None:
    """Who asks in on_finish() has no stream that could end."""
    done: list[bool] = []

    class Late(SessionMixin, RequestHandler):
        def get(self) -> None:
            self.write("short")

        def on_finish(self) -> None:
            done.append(self.session_ended.done())

    process.application.add_handlers(".*", [("/late", Late)])
    browser = await here.signed_in(process, here.ann)
    assert (await browser.get("/late")).body == b"short"
    await until(lambda: done, "on_finish")
    assert is_empty(process.sessions)


async def test_a_socket_that_asks_leaves_nothing(here: Deployment, process: Process) -> None:
    """A WebSocket handler may await the end as well: for a task of its own."""
    reasons: list[str | None] = []

    class Both(SessionWebSocketMixin, WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            self.session_ended.add_done_callback(lambda done: reasons.append(done.result()))
            self.write_message("1")

    process.application.add_handlers(".*", [("/both", Both)])
    browser = await here.signed_in(process, here.ann)
    vanishing, staying = [await connect(here, process, browser, "/both") for _ in range(2)]
    for socket in (vanishing, staying):
        await socket.ask("x")
    assert len(process.sessions.sockets(here.ann)) == 2, "each handler once"
    vanishing.vanish()
    await until(lambda: len(process.sessions.sockets(here.ann)) == 1, "it is gone")
    await browser.post("/out")
    assert (await staying.ended())[0] == 4401
    await until(lambda: is_empty(process.sessions), "nothing is watched any more")
    assert reasons == [None, "signed out"], "None is no end of the session: that client has left"


async def test_a_stream_of_nobody_never_ends(here: Deployment, process: Process) -> None:
    """There is no session that could end."""
    browser = here.browser(process)
    async with streaming(process, browser, "/polite") as reader:
        assert await told(reader) == "data: begun"
        here.clock.advance(timedelta(days=400))
        await process.sessions.watch.check_all()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)


async def test_a_handler_without_a_session_is_told_what_to_do(here: Deployment, process: Process) -> None:
    """An attribute error would tell nothing."""
    told_: list[str] = []

    class Without(SessionMixin, RequestHandler):
        uses_session = False

        def get(self) -> None:
            try:
                self.session_ended  # noqa: B018 - it raises
            except SessionError as error:
                told_.append(str(error))

    process.application.add_handlers(".*", [("/without", Without)])
    await here.browser(process).get("/without")
    assert "Without" in told_[0]


async def test_taking_a_message_in_an_outage_is_answered_with_503(here: Deployment, process: Process) -> None:
    """Long polling over an outage: 503 and come back, no 500 with a traceback (I4)."""

    class Taking(SessionMixin, RequestHandler):
        async def get(self) -> None:
            self.session.get("k")
            process.store.fail("load", OSError("gone"))
            self.write({"taken": len(await self.session.flash.take("message"))})

    process.application.add_handlers(".*", [("/taking", Taking)])
    browser = await here.signed_in(process, here.ann)
    answer = await browser.get("/taking")
    assert answer.code == 503
    assert "Set-Cookie" not in answer.headers
