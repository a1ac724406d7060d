"""WebSockets for tests: a handler that does as it is told, and a client that waits for the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketHandler, websocket_connect

from eyewall import Sessions
from eyewall.core.announcing import Announcing
from eyewall.testing.client import Browser
from eyewall.tornado.websocket import SessionWebSocketMixin, authenticated_socket
from tests.signin.kit import Deployment, Process, copied

PATIENCE: Final = 10.0
"""Seconds after which something has not happened."""

NEVER: Final = 3600.0
"""Seconds between two re-checks, where a test wants to see what happens without one."""


class Told(SessionWebSocketMixin, WebSocketHandler):
    """Does what a message says, and answers with JSON."""

    async def on_message(self, message: str | bytes) -> None:
        verb, key, value = (*str(message).split(" ", 2), "", "")[:3]
        self.write_message(json.dumps(await self.do(verb, key, value)))

    async def do(self, verb: str, key: str, value: str) -> Any:
        """Carry out one message."""
        match verb:
            case "get":
                return self.session.get(key)
            case "set":
                self.session[key] = value
            case "save":
                self.session[key] = value
                await self.session.save()
            case "add":
                return await self.session.modify(key, lambda old: (old or 0) + 1)
            case "take":
                return [message.value for message in await self.session.flash.take(key)]
            case "out":
                self.session.sign_out()
            case "who":
                return self.session.principal
        return "done"


@authenticated_socket
class Members(Told):
    """For who is signed in."""


ROUTES: Final[list[Any]] = [("/ws", Told), ("/members", Members)]


class Socket:
    """A client's end."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self.connection = connection

    async def ask(self, message: str) -> Any:
        """Send a message; return its answer."""
        await self.connection.write_message(message)
        answer = await self.read()
        assert answer is not None, (self.connection.close_code, self.connection.close_reason)
        return json.loads(answer)

    async def read(self) -> str | bytes | None:
        """The next message; None when the socket is closed."""
        return await asyncio.wait_for(self.connection.read_message(), PATIENCE)

    async def ended(self) -> tuple[int | None, str | None]:
        """Wait for the close; return its code and reason."""
        while await self.read() is not None:
            pass
        return self.connection.close_code, self.connection.close_reason

    async def is_open(self) -> bool:
        """Whether a message is still answered."""
        return bool(await self.ask("is it open?") == "done")

    def vanish(self) -> None:
        """Go away without a word."""
        protocol = self.connection.protocol
        assert protocol is not None
        assert protocol.stream is not None
        protocol.stream.close()


async def connect(
    site: Deployment,
    process: Process,
    browser: Browser | None = None,
    path: str = "/ws",
    headers: Mapping[str, str] | None = None,
) -> Socket:
    """Open a socket with the cookies of ``browser``; raises HTTPClientError when it is refused."""
    sent = dict(headers or {})
    cookie = "" if browser is None else copied(browser)
    if cookie:
        sent.setdefault("Cookie", cookie)
    request = HTTPRequest(process.url.replace("http", "ws", 1) + path, headers=sent)
    connection = await asyncio.wait_for(websocket_connect(request), PATIENCE)
    site.at_end(connection.close)
    return Socket(connection)


async def refused(site: Deployment, process: Process, *rest: Any, **more: Any) -> int:
    """The status that refuses a handshake."""
    with pytest.raises(HTTPClientError) as caught:
        await connect(site, process, *rest, **more)
    return caught.value.code


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that comes about over a socket."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


async def start(site: Deployment, *, interval: float = NEVER, **options: Any) -> Process:
    """Start a process that serves sockets, re-checks every ``interval`` seconds, and announces if it can.

    With ``NEVER`` it does not look when it begins to hear either: a test then sees what announcements do.
    """
    process = await site.process(ROUTES, **options)
    store: Any = process.store
    if isinstance(store.inner, Announcing):
        store.announcer = store.inner.announcer
    process.sessions.watch.interval = timedelta(seconds=interval)
    if interval == NEVER:
        process.sessions.watch.connected = lambda: None  # type: ignore[method-assign]
    return process


def deafen(process: Process) -> None:
    """Let every announcement to ``process`` get lost."""

    def nothing(message: bytes) -> None:
        """Hear nothing."""

    process.sessions.watch.heard = nothing  # type: ignore[method-assign]


def is_empty(sessions: Sessions) -> bool:
    """Whether nothing is watched, in no index, and no timer runs."""
    watch = sessions.watch
    return not watch._by_digest and not watch._by_principal and watch._timer is None
