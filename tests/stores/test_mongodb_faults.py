"""MongoStore when things go wrong: cancels; a frozen, killed or refusing server; many loops and processes."""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from eyewall.core.record import Record
from eyewall.core.store import utc_now
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.stores.mongodb import MongoStore
from eyewall.testing.check_kit import new_record, next_version
from tests.servers.fixtures import Server
from tests.servers.patience import PATIENCE
from tests.servers.process import free_port
from tests.stores.mongodb_proxy import proxied, refusing

pytest.importorskip("pymongo")
pytestmark = pytest.mark.server

FreshServer = Callable[[str], Server]
TIMEOUT = 0.5


@pytest.fixture
async def store(mongo: Server) -> AsyncIterator[MongoStore]:
    """Lend one handle, by the real clock."""
    store = MongoStore(mongo.url, timeout=PATIENCE)
    yield store
    await store.close()


def _calls(store: MongoStore, record: Record) -> dict[str, Any]:
    return {
        "create": store.create(record),
        "load": store.load(record.digest),
        "replace": store.replace(next_version(record), version=1),
        "touch": store.touch(record.digest, record.seen_at, record.expires_at),
        "delete": store.delete(record.digest),
        "sweep": store.sweep(record.created_at, 5),
        "find_principal": store.find_principal("alice"),
        "delete_principal": store.delete_principal("alice"),
        "scan": anext(aiter(store.scan())),
    }


async def test_a_cancel_storm_swaps_no_answers(store: MongoStore) -> None:
    """A late reply handed to the next reader shows one visitor another's session (CVE-2023-28858)."""
    chance = random.Random(28858)
    records = [new_record(utc_now) for _ in range(20)]
    await asyncio.gather(*(store.create(record) for record in records))
    for _ in range(60):
        asked = [chance.choice(records) for _ in range(20)]
        tasks = [asyncio.ensure_future(store.load(record.digest)) for record in asked]
        await asyncio.sleep(chance.random() / 300)
        for task in chance.sample(tasks, 10):
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        for record, answer in zip(asked, answers, strict=True):
            assert answer == record or isinstance(answer, asyncio.CancelledError)


async def test_a_frozen_server_is_unavailable_in_time_and_recovers(fresh_server: FreshServer) -> None:
    """A hung server must cost each visitor a second, not a minute, and nobody a restart."""
    server = fresh_server("mongodb")
    store = MongoStore(server.url, timeout=TIMEOUT)
    await store.check()
    record = new_record(utc_now)
    await store.create(record)
    server.pause()
    began = time.monotonic()
    outcomes = await asyncio.gather(*_calls(store, record).values(), return_exceptions=True)
    took = time.monotonic() - began
    server.resume()
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * len(outcomes)
    assert took < TIMEOUT + 2
    await _until_it_answers(store)
    second = new_record(utc_now)
    assert await store.create(second)
    assert await store.load(second.digest) == second
    await store.close()


async def test_closing_waits_for_no_frozen_server(fresh_server: FreshServer) -> None:
    """A deployment must be able to stop the application while its database hangs."""
    server = fresh_server("mongodb")
    store = MongoStore(server.url, timeout=TIMEOUT)
    await store.check()
    server.pause()
    began = time.monotonic()
    await store.close()
    took = time.monotonic() - began
    server.resume()
    assert took < 3 * TIMEOUT


async def test_what_was_acknowledged_outlives_a_crash(fresh_server: FreshServer) -> None:
    """Down: unavailable at once. Back: the same store object finds the same sessions."""
    server = fresh_server("mongodb")
    store = MongoStore(server.url, timeout=TIMEOUT)
    record = new_record(utc_now, principal="alice")
    await store.create(record)
    await store.replace(newer := next_version(record), version=1)
    server.kill()
    for name, call in _calls(store, new_record(utc_now)).items():
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await call
        assert time.monotonic() - began < TIMEOUT + 2, name
    server.start()
    await _until_it_answers(store)
    assert await store.load(record.digest) == newer
    assert await store.find_principal("alice") == [newer]
    await store.close()


async def _until_it_answers(store: MongoStore) -> None:
    """Wait until the driver has noticed that the server is back; it looks twice a second."""
    async with asyncio.timeout(10):
        while True:
            try:
                await store.load(bytes(32))
            except StoreUnavailable:
                continue
            return


async def test_one_failed_query_fails_every_caller_of_its_turn(mongo: Server) -> None:
    """A caller forgotten by a failed batch would hang for good."""
    async with proxied(mongo.url, refusing("find", 189)) as place:
        store = MongoStore(f"mongodb://{place}/", timeout=TIMEOUT)
        outcomes = await asyncio.gather(
            *(store.load(bytes(31) + bytes([i])) for i in range(5)), return_exceptions=True
        )
        await store.close()
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 5
    assert len({id(outcome) for outcome in outcomes}) == 5


async def test_a_refused_ttl_index_is_one_line_in_the_log(
    mongo: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Servers without TTL indexes keep sessions well; the operator is told once, not per request."""
    refusal = refusing("createIndexes", 238, when="expireAfterSeconds")
    async with proxied(mongo.url, refusal) as place:
        store = MongoStore(f"mongodb://{place}/", timeout=PATIENCE)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                await store.check()
                record = new_record(utc_now)
                assert await store.create(record)
                assert await store.load(record.digest) == record
                await store.close()
    (line,) = [entry.getMessage() for entry in caplog.records if entry.name.startswith("eyewall")]
    assert "purge_at" in line
    assert "238" in line


@pytest.mark.parametrize(
    ("user", "command", "code"),
    [("admin:hunter2@", "saslStart", 18), ("", "find", 13)],
    ids=["password", "rights"],
)
async def test_a_refused_user_is_told_at_start(user: str, command: str, code: int, mongo: Server) -> None:
    """A wrong password is one clear line at start, without the password in it."""
    async with proxied(mongo.url, refusing(command, code)) as place:
        store = MongoStore(f"mongodb://{user}{place}/?authSource=admin", timeout=PATIENCE)
        with pytest.raises(ConfigurationError, match="check the user") as caught:
            await store.check()
        await store.close()
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert place in str(caught.value)


async def test_nobody_there_is_unavailable_at_start() -> None:
    """A server that is not up yet is a matter of time: one line that names the place, within the deadline."""
    store = MongoStore(f"mongodb://127.0.0.1:{free_port()}/", timeout=TIMEOUT)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:\d+.*check the port"):
        await store.check()
    assert time.monotonic() - began < TIMEOUT + 2
    await store.close()


async def _lives(store: MongoStore) -> bool:
    """Use the store from whatever loop and process this runs in, and close its client there."""
    record = new_record(utc_now)
    created = await store.create(record)
    same = await store.load(record.digest) == record
    await store.close()
    return created and same


def test_each_event_loop_has_its_own_client(mongo: Server) -> None:
    """A socket shared by two event loops hangs one of them."""
    store = MongoStore(mongo.url, timeout=PATIENCE)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: asyncio.run(_lives(store)), range(8)))
    assert asyncio.run(_lives(store))
    assert store._links == {}


def test_a_forked_process_has_its_own_client(mongo: Server) -> None:
    """Tornado forks its workers; two processes on one socket read each other's sessions."""
    done = subprocess.run([sys.executable, "-c", FORKS, mongo.url], capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (b"[0, 0, 0]", b"")


FORKS = """
import asyncio, os, sys
from eyewall.core.store import utc_now
from eyewall.stores.mongodb import MongoStore
from eyewall.testing.check_kit import new_record

store = MongoStore(sys.argv[1], timeout=10)

async def lives(times):
    for _ in range(times):
        record = new_record(utc_now)
        assert await store.create(record)
        assert await store.load(record.digest) == record
        assert await store.delete(record.digest)
    await store.close()

asyncio.run(lives(1))
children = []
for _ in range(3):
    child = os.fork()
    if not child:
        asyncio.run(lives(20))
        os._exit(0)
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children], end="")
"""
