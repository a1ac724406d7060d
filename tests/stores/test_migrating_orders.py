"""A session that moves between stores keeps its promises in every order of events, and after every crash."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest

from eyewall.core.record import Record
from eyewall.stores import migrating as module
from eyewall.stores.migrating import Migrating, migrating
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import next_version
from tests.stores.interleaving import Actor, SteppedStore, World, explore, finished

CLOCK: Final = ManualClock()
HOUR: Final = timedelta(hours=1)
ALICE: Final = "alice"
OLD: Final = Record(
    digest=b"d" * 32,
    version=3,
    payload=b"as it was",
    created_at=CLOCK(),
    seen_at=CLOCK(),
    expires_at=CLOCK() + HOUR,
    principal=ALICE,
)
CHANGED: Final = b"changed"

Job = Callable[[Migrating], Coroutine[Any, Any, object]]


async def touching(store: Migrating) -> object:
    """A request that only uses the session."""
    return await store.touch(OLD.digest, CLOCK() + HOUR / 4, CLOCK() + 2 * HOUR)


async def reading(store: Migrating) -> object:
    """A request that only reads."""
    return await store.load(OLD.digest)


async def saving(store: Migrating) -> object:
    """A request that changes the session, as the writer in core does: again after each conflict."""
    while (record := await store.load(OLD.digest)) is not None:
        if await store.replace(next_version(record, payload=CHANGED), version=record.version):
            return True
    return False


async def deleting(store: Migrating) -> object:
    """Signing out."""
    return await store.delete(OLD.digest)


async def revoking(store: Migrating) -> object:
    """Ending all sessions of the principal."""
    return await store.delete_principal(ALICE)  # type: ignore[attr-defined]


def site(*jobs: Job) -> Callable[[], World]:
    """A process of its own for each job, over one old and one new store; the session is in the old one."""

    def build() -> World:
        old, new = SteppedStore(clock=CLOCK), SteppedStore(clock=CLOCK)
        old.answers = new.answers = []
        finished(old.create(OLD))
        actors = []
        for number, job in enumerate(jobs):
            handle = migrating(old, new)
            assert isinstance(handle, Migrating)
            handle._nonce = iter(range(1000 * (number + 1), 1000 * (number + 2))).__next__
            actors.append(Actor(job(handle), kind=job))
        return World((old, new), actors)

    return build


def judged(*jobs: Job) -> int:
    """Explore ``jobs``; every state is judged as it is, and as what becomes of it if all are killed there."""
    ends = {deleting, revoking}

    def judge(world: World) -> None:
        enders = [actor for actor, job in zip(world.actors, jobs, strict=True) if job in ends]
        judge_results(world, jobs, ended=any(actor.begun for actor in enders))
        judge_outdated(world)
        if any(actor.done for actor in enders):
            judge_gone(world)
        elif not any(actor.begun for actor in enders):
            judge_there(world, acknowledged=(True in results_of(saving, world, jobs)))
        judge_resumed(world)

    return explore(site(*jobs), judge)


def results_of(job: Job, world: World, jobs: tuple[Job, ...]) -> list[object]:
    """What the finished ones among those who do ``job`` returned."""
    pairs = zip(world.actors, jobs, strict=True)
    return [actor.result for actor, each in pairs if each is job and actor.done]


def judge_results(world: World, jobs: tuple[Job, ...], *, ended: bool) -> None:
    """While nobody ends the session, every reader sees it and every writer succeeds."""
    if ended:
        return
    assert None not in results_of(reading, world, jobs)
    assert False not in [*results_of(saving, world, jobs), *results_of(touching, world, jobs)]


def judge_outdated(world: World) -> None:
    """Once the new store has a change, the old record is gone: it can never come to light again."""
    old, new = world.stores
    record = new.held().get(OLD.digest)
    if record is not None and (record.payload == CHANGED or record.expires_at != OLD.expires_at):
        assert not old.held()


def judge_gone(world: World) -> None:
    """After the delete was acknowledged nobody sees the session, whatever others had begun before."""
    handle = migrating(*world.stores)
    assert finished(handle.load(OLD.digest)) is None
    assert finished(handle.find_principal(ALICE)) == []  # type: ignore[attr-defined]
    for store in world.stores:  # nor does a process that knows one store only
        record = store.held().get(OLD.digest)
        assert record is None or record.successor is not None


def judge_there(world: World, *, acknowledged: bool) -> None:
    """The session is served, whole, once, with every acknowledged change."""
    handle = migrating(*world.stores)
    record = finished(handle.load(OLD.digest))
    assert record is not None
    assert record.payload in (OLD.payload, CHANGED)
    assert record.payload == CHANGED or not acknowledged
    untouched = msgspec.structs.replace(
        record, payload=OLD.payload, version=3, seen_at=OLD.seen_at, expires_at=OLD.expires_at
    )
    assert untouched == OLD
    assert finished(handle.find_principal(ALICE)) == [record]  # type: ignore[attr-defined]


def judge_resumed(world: World) -> None:
    """Whoever comes after a crash can complete the move, and then the new store alone has the session."""
    old, new = world.stores
    handle = migrating(old, new)
    assert isinstance(handle, Migrating)
    before = finished(handle.load(OLD.digest))
    if before is None:
        assert not finished(handle.settle(OLD.digest))
        assert finished(handle.load(OLD.digest)) is None
        return
    assert finished(handle.settle(OLD.digest))
    after = finished(new.load(OLD.digest))
    assert after is not None
    assert (after.payload, after.successor) == (before.payload, None)
    assert not old.held()


@pytest.mark.timeout(240)  # 42,000 states: 10 s on an idle machine
@pytest.mark.parametrize(
    "jobs",
    [
        (touching, deleting),
        (touching, revoking),
        (touching, reading, deleting),
        (saving, deleting),
        (saving, reading),
        (touching, saving),
        (saving, saving),
        (touching, touching, deleting),
    ],
    ids=lambda jobs: "+".join(job.__name__ for job in jobs),
)
def test_every_order_of_calls_and_every_crash_keeps_the_promises(jobs: tuple[Job, ...]) -> None:
    """Signed out by a move, or signed in again after it: either would be a reason never to migrate."""
    assert judged(*jobs) > 50


@pytest.mark.parametrize("digest_of_marker", [b"m" * 32, None])
def test_marker_of_a_regenerated_session_moves_unharmed(digest_of_marker: bytes | None) -> None:
    """A marker that lost its successor would be served as a session again."""
    old, new = SteppedStore(clock=CLOCK), SteppedStore(clock=CLOCK)
    old.answers = new.answers = []
    record = msgspec.structs.replace(OLD, successor=digest_of_marker)
    finished(old.create(record))
    handle = migrating(old, new)
    assert isinstance(handle, Migrating)
    assert finished(handle.settle(record.digest))
    moved = finished(new.load(record.digest))
    assert moved is not None
    assert msgspec.structs.replace(moved, version=record.version) == record


# Proof that the exploration finds what it is there for: each protocol that skips one precaution fails.


def test_without_fresh_versions_a_deleted_session_would_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two movers and a delete: the second mover's late copy would be taken for the first's."""
    copy_of = module._copy_of
    monkeypatch.setattr(module, "_copy_of", lambda record, _: copy_of(record, record.version + 1))
    with pytest.raises(AssertionError):
        judged(touching, touching, deleting)


def test_without_the_pending_stage_a_deleted_session_would_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mover that read the old record before a delete would create it after."""
    monkeypatch.setattr(module, "_PENDING", module._DECIDED)
    with pytest.raises(AssertionError):
        judged(touching, deleting)


def test_deleting_the_new_copy_first_would_bring_sessions_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy made between the two deletes would stay."""

    async def new_first(self: Migrating, digest: bytes) -> bool:
        return await self._new.delete(digest) | await self._old.delete(digest)

    monkeypatch.setattr(Migrating, "delete", new_first)
    with pytest.raises(AssertionError):
        judged(touching, deleting)


def test_without_the_second_look_readers_would_be_signed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that moves between the two looks would be missed by both."""

    async def one_look(self: Migrating, digest: bytes) -> Record | None:
        found = module._counting(await self._new.load(digest))
        return found if found is not None else await self._load_old(digest)

    monkeypatch.setattr(Migrating, "load", one_look)
    with pytest.raises(AssertionError):
        judged(touching, reading)


def test_changing_before_the_old_record_is_gone_would_let_it_reappear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A crash would leave an outdated copy, which is served when the new record has died."""

    async def late(self: Migrating, decided: Record) -> None:
        await self._new.replace(module._settled(decided), version=decided.version)
        await self._old.delete(decided.digest)

    monkeypatch.setattr(Migrating, "_finish", late)
    with pytest.raises(AssertionError):
        judged(touching, saving)
