"""What stays open: a stream and a socket, which must be told of the end of their session."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Final, Self

from tornado.httpclient import HTTPError, HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClientConnection, WebSocketError, websocket_connect

from tests.soak.ledger import Wrong
from tests.soak.visitor import Visitor

PATIENCE: Final = 15.0
"""Seconds until a stream must be told of the end, also by a store without announcements (five, and some)."""

_BROKEN: Final = (OSError, asyncio.IncompleteReadError, TimeoutError, asyncio.LimitOverrunError)


class Stream:
    """Server-sent events of a visitor, on one of the servers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, visitor: Visitor, server: int) -> Self | None:
        """Open one, and check whose it is."""
        browser = visitor.browser
        with suppress(*_BROKEN):
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", browser.ports[server], local_addr=(browser.address, 0)
                )
                writer.write(browser.request("/events"))
                head = await reader.readuntil(b"\r\n\r\n")
                first = await reader.readuntil(b"\n\n")
            if head[9:12] == b"200":
                visitor.check_identity(json.loads(first.partition(b"data: ")[2]), "/events")
                return cls(reader, writer)
            writer.close()
        visitor.complain(Wrong.STATUS, "/events could not be opened")
        return None

    async def speak(self, visitor: Visitor) -> None:
        """Say nothing: it only listens."""

    async def has_ended(self) -> bool:
        """Whether the end is told in time."""
        with suppress(*_BROKEN):
            async with asyncio.timeout(PATIENCE):
                await self._reader.readuntil(b"event: end\n")
            return True
        return False

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class Socket:
    """A WebSocket of a visitor, on one of the servers."""

    def __init__(self, connection: WebSocketClientConnection) -> None:
        self._connection = connection

    @classmethod
    async def opened(cls, visitor: Visitor, server: int) -> Self | None:
        """Open one, and check whose it is."""
        browser = visitor.browser
        request = HTTPRequest(
            f"ws://127.0.0.1:{browser.ports[server]}/ws", headers={"Cookie": browser.cookie_line}
        )
        with suppress(OSError, HTTPError, StreamClosedError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                socket = cls(await websocket_connect(request))
                await socket.speak(visitor)
            return socket
        visitor.complain(Wrong.STATUS, "/ws could not be opened")
        return None

    async def speak(self, visitor: Visitor) -> None:
        """Say something, which is stored, and check who is said to have said it."""
        message = f"{visitor.name}, over the socket at {time.monotonic()}"
        with suppress(WebSocketError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._connection.write_message(message)
                answer = await self._connection.read_message()
            if isinstance(answer, str):
                visitor.check_identity(json.loads(answer), "a message over the socket")
                visitor.cart["cart socket"] = {message}
                return
        visitor.complain(Wrong.STATUS, f"the socket answers nothing ({self._connection.close_code})")

    async def has_ended(self) -> bool:
        """Whether it is closed in time, and because of the session."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while await self._connection.read_message() is not None:
                    pass
        return self._connection.close_code == 4401

    def close(self) -> None:
        """Hang up."""
        self._connection.close()
