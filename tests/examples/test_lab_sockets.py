"""The lab's WebSocket and its stream: they end with the session, as a real process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from eyewall.testing.client import Browser
from tests.examples.pair import SECRET, two_labs
from tests.examples.program import LAB, Program
from tests.examples.test_lab import put, read
from tests.servers.fixtures import Server
from tests.signin.kit import copied
from tests.tornado.sockets.kit import PATIENCE, Socket


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One running lab for the whole file; each test is a visitor of its own. Nothing goes wrong in it."""
    with Program(*LAB, folder=tmp_path_factory.mktemp("lab")) as program:
        yield program
        assert "Traceback" not in program.errors


@pytest.fixture
async def visitor(lab: Program) -> AsyncIterator[Browser]:
    """A browser nobody has seen before."""
    browser = Browser(lab.url)
    yield browser
    browser.close()


async def handshake(lab: Program, **headers: str) -> WebSocketClientConnection:
    """Shake hands with these headers."""
    request = HTTPRequest(lab.url.replace("http", "ws") + "/ws", headers=headers)
    return await asyncio.wait_for(websocket_connect(request), PATIENCE)


@asynccontextmanager
async def connected(lab: Program, cookie: str) -> AsyncIterator[tuple[Socket, Any]]:
    """Open a socket; also give the principal it tells first."""
    connection = await handshake(lab, **({"Cookie": cookie} if cookie else {}))
    socket = Socket(connection)
    yield socket, json.loads(await socket.read() or "")["principal"]
    connection.close()


async def login(visitor: Browser, user: str = "ann") -> str:
    """Sign in; return the cookies."""
    assert (await visitor.post_json("/login", {"user": user})).code == 200
    return copied(visitor)


async def test_it_tells_who_is_signed_in_and_echoes(lab: Program, visitor: Browser) -> None:
    """Harm: nobody can see from outside whose socket it is."""
    async with connected(lab, "") as (socket, principal):
        assert principal is None
        assert await socket.ask('"hello"') == "hello"
        await socket.connection.write_message(b"\xff", binary=True)
        assert await socket.read() == b"\xff"
    async with connected(lab, await login(visitor)) as (_, principal):
        assert principal == "ann"


async def test_what_the_socket_told_is_stored(lab: Program, visitor: Browser) -> None:
    """Harm: a change made over a socket is lost."""
    async with connected(lab, await login(visitor)) as (socket, _):
        assert await socket.ask("set colour light green") == {"set": "colour"}
        assert await read(visitor, "/kv?k=colour") == {"value": "light green"}
        assert await socket.ask("set empty") == {"set": "empty"}


async def test_a_stranger_is_told_that_a_socket_cannot_start_a_session(lab: Program) -> None:
    """Harm: a value goes into a session that no cookie leads to, or the socket breaks off."""
    async with connected(lab, "") as (socket, _):
        assert "cookie" in (await socket.ask("set a 1"))["error"]
        assert await socket.ask('"still there"') == "still there"


async def test_signing_out_closes_it(lab: Program, visitor: Browser) -> None:
    """Harm: who has signed out goes on talking; and the old cookie opens another socket."""
    cookie = await login(visitor)
    async with connected(lab, cookie) as (socket, _):
        await visitor.post("/logout")
        assert await socket.ended() == (4401, "signed out")
    async with connected(lab, cookie) as (_, principal):
        assert principal is None


async def test_a_new_id_does_not_close_it(lab: Program, visitor: Browser) -> None:
    """Harm: proving again who one is ends every conversation."""
    async with connected(lab, await login(visitor)) as (socket, _):
        assert (await visitor.post("/reauthenticate")).code == 200
        assert await socket.ask("set a 1") == {"set": "a"}
        assert await read(visitor, "/kv?k=a") == {"value": "1"}


async def test_another_page_cannot_open_one(lab: Program, visitor: Browser) -> None:
    """Harm: any page talks to the lab in the visitor's name."""
    cookie = await login(visitor)
    with pytest.raises(HTTPClientError, match="403"):
        await handshake(lab, Cookie=cookie, Origin="https://evil.example")


async def test_too_much_at_once_ends_the_socket_only(lab: Program, visitor: Browser) -> None:
    """Harm: one message fills the memory, or the session."""
    async with connected(lab, await login(visitor)) as (socket, _):
        assert "error" in await socket.ask("set a " + "x" * 65_500)
        await socket.connection.write_message("x" * 70_000)
        assert (await socket.ended())[0] != 4401
    assert await read(visitor, "/kv?k=a") == {"value": None}


async def test_a_stream_ends_with_its_session(lab: Program, visitor: Browser) -> None:
    """Harm: news for who was signed in go on to whoever sits there now."""
    cookie = await login(visitor)
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(f"GET /events HTTP/1.1\r\nHost: lab\r\nCookie: {cookie}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        assert b"text/event-stream" in await reader.readuntil(b"\r\n\r\n")
        assert b'event: principal\ndata: "ann"\n\n' in await reader.readuntil(b"\n\n")
        await visitor.post("/logout")
        assert b"event: end\ndata: signed out\n\n" in await reader.readuntil(b"signed out\n\n")
    writer.close()


async def test_a_stream_is_open_to_strangers(lab: Program) -> None:
    """Harm: whoever has no session waits for the first byte for ever."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(b"GET /events HTTP/1.1\r\nHost: lab\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert b"data: null\n\n" in await reader.readuntil(b"null\n\n")
    writer.close()


async def test_one_lab_closes_the_sockets_of_another(redis7: Server, tmp_path: Path) -> None:
    """Harm: signing out works only at the process one happens to reach."""
    variables = {"EYEWALL_URL": redis7.url, "EYEWALL_COOKIE_SECRET": SECRET}
    with two_labs(tmp_path, **variables) as (one, two):
        browser = Browser(one.url)
        await put(browser, "a", 1)
        async with connected(two, await login(browser, "zoe")) as (socket, principal):
            assert principal == "zoe"
            async with asyncio.timeout(3):  # the re-check would take five seconds
                await browser.post("/logout-everywhere")
                assert (await socket.ended())[0] == 4401
        browser.close()
