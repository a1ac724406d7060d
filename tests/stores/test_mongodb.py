"""MongoStore over a real wire: the contract, the document, batching, settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eyewall.core.record import Device, Record
from eyewall.core.store import Clock, Store, utc_now
from eyewall.errors import ConfigurationError, DamagedRecordError
from eyewall.settings import Settings
from eyewall.stores.mongodb import MongoStore
from eyewall.stores.mongodb_document import PURGE_MARGIN
from eyewall.testing import DAMAGE_CHECKS, ManualClock, checks_for
from eyewall.testing.check_kit import Check, DamageCheck, MakeStore, Plant, clock_of_today, new_record
from tests.servers.fixtures import Server
from tests.servers.patience import PATIENCE

pytest.importorskip("pymongo")
from pymongo import AsyncMongoClient

from tests.stores.mongodb_commands import commands_sent

pytestmark = pytest.mark.server

DATABASE = "eyewall_test"
Collection = Any


@pytest.fixture
async def raw(mongo: Server) -> AsyncIterator[Collection]:
    """The collection, behind the store's back."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo.url)
    async with client:
        yield client[DATABASE]["sessions"]


@pytest.fixture
def make_store(mongo: Server) -> MakeStore:
    """Open handles to one collection."""

    async def make(clock: Clock) -> Store:
        return MongoStore(mongo.url, clock=clock, database=DATABASE, timeout=PATIENCE)

    return make


@pytest.fixture
async def store(mongo: Server) -> AsyncIterator[MongoStore]:
    """Lend one handle, by the real clock."""
    store = MongoStore(mongo.url, database=DATABASE, timeout=PATIENCE)
    yield store
    await store.close()


@pytest.fixture
def plant(raw: Collection) -> Plant:
    """Put a foreign document in the place of a record."""

    async def put(digest: bytes, blob: bytes) -> None:
        await raw.delete_one({"_id": digest.hex()})
        await raw.insert_one({"_id": digest.hex(), "payload": blob})

    return put


@pytest.mark.parametrize("check", checks_for(MongoStore), ids=lambda check: check.__name__)
async def test_the_store_keeps_its_promises(check: Check, make_store: MakeStore) -> None:
    """Whatever core builds on the contract falls with any promise broken here."""
    await check(make_store)


@pytest.mark.parametrize("check", DAMAGE_CHECKS, ids=lambda check: check.__name__)
async def test_damage_is_never_served(check: DamageCheck, make_store: MakeStore, plant: Plant) -> None:
    """A foreign document under one of our digests must not become a session or a 500."""
    await check(make_store, plant)


# The document


async def test_the_document_is_frozen(mongo: Server, raw: Collection) -> None:
    """A field renamed by accident signs out everybody at the next deployment."""
    born = datetime(2026, 1, 2, 3, 4, 5, 678_901, UTC)
    record = Record(
        digest=bytes(range(32)), version=7, payload=b"\0\xff", created_at=born, seen_at=born,
        expires_at=born + timedelta(hours=1), principal="alice", device=Device("Firefox", "::1"),
        successor=b"\xab" * 32,
    )  # fmt: skip
    store = MongoStore(mongo.url, clock=ManualClock(born), database=DATABASE, timeout=PATIENCE)
    await store.delete(record.digest)
    await store.create(record)
    document = await raw.find_one({"_id": record.digest.hex()})
    await store.delete(record.digest)
    await store.close()
    del document["purge_at"]
    assert document == {
        "_id": "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "format": 1,
        "version": 7,
        "payload": b"\0\xff",
        "created_us": 1_767_323_045_678_901,
        "seen_us": 1_767_323_045_678_901,
        "expires_us": 1_767_326_645_678_901,
        "principal": "alice",
        "principal_digest": "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90",
        "device": {"user_agent": "Firefox", "address": "::1"},
        "successor": "ab" * 32,
    }


@pytest.mark.parametrize(
    "damage",
    [
        {"format": 2}, {"format": "1"}, {"format": None},
        {"version": "1"}, {"version": 0}, {"version": 1.5}, {"version": None},
        {"payload": "text"}, {"payload": None}, {"payload": [1]}, {"payload": "AAAA"},
        {"created_us": "yesterday"}, {"created_us": 2**63 - 1}, {"created_us": -(2**63)}, {"seen_us": 1.5},
        {"expires_us": datetime(2040, 1, 1, tzinfo=UTC)}, {"expires_us": "zzz"}, {"expires_us": None},
        {"principal": "mallory"}, {"principal": 7}, {"principal": None}, {"principal_digest": "0" * 64},
        {"device": "Firefox"}, {"device": {}}, {"device": {"user_agent": 1, "address": ""}},
        {"successor": "xyz"}, {"successor": "AB" * 32}, {"successor": 1}, {"successor": b"x" * 32},
    ],
    ids=repr,
)  # fmt: skip
async def test_a_field_of_the_wrong_type_is_damage(
    damage: dict[str, Any], store: MongoStore, raw: Collection
) -> None:
    """An edited document must read as a new visitor: not as somebody else, not as a crash."""
    record = new_record(utc_now, principal="alice", device=Device("a", "b"))
    await store.create(record)
    await raw.update_one({"_id": record.digest.hex()}, {"$set": damage})
    with pytest.raises(DamagedRecordError):
        await store.load(record.digest)
    assert record.digest not in [found.digest for found in await store.find_principal("alice")]
    assert await store.delete(record.digest)


async def test_one_damaged_document_spoils_no_neighbour(store: MongoStore, plant: Plant) -> None:
    """Loads travel together; damage to one must stay with the one who asked for it."""
    good, bad = new_record(utc_now), new_record(utc_now)
    await store.create(good)
    await plant(bad.digest, b"damage")
    first, second = await asyncio.gather(
        store.load(good.digest), store.load(bad.digest), return_exceptions=True
    )
    assert first == good
    assert isinstance(second, DamagedRecordError)


async def test_text_that_is_no_utf8_comes_back(store: MongoStore) -> None:
    """A lone surrogate, which JSON can carry into a user name, must not crash a sign-in."""
    record = new_record(utc_now, principal="al\ud800ice", device=Device("\udfff", "x"))
    assert await store.create(record)
    assert await store.load(record.digest) == record
    assert await store.find_principal("al\ud800ice") == [record]
    assert await store.delete_principal("al\ud801ice") == 0
    assert await store.delete_principal("al\ud800ice") == 1


@pytest.mark.parametrize("start", [datetime(1999, 12, 31, tzinfo=UTC), datetime(2300, 1, 1, tzinfo=UTC)])
async def test_the_servers_clock_purges_nothing_that_lives(
    start: datetime, mongo: Server, raw: Collection
) -> None:
    """A host whose clock is years off must not lose its sessions to the TTL index."""
    clock = ManualClock(start)
    store = MongoStore(mongo.url, clock=clock, database=DATABASE, timeout=PATIENCE)
    await store.check()
    record = new_record(clock)
    await store.create(record)
    assert await store.load(record.digest) == record
    purge_at = await _purge_at(raw, record)
    left = purge_at - utc_now() - PURGE_MARGIN
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    await store.touch(record.digest, clock(), clock() + timedelta(hours=5))
    assert await _purge_at(raw, record) - purge_at > timedelta(hours=3)
    await store.close()


async def _purge_at(raw: Collection, record: Record) -> datetime:
    """Return when the server may purge; nx-27017 gives the date it was sent back as text."""
    date = (await raw.find_one({"_id": record.digest.hex()}))["purge_at"]
    return (datetime.fromisoformat(date) if isinstance(date, str) else date).replace(tzinfo=UTC)


async def test_an_end_at_the_end_of_time_is_kept(store: MongoStore) -> None:
    """The largest datetime is a legal expires_at and overflows nothing."""
    record = new_record(utc_now, expires_at=datetime.max.replace(tzinfo=UTC))
    assert await store.create(record)
    assert await store.load(record.digest) == record
    assert await store.touch(record.digest, record.seen_at, record.expires_at)
    assert await store.delete(record.digest)


async def test_the_indexes_are_there(store: MongoStore, raw: Collection) -> None:
    """Without them a sweep or a sign-out everywhere reads the whole collection."""
    await store.check()
    indexes = (await raw.index_information()).values()
    keys = {index["key"][0][0]: index.get("expireAfterSeconds") for index in indexes}
    assert keys == {"_id": None, "expires_us": None, "principal_digest": None, "purge_at": 0}


# Batching and concerns


async def test_loads_of_one_turn_travel_as_one_query(store: MongoStore) -> None:
    """Fifty requests of one turn cost one round trip, and everybody gets their own answer."""
    await store.check()
    records = [new_record(utc_now) for _ in range(50)]
    await asyncio.gather(*(store.create(record) for record in records))
    digests = [record.digest for record in records] + [bytes(32), records[0].digest]
    with commands_sent() as sent:
        loaded = await asyncio.gather(*(store.load(digest) for digest in digests))
    assert loaded == [*records, None, records[0]]
    assert [name for name, _ in sent] == ["find"]
    assert len(sent[0][1]["filter"]["_id"]["$in"]) == 51


async def test_a_lone_load_asks_for_one(store: MongoStore) -> None:
    """The common case is the plain one: one key, one document."""
    await store.check()
    record = new_record(utc_now)
    await store.create(record)
    with commands_sent() as sent:
        assert await store.load(record.digest) == record
    assert [(name, command["filter"]) for name, command in sent] == [("find", {"_id": record.digest.hex()})]


async def test_many_loads_are_split(store: MongoStore) -> None:
    """A herd of thousands must not become one query of unbounded size."""
    with commands_sent() as sent:
        loaded = await asyncio.gather(*(store.load(bytes(30) + i.to_bytes(2)) for i in range(600)))
    assert loaded == [None] * 600
    assert sorted(len(command["filter"]["_id"]["$in"]) for _, command in sent) == [88, 256, 256]


@pytest.mark.parametrize(("query", "concern"), [("", {"w": "majority"}), ("?w=1", {"w": 1})])
async def test_writes_wait_for_a_majority_unless_told_otherwise(
    query: str, concern: dict[str, Any], mongo: Server
) -> None:
    """A sign-out that only the failing primary has seen would be undone."""
    store = MongoStore(mongo.url + query, database=DATABASE, timeout=PATIENCE)
    await store.check()
    record = new_record(utc_now)
    with commands_sent() as sent:
        await store.create(record)
        await store.touch(record.digest, record.seen_at, record.expires_at)
        await store.delete(record.digest)
    await store.close()
    writes = [command["writeConcern"] for name, command in sent if name in {"insert", "update", "delete"}]
    assert writes == [concern] * 3


async def test_every_change_is_one_operation_on_one_document(store: MongoStore) -> None:
    """Read-then-write, in place of one atomic step, is how updates get lost."""
    await store.check()
    record = new_record(utc_now)
    with commands_sent() as sent:
        await store.create(record)
        await store.replace(new_record(utc_now, digest=record.digest, version=2), version=1)
        await store.touch(record.digest, record.seen_at, record.expires_at)
        await store.delete(record.digest)
    assert [name for name, _ in sent] == ["insert", "update", "update", "delete"]
    assert not any(
        "upsert" in update and update["upsert"] for _, c in sent for update in c.get("updates", ())
    )


# Settings


@pytest.mark.parametrize(
    ("settings", "place", "database"),
    [
        (Settings(url="mongodb://u:secret@db.example:27018/shop"), "db.example:27018", "shop"),
        (
            Settings(url="mongodb://a.example,b.example:2/?replicaSet=r"),
            "a.example:27017,b.example:2",
            "eyewall",
        ),
        (Settings(backend="mongodb", host="db.example", database="shop"), "db.example:27017", "shop"),
        (Settings(backend="mongodb", host="::1", port=5), "::1:5", "eyewall"),
    ],
    ids=["url", "replica set", "host", "IPv6"],
)
def test_settings_say_where(settings: Settings, place: str, database: str) -> None:
    """A store that quietly takes a default keeps sessions where nobody looks."""
    store = MongoStore.from_settings(settings, clock_of_today())
    assert (store._place, store._names) == (place, (database, "sessions"))


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://u:hun/ter2@host/", "mongodb://u:hun?ter2=x@host/", "mongodb://u:hun@ter2:x@host",
        "mongodb://u:hun%zzter2@host", "mongodb://u:hunter2@", "http://u:hunter2@host", "hunter2", "",
        "mongodb://u:hunter2@host/?nosuchoption=hunter2", "mongodb://u:hunter2@host/?w=0", "mongodb://u:hunter2@host:99999",
        "mongodb+srv://u:hunter2@a.example:1/", "mongodb://u:hunter2@host/admin",
    ],
)  # fmt: skip
def test_a_wrong_url_is_refused_without_quoting_it(url: str) -> None:
    """The error goes to a log, and the URL holds the password."""
    with pytest.raises(ConfigurationError) as caught:
        MongoStore(url)
    assert "ter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_other_wrong_settings_are_refused() -> None:
    """What cannot work is said at start, with the fix."""
    with pytest.raises(ConfigurationError, match="seconds above 0"):
        MongoStore("mongodb://127.0.0.1", timeout=0)
    with pytest.raises(ConfigurationError, match="authSource"):
        MongoStore("mongodb://127.0.0.1", database="admin")
    with pytest.raises(ConfigurationError, match="user"):
        MongoStore.from_settings(Settings(backend="mongodb", host="h", password="x"), utc_now)
