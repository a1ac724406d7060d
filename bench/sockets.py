"""Ten thousand idle WebSockets: the memory of each, what the re-check costs, how soon a revoked one closes.

    python -m bench.sockets [--sockets 10000] [--stores redis,postgres,sqlite]      # some four minutes

Two processes hold the sockets of as many sessions, ten of each principal. This process holds the other ends
and revokes, so it is a third one, as an operator's is: a socket closes by an announcement or by the re-check,
never because its own process did it. Over SQLite there are no announcements, so that the re-check is alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from statistics import median
from typing import Any, NamedTuple

from tornado.httpclient import AsyncHTTPClient
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from bench import machine
from bench.application import READY_SECONDS, ROOT, ApplicationFailedError
from bench.apps.answers import SECRET
from bench.apps.tornado_site import serve
from bench.servers import Places
from bench.tables import markdown
from eyewall import Sessions
from eyewall.tornado.websocket import SessionWebSocketMixin, authenticated_socket
from tests.servers.process import MissingServerError, free_port, tied_to_us

PROCESSES = 2
STORES = ("redis", "postgres", "sqlite")
DEVICES = 10
"""Sessions of one principal, each with a socket of its own, on either process."""
AT_ONCE, WARM_UP = 16, 100
IDLE_SECONDS = 15.0
"""How long nothing happens but the re-check: three times."""
SINGLE, SPREAD = 50, 5.0
"""So many principals are revoked one by one, spread over so many seconds."""
PATIENCE = 60.0  # seconds, for one handshake or one end
HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: {}\r\n\r\n"
)
HEADINGS = [
    "store", "sockets", "bytes each", "of them ours", "re-check CPU ms", "in calls", "longest call ms",
    "one: median ms", "p99 ms", "all: median ms", "p99 ms", "last ms",
]  # fmt: skip


@authenticated_socket
class WithSession(SessionWebSocketMixin, WebSocketHandler):
    """What is measured, beside a plain WebSocketHandler."""


class Facts(RequestHandler):
    """Clean up, then tell how many calls the re-check has made, and how long the longest took (ms)."""

    def get(self) -> None:
        gc.collect()
        self.write({"calls": len(self.settings["calls"]), "longest": max(self.settings["calls"], default=0)})


def make_app(store: str) -> Application:
    """Return an application with one WebSocket, without sessions if there is no store."""
    calls: list[float] = []
    sessions = sessions_in(store) if store else Sessions(backend="memory")
    sessions.watch.__dict__["look_at"] = timed(sessions.watch.look_at, calls)
    routes: list[Any] = [("/ws", WithSession if store else WebSocketHandler), ("/facts", Facts)]
    return Application(routes, sessions=sessions, calls=calls)


def sessions_in(store: str) -> Sessions:
    """Return sessions that are patient: so many at once on one machine take their time."""
    return Sessions(cookie_secret=SECRET, url=store, store_timeout=10)


def timed(function: Callable[..., Awaitable[None]], calls: list[float]) -> Callable[..., Awaitable[None]]:
    """Return ``function`` so that it notes in ``calls`` how long it took (ms)."""

    async def noting(*words: Any) -> None:
        began = time.perf_counter()
        await function(*words)
        calls.append((time.perf_counter() - began) * 1000)

    return noting


class Holder:
    """One process that holds sockets; ``store`` is "" for those without sessions."""

    def __init__(self, store: str) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "bench.sockets", "--hold", str(self.port), "--stores", store]
        self._process = subprocess.Popen(
            tied_to_us(command, death_signal="TERM", unprivileged=False), cwd=ROOT, stdin=subprocess.DEVNULL
        )
        self.pid, self._held = self._process.pid, 0

    async def facts(self) -> dict[str, float]:
        """What it tells of itself."""
        answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{self.port}/facts", request_timeout=30)
        return dict(json.loads(answer.body))

    async def wait_until_ready(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + READY_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError):
                await self.facts()
                return
            await asyncio.sleep(0.05)
        raise ApplicationFailedError("a process that is to hold sockets did not start")

    async def grown(self) -> int:
        """By how many bytes it has grown since the last time."""
        await self.facts()
        before, self._held = self._held, machine.resident_bytes(self.pid)
        return self._held - before

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()


@asynccontextmanager
async def holders(store: str) -> AsyncIterator[list[Holder]]:
    """Run the processes."""
    found = [Holder(store) for _ in range(PROCESSES)]
    try:
        for holder in found:
            await holder.wait_until_ready()
        yield found
    finally:
        for holder in found:
            holder.stop()


class Socket(asyncio.Protocol):
    """A client's end. It answers the closing frame, and notes when that came."""

    def __init__(self, handshake: bytes) -> None:
        self._handshake = handshake
        self._transport = asyncio.Transport()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Shake hands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._handshake)

    def data_received(self, data: bytes) -> None:
        """The answer to the handshake, or the closing frame with code 4401."""
        if data.startswith(b"HTTP/1.1 101 "):
            self.opened.set_result(None)
        elif data[0] == 0x88 and not self.closed.done():
            assert int.from_bytes(data[2:4]) == 4401, data
            self.closed.set_result(time.perf_counter())
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Whoever waits for the handshake waits in vain."""
        if not self.opened.done():
            self.opened.set_exception(ApplicationFailedError("a handshake was refused"))

    def close(self) -> None:
        """Close with an empty, masked frame, as RFC 6455 asks of a client."""
        self._transport.write(b"\x88\x80\0\0\0\0")
        self._transport.close()


async def connected(port: int, cookie: str) -> Socket:
    """Open one socket."""
    loop, handshake = asyncio.get_running_loop(), HANDSHAKE.format(cookie).encode()
    _, socket = await loop.create_connection(lambda: Socket(handshake), "127.0.0.1", port)
    await asyncio.wait_for(socket.opened, PATIENCE)
    return socket


async def open_all(found: list[Holder], cookies: list[str]) -> list[Socket]:
    """Open a socket for each cookie, on the processes in turn; a few first, to have everything loaded."""
    work = [connected(found[i % PROCESSES].port, cookie) for i, cookie in enumerate(cookies)]
    few = await in_parts(work[:WARM_UP])
    for holder in found:
        await holder.grown()
    return few + await in_parts(work[WARM_UP:])


async def in_parts(work: Iterable[Awaitable[Any]]) -> list[Any]:
    """Await everything, so many at a time; return the results in order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(awaitable: Awaitable[Any]) -> Any:
        async with gate:
            return await awaitable

    return await asyncio.gather(*(one(awaitable) for awaitable in work))


class Idle(NamedTuple):
    """What sockets cost that do nothing: memory, and CPU (ms), calls and the longest (ms) of one re-check."""

    bytes_each: float
    cpu: float
    calls: float
    longest: float


async def idle(found: list[Holder], sockets: int) -> Idle:
    """Measure the memory, then wait and see what the re-check does."""
    each = [await holder.grown() * PROCESSES / (sockets - WARM_UP) for holder in found]
    pids = [holder.pid for holder in found]
    before, cpu = [await holder.facts() for holder in found], machine.cpu_seconds(pids)
    await asyncio.sleep(IDLE_SECONDS)
    used = machine.cpu_seconds(pids) - cpu
    after = [await holder.facts() for holder in found]
    rounds = IDLE_SECONDS / 5.0
    calls = sum(a["calls"] - b["calls"] for a, b in zip(after, before, strict=True))
    return Idle(median(each), used * 1000 / rounds, calls / rounds, max(a["longest"] for a in after))


async def alone(sockets: int) -> Idle:
    """The same with Tornado alone."""
    async with holders("") as found:
        opened = await open_all(found, ["a=b"] * sockets)
        result = await idle(found, sockets)
        for socket in opened:
            socket.close()
        return result


async def signed_in(sessions: Sessions, count: int) -> list[str]:
    """Make sessions, ten of each principal; return their cookies."""

    async def one(number: int) -> str:
        session = sessions.open([], https=False)
        session.sign_in(f"user-{number // DEVICES}")
        await sessions.save(session)
        return sessions.set_cookie_lines(session, https=False)[0].partition(";")[0]

    return await in_parts(one(number) for number in range(count))


class Revoking:
    """Revokes principals, and measures how long their sockets take to close."""

    def __init__(self, sessions: Sessions, sockets: list[Socket]) -> None:
        self._sessions = sessions
        self._sockets = sockets
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def one(self, principal: int, *, after: float = 0) -> float:
        """Revoke one after so many seconds; return the milliseconds to the last socket's close."""
        await asyncio.sleep(after)
        async with self._gate:
            began = time.perf_counter()
            assert await self._sessions.revoke_all(f"user-{principal}") == DEVICES
        own = self._sockets[principal * DEVICES : (principal + 1) * DEVICES]
        async with asyncio.timeout(PATIENCE):
            return (max(await asyncio.gather(*(socket.closed for socket in own))) - began) * 1000

    async def spread(self, principals: range) -> list[float]:
        """Revoke one now, one then."""
        return await asyncio.gather(*(self.one(i, after=random.uniform(0, SPREAD)) for i in principals))

    async def all(self, principals: range) -> list[float]:
        """Revoke as fast as the store allows; the last is how long everything took."""
        began = time.perf_counter()
        taken = await asyncio.gather(*map(self.one, principals))
        return [*taken, (time.perf_counter() - began) * 1000]


def median_and_p99(taken: list[float]) -> list[str]:
    """The two, as cells."""
    return [f"{median(taken):.0f}", f"{sorted(taken)[int(len(taken) * 0.99)]:.0f}"]


async def measure(name: str, url: str, sockets: int, bare: Idle) -> list[str]:
    """Measure one store; return its line."""
    sessions = sessions_in(url)
    await sessions.check()
    try:
        async with holders(url) as found:
            opened = await open_all(found, await signed_in(sessions, sockets))
            costs = await idle(found, sockets)
            revoking, single = Revoking(sessions, opened), min(SINGLE, sockets // DEVICES // 2)
            ones = await revoking.spread(range(single))
            *every, last = await revoking.all(range(single, sockets // DEVICES))
    finally:
        await sessions.aclose()
    return [
        name, str(sockets), f"{costs.bytes_each:.0f}", f"{costs.bytes_each - bare.bytes_each:.0f}",
        f"{costs.cpu - bare.cpu:.0f}",
        f"{costs.calls:.0f}", f"{costs.longest:.0f}", *median_and_p99(ones), *median_and_p99(every),
        f"{last:.0f}",
    ]  # fmt: skip


async def measure_all(stores: list[str], sockets: int) -> str:
    """Measure every store that is installed; return the table."""
    bare = await alone(sockets)
    print(f"Tornado alone: {bare.bytes_each:.0f} bytes each, {bare.cpu:.1f} ms", file=sys.stderr)
    rows = []
    with ExitStack() as stack:
        places = Places(stack)
        for name in stores:
            try:
                rows.append(await measure(name, places.address(name), sockets, bare))
            except MissingServerError as error:
                print(error, file=sys.stderr)
            print(*rows[-1:], file=sys.stderr)
    return markdown(HEADINGS, rows)


def allow_files(sockets: int) -> int:
    """Let this process and its children have many open; return how many sockets there can be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return sockets if most == resource.RLIM_INFINITY else min(sockets, most // 1000 * 1000 - 1000)


def main() -> None:
    """Measure and print; or hold sockets, as one of the processes."""
    parser = argparse.ArgumentParser(prog="sockets", description="Many idle WebSockets with a session each.")
    parser.add_argument("--sockets", type=int, default=10_000, help="in all; a multiple of 20")
    parser.add_argument("--stores", default=",".join(STORES), help="which of them, with commas between")
    parser.add_argument("--hold", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sockets = allow_files(options.sockets)
    if options.hold is not None:
        asyncio.run(serve(make_app(options.stores), options.hold))
        return
    print(machine.describe(machine.OURS))
    print(asyncio.run(measure_all(options.stores.split(","), sockets)))


if __name__ == "__main__":
    main()
