"""Closing a store of Redis, or its listeners, while the server says nothing: no socket stays open.

What is left open is told by Python itself, which warns of every transport that outlives its event loop.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from eyewall.core.announcing import announcer_of
from eyewall.core.store import utc_now
from eyewall.errors import StoreUnavailable
from eyewall.stores.resp import RespStore
from eyewall.stores.resp_wire import Wire
from eyewall.testing.announcer_checks import Hearer
from eyewall.testing.check_kit import new_record
from tests.servers.patience import PATIENCE
from tests.servers.proxy import Proxy

While = Callable[[Any], Coroutine[Any, Any, None]]


async def idle(server: Any) -> None:
    """The connection waits for its next batch; TLS would wait for the server to say goodbye."""
    store = RespStore(server.url, timeout=PATIENCE)
    await store.load(bytes(32))
    server.pause()
    await store.close()


async def busy(server: Any) -> None:
    """A call is under way: it fails, and its connection goes."""
    store = RespStore(server.url, timeout=PATIENCE)
    await store.create(new_record(utc_now))
    server.pause()
    await _closed_during_a_call(store)


async def connecting(server: Any) -> None:
    """Somebody waits for a connection that does not come about."""
    server.pause()
    await _closed_during_a_call(RespStore(server.url, timeout=PATIENCE))


async def _closed_during_a_call(store: RespStore) -> None:
    call = asyncio.ensure_future(store.load(bytes(32)))
    await asyncio.sleep(0.01)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await call


async def introducing(server: Any) -> None:
    """The connection stands, and the server has yet to agree to the database."""
    async with Proxy(server.port) as proxy:
        stands = threading.Event()
        url = proxy.url_for(server.url).replace("/0", "/1")
        closing = asyncio.ensure_future(asyncio.to_thread(asyncio.run, _closed_when(stands, url)))
        if server.url.startswith("rediss"):
            await proxy.replies.first_piece()  # with it the client has what it needs to speak
        proxy.replies.freeze()
        stands.set()
        await closing


async def _closed_when(stands: threading.Event, url: str) -> None:
    """In an event loop of its own, which ends before the proxy cuts what it has."""
    store = RespStore(url, timeout=PATIENCE)
    call = asyncio.ensure_future(store.load(bytes(32)))
    assert await asyncio.to_thread(stands.wait, PATIENCE)
    await asyncio.sleep(0.1)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await call


async def late(server: Any) -> None:
    """The server has been silent until the deadline: its connection has been given up already."""
    store = RespStore(server.url, timeout=0.2)
    while not await _answers(store):
        pass  # a machine that does much at once may need a second attempt
    server.pause()
    assert not await _answers(store)
    await store.close()


async def _answers(store: RespStore) -> bool:
    try:
        await store.load(bytes(32))
    except StoreUnavailable:
        return False
    return True


async def listening(server: Any) -> None:
    """A listener hears nothing any more, and is closed."""
    store = RespStore(server.url, timeout=PATIENCE)
    announcer = announcer_of(store)
    assert announcer is not None
    announcer.listen(hearer := Hearer())
    await hearer.until_states("connected")
    server.pause()
    await store.close()


async def beginning_to_listen(server: Any) -> None:
    """A listener that has not got through yet is closed."""
    server.pause()
    store = RespStore(server.url, timeout=PATIENCE)
    announcer = announcer_of(store)
    assert announcer is not None
    announcer.listen(Hearer())
    await asyncio.sleep(0.01)
    await store.close()


WHILE = [idle, busy, connecting, introducing, late, listening, beginning_to_listen]


@pytest.mark.parametrize("closing", WHILE)
@pytest.mark.parametrize("kind", ["valkey9", "redis7_tls"])
def test_closing_leaves_no_socket_open(kind: str, closing: While, fresh_server: Any) -> None:
    """A server that hangs must not keep the application's sockets; nor its end from being clean."""
    server = fresh_server(kind)
    left_open = left_open_by(closing(server))
    server.resume()
    assert not left_open


def left_open_by(closing: Coroutine[Any, Any, None]) -> list[str]:
    """What Python warns of when ``closing`` has been run in an event loop of its own."""
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(asyncio.wait_for(closing, 3 * PATIENCE))
        gc.collect()
    return [str(one.message) for one in left_open]


async def _all_fail(calls: Sequence[asyncio.Future[Any]]) -> None:
    async with asyncio.timeout(PATIENCE / 2):  # long before their deadline
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers), answers


def test_closing_a_cluster_fails_also_who_waits_to_learn_who_has_what(fresh_server: Any) -> None:
    """The second caller asked the cluster anew, after the close, on connections nobody would close."""
    cluster = fresh_server("cluster")
    cluster.pause()

    async def closing() -> None:
        store = RespStore(cluster.url, timeout=PATIENCE)
        calls = [asyncio.ensure_future(store.load(bytes([number]) * 32)) for number in range(3)]
        await asyncio.sleep(0.01)
        await store.close()
        await _all_fail(calls)

    assert not left_open_by(closing())
    cluster.resume()


@pytest.mark.parametrize("turns", range(1, 6))
def test_closing_by_the_slow_way_leaves_no_socket_open(
    turns: int, valkey9: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch given up in the turn in which it was handed over left its connection to nobody."""
    monkeypatch.setattr(Wire, "over", lambda *_: None)

    async def closing() -> None:
        store = RespStore(valkey9.url, timeout=PATIENCE)
        await store.load(bytes(32))
        call = asyncio.ensure_future(store.load(bytes(32)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await store.close()
        await asyncio.gather(call, return_exceptions=True)

    assert not left_open_by(closing())


def test_a_scan_that_outlives_the_close_opens_no_connection(valkey9: Any) -> None:
    """Its next step opened one that nobody would close."""

    async def closing() -> None:
        link = (store := RespStore(valkey9.url, timeout=PATIENCE))._links.here()
        await store.load(bytes(32))
        await store.close()
        await _all_fail([asyncio.ensure_future(anext(aiter(link.scan("*"))))])

    assert not left_open_by(closing())


def test_closing_does_not_wait_for_a_sentinel_that_hangs(fresh_server: Any) -> None:
    """The application's end waited for its goodbye, then broke off with an error of redis-py's."""
    server = fresh_server("redis7_tls")  # no sentinel, but spoken to as one, and its connection is kept

    async def closing() -> None:
        url = server.url.replace("rediss://", "rediss+sentinel://").replace("/0?", "/service/0?")
        store = RespStore(url, timeout=PATIENCE)
        with pytest.raises(StoreUnavailable):
            await store.load(bytes(32))
        server.pause()
        async with asyncio.timeout(PATIENCE / 4):
            await store.close()

    left_open = left_open_by(closing())
    server.resume()
    assert not left_open
