"""The quick way over redis-py's connections: that it is taken, what it must not break, and doing without."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from eyewall.core.store import utc_now
from eyewall.errors import StoreUnavailable
from eyewall.stores.resp import RespStore
from eyewall.stores.resp_link import BATCH
from eyewall.stores.resp_wire import Wire
from eyewall.testing.check_kit import new_record, next_version
from tests.attacks.stores import test_demoted_server
from tests.servers.proxy import Proxy
from tests.servers.resp import RespServer
from tests.stores.resp_kit import EVERY_KIND, Factory, links_of, short_deadline, stores

__all__ = ["stores"]

NIL = b"$-1\r\n"
STRAY = b"$5\r\nwrong\r\n"


# That it is taken


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_the_quick_way_is_taken(kind: str, request: pytest.FixtureRequest, stores: Factory) -> None:
    """A redis-py that renames what it calls private would make every request dearer, unnoticed."""
    store = stores(request.getfixturevalue(kind).url)
    await store.load(bytes(32))
    wires = [lane._wire for link in links_of(store) for lane in link._idle if lane._wire is not None]
    assert wires
    assert all(wire.is_open() for wire in wires)


async def test_a_call_over_an_open_connection_makes_no_task(valkey9: RespServer, stores: Factory) -> None:
    """A task for each call is what made the driver's own way three times as dear."""
    store, made = stores(valkey9.url), list[str]()
    record = new_record(utc_now)
    await store.create(record)
    loop = asyncio.get_running_loop()

    def counting(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(work.__qualname__)
        return asyncio.Task(work, loop=loop, **options)

    loop.set_task_factory(counting)
    try:
        assert await store.load(record.digest) == record
        assert await store.replace(next_version(record), version=1)
    finally:
        loop.set_task_factory(None)
    assert made == []


# What it must not break


@pytest.mark.parametrize("when", ["beside the answer", "later"])
async def test_a_reply_that_nobody_asked_for_is_given_to_nobody(when: str, stores: Factory) -> None:
    """Off by one reply, and every visitor from then on is somebody else."""
    answered, strayed = asyncio.Event(), asyncio.Event()

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(NIL + (STRAY if when == "beside the answer" else b""))
        await answered.wait()
        if when == "later":
            writer.write(STRAY)
        strayed.set()

    async with _server(answer) as url:
        store = stores(url)
        for _ in range(3):
            assert await store.load(bytes(32)) is None
            answered.set()
            await strayed.wait()
            for _ in range(5):
                await asyncio.sleep(0)  # what was written comes in
            answered.clear()
            strayed.clear()


@pytest.mark.parametrize(
    "said",
    [b"-LOADING Redis is loading\r\n", b"-NOAUTH Authentication required.\r\n", b"HTTP/1.1 400 Bad\r\n", b""],
    ids=["loading", "wants a password", "no redis", "hangs up"],
)
async def test_what_is_no_answer_fails_the_batch_and_its_connection(said: bytes, stores: Factory) -> None:
    """A connection that is refused as such must be opened anew; and no error may reach the log."""
    complaints, connections = list[Any](), list[asyncio.StreamWriter]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    async def answer(asked: int, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(said if asked == 1 else NIL)
        if not said and asked == 1:
            writer.close()

    async with _server(answer) as url:
        store = stores(url)
        calls = [store.load(bytes([n]) * 32) for n in range(3)]
        first, *others = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, StoreUnavailable)
        assert all(other is None or isinstance(other, StoreUnavailable) for other in others)
        assert await store.load(bytes(32)) is None
    assert connections[-1] is not connections[0]
    assert complaints == []


async def test_a_demoted_server_is_left_on_every_connection(fresh_server: Any, stores: Factory) -> None:
    """One that stayed would go on reading what the replica believes."""
    old, new = fresh_server("redis7"), fresh_server("redis7")
    async with Proxy(old.port) as proxy:
        store = stores(proxy.url_for(old.url), timeout=5.0)
        record = new_record(utc_now)
        assert await store.create(record)
        await _at_once(store, proxy, record.digest)
        old.ask("REPLICAOF", "127.0.0.1", "1")
        proxy._target = new.port
        with pytest.raises(StoreUnavailable):
            await store.delete(record.digest)
        assert await _at_once(store, proxy, record.digest) == [None, None]


async def _at_once(store: RespStore, proxy: Proxy, digest: bytes) -> list[Any]:
    """Load on both connections of the store's link."""
    (link,) = links_of(store)
    proxy.replies.freeze()
    calls = []
    for busy in (1, 2):
        calls.append(asyncio.ensure_future(store.load(digest)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(link._busy()) == busy
    proxy.replies.thaw()
    return await asyncio.gather(*calls)


@pytest.mark.parametrize("kind", ["redis7", "redis7_tls"])
async def test_records_larger_than_any_buffer_come_and_go(
    kind: str, request: pytest.FixtureRequest, stores: Factory
) -> None:
    """What does not fit into one write must wait for the server, and not be lost or mixed up."""
    store = stores(request.getfixturevalue(kind).url, timeout=20.0)
    records = [new_record(utc_now, payload=bytes([n]) * 2_000_000) for n in range(12)]
    assert all(await asyncio.gather(*map(store.create, records)))
    assert await asyncio.gather(*(store.load(record.digest) for record in records)) == records


async def test_more_calls_than_a_batch_holds_are_all_answered(valkey9: RespServer, stores: Factory) -> None:
    """Those that do not fit into the first write must not wait for ever, nor all be in it."""
    async with Proxy(valkey9.port) as proxy:
        store = stores(proxy.url_for(valkey9.url))
        record = new_record(utc_now)
        await store.create(record)
        proxy.requests.forget()
        loaded = await asyncio.gather(*(store.load(record.digest) for _ in range(4 * BATCH)))
        assert loaded == [record] * 4 * BATCH
        assert max(piece.count(b"GET") for piece in proxy.requests.pieces) <= BATCH


async def test_a_batch_that_is_given_up_answers_nobody_later(redis7: RespServer, stores: Factory) -> None:
    """A reply that comes after its deadline would be the next caller's."""
    async with Proxy(redis7.port) as proxy:
        store = stores(proxy.url_for(redis7.url))
        alice, bob = (new_record(utc_now) for _ in range(2))
        await asyncio.gather(store.create(alice), store.create(bob))
        for _ in range(5):
            proxy.replies.freeze()
            with short_deadline(store), pytest.raises(StoreUnavailable, match="no answer within"):
                await store.load(alice.digest)
            proxy.replies.thaw()
            assert await asyncio.gather(*(store.load(bob.digest) for _ in range(20))) == [bob] * 20


async def test_closing_leaves_no_connection_and_fails_who_waits(redis7: RespServer, stores: Factory) -> None:
    """A process that reloads its application would collect connections until the server is full."""
    async with Proxy(redis7.port) as proxy:
        store = stores(proxy.url_for(redis7.url), timeout=5.0)
        await store.load(bytes(32))
        proxy.replies.freeze()
        waiting = asyncio.ensure_future(store.load(bytes(32)))
        await asyncio.sleep(0.05)
        await store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await waiting
        proxy.replies.thaw()
        for _ in range(100):
            if not proxy._writers:
                return
            await asyncio.sleep(0.02)
        pytest.fail("a connection is still open")


# Doing without


@pytest.fixture
def slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-py that does not let us take its connections over."""
    monkeypatch.setattr(Wire, "over", lambda *_: None)


def test_a_connection_without_what_we_need_is_not_taken_over() -> None:
    """A redis-py whose insides have changed must cost time and not every session."""

    class Connection:
        _writer = None
        _parser = None

    connection: Any = Connection()
    owner: Any = None
    assert Wire.over(connection, owner) is None
    del Connection._writer, Connection._parser
    assert Wire.over(connection, owner) is None


@pytest.mark.usefixtures("slow_way")
@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_the_slow_way_keeps_sessions_too(
    kind: str, request: pytest.FixtureRequest, stores: Factory
) -> None:
    """The way that is hardly ever taken is the one that breaks unnoticed."""
    store = stores(request.getfixturevalue(kind).url)
    await _use(store)
    assert all(lane._wire is None for link in links_of(store) for lane in link._idle)


@pytest.mark.usefixtures("slow_way")
async def test_the_slow_way_never_shifts_a_reply(redis7: RespServer, stores: Factory) -> None:
    """CVE-2023-28858 again: calls that are cancelled while they wait, beside others that are not."""
    async with Proxy(redis7.port) as proxy:
        proxy.replies.slice_bytes = 300
        store = stores(proxy.url_for(redis7.url), timeout=5.0)
        records = [new_record(utc_now) for _ in range(20)]
        await asyncio.gather(*map(store.create, records))
        for turn in range(20):
            calls = [asyncio.ensure_future(store.load(record.digest)) for record in records]
            await asyncio.sleep(0.0005 * turn)
            for call in calls[::2]:
                call.cancel()
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert results[1::2] == records[1::2]


@pytest.mark.usefixtures("slow_way")
async def test_the_slow_way_finds_a_restarted_server_and_keeps_deadlines(
    fresh_server: Callable[[str], Any], stores: Factory
) -> None:
    """After an outage nobody restarts the application."""
    server = fresh_server("valkey9")
    store = stores(server.url)
    await store.load(bytes(32))
    server.kill()
    server.start()
    await asyncio.sleep(0)
    assert await store.load(bytes(32)) is None
    server.pause()
    with short_deadline(store), pytest.raises(StoreUnavailable, match="no answer within"):
        await store.load(bytes(32))
    server.resume()
    assert await store.load(bytes(32)) is None


@pytest.mark.usefixtures("slow_way")
async def test_the_slow_way_leaves_a_demoted_server(fresh_server: Any) -> None:
    """Behind an address that follows the master, every write failed until a restart."""
    await test_demoted_server.test_a_demoted_server_is_left(fresh_server, "redis7")


def test_without_hiredis_sessions_are_kept_too(redis7: RespServer) -> None:
    """Where no wheel of hiredis fits, redis-py installs without it."""
    program = f"""
import asyncio, sys
sys.modules["hiredis"] = None
from eyewall.stores.resp import RespStore
from tests.stores.test_resp_wire import _use, links_of

async def use():
    store = RespStore({redis7.url!r}, timeout=10)
    await _use(store)
    assert all(lane._wire is None for link in links_of(store) for lane in link._idle)
    await store.close()

asyncio.run(use())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


# What the tests share


async def _use(store: RespStore) -> None:
    """Every verb, many at once, and a server that has forgotten the scripts."""
    principal = secrets.token_hex(8)
    records = [new_record(utc_now, principal=principal) for _ in range(20)]
    following = [next_version(record) for record in records]
    assert all(await asyncio.gather(*map(store.create, records)))
    if store._address.kind != "cluster":
        await store._ask(("SCRIPT", "FLUSH"))
    assert all(await asyncio.gather(*(store.replace(record, version=1) for record in following)))
    assert not await store.replace(following[0], version=1)
    assert await asyncio.gather(*(store.load(record.digest) for record in records)) == following
    assert await store.touch(records[0].digest, utc_now(), records[0].expires_at)
    assert await store.delete(records[0].digest)
    assert await store.load(records[0].digest) is None
    assert await store.delete_principal(principal) == 19


@asynccontextmanager
async def _server(answer: Callable[[int, asyncio.StreamWriter], Any]) -> AsyncIterator[str]:
    """Something that answers each GET with what ``answer`` writes, given how many it has been asked."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while data := await reader.read(65536):
            for _ in range(data.count(b"GET")):
                asked += 1
                await answer(asked, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()
