"""Opening and closing a thousand sockets leaves nothing: no entry, no handler, no task, no warning."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import pytest
from tornado.websocket import WebSocketHandler

from eyewall.testing.client import Browser
from eyewall.tornado.websocket import SessionWebSocketMixin, authenticated_socket
from tests.signin.kit import Deployment, Process
from tests.tornado.sockets.kit import Socket, Told, connect, is_empty, refused, until

ROUNDS, AT_ONCE = 200, 20


class Counted(Told):
    """Says which handlers are alive."""

    alive: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()

    def initialize(self) -> None:
        type(self).alive.add(self)


class Failing(Counted):
    """As handlers do that read an argument in ``open()`` which a stranger left out."""

    def open(self, *args: str, **kwargs: str) -> None:
        self.get_argument("room")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Expected."""


class Slow(Counted):
    """Has not finished opening when the client goes."""

    async def open(self, *args: str, **kwargs: str) -> None:
        await asyncio.sleep(0.01)


@authenticated_socket
class Guarded(Counted):
    """For who is signed in."""


ROUTES: list[Any] = [
    ("/guarded", Guarded),
    ("/counted", Counted),
    ("/failing", Failing),
    ("/slow-open", Slow),
]


@pytest.fixture(autouse=True)
def routes(process: Process) -> None:
    """Add the handlers of these tests."""
    Counted.alive.clear()
    process.application.add_handlers(".*", ROUTES)


async def _closes(socket: Socket, _process: Process) -> None:
    await socket.ask("get k")
    socket.connection.close()
    await socket.ended()


async def _vanishes(socket: Socket, _process: Process) -> None:
    await socket.ask("get k")
    socket.vanish()


async def _vanishes_within_a_message(socket: Socket, _process: Process) -> None:
    await socket.connection.write_message("save k v")
    socket.vanish()


@pytest.mark.parametrize("leaves", [_closes, _vanishes, _vanishes_within_a_message])
async def test_sockets_that_a_client_closes_leave_nothing(
    here: Deployment, process: Process, leaves: Callable[[Socket, Process], Coroutine[Any, Any, None]]
) -> None:
    """Tabs come and go all day."""
    browser = await here.signed_in(process, here.ann)
    for _ in range(ROUNDS // AT_ONCE):
        sockets = [await connect(here, process, browser, "/counted") for _ in range(AT_ONCE)]
        await asyncio.gather(*(leaves(socket, process) for socket in sockets))
    await nothing_left(process)


async def test_sockets_of_ended_sessions_leave_nothing(here: Deployment, process: Process) -> None:
    """Also the hook has run then."""
    for _ in range(ROUNDS // AT_ONCE):
        browser = await here.signed_in(process, here.ann)
        sockets = [await connect(here, process, browser, "/counted") for _ in range(AT_ONCE)]
        await browser.post("/out")
        for socket in sockets:
            assert (await socket.ended())[0] == 4401
    await nothing_left(process)


async def test_refused_handshakes_leave_nothing(here: Deployment, process: Process) -> None:
    """Strangers can cause as many as they like."""
    browser = await here.signed_in(process, here.ann)

    for _ in range(ROUNDS):
        headers = {"Origin": "http://evil.example"}
        assert await refused(here, process, browser, "/counted", headers=headers) == 403
        assert await refused(here, process, path="/guarded") == 401
    await nothing_left(process)


@pytest.mark.parametrize("path", ["/failing", "/slow-open"])
async def test_an_open_that_fails_leaves_nothing(here: Deployment, process: Process, path: str) -> None:
    """A stranger with one session who leaves out an argument could fill the memory."""
    browser = await here.signed_in(process, here.ann)
    for _ in range(ROUNDS // AT_ONCE):
        for socket in [await connect(here, process, browser, path) for _ in range(AT_ONCE)]:
            if path == "/slow-open":
                socket.vanish()
            await socket.ended()
    await nothing_left(process)


async def test_a_client_that_never_answers_the_close_is_cut(here: Deployment, process: Process) -> None:
    """It could go on holding the connection, and what it sends must not be served."""
    served: list[Any] = []

    class Noting(SessionWebSocketMixin, WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            served.append(message)

    process.application.add_handlers(".*", [("/noting", Noting)])
    browser = await here.signed_in(process, here.ann)
    reader, writer = await by_hand(process, browser, "/noting")
    writer.write(frame(b"before"))
    await until(lambda: served == ["before"], "the first message")
    await browser.post("/out")
    await until(lambda: is_empty(process.sessions), "nothing is watched any more")
    head = await reader.readexactly(4)
    assert (head[0], int.from_bytes(head[2:4], "big")) == (0x88, 4401)
    for _ in range(10):
        writer.write(frame(b"after"))
    await asyncio.sleep(0.05)
    assert served == ["before"]
    async with asyncio.timeout(20):
        await reader.read(-1)
    writer.close()


def frame(data: bytes) -> bytes:
    """A text frame, masked with zeros."""
    return bytes([0x81, 0x80 | len(data)]) + b"\0\0\0\0" + data


async def by_hand(
    process: Process, browser: Browser, path: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A socket without a client that answers by itself."""
    host, port = process.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    cookie = "; ".join(f"{one.name}={one.value}" for one in browser.jar.cookies)
    head = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        f"Cookie: {cookie}",
    ]
    writer.write("\r\n".join([*head, "", ""]).encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def nothing_left(process: Process) -> None:
    """Nothing is watched, no handler is alive, nothing runs."""
    await until(lambda: is_empty(process.sessions), "nothing is watched any more")
    await until(lambda: not process.sessions._background.under_way(), "nothing runs")
    for _ in range(500):
        gc.collect()
        if not Counted.alive:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(Counted.alive)} handlers are kept alive")
