"""A server that stops closes its sockets and streams in an orderly way, and cuts no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler

from eyewall import SessionMixin
from eyewall.testing.client import Browser
from eyewall.tornado import socket_hold, stream_hold
from eyewall.tornado.stopping import UnderWay
from eyewall.tornado.websocket import SessionWebSocketMixin
from tests.signin.kit import Deployment, Process, copied, user
from tests.tornado.sockets.kit import PATIENCE, connect, is_empty, until
from tests.tornado.sockets.test_streams import streaming, told

TOLD: list[str] = []
LARGE = b"x" * 20_000_000


class Working(SessionWebSocketMixin, WebSocketHandler):
    """Takes its time for a message, stores it, and answers."""

    async def on_message(self, message: str | bytes) -> None:
        self.settings["slow_is_here"].set()
        await self.settings["slow_may_go"].wait()
        self.session["worked"] = message
        self.write_message("done")

    def on_session_end(self, reason: str) -> None:
        TOLD.append(reason)


class Polite(SessionMixin, RequestHandler):
    """Ends when it is asked to."""

    async def get(self) -> None:
        self.write("begun")
        await self.flush()
        TOLD.append(str(await self.session_ended))
        self.write("bye")


class Deaf(SessionMixin, RequestHandler):
    """Has asked, and goes on regardless."""

    async def get(self) -> None:
        assert not self.session_ended.done()
        self.write("begun")
        await self.flush()
        await asyncio.sleep(3600)


class Large(SessionMixin, RequestHandler):
    """More than fits into any buffer on the way."""

    def get(self) -> None:
        self.session["large"] = True
        self.write(LARGE)


ROUTES = [("/working", Working), ("/polite", Polite), ("/deaf", Deaf), ("/large", Large)]


FOREVER = timedelta(hours=1)
"""What nothing here waits for."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what waits for clients wait for ever: what ends all the same has not waited for them."""
    for module, name in ((socket_hold, "_CLOSE_PATIENCE"), (stream_hold, "LAST_WORDS")):
        monkeypatch.setattr(module, name, FOREVER.total_seconds())


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second that clients are given be short."""
    for module, name in ((socket_hold, "_CLOSE_PATIENCE"), (stream_hold, "LAST_WORDS")):
        monkeypatch.setattr(module, name, 0.05)


@pytest.fixture(autouse=True)
def routes(process: Process) -> None:
    """Add the handlers of these tests."""
    TOLD.clear()
    process.application.add_handlers(".*", ROUTES)


@asynccontextmanager
async def requested(process: Process, browser: Browser, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """Send a request, and read nothing yet."""
    host, port = process.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {copied(browser)}\r\n\r\n".encode())
    yield reader
    writer.close()


async def drained(process: Process, patience: timedelta = FOREVER) -> None:
    """Drain, and find that it has not waited for what never comes."""
    await asyncio.wait_for(process.sessions.drain(patience), PATIENCE)


async def test_sockets_are_told_that_the_server_goes_away(here: Deployment, process: Process) -> None:
    """Cut without a word, clients cannot tell a deployment from a broken network; 4401 signs them out."""
    browser, stranger = await here.signed_in(process, here.ann), here.browser(process)
    sockets = [await connect(here, process, who, "/working") for who in (browser, browser, stranger)]
    await drained(process)
    for socket in sockets:
        assert (await socket.ended())[0] == 1001
    assert TOLD == [], "no session has ended"
    assert is_empty(process.sessions)
    assert await user(browser) == here.ann


async def test_a_message_that_is_being_handled_is_answered_first(here: Deployment, process: Process) -> None:
    """Half of a change is lost with each deployment, or it is made and the client never hears of it."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/working")
    arrived, go_on = process.slow
    await socket.connection.write_message("hello")
    await arrived.wait()
    draining = asyncio.ensure_future(process.sessions.drain(FOREVER))
    await asyncio.sleep(0.05)
    assert not draining.done()
    go_on.set()
    await asyncio.wait_for(draining, PATIENCE)
    assert await socket.read() == "done"
    assert (await socket.ended())[0] == 1001
    (record,) = await process.store.find_principal(here.ann)
    assert b"worked" in record.payload


async def test_a_message_that_takes_too_long_is_given_up(here: Deployment, process: Process) -> None:
    """One handler that hangs, and the process has to be killed."""
    socket = await connect(here, process, await here.signed_in(process, here.ann), "/working")
    arrived, go_on = process.slow
    await socket.connection.write_message("hello")
    await arrived.wait()
    await drained(process, timedelta(seconds=0.1))
    go_on.set()
    assert await socket.read() == "done"
    assert (await socket.ended())[0] == 1001


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_does_not_answer_the_close_is_not_waited_for(
    here: Deployment, process: Process
) -> None:
    """Whoever wants to can hold every deployment up."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/working")
    here.at_end(socket.vanish)
    assert socket.connection.protocol is not None
    socket.connection.protocol.close = lambda *_: None  # type: ignore[method-assign]
    await drained(process)


async def test_streams_are_finished(here: Deployment, process: Process) -> None:
    """An answer that is cut is an error in every log on the way."""
    browser, stranger = await here.signed_in(process, here.ann), here.browser(process)
    async with (
        streaming(process, browser, "/polite") as one,
        streaming(process, stranger, "/polite") as two,
    ):
        for reader in (one, two):
            assert await told(reader) == "begun"
        await drained(process)
        for reader in (one, two):
            assert await told(reader) == "bye"
            assert await told(reader) == ""
    assert TOLD == ["None", "None"], "no session has ended"


@pytest.mark.usefixtures("impatient")
async def test_a_stream_that_goes_on_regardless_is_cut(here: Deployment, process: Process) -> None:
    """It would be waited for as long as for an answer."""
    browser = await here.signed_in(process, here.ann)
    async with streaming(process, browser, "/deaf") as reader:
        assert await told(reader) == "begun"
        await drained(process)
        async with asyncio.timeout(PATIENCE):
            assert b"bye" not in await reader.read(-1)


async def test_what_opens_while_the_server_stops_is_closed_at_once(
    here: Deployment, process: Process
) -> None:
    """Clients connect again over connections that are still there, and the server never comes to an end."""
    browser = await here.signed_in(process, here.ann)
    await process.sessions.drain()
    socket = await connect(here, process, browser, "/working")
    assert (await socket.ended())[0] == 1001
    async with streaming(process, browser, "/polite") as reader:
        assert await told(reader) == "begun"
        assert await told(reader) == "bye"
    await drained(process)


async def test_closing_the_sessions_closes_what_is_open(here: Deployment, process: Process) -> None:
    """A socket whose store is closed goes on talking for somebody who has signed out."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/working")
    async with streaming(process, browser, "/polite") as reader:
        assert await told(reader) == "begun"
        await asyncio.wait_for(process.sessions.aclose(), PATIENCE)
        assert await told(reader) == "bye"
    assert (await socket.ended())[0] == 1001


async def test_a_session_that_ends_meanwhile_ends_its_socket(here: Deployment, process: Process) -> None:
    """A sign-out during a deployment is a sign-out."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/working")
    arrived, go_on = process.slow
    await socket.connection.write_message("hello")
    await arrived.wait()
    draining = asyncio.ensure_future(process.sessions.drain(FOREVER))
    await browser.post("/out")
    await until(partial(is_empty, process.sessions), "the socket is closed")
    go_on.set()
    await asyncio.wait_for(draining, PATIENCE)
    assert (await socket.ended())[0] == 4401


async def test_a_client_that_reads_slowly_gets_all_of_its_answer(here: Deployment, process: Process) -> None:
    """The page breaks off in the middle for whoever has a slow line; the log says that all went well."""
    under_way = UnderWay(process.application)
    browser = await here.signed_in(process, here.ann)
    arrived, go_on = process.store.hold("replace")
    async with requested(process, browser, "/large") as reader:
        await asyncio.wait_for(arrived.wait(), PATIENCE)
        finished = asyncio.ensure_future(under_way.finished(FOREVER))
        await asyncio.sleep(0.05)
        go_on.set()
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        assert not finished.done(), "most of it has not left"
        assert await reader.readexactly(len(LARGE)) == LARGE
        await asyncio.wait_for(finished, PATIENCE)


async def test_a_client_that_reads_nothing_is_waited_for_only_so_long(
    here: Deployment, process: Process
) -> None:
    """Whoever wants to can hold every deployment up."""
    under_way = UnderWay(process.application)
    async with requested(process, here.browser(process), "/large") as reader:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(under_way.finished(timedelta(seconds=0.2)), PATIENCE)


async def test_a_client_that_always_has_one_more_request_is_asked_to_connect_again(
    here: Deployment, process: Process
) -> None:
    """A proxy keeps its connections, and the server that stops never has an idle moment."""
    under_way = UnderWay(process.application)
    arrived, go_on = process.slow
    slow = asyncio.ensure_future(here.browser(process).post("/slow"))
    await asyncio.wait_for(arrived.wait(), PATIENCE)
    finished = asyncio.ensure_future(under_way.finished(FOREVER))
    host, port = process.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(3):
        writer.write(f"GET /nothing HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        assert (await reader.read(-1)).count(b"HTTP/1.1 404") == 2, "the second says that it is the last"
    writer.close()
    assert not finished.done()
    go_on.set()
    assert (await slow).code == 200
    await asyncio.wait_for(finished, PATIENCE)
