"""MongoStore's writes that travel together: each keeps its own result and its own failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from eyewall.core.record import Record
from eyewall.core.store import utc_now
from eyewall.errors import StoreUnavailable
from eyewall.stores.mongodb import MongoStore
from eyewall.testing.check_kit import new_record, next_version
from tests.servers.fixtures import Server
from tests.servers.patience import PATIENCE

pytest.importorskip("pymongo")
from eyewall.stores.mongodb_writes import LARGE
from tests.stores.mongodb_commands import commands_sent
from tests.stores.mongodb_proxy import Answer, proxied, refusing, server_of_7

pytestmark = pytest.mark.server

COMMAND_NOT_FOUND, COMMAND_NOT_SUPPORTED, NOT_PRIMARY = 59, 115, 10107


@pytest.fixture
async def store(mongo: Server) -> AsyncIterator[MongoStore]:
    """Lend one handle, by the real clock."""
    store = MongoStore(mongo.url, timeout=PATIENCE)
    await store.check()
    yield store
    await store.close()


async def _kept(store: MongoStore, count: int) -> list[Record]:
    """Return ``count`` records that are there."""
    records = [new_record(utc_now) for _ in range(count)]
    assert all(await asyncio.gather(*(store.create(record) for record in records)))
    return records


def _names(sent: list[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in sent]


async def _all_kinds_of_writes(store: MongoStore) -> None:
    """Write in one turn what succeeds and what does not, and see that each is told its own."""
    there, stale, gone, dead, taken, touched, deleted = await _kept(store, 7)
    await store.delete(gone.digest)
    past = utc_now() - timedelta(seconds=1)
    await store.touch(dead.digest, dead.seen_at, past)
    newer, fresh = next_version(there), new_record(utc_now)
    outcomes = await asyncio.gather(
        store.replace(newer, version=1),
        store.replace(next_version(stale, version=8), version=7),
        store.replace(next_version(gone), version=1),
        store.replace(next_version(dead), version=1),
        store.create(new_record(utc_now, digest=taken.digest, payload=b"thief")),
        store.create(fresh),
        store.touch(touched.digest, touched.seen_at, touched.expires_at + timedelta(hours=1)),
        store.touch(gone.digest, gone.seen_at, gone.expires_at),
        store.delete(deleted.digest),
        store.delete(gone.digest),
    )
    assert outcomes == [True, False, False, False, False, True, True, False, True, False]
    loaded = await asyncio.gather(
        *(store.load(each.digest) for each in (there, stale, gone, dead, taken, fresh, deleted))
    )
    assert loaded == [newer, stale, None, None, taken, fresh, None]


# Together


async def test_writes_of_one_turn_travel_as_one_command(store: MongoStore) -> None:
    """Fifty requests that save in one turn cost one round trip, not fifty."""
    records = [new_record(utc_now) for _ in range(50)]
    with commands_sent() as sent:
        assert all(await asyncio.gather(*(store.create(record) for record in records)))
    assert _names(sent) == ["bulkWrite"]
    assert await asyncio.gather(*(store.load(record.digest) for record in records)) == records


async def test_each_write_of_a_command_is_told_its_own_result(store: MongoStore) -> None:
    """A lost update that is told it won loses a visitor's cart; a won one told it lost is merged twice."""
    with commands_sent() as sent:
        await _all_kinds_of_writes(store)
    assert "bulkWrite" in _names(sent)


async def test_results_are_exact_whatever_travels_together(store: MongoStore) -> None:
    """Results handed out by place: one off by one would tell everybody their neighbour's."""
    chance = random.Random(8)
    for _ in range(20):
        records = await _kept(store, chance.randrange(2, 30))
        right = [chance.random() < 0.5 for _ in records]
        calls = [
            store.replace(next_version(record), version=1)
            if fits
            else store.replace(next_version(record, version=5), version=4)
            for record, fits in zip(records, right, strict=True)
        ]
        assert await asyncio.gather(*calls) == right
        loaded = await asyncio.gather(*(store.load(record.digest) for record in records))
        assert [record is not None and record.version == 2 for record in loaded] == right


async def test_of_many_replaces_of_one_turn_one_wins(store: MongoStore) -> None:
    """Two winners with one version: one of them is lost without a word."""
    for _ in range(10):
        (record,) = await _kept(store, 1)
        rivals = [next_version(record, payload=bytes([i])) for i in range(8)]
        won = await asyncio.gather(*(store.replace(rival, version=1) for rival in rivals))
        assert won.count(True) == 1
        assert await store.load(record.digest) == rivals[won.index(True)]


async def test_no_write_that_travels_with_others_may_insert_what_it_misses(store: MongoStore) -> None:
    """An upsert in a command of many would bring back who has signed out."""
    records = await _kept(store, 3)
    with commands_sent() as sent:
        await asyncio.gather(
            *(store.replace(next_version(record), version=1) for record in records),
            *(store.touch(record.digest, record.seen_at, record.expires_at) for record in records),
        )
    ((_, command),) = sent
    assert not any(operation.get("upsert") or operation.get("multi") for operation in command["ops"])
    assert command["ordered"] is False, "a refused write must not keep those behind it from being done"


@pytest.mark.parametrize(("query", "concern"), [("", {"w": "majority"}), ("?w=1", {"w": 1})])
async def test_writes_that_travel_together_wait_for_a_majority_too(
    query: str, concern: dict[str, Any], mongo: Server
) -> None:
    """A sign-out that only the failing primary has seen would be undone."""
    store = MongoStore(mongo.url + query, timeout=PATIENCE)
    await store.check()
    with commands_sent() as sent:
        await _kept(store, 3)
    await store.close()
    assert [(name, command["writeConcern"]) for name, command in sent] == [("bulkWrite", concern)]


async def test_a_cancelled_write_leaves_the_others_their_results(store: MongoStore) -> None:
    """A browser that goes away must not fail, or mix up, the requests it happened to travel with."""
    chance = random.Random(3)
    for _ in range(20):
        records = await _kept(store, 12)
        tasks = [
            asyncio.ensure_future(store.replace(next_version(record), version=1 + i % 2))
            for i, record in enumerate(records)
        ]
        await asyncio.sleep(chance.random() / 500)
        for task in chance.sample(tasks, 5):
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for i, outcome in enumerate(outcomes):
            assert outcome is (i % 2 == 0) or isinstance(outcome, asyncio.CancelledError)


# Alone


async def test_a_large_write_keeps_nobody_waiting(store: MongoStore) -> None:
    """Together they could outgrow one message; the driver would cut it, and half of it could fail."""
    large = new_record(utc_now, payload=bytes(LARGE + 1))
    small = [new_record(utc_now) for _ in range(3)]
    with commands_sent() as sent:
        assert all(await asyncio.gather(*(store.create(record) for record in [*small, large])))
    assert sorted(_names(sent)) == ["bulkWrite", "insert"]
    assert await store.load(large.digest) == large


async def test_many_writes_are_split(store: MongoStore) -> None:
    """A herd of thousands must not become one command of unbounded size."""
    with commands_sent() as sent:
        gone = await asyncio.gather(*(store.delete(bytes(30) + i.to_bytes(2)) for i in range(600)))
    assert gone == [False] * 600
    assert sorted(len(command["ops"]) for _, command in sent) == [88, 256, 256]


async def test_a_record_that_cannot_be_encoded_fails_alone(store: MongoStore) -> None:
    """One impossible record must not turn its neighbours' requests into errors."""
    good = [new_record(utc_now) for _ in range(3)]
    bad = new_record(utc_now, version=2**70)
    outcomes = await asyncio.gather(
        *(store.create(record) for record in [*good, bad]), return_exceptions=True
    )
    assert outcomes[:3] == [True] * 3
    assert isinstance(outcomes[3], OverflowError)
    assert await asyncio.gather(*(store.load(record.digest) for record in good)) == good


@asynccontextmanager
async def _over(mongo: Server, answer: Answer, **more: Any) -> AsyncIterator[MongoStore]:
    async with proxied(mongo.url, answer, **more) as place:
        store = MongoStore(f"mongodb://{place}/", timeout=PATIENCE)
        try:
            yield store
        finally:
            await store.close()


def _nothing_refused(_: dict[str, Any]) -> None:
    return None


async def test_a_server_before_8_gets_every_write_alone(mongo: Server) -> None:
    """MongoDB 7 does not know the command, and must keep the same promises."""
    async with _over(mongo, _nothing_refused, alter=server_of_7) as store:
        with commands_sent() as sent:
            await _all_kinds_of_writes(store)
    assert "bulkWrite" not in _names(sent)


@pytest.mark.parametrize("code", [COMMAND_NOT_FOUND, COMMAND_NOT_SUPPORTED])
async def test_a_server_that_refuses_the_command_is_asked_once(code: int, mongo: Server) -> None:
    """A look-alike, or an 8.0 that still lives by 7.0's rules, costs one round trip and not one a turn."""
    async with _over(mongo, refusing("bulkWrite", code)) as store:
        with commands_sent() as sent:
            await _all_kinds_of_writes(store)
            await _kept(store, 3)
    assert _names(sent).count("bulkWrite") == 1


async def test_closing_sends_what_has_been_gathered(mongo: Server, store: MongoStore) -> None:
    """A process that is told to stop must not forget what it was just told to store."""
    records = await _kept(store, 3)
    stopping = MongoStore(mongo.url, timeout=PATIENCE)
    *gone, _ = await asyncio.gather(*(stopping.delete(r.digest) for r in records), stopping.close())
    assert gone == [True] * 3


async def test_closing_waits_for_what_is_sent_again_alone(mongo: Server) -> None:
    """The last sign-ins before a process stops would be lost, because the server is old."""
    records = [new_record(utc_now) for _ in range(4)]
    async with _over(mongo, refusing("bulkWrite", COMMAND_NOT_FOUND)) as store:
        creating = [asyncio.ensure_future(store.create(record)) for record in records]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*creating) == [True] * 4
        assert await asyncio.gather(*(store.load(record.digest) for record in records)) == records


# Failures


def _telling(reply: dict[str, Any]) -> Answer:
    """Answer commands of many writes with ``reply``."""

    def answer(body: dict[str, Any]) -> dict[str, Any] | None:
        return reply if "bulkWrite" in body else None

    return answer


def _told(*outcomes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the server's reply that says ``outcomes``."""
    cursor = {"id": 0, "ns": "admin.$cmd.bulkWrite", "firstBatch": list(outcomes)}
    errors = sum(not outcome["ok"] for outcome in outcomes)
    return {"ok": 1.0, "cursor": cursor, "nErrors": errors, **more}


async def _replaced_together(store: MongoStore) -> list[Any]:
    """Return the outcomes of three replaces that travel together."""
    calls = [store.replace(next_version(new_record(utc_now)), version=1) for _ in range(3)]
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_write_the_server_refuses_fails_its_caller_only(mongo: Server) -> None:
    """One document that a validator refuses must not make its neighbours' requests fail."""
    refused = {"ok": 0.0, "idx": 1, "code": 121, "errmsg": "refused", "n": 0}
    reply = _told({"ok": 1.0, "idx": 0, "n": 1, "nModified": 1}, refused, {"ok": 1.0, "idx": 2, "n": 0})
    async with _over(mongo, _telling(reply)) as store:
        first, second, third = await _replaced_together(store)
    assert (first, third) == (True, False)
    assert isinstance(second, StoreUnavailable)
    assert "code 121" in str(second)


async def test_a_write_of_which_nothing_is_told_has_an_unknown_outcome(mongo: Server) -> None:
    """Silence taken for yes saves nothing; taken for no, it saves twice."""
    async with _over(mongo, _telling(_told({"ok": 1.0, "idx": 1, "n": 1, "nModified": 1}))) as store:
        first, second, third = await _replaced_together(store)
    assert second is True
    assert [type(first), type(third)] == [StoreUnavailable, StoreUnavailable]


async def test_a_duplicate_is_no_answer_to_a_replace(mongo: Server) -> None:
    """Only an insert may be told that its place is taken; to a replace it is a failure, not a lost race."""
    taken = [{"ok": 0.0, "idx": i, "code": 11000, "errmsg": "taken", "n": 0} for i in range(3)]
    async with _over(mongo, _telling(_told(*taken))) as store:
        replaced = await _replaced_together(store)
        created = await asyncio.gather(*(store.create(new_record(utc_now)) for _ in range(3)))
    assert [type(outcome) for outcome in replaced] == [StoreUnavailable] * 3
    assert created == [False] * 3


async def test_writes_that_no_majority_confirmed_are_not_called_done(mongo: Server) -> None:
    """What the next primary has not seen is not saved, though this one says so."""
    done = [{"ok": 1.0, "idx": i, "n": 1, "nModified": 1} for i in range(3)]
    doubt = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out"}
    async with _over(mongo, _telling(_told(*done, writeConcernError=doubt))) as store:
        outcomes = await _replaced_together(store)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3


@pytest.mark.parametrize(
    ("code", "said"), [(NOT_PRIMARY, "NotPrimaryError"), (50, "code 50"), (13, "code 13")]
)
async def test_one_failed_command_fails_every_write_of_its_turn(code: int, said: str, mongo: Server) -> None:
    """A caller forgotten by a failed command would hang; one sent again might be done twice."""
    async with _over(mongo, refusing("bulkWrite", code)) as store:
        with commands_sent() as sent:
            outcomes = await _replaced_together(store)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    assert all(said in str(outcome) for outcome in outcomes)
    assert set(_names(sent)) == {"bulkWrite"}
