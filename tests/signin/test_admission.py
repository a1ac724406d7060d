"""At most so many sessions per principal, however many sign in at once, and in whatever process."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from eyewall.core.opening import open_store
from eyewall.core.record import Record
from eyewall.core.store import Store, utc_now
from eyewall.errors import ConfigurationError, StoreUnavailable, TooManySessionsError
from eyewall.settings import Settings
from eyewall.signin.admission import WhenFull
from eyewall.signin.devices import handle_of
from eyewall.signin.shared_lock import LEASE, SharedLocks
from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock
from tests.signin.one_process import OneProcess

SERVERS = ("postgres", "mariadb", "redis7", "valkey9", "cluster", "sentinel", "mongodb")
STORES = ("memory", "file", "sqlite", *SERVERS)
LIMIT = 5
AT_ONCE = 50
MODES: tuple[WhenFull, ...] = ("end-oldest", "refuse")


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still."""
    return ManualClock()


@pytest.fixture
def process(clock: ManualClock) -> OneProcess:
    """One process on an empty store."""
    return OneProcess(MemoryStore(clock=clock), clock)


@pytest.fixture(params=STORES)
async def two_processes(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[OneProcess, OneProcess]]:
    """Two processes on one store of each kind. Its clock agrees with the server's own."""
    clock = ManualClock(utc_now())
    stores: list[Store]
    if request.param == "memory":
        stores = [MemoryStore(clock=clock)] * 2
    else:
        url = {"file": tmp_path.as_uri(), "sqlite": f"sqlite:///{tmp_path}/s.db"}.get(request.param)
        url = url or request.getfixturevalue(request.param).url
        settings = Settings(url=url, store_timeout=timedelta(seconds=20))
        stores = [open_store(settings, clock) for _ in range(2)]
    one, other = OneProcess(stores[0], clock), OneProcess(stores[1], clock)
    yield one, other
    await one.close()
    await other.close()


# In parallel, over every store


@pytest.mark.parametrize("when_full", MODES)
async def test_of_fifty_parallel_sign_ins_as_many_sessions_are_left_as_may_be(
    two_processes: tuple[OneProcess, OneProcess], when_full: WhenFull
) -> None:
    """Whoever counts first and creates afterwards lets all fifty in (ASVS 7.1.2)."""
    principal = f"alice-{secrets.token_hex(4)}"
    doors = [(process, process.admission(LIMIT, when_full)) for process in two_processes]
    sign_ins = (doors[number % 2][0].admit(doors[number % 2][1], principal) for number in range(AT_ONCE))
    signed_in = [record for record in await asyncio.gather(*sign_ins) if record is not None]
    assert len(signed_in) == (AT_ONCE if when_full == "end-oldest" else LIMIT)
    left = await two_processes[0].sessions(principal)
    assert len(left) == LIMIT
    assert {record.digest for record in left} <= {record.digest for record in signed_in}


# Making room


async def test_the_device_not_used_for_longest_goes_with_its_token(
    process: OneProcess, clock: ManualClock
) -> None:
    """A token left behind brings the device straight back, and then another one has to go."""
    oldest = secrets.token_bytes(16)
    token = await process.remember("alice", oldest)
    first = await process.sign_in("alice", device_id=oldest)
    clock.advance(60)
    second = await process.sign_in("alice")
    clock.advance(60)
    third = await process.admit(process.admission(2), "alice")
    assert third is not None
    assert await process.store.load(first.digest) is None
    assert await process.store.load(token.digest) is None
    assert {one.digest for one in await process.sessions("alice")} == {second.digest, third.digest}
    assert process.kinds() == ["SESSIONS_LIMITED", "REVOKED"]
    assert process.heard[0].principal == "alice"


async def test_a_refused_sign_in_changes_nothing(process: OneProcess) -> None:
    """In this mode who is in stays in, and the refusal leaves no session behind."""
    there = await process.sign_in("alice")
    admission = process.admission(1, "refuse")
    with pytest.raises(TooManySessionsError, match="one must end first"):
        async with admission.of("alice", own=None):
            raise AssertionError("let in")
    assert await process.sessions("alice") == [there]
    assert process.kinds() == ["SESSIONS_LIMITED"]
    await process.writer.end(there.digest)
    assert await process.admit(admission, "alice"), "the lock must have been given back"


async def test_one_principals_limit_is_not_anothers(process: OneProcess) -> None:
    """Otherwise a stranger's sign-ins sign everybody out."""
    his = await process.sign_in("bob")
    admission = process.admission(1)
    for _ in range(3):
        assert await process.admit(admission, "alice")
    assert await process.sessions("bob") == [his]


@pytest.mark.parametrize("when_full", MODES)
async def test_the_session_that_signs_in_is_not_counted(process: OneProcess, when_full: WhenFull) -> None:
    """Proving again who one is would end one's own session, or be refused."""
    mine = await process.sign_in("alice")
    async with process.admission(1, when_full).of("alice", own=mine.digest):
        assert await process.sessions("alice") == [mine]
        moved = await process.regenerate(mine)
    assert await process.sessions("alice") == [moved.record]
    assert process.kinds() == []


@pytest.mark.parametrize("when_full", MODES)
@pytest.mark.parametrize("is_known_before", [True, False])
async def test_a_session_that_got_a_new_id_since_it_was_loaded_is_not_counted(
    process: OneProcess, when_full: WhenFull, *, is_known_before: bool
) -> None:
    """Two requests of one browser sign in: the second would end a device, or be refused, for its own sake."""
    mine = await process.sign_in("alice") if is_known_before else await process.visit()
    moved = await process.regenerate(mine, "alice")
    async with process.admission(1, when_full).of("alice", own=mine.digest):
        assert await process.sessions("alice") == [moved.record]
    assert process.kinds() == []


class Paused(MemoryStore):
    """Stands still before it writes a marker, and goes on when it is told."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def replace(self, record: Record, *, version: int) -> bool:
        if record.successor not in (None, record.digest):
            self.reached.set()
            await self.go_on.wait()
        return await super().replace(record, version=version)


@pytest.mark.parametrize("when_full", MODES)
async def test_a_session_on_its_way_to_a_new_id_is_counted_once(
    clock: ManualClock, when_full: WhenFull
) -> None:
    """It has two records for a moment, and another device would go for that."""
    store = Paused(clock)
    process = OneProcess(store, clock)
    before = await process.sign_in("alice")
    moving = asyncio.create_task(process.regenerate(before))
    await store.reached.wait()
    assert len(await process.sessions("alice")) == 2
    latest = await process.admit(process.admission(2, when_full), "alice")
    store.go_on.set()
    moved = await moving
    assert latest is not None
    assert {one.digest for one in await process.sessions("alice")} == {moved.record.digest, latest.digest}
    assert process.kinds() == []


class ListedBefore(MemoryStore):
    """Lists what belongs to a principal before one session gets its new ID, and reads the list afterwards."""

    unseen: bytes | None = None

    async def find_principal(self, principal: str) -> list[Record]:
        unseen, self.unseen = self.unseen, None
        return [record for record in await super().find_principal(principal) if record.digest != unseen]


@pytest.mark.parametrize("has_ended", [False, True])
async def test_a_session_that_got_its_new_id_while_the_store_listed_is_counted(
    clock: ManualClock, *, has_ended: bool
) -> None:
    """The limit is passed by whoever regenerates often enough; and an end makes room at once."""
    store = ListedBefore(clock=clock)
    process = OneProcess(store, clock)
    moved = await process.regenerate(await process.sign_in("alice"))
    store.unseen = moved.record.digest
    if has_ended:
        await store.delete(moved.record.digest)
    assert (await process.admit(process.admission(1, "refuse"), "alice") is not None) == has_ended
    assert len(await process.sessions("alice")) == 1


@pytest.mark.parametrize("when_full", MODES)
async def test_a_device_that_comes_back_takes_its_own_place(
    process: OneProcess, clock: ManualClock, when_full: WhenFull
) -> None:
    """A browser that was closed would throw out the phone, or be locked out by what it left behind."""
    phone = await process.sign_in("alice")
    clock.advance(60)
    laptop = secrets.token_bytes(16)
    await process.sign_in("alice", device_id=laptop)
    token = await process.remember("alice", laptop)
    async with process.admission(2, when_full).of("alice", own=None, device_id=laptop):
        back = await process.sign_in("alice", device_id=laptop)
    assert {one.digest for one in await process.sessions("alice")} == {phone.digest, back.digest}
    assert await process.store.load(token.digest) == token


async def test_a_lower_limit_than_there_are_sessions_is_reached_at_the_next_sign_in(
    process: OneProcess, clock: ManualClock
) -> None:
    """Lowering the limit would else have no effect on whoever is above it already."""
    records: list[Record] = []
    for _ in range(6):
        records.append(await process.sign_in("alice"))
        clock.advance(1)
    latest = await process.admit(process.admission(3), "alice")
    left = {one.digest for one in await process.sessions("alice")}
    assert latest is not None
    assert left == {records[4].digest, records[5].digest, latest.digest}


async def test_a_token_without_a_session_takes_no_room(process: OneProcess) -> None:
    """It is no session; ending it would forget a browser for nothing."""
    device_id = secrets.token_bytes(16)
    await process.remember("alice", device_id)
    assert await process.admit(process.admission(1, "refuse"), "alice")
    shown = {device.handle: device.remembered for device in await process.devices.of("alice")}
    assert shown[handle_of(device_id)]


# The lock


async def leave_locked(process: OneProcess, principal: str) -> None:
    """Take the lock of sign-ins as a process that is killed before it gives it back."""
    locks = SharedLocks(
        process.store, process.clock, "sign-in of one principal", spawn=process.background.spawn
    )
    await locks._take(principal, secrets.token_bytes(16))


async def test_a_process_that_dies_holds_others_up_for_its_lease_only(
    process: OneProcess, clock: ManualClock
) -> None:
    """Killed half-way through a sign-in, it would lock its user out for good."""
    await leave_locked(process, "alice")
    hasty = process.admission(1, patience=0.05)
    with pytest.raises(StoreUnavailable, match="in time"):
        async with hasty.of("alice", own=None):
            raise AssertionError("let in beside the holder")
    assert await process.admit(hasty, "bob"), "another principal has another lock"
    clock.advance(LEASE)
    assert await process.admit(hasty, "alice")


async def test_a_request_that_is_cancelled_gives_the_lock_back(process: OneProcess) -> None:
    """A user who lost patience and tries again would have to wait for the lease."""
    admission = process.admission(1, patience=5)
    inside = asyncio.Event()

    async def never_done() -> None:
        async with admission.of("alice", own=None):
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(never_done())
    await inside.wait()
    waiting = asyncio.ensure_future(process.admit(admission, "alice"))
    await asyncio.sleep(0)
    assert not waiting.done()
    task.cancel()
    assert await waiting is not None
    assert task.cancelled()


async def test_a_holder_that_hangs_is_stopped_before_its_lease_runs_out(
    process: OneProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would go on under a lock that somebody else has by then."""
    monkeypatch.setattr("eyewall.signin.shared_lock.LONGEST_HOLD", 0.02)
    stopped = asyncio.Event()

    async def hang() -> None:
        async with process.admission(1).of("alice", own=None):
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

    with pytest.raises(StoreUnavailable):
        await hang()
    assert stopped.is_set()
    assert await process.admit(process.admission(1), "alice")


async def test_what_fails_under_the_lock_is_told_as_it_is(process: OneProcess) -> None:
    """A deadline or an error of the caller's own must not turn into "the store is down"."""
    for error in (TimeoutError("mine"), ValueError("mine")):
        with pytest.raises(type(error), match="mine"):
            async with process.admission(1).of("alice", own=None):
                raise error


async def test_a_lock_that_cannot_be_given_back_does_not_undo_the_sign_in(clock: ManualClock) -> None:
    """The session is there; telling its user that it is not would lose it."""

    class FailingAtTheEnd(MemoryStore):
        down = False

        async def replace(self, record: Record, *, version: int) -> bool:
            if self.down:
                raise StoreUnavailable("down")
            return await super().replace(record, version=version)

    store = FailingAtTheEnd(clock=clock)
    process = OneProcess(store, clock)
    async with process.admission(1).of("alice", own=None):
        await process.sign_in("alice")
        store.down = True
    assert len(await process.sessions("alice")) == 1


async def test_locks_are_found_under_no_principal(process: OneProcess) -> None:
    """Ending all of a principal must not tear the lock from whoever holds it at that moment."""
    async with process.admission(1).of("alice", own=None):
        assert await cast(MemoryStore, process.store).delete_principal("alice") == 0


@pytest.mark.parametrize(("most", "when_full"), [(0, "refuse"), (-1, "end-oldest"), (1, "end-newest")])
async def test_a_limit_that_means_nothing_is_refused(process: OneProcess, most: int, when_full: str) -> None:
    """A limit of none would let nobody in; a typing error would do something else than was meant."""
    with pytest.raises(ConfigurationError):
        process.admission(most, cast(WhenFull, when_full))
