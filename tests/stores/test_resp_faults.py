"""The Redis and Valkey store when things go wrong: hung, killed, full, cut off, failed over."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.core.store import utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.signin.service import SignInManager
from eyewall.stores.resp import RespStore
from eyewall.testing.check_kit import new_record, next_version
from tests.core.world import SECRET, Browser
from tests.servers.group import wait_for
from tests.servers.patience import PATIENCE
from tests.servers.proxy import Proxy
from tests.servers.resp import RespServer, ask
from tests.stores.resp_kit import EVERY_KIND, Factory, stores

__all__ = ["stores"]

IN_VAIN = 1.0
"""Seconds: the deadline where replicas are waited for that do not come; half of it goes by each time."""


# Cancellation


@pytest.mark.parametrize("kind", ["redis7", "cluster"])
async def test_cancelled_calls_never_shift_a_reply(
    kind: str, request: pytest.FixtureRequest, stores: Factory
) -> None:
    """Off by one reply, and a visitor is somebody else (CVE-2023-28858)."""
    server = request.getfixturevalue(kind)
    if kind == "cluster":
        await _storm(stores(server.url, timeout=5.0))
        return
    async with Proxy(server.port) as proxy:
        proxy.requests.latency = proxy.replies.latency = 0.004
        proxy.replies.slice_bytes = 700
        await _storm(stores(proxy.url_for(server.url), timeout=5.0))


async def _storm(store: RespStore) -> None:
    """Two users, 2,000 calls, each cancelled at a random moment or not at all."""
    chance = random.Random(8)
    users = [new_record(utc_now, principal=name, payload=name.encode() * 100) for name in ("alice", "bob")]
    for user in users:
        assert await store.create(user)

    async def load(user: Record) -> bool:
        task = asyncio.ensure_future(store.load(user.digest))
        if chance.random() < 0.5:
            await asyncio.sleep(chance.random() * 0.01)
            task.cancel()
        (reply,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(reply, asyncio.CancelledError) or reply == user
        return reply == user

    answered = 0
    for _ in range(40):
        answered += sum(await asyncio.gather(*(load(users[turn % 2]) for turn in range(50))))
    assert answered > 500


# Faults


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_forgotten_scripts_are_sent_again(
    kind: str, request: pytest.FixtureRequest, stores: Factory
) -> None:
    """SCRIPT FLUSH, a restart or a failover must not make every write a 503."""
    store = stores(request.getfixturevalue(kind).url)
    for _ in range(3):
        await _forget_scripts(store)
        record = new_record(utc_now, principal="alice")
        assert await store.create(record)
        assert await store.replace(next_version(record), version=1)
        assert await store.touch(record.digest, utc_now(), record.expires_at)
        assert record.digest in [one.digest for one in await store.find_principal("alice")]
        assert await store.delete(record.digest)


async def _forget_scripts(store: RespStore) -> None:
    if store._address.kind == "cluster":
        for _, port in store._address.nodes:
            ask(port, "SCRIPT", "FLUSH")
    else:
        await store._ask(("SCRIPT", "FLUSH"))


@pytest.mark.parametrize("kind", ["valkey9", "redis7_tls", "cluster"])
async def test_a_hung_server_is_unavailable_in_time(kind: str, fresh_server: Any, stores: Factory) -> None:
    """A server that answers nothing must cost a second, not the driver's minute."""
    server = fresh_server(kind)
    store = stores(server.url, timeout=1.0)
    record = new_record(utc_now)
    await store.create(record)
    server.pause()
    loop = asyncio.get_running_loop()
    start = loop.time()
    calls = [store.load(record.digest) for _ in range(20)]
    results = await asyncio.gather(*calls, store.delete(record.digest), return_exceptions=True)
    assert loop.time() - start < 10  # the driver by itself takes a minute
    assert all(isinstance(result, StoreUnavailable) for result in results)
    server.resume()
    assert await _eventually(store.load, record.digest) in (record, None)


async def test_a_connect_that_hangs_is_unavailable_in_time(valkey9: RespServer, stores: Factory) -> None:
    """A firewall that swallows packets looks like a server that accepts and never speaks."""
    async with Proxy(valkey9.port) as proxy:
        proxy.requests.freeze()
        store = stores(proxy.url_for(valkey9.url), timeout=0.2)
        with pytest.raises(StoreUnavailable, match="no answer within"):
            await store.load(bytes(32))
        proxy.requests.thaw()
        assert await _eventually(store.load, bytes(32)) is None


@pytest.mark.parametrize("kind", ["valkey9", "redis6"])
async def test_a_killed_server_is_found_again(kind: str, fresh_server: Any, stores: Factory) -> None:
    """After an outage nobody restarts the application."""
    server = fresh_server(kind)
    store = stores(server.url)
    record = new_record(utc_now)
    await store.create(record)
    server.kill()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await store.load(record.digest)
    server.start()
    assert await store.load(record.digest) is None
    assert await store.create(record)


async def test_a_restart_between_two_calls_goes_unnoticed(fresh_server: Any, stores: Factory) -> None:
    """The connection died while nobody used it: no reason for a 503."""
    server = fresh_server("valkey9")
    store = stores(server.url)
    await store.load(bytes(32))
    server.kill()
    server.start()
    await asyncio.sleep(0)
    assert await store.load(bytes(32)) is None


async def test_replies_in_slices_and_cuts_harm_nobody(redis7: RespServer, stores: Factory) -> None:
    """A reset in the middle of a reply must not leave its rest to the next caller."""
    async with Proxy(redis7.port) as proxy:
        store = stores(proxy.url_for(redis7.url))
        records = [new_record(utc_now) for _ in range(20)]
        await asyncio.gather(*map(store.create, records))
        proxy.replies.slice_bytes = 1
        assert await asyncio.gather(*(store.load(record.digest) for record in records)) == records
        proxy.replies.forget()
        calls = asyncio.gather(*(store.load(record.digest) for record in records), return_exceptions=True)
        await proxy.replies.first_piece()
        proxy.cut()
        for record, reply in zip(records, await calls, strict=True):
            assert reply == record or isinstance(reply, StoreUnavailable)
        proxy.replies.slice_bytes = 0
        assert await asyncio.gather(*(store.load(record.digest) for record in records)) == records


@pytest.mark.parametrize("kind", ["redis6", "redis7", "valkey8", "valkey9"])
async def test_a_full_server_still_reads_touches_and_deletes(
    kind: str, fresh_server: Any, stores: Factory
) -> None:
    """When memory runs out, people who are signed in stay so, and can sign out."""
    server = fresh_server(kind)
    store = stores(server.url)
    record, other = (new_record(utc_now, principal="alice") for _ in range(2))
    assert await store.create(record)
    assert await store.touch(record.digest, utc_now(), record.expires_at)
    server.ask("CONFIG", "SET", "maxmemory", "1")
    later = utc_now() + timedelta(hours=3)
    assert await store.touch(record.digest, record.seen_at, later)
    loaded = await store.load(record.digest)
    assert loaded is not None
    assert loaded.expires_at == later
    with pytest.raises(StoreUnavailable):
        await store.create(other)
    with pytest.raises(StoreUnavailable):
        await store.replace(next_version(record), version=1)
    assert [one.digest for one in await store.find_principal("alice")] == [record.digest]
    assert await store.delete(record.digest)


@pytest.mark.parametrize(
    ("option", "value"),
    [("min-replicas-to-write", "3"), ("replicaof", "127.0.0.1 1")],
    ids=["NOREPLICAS", "READONLY"],
)
async def test_a_refusal_is_unavailable(option: str, value: str, fresh_server: Any, stores: Factory) -> None:
    """A demoted or lonely master refuses writes: a 503, not a 500, and never a silent loss."""
    server = fresh_server("valkey9")
    store = stores(server.url)
    command = ["REPLICAOF", *value.split()] if option == "replicaof" else ["CONFIG", "SET", option, value]
    server.ask(*command)
    with pytest.raises(StoreUnavailable):
        await store.create(new_record(utc_now))


# Replication


async def test_the_end_of_a_session_waits_for_replicas(sentinel: Any, stores: Factory) -> None:
    """A failover right after a sign-out brings the session back, unless a replica had heard of it."""
    reached = stores(sentinel.url, wait_replicas=2)
    unreachable = stores(sentinel.url, wait_replicas=3, timeout=IN_VAIN)
    for store, heard in ((reached, True), (unreachable, False)):
        record = new_record(utc_now)
        await store.create(record)
        if heard:
            assert await store.delete(record.digest)
            continue
        marker = next_version(record, successor=bytes(32))
        assert await store.touch(record.digest, utc_now(), record.expires_at)
        with pytest.raises(StoreUnavailable, match="2 of 3 replicas"):
            await store.replace(marker, version=1)
        with pytest.raises(StoreUnavailable, match="2 of 3 replicas"):
            await store.delete(record.digest)


@pytest.mark.parametrize("way", ["one device", "all", "all others", "password"])
async def test_ending_sessions_from_outside_waits_for_replicas(
    way: str, sentinel: Any, stores: Factory
) -> None:
    """R07. Harm: an operator is told that a thief is out, and after a failover the thief is in again."""
    settings = Settings(backend="memory", cookie_secret=SECRET)
    for replicas, timeout, heard in ((2, PATIENCE, True), (3, IN_VAIN, False)):
        manager = SignInManager(settings, stores(sentinel.url, wait_replicas=replicas, timeout=timeout))
        manager.use_keyring(KeyRing.from_secret(SECRET))
        name = f"alice {secrets.token_hex(4)}"
        mine, _ = [await _signed_in(manager, name) for _ in range(2)]
        if heard:
            await _end(manager, way, name, mine)
            assert len(await manager.of(name)) == (0 if way == "all" else 1)
            continue
        for _ in range(2 if way == "all" else 1):  # who tries again is not told that it is done, either
            with pytest.raises(StoreUnavailable, match="2 of 3 replicas"):
                await _end(manager, way, name, mine)


async def _signed_in(manager: SignInManager, name: str) -> Session:
    browser = Browser(manager)
    session = await browser.open()
    session.sign_in(name)
    await browser.end(session)
    return await browser.open()


async def _end(manager: SignInManager, way: str, name: str, mine: Session) -> None:
    match way:
        case "one device":
            other = next(device for device in await manager.of(name, current=mine) if not device.current)
            assert await manager.revoke(other.handle, principal=name)
        case "all":
            await manager.revoke_all(name)
        case "all others":
            assert await manager.revoke_others(mine) == 1
        case _:
            assert await manager.credentials_changed(name, keep=mine) == 1


@pytest.mark.parametrize("kind", ["redis6", "redis7", "valkey8", "valkey9"])
async def test_an_end_that_is_asked_for_again_waits_again(
    kind: str, fresh_server: Any, stores: Factory
) -> None:
    """The first attempt has deleted the record; the second must not take that for done everywhere."""
    master, replica = fresh_server(kind), fresh_server(kind)
    master.ask("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    async with Proxy(master.port) as replication:
        replica.ask("REPLICAOF", "127.0.0.1", str(replication.port))
        attached = lambda: "state=online" in master.ask("INFO", "replication")  # noqa: E731
        await asyncio.to_thread(wait_for, "attaching the replica", attached)
        one, other = (stores(master.url, wait_replicas=1, timeout=IN_VAIN) for _ in range(2))
        record = new_record(utc_now)
        assert await one.create(record)
        assert not await one.delete(bytes(32))
        replication.replies.freeze()
        for store in (one, one, other):
            with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
                await store.delete(record.digest)
        replication.replies.thaw()
        assert not await _eventually(one.delete, record.digest)


def test_wait_replicas_is_refused_for_a_cluster() -> None:
    """A promise that cannot be kept must not be accepted."""
    with pytest.raises(ConfigurationError, match="wait_replicas"):
        RespStore("redis+cluster://127.0.0.1", wait_replicas=1)


async def test_a_failover_is_followed(fresh_server: Any, stores: Factory) -> None:
    """When the master dies, the promoted replica is found without a restart."""
    group = fresh_server("sentinel")
    store = stores(group.url, timeout=3.0)
    record = new_record(utc_now)
    await store.create(record)
    assert await store._ask(("WAIT", 2, 2500)) == 2
    group.kill_master()
    with pytest.raises(StoreUnavailable):
        await store.load(record.digest)
    assert await _eventually(store.load, record.digest) == record
    assert await _eventually(lambda new: store.replace(new, version=1), next_version(record))


async def _eventually(call: Callable[[Any], Awaitable[Any]], argument: Any) -> Any:
    """Call until the store is available again; give up after twenty seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 20
    while True:
        try:
            return await call(argument)
        except StoreUnavailable:
            if loop.time() > deadline:
                raise
            await asyncio.sleep(0.05)
