"""The load generator: as many connections as asked for, each with one request under way at any time.

Written for this: an ``asyncio.Protocol`` over raw HTTP/1.1 with keep-alive. Each visitor has a cookie of
its own and follows ``Set-Cookie``, every single answer is checked, and it costs some 20 us a request on a
core that the application does not use. (wrk is leaner, but follows no cookies.)
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from bench.application import RunningApplication
from bench.apps.answers import BARE
from bench.loads import BURST, NOTE, Load, Visitor, forged, request_bytes
from bench.machine import cpu_seconds

CRLF = b"\r\n"
SESSIONS = 256
"""Visitors of a load, at least one for each connection."""
WARM_UP = 0.25
"""Part of the measuring time that goes before it."""
MOST_TIMES = 5
"""A run of a system that is slow takes so many times its measuring time at most."""
PATIENCE = 20.0
"""Longest time for one answer, in seconds."""


class WrongAnswerError(Exception):
    """An application did not answer what it must; nothing it did is worth measuring."""


class Figures(NamedTuple):
    """What one run measured. Times are in microseconds."""

    per_second: float
    p50: float
    p99: float
    cpu: float
    kept: float | None = None


class Client(asyncio.Protocol):
    """One connection: sends a request, awaits its answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Complete the answer."""
        received = self._received = self._received + data if self._received else data
        end = received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        head = received[:end]
        if len(received) - end < _length_of(head):
            return
        self._received = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((head, received[end:]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits learns of it."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(WrongAnswerError(f"the connection was closed: {exc}"))

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Send ``request``; return head and body of its answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()


def _length_of(head: bytes) -> int:
    length = _header(head, b"content-length")
    if length is None:
        raise WrongAnswerError(f"an answer without a length: {head!r}")
    return int(length)


def _header(head: bytes, name: bytes) -> bytes | None:
    """Return the first header called ``name`` (in small letters), or None."""
    at = head.lower().find(b"\r\n" + name + b":")
    if at < 0:
        return None
    start = at + len(name) + 3
    return head[start : head.index(b"\r\n", start)].strip()


async def ask(client: Client, visitor: Visitor, method: str, path: str, body: bytes = b"") -> bytes:
    """Ask as ``visitor``, follow the cookie, and return the body.

    Raises:
        WrongAnswerError: the status is not 200.
    """
    head, answer = await client.ask(request_bytes(method, path, body, visitor.cookie))
    if head[9:12] != b"200":
        raise WrongAnswerError(f"{method} {path}: {head[9:].partition(CRLF)[0]!r} {answer[:200]!r}")
    set_cookie = _header(head, b"set-cookie")
    if set_cookie is not None:
        visitor.cookie = set_cookie.partition(b";")[0]
    return answer


async def connected(port: int, count: int) -> list[Client]:
    """Return ``count`` connections."""
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(count):
        _, client = await loop.create_connection(Client, "127.0.0.1", port)
        clients.append(client)
    return clients


async def visitors_for(load: Load, clients: list[Client], count: int = SESSIONS) -> list[Visitor]:
    """Return the visitors of a load, with the sessions or forged cookies that it needs."""
    visitors = [Visitor() for _ in range(count)]
    if not (load.starts or load.forged):
        return visitors

    async def begin(client: Client, own: list[Visitor]) -> None:
        for visitor in own:
            await ask(client, visitor, "POST", "/start", NOTE)
            if load.forged:
                visitor.cookie = forged(visitor.cookie)

    shares = [visitors[i :: len(clients)] for i in range(len(clients))]
    await asyncio.gather(*map(begin, clients, shares))
    return visitors


class Run:
    """One load on one application."""

    def __init__(self, load: Load, pid: int, seconds: float) -> None:
        self.load = load
        self.pid = pid
        self.seconds = seconds
        self.latencies: list[float] = []
        self.kept: list[int] = []
        self.over = False

    async def visit(self, client: Client, own: list[Visitor]) -> None:
        """Ask for one visitor after the other until the time is over."""
        for visitor in itertools.cycle(own):
            if self.over:
                return
            await self.once(client, visitor, self.load.path)

    async def once(self, client: Client, visitor: Visitor, path: str) -> None:
        """One request: its latency, and whether its answer is right."""
        load, sent = self.load, time.perf_counter()
        body = await ask(client, visitor, load.method, path, load.body)
        self.latencies.append(time.perf_counter() - sent)
        if load.forgets:
            visitor.cookie = b""
        if not load.accept(visitor, body):
            raise WrongAnswerError(f"{load.name}: {load.method} {path} answered {body[:200]!r}")

    async def bursts(self, clients: list[Client]) -> None:
        """A hundred requests at once on one session, then the next session; count what was kept."""
        while not self.over:
            visitor, keys = Visitor(), iter(range(BURST))
            await ask(clients[0], visitor, "POST", "/start", NOTE)
            await asyncio.gather(*(self._share(client, visitor, keys) for client in clients[:BURST]))
            kept = await ask(clients[0], visitor, "GET", "/marks")
            if kept != BARE.encode():
                self.kept.append(int(kept))

    async def _share(self, client: Client, visitor: Visitor, keys: Iterator[int]) -> None:
        for key in keys:
            await self.once(client, visitor, f"/mark?k={key}")

    async def measured(self, clients: list[Client], visitors: list[Visitor]) -> Figures:
        """Warm up, measure, and return the figures."""
        if self.load.burst:
            work = [self.bursts(clients)]
        else:
            shares = [visitors[i :: len(clients)] for i in range(len(clients))]
            work = [self.visit(client, own) for client, own in zip(clients, shares, strict=True)]
        everything = asyncio.gather(*work)
        await _unless_failed(everything, self.seconds * WARM_UP)
        self.latencies.clear()
        self.kept.clear()
        cpu, began = cpu_seconds([self.pid]), time.perf_counter()
        await self._long_enough(everything, len(clients))
        took, used = time.perf_counter() - began, cpu_seconds([self.pid]) - cpu
        latencies = sorted(self.latencies)
        self.over = True
        await asyncio.wait_for(everything, PATIENCE)
        return self._figures(latencies, took, used)

    async def _long_enough(self, everything: asyncio.Future[list[None]], answers: int) -> None:
        """Let it go on for its time; longer while not every connection can have had an answer."""
        for _ in range(MOST_TIMES):
            await _unless_failed(everything, self.seconds)
            if len(self.latencies) >= answers:
                return

    def _figures(self, latencies: list[float], took: float, used: float) -> Figures:
        answered = len(latencies)
        if not answered:
            raise WrongAnswerError(f"{self.load.name}: no answer in {took:.1f} s")
        kept = sum(self.kept) / len(self.kept) if self.kept else None
        p99 = latencies[min(answered - 1, int(answered * 0.99))]
        return Figures(
            answered / took, latencies[answered // 2] * 1e6, p99 * 1e6, used / answered * 1e6, kept
        )


async def _unless_failed(everything: asyncio.Future[list[None]], seconds: float) -> None:
    """Let it go on for ``seconds``; if it ends before, it has failed."""
    done, _ = await asyncio.wait([everything], timeout=seconds)
    if done:
        everything.result()


@contextmanager
def no_collector() -> Iterator[None]:
    """Keep our own garbage collector out of the latencies."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def drive(
    app: RunningApplication,
    load: Load,
    *,
    connections: int,
    seconds: float,
    visitors: list[Visitor],
) -> Figures:
    """Measure ``load`` on ``app``.

    Args:
        app: runs and has been checked.
        load: the load.
        connections: how many at once.
        seconds: how long, without warming up.
        visitors: who asks. An empty list is filled with those whom the load needs; it can be given again for
            the same load on the same application.

    Raises:
        WrongAnswerError: an answer was not the right one.
    """
    clients = await connected(app.port, min(connections, BURST) if load.burst else connections)
    try:
        # A server of threads keeps one waiting for each connection that has said nothing yet.
        await asyncio.gather(*(ask(client, Visitor(), "GET", "/bare") for client in clients))
        visitors += [] if visitors else await visitors_for(load, clients)
        with no_collector():
            return await Run(load, app.pid, seconds).measured(clients, visitors)
    finally:
        for client in clients:
            client.close()
