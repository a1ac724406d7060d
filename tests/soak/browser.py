"""A browser of the soak: cookies, a few connections to each server, an address of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from bench.drive import Client, WrongAnswerError
from bench.loads import request_bytes

PATIENCE: Final = 30.0
"""Longest time for one answer, in seconds."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; no status is 0, when the connection broke or nothing came in time."""

    status: int
    told: dict[str, Any] = field(default_factory=dict)
    cookies: tuple[str, ...] = ()


@dataclass
class Browser:
    """Whoever has it.

    Args:
        ports: of the servers, which share a store; each request goes to the one it names.
        address: where it comes from, in 127.0.0.0/8; attempts to sign in are counted by it.
        cookies: what it holds, by name.
    """

    ports: Sequence[int]
    address: str
    cookies: dict[str, str] = field(default_factory=dict)
    _idle: dict[int, list[Client]] = field(default_factory=dict)
    _all: set[Client] = field(default_factory=set)

    async def ask(self, server: int, path: str, method: str = "GET", **data: Any) -> Answer:
        """Send a request, and take the cookies of its answer."""
        client = None
        with suppress(OSError, WrongAnswerError, TimeoutError):
            client = await self._connection(server)
            async with asyncio.timeout(PATIENCE):
                answer = _read(*await client.ask(self.request(path, method, **data)))
            self._idle.setdefault(server, []).append(client)
            self._take(answer.cookies)
            return answer
        if client is not None:
            self._drop(client)
        return Answer(0)

    async def ask_and_vanish(self, server: int, after: float, path: str, **data: Any) -> None:
        """Post, and be gone ``after`` so many seconds, with or without the answer."""
        with suppress(OSError, WrongAnswerError, TimeoutError):
            client = await self._connection(server)
            try:
                async with asyncio.timeout(after):
                    await client.ask(self.request(path, "POST", **data))
            finally:
                self._drop(client)

    def request(self, path: str, method: str = "GET", **data: Any) -> bytes:
        """Return a request with the cookies there are."""
        body = json.dumps(data).encode() if method == "POST" else b""
        return request_bytes(method, path, body, self.cookie_line.encode())

    @property
    def cookie_line(self) -> str:
        """What a ``Cookie`` header would say."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def copy(self) -> Browser:
        """Return a thief's, with the same cookies; it is closed with this one at the latest."""
        return Browser(self.ports, self.address, dict(self.cookies), _all=self._all)

    def close(self) -> None:
        """Let go of the connections that no request is under way on."""
        for clients in self._idle.values():
            while clients:
                self._drop(clients.pop())

    def end(self) -> None:
        """Let go of all connections, those of copies too."""
        for client in self._all:
            client.close()

    def _drop(self, client: Client) -> None:
        client.close()
        self._all.discard(client)

    async def _connection(self, server: int) -> Client:
        idle = self._idle.setdefault(server, [])
        if idle:
            return idle.pop()
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(
            Client, "127.0.0.1", self.ports[server], local_addr=(self.address, 0)
        )
        self._all.add(client)
        return client

    def _take(self, lines: Sequence[str]) -> None:
        for line in lines:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
            if not value:
                del self.cookies[name]


def _read(head: bytes, body: bytes) -> Answer:
    lines = head.decode("latin-1").split("\r\n")
    cookies = tuple(line[11:].strip() for line in lines if line[:11].lower() == "set-cookie:")
    told = json.loads(body) if body.startswith(b"{") else {}
    return Answer(int(lines[0][9:12]), told, cookies)
