"""The Redis and Valkey store against real servers: its contract, and what it adds to it."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest

from eyewall.core.record import Record
from eyewall.core.store import Clock, utc_now
from eyewall.errors import DamagedRecordError
from eyewall.stores import resp_layout as layout
from eyewall.stores.resp import RespStore
from eyewall.testing import DAMAGE_CHECKS, ManualClock, checks_for
from eyewall.testing.check_kit import new_record, next_version
from tests.servers.patience import PATIENCE
from tests.servers.proxy import Proxy
from tests.servers.resp import RespServer
from tests.stores.resp_kit import EVERY_KIND, Factory, stores

__all__ = ["stores"]

CHECKS = checks_for(RespStore, server_expires=True)


@pytest.fixture(params=EVERY_KIND)
def url(request: pytest.FixtureRequest) -> str:
    """The address of each kind of server in turn."""
    server = request.getfixturevalue(request.param)
    address: str = server.url
    return address


# The contract


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_store_keeps_its_promises(check: Callable[..., Awaitable[None]], url: str) -> None:
    """A broken promise of the contract, on any server of the family."""

    async def make_store(clock: Clock) -> RespStore:
        return RespStore(url, clock=clock, timeout=PATIENCE)

    await check(make_store)


@pytest.mark.parametrize("check", DAMAGE_CHECKS, ids=lambda check: check.__name__)
async def test_damage_is_never_served(
    check: Callable[..., Awaitable[None]], redis6: RespServer, stores: Factory
) -> None:
    """Somebody with write access to Redis turns one visitor into another, or a load into a 500."""

    async def make_store(clock: Clock) -> RespStore:
        return RespStore(redis6.url, clock=clock, timeout=PATIENCE)

    async def plant(digest: bytes, blob: bytes) -> None:
        await raw._ask(("SET", raw._session_key(digest), blob))

    raw = stores(redis6.url)
    await check(make_store, plant)


async def test_damage_behind_a_sound_header_is_never_served(redis6: RespServer, stores: Factory) -> None:
    """A copied header must not vouch for another session's record, nor for bytes of the right length."""
    store = stores(redis6.url)
    record, other = (new_record(utc_now) for _ in range(2))
    await store.create(record)
    value = layout.pack(record)
    header, length = value[: layout.HEADER.size], len(value) - layout.HEADER.size
    for blob in (layout.pack(other)[layout.HEADER.size :], bytes(length), secrets.token_bytes(length)):
        await store._ask(("SET", store._session_key(record.digest), header + blob))
        with pytest.raises(DamagedRecordError):
            await store.load(record.digest)


async def test_a_key_of_another_type_is_damage(redis7: RespServer, stores: Factory) -> None:
    """A stranger's list under our key must be a new visitor, neither a 500 nor a 503 for ever."""
    store = stores(redis7.url)
    record = new_record(utc_now)
    await store._links.here().send(("LPUSH", store._session_key(record.digest), "x"))
    with pytest.raises(DamagedRecordError, match="not even a string"):
        await store.load(record.digest)
    assert not await store.replace(next_version(record), version=1)
    assert not await store.touch(record.digest, utc_now(), record.expires_at)
    assert not await store.create(record)
    assert await store.delete(record.digest)


# Frozen bytes


def test_the_layout_is_frozen() -> None:
    """Sessions written by one release must be readable by the next, also by its Lua."""
    born = datetime.fromisoformat("2026-01-02T03:04:05.000006+00:00")
    record = Record(
        digest=bytes(range(32)),
        version=7,
        payload=b"data",
        created_at=born,
        seen_at=born,
        expires_at=born + timedelta(hours=1),
        principal="alice",
    )
    value = layout.pack(record)
    mark = bytes.fromhex("2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90")
    header = "20" + f"{len(value):08x}" + "0000000000000007" + "00" + "0006475fcce09746" + "0006475ef64cf346"
    assert value[:30].hex() == header
    assert value[30:62] == mark
    assert layout.unpack(value, record.digest, born) == record


# Expiry


async def test_the_servers_clock_decides_nothing(valkey9: RespServer, stores: Factory) -> None:
    """An application server whose clock is years off would lose every session, or keep the dead."""
    for years in (-20, 20):
        clock = ManualClock(utc_now() + timedelta(days=365 * years))
        store = stores(valkey9.url, clock=clock)
        record = new_record(clock)
        assert await store.create(record)
        assert await store.load(record.digest) == record
        clock.advance(timedelta(hours=1))
        assert await store.load(record.digest) is None


async def test_the_server_drops_the_dead_by_itself(valkey9: RespServer, stores: Factory) -> None:
    """Without an expiry on every key the server fills up with sessions nobody can use."""
    store = stores(valkey9.url, prefix="ttl:")
    record = new_record(utc_now, principal="alice")
    await store.create(record)
    await store.touch(record.digest, utc_now(), utc_now() + timedelta(hours=2))
    keys = [key async for key in store._links.here().scan("ttl:*")]
    lives = [(await store._links.here().send(("TTL", key)))[0] for key in keys]
    assert len(keys) == 2
    late = layout.LISTED_LATE.total_seconds()
    assert 7200 - 5 < min(lives) <= 7261
    assert 7200 - 5 < max(lives) <= 7201 + late


# Coalescing


async def test_calls_of_one_turn_travel_in_one_write(valkey9: RespServer, stores: Factory) -> None:
    """A write, a read and a wake-up per call is what makes other session stores slow."""
    async with Proxy(valkey9.port) as proxy:
        store = stores(proxy.url_for(valkey9.url))
        records = [new_record(utc_now) for _ in range(50)]
        await asyncio.gather(*map(store.create, records))
        proxy.requests.forget()
        loaded = await asyncio.gather(*(store.load(record.digest) for record in records))
        assert loaded == records
        assert [piece.count(b"GET") for piece in proxy.requests.pieces] == [50]


async def test_a_load_is_one_get_and_a_replace_one_script(valkey9: RespServer, stores: Factory) -> None:
    """Every further command is a round trip that each request pays."""
    store = stores(valkey9.url)
    record = new_record(utc_now)
    await store.create(record)
    await store.replace(next_version(record), version=1)
    valkey9.ask("CONFIG", "RESETSTAT")
    await store.load(record.digest)
    await store.replace(next_version(next_version(record)), version=2)
    stats = valkey9.ask("INFO", "commandstats")
    asked = {line.split(":")[0]: line for line in stats.splitlines() if line.startswith("cmdstat_")}
    from_lua = {"cmdstat_getrange", "cmdstat_strlen", "cmdstat_set"}
    assert set(asked) - from_lua - {"cmdstat_config|resetstat"} == {"cmdstat_get", "cmdstat_evalsha"}


def test_the_name_of_a_sessions_key_never_changes() -> None:
    """An upgrade that looks for sessions under other names signs everybody out."""
    assert layout.text_of(bytes(range(224, 256))) == b"4OHi4-Tl5ufo6err7O3u7_Dx8vP09fb3-Pn6-_z9_v8"


# Processes and loops


def test_one_store_serves_two_loops_in_turn(valkey9: RespServer) -> None:
    """A connection of a dead event loop hangs whoever uses it next."""
    store = RespStore(valkey9.url, timeout=PATIENCE)
    record = new_record(utc_now)

    async def use() -> tuple[bool, Record | None]:
        try:
            return await store.create(record), await store.load(record.digest)
        finally:
            await store.close()

    assert asyncio.run(use()) == (True, record)
    assert asyncio.run(use()) == (False, record)


def test_one_store_serves_two_threads_at_once(valkey9: RespServer) -> None:
    """Two event loops on one socket read each other's replies."""
    store, records = RespStore(valkey9.url), [new_record(utc_now) for _ in range(20)]
    both = threading.Barrier(2)

    async def use(own: list[Record]) -> list[Record | None]:
        assert all([await store.create(record) for record in own])
        both.wait(5)
        loaded = [await store.load(record.digest) for _ in range(20) for record in own]
        await store.close()
        return loaded

    with ThreadPoolExecutor(2) as threads:
        halves = records[::2], records[1::2]
        for own, loaded in zip(halves, threads.map(lambda own: asyncio.run(use(own)), halves), strict=True):
            assert loaded == own * 20


@pytest.mark.parametrize("kind", ["valkey9", "redis7_tls"])
def test_a_forked_process_makes_its_own_connections(kind: str, request: pytest.FixtureRequest) -> None:
    """Two processes on one socket read each other's replies; and the goodbye of one ends the other's."""
    program = f"""
import asyncio, gc, os
from eyewall.stores.resp import RespStore
store = RespStore({request.getfixturevalue(kind).url!r}, timeout=10)
loop = asyncio.new_event_loop()

async def use():
    await store.load(bytes(32))
    link = store._links.here()
    return link, [lane._wire for lane in link._lanes]

async def use_up():
    link, _ = await use()
    assert link is not before[0]
    await store.close()

def another_loop():
    return asyncio.new_event_loop()

def another_loop_once_ours_is_closed():
    loop.close()
    return asyncio.new_event_loop()

before = loop.run_until_complete(use())
for loop_of_child in (lambda: loop, another_loop, another_loop_once_ours_is_closed):
    child = os.fork()
    if child == 0:
        loop_of_child().run_until_complete(use_up())
        gc.collect()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert loop.run_until_complete(use()) == before
loop.run_until_complete(store.close())
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)


# The index of principals


@pytest.mark.parametrize("kind", ["redis7", "cluster"])
async def test_a_lost_index_entry_heals_at_the_next_write_or_touch(
    kind: str, request: pytest.FixtureRequest, stores: Factory
) -> None:
    """A session that revocation cannot find is a thief's."""
    store = stores(request.getfixturevalue(kind).url)
    principal = secrets.token_hex(8)
    record = new_record(utc_now, principal=principal)
    await store.create(record)
    key = store._principal_key(layout.mark_of(principal))
    for heal in (
        store.touch(record.digest, utc_now(), record.expires_at),
        store.replace(next_version(record), version=1),
    ):
        await store._links.here().send(("DEL", key))
        assert await store.find_principal(principal) == []
        assert await heal
        assert len(await store.find_principal(principal)) == 1


async def test_a_stale_index_entry_is_left_out_and_lapses(redis7: RespServer, stores: Factory) -> None:
    """A crash between index and record leaves a member that must neither be shown nor stay for ever."""
    clock = ManualClock(utc_now())
    store = stores(redis7.url, clock=clock)
    principal = secrets.token_hex(8)
    mark = layout.mark_of(principal)
    ghost, real = (new_record(clock, principal=principal) for _ in range(2))
    await store._ask(store._enlist(mark, ghost.digest, ghost.expires_at))
    await store.create(real)
    stranger = new_record(clock, principal="someone else")
    await store.create(stranger)
    await store._ask(store._enlist(mark, stranger.digest, stranger.expires_at))
    assert await store.find_principal(principal) == [real]
    assert await store.delete_principal(principal) == 1
    assert await store.load(stranger.digest) == stranger
    clock.advance(timedelta(hours=2) + layout.LISTED_LATE)
    assert await store.find_principal(principal) == []
    assert await store._ask(("EXISTS", store._principal_key(mark))) == 0


async def test_ended_sessions_leave_the_index(redis7: RespServer, stores: Factory) -> None:
    """Who signs in and out all day must not make a list that grows all day."""
    store = stores(redis7.url)
    principal = secrets.token_hex(8)
    for _ in range(3):
        record = new_record(utc_now, principal=principal)
        await store.create(record)
        await store.delete(record.digest)
        signed_out = new_record(utc_now, principal=principal)
        await store.create(signed_out)
        await store.replace(next_version(signed_out, principal=None), version=1)
    assert await store._ask(("EXISTS", store._principal_key(layout.mark_of(principal)))) == 0
