"""Watching sessions of what stays open: what has ended is found, cheaply, and nothing else is ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from eyewall.core.announcements import Message
from eyewall.core.manager import Manager
from eyewall.core.watch import SessionWatch
from eyewall.core.watched import Watched
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import DamagedRecordError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores.file import FileStore
from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock
from tests.core.watching import Place
from tests.core.world import SECRET


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    """In memory."""
    made = Place()
    yield made
    made.store.meddle = None
    await made.manager.aclose()


# What is found


async def test_the_timer_finds_what_nobody_tells(place: Place) -> None:
    """Announcements get lost."""
    place.watch.interval = timedelta(milliseconds=10)
    watched = place.open(await place.session())
    await place.store.delete(watched.digest)
    await place.until_ended()
    assert place.ends == [(watched, "ended")]
    assert place.watch._timer is None, "and nothing runs any more"


async def test_after_a_loss_everything_is_looked_at_once(place: Place) -> None:
    """What was announced meanwhile is gone."""
    watched = place.open(await place.session())
    await place.settled()
    await place.store.delete(watched.digest)
    place.watch.lost("gone")
    SessionWatch.connected(place.watch)
    await place.until_ended()


async def test_an_end_is_told_once(place: Place) -> None:
    """A hook that runs twice writes two farewells."""
    watched = place.open(await place.session())
    await place.store.delete(watched.digest)
    await asyncio.gather(
        *(place.watch.look_at([watched.digest], "x") for _ in range(10)), place.watch.check_all()
    )
    assert len(place.ends) == 1


async def test_a_damaged_record_ends_what_is_open(place: Place) -> None:
    """Nobody can be served from it."""
    watched = place.open(await place.session())

    async def damage(_digest: bytes) -> None:
        raise DamagedRecordError("damaged")

    place.store.meddle = damage
    await place.watch.check_all()
    assert place.ends == [(watched, "ended")]


async def test_an_older_answer_does_not_undo_what_was_stored_meanwhile(place: Place) -> None:
    """A look that was on its way while a message was stored: the next message would build on the past."""
    session = await place.session(n=1)
    watched = place.open(session)
    read, go_on = asyncio.Event(), asyncio.Event()
    original = place.watch._writer.current

    async def slow(digest: bytes) -> Any:
        found = await original(digest)
        read.set()
        await go_on.wait()
        return found

    place.watch._writer.current = slow  # type: ignore[method-assign]
    looking = asyncio.create_task(place.watch.check_all())
    await read.wait()
    session["n"] = 2
    await place.manager.save(session)
    go_on.set()
    await looking
    assert session["n"] == 2
    assert watched.session.draft.record is not None
    assert watched.session.draft.record.version == 2
    place.watch._writer.current = original  # type: ignore[method-assign]


async def test_changes_not_stored_yet_survive_a_look(place: Place) -> None:
    """A message that is being served must find what it has just set."""
    session = await place.session(n=1)
    place.open(session)
    session["mine"] = "unsaved"
    parallel = place.manager.open([], https=True)
    parallel.draft.settle(session.draft.record, session.draft.payload)
    parallel["theirs"] = "stored"
    await place.manager.save(parallel)
    await place.watch.check_all()
    assert session["mine"] == "unsaved"
    await place.manager.save(session)
    assert (session["mine"], session["theirs"]) == ("unsaved", "stored")


async def test_unsaved_changes_do_not_hold_a_socket_to_an_id_that_is_gone(place: Place) -> None:
    """The marker of an old ID lives for a minute; a message may be served for longer."""
    session = await place.session("ann")
    place.open(session)
    session["mine"] = "unsaved"
    parallel = place.manager.open([], https=True)
    parallel.draft.settle(session.draft.record, session.draft.payload)
    parallel.regenerate()
    await place.manager.save(parallel)
    await place.watch.check_all()
    place.clock.advance(timedelta(minutes=2))
    await place.manager.save(session)
    assert session["mine"] == "unsaved"


# The store is down, or odd


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailable("x"),
        OSError("x"),
        RuntimeError("a bug"),
        asyncio.CancelledError(),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_store_that_fails_ends_nothing_and_floods_no_log(
    place: Place, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage signs nobody out, and is told once and not every five seconds."""
    watched = place.open(await place.session())
    await place.settled()

    async def fail(_digest: bytes) -> None:
        raise error

    place.store.meddle = fail
    with caplog.at_level(logging.INFO):
        for _ in range(10):
            place.watch._check_soon()
            await place.settled()
            place.watch.tell_ended(watched.digest, "x")
            await place.settled()
    assert place.watch.is_watching(watched)
    assert len(caplog.records) <= 2
    place.store.meddle = None
    await place.store.delete(watched.digest)
    await place.watch.check_all()
    assert place.ends == [(watched, "ended")]


async def test_an_error_at_one_session_spares_the_others(place: Place) -> None:
    """One record that cannot be read must not keep 249 other sockets open for ever."""
    odd, ended = place.open(await place.session()), place.open(await place.session())

    async def fail(digest: bytes) -> None:
        if digest == odd.digest:
            raise RuntimeError("a bug")

    place.store.meddle = fail
    await place.store.delete(ended.digest)
    await asyncio.gather(place.watch.check_all(), return_exceptions=True)
    assert [one for one, _ in place.ends] == [ended]


async def test_what_a_handler_put_into_its_session_spares_the_others(place: Place) -> None:
    """A list with something unstorable inside is one handler's bug, and only its own."""
    bad = await place.session(items=[1])
    bad["items"].append(object())
    place.open(bad)
    parallel = place.manager.open([], https=True)
    parallel.draft.settle(bad.draft.record, bad.draft.payload)
    parallel["theirs"] = "stored"
    await place.manager.save(parallel)
    ended = place.open(await place.session())
    await place.store.delete(ended.digest)
    await asyncio.gather(place.watch.check_all(), return_exceptions=True)
    assert [one for one, _ in place.ends] == [ended]


async def test_a_store_that_hangs_is_asked_by_one_check_at_a_time(place: Place) -> None:
    """Checks that pile up during an outage are a storm when it ends."""
    for _ in range(20):
        place.open(await place.session())
    await place.settled()
    mended = asyncio.Event()

    async def hang(_digest: bytes) -> None:
        await mended.wait()

    place.store.meddle = hang
    place.store.forget_calls()
    for _ in range(50):
        place.watch._check_soon()
        await asyncio.sleep(0)
    assert place.store.loads <= 20
    mended.set()
    await place.settled()
    assert place.ends == []
    assert place.store.loads <= 40


# The end of the process


async def test_what_was_ended_just_before_the_close_is_still_told(place: Place) -> None:
    """A script that revokes and exits: the servers must hear of it."""
    watched = place.open(await place.session())
    await place.settled()
    script = place.process()
    await place.store.delete(watched.digest)
    script.watch.tell_ended(watched.digest, "revoked")
    script.store = MemoryStore()  # closing the shared one would end the listening of both
    await script.aclose()
    await place.settled()
    assert place.ends == [(watched, "revoked")]


async def test_new_keys_keep_what_is_open_watched() -> None:
    """Keys are rotated while sockets are open; an encrypted store is made anew then."""
    store = MemoryStore()
    manager = Manager(Settings(backend="memory", encrypt=True, cookie_secret=SECRET), store)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    session = manager.open([], https=True)
    session["k"] = "v"
    await manager.save(session)
    ends: list[str] = []
    watched = Watched(session, ends.append, None, 1)
    manager.watch.add(watched)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    await store.delete(watched.digest)
    await manager.watch.check_all()
    assert ends == ["ended"]
    manager.watch.remove(watched)
    await manager.aclose()


# Sending


@pytest.mark.parametrize("content", [None, 5, 1.5, ["a"], object(), {"at": ManualClock()()}, {"b": b"x"}])
async def test_what_no_socket_can_send_is_refused_where_it_is_sent(place: Place, content: Any) -> None:
    """Otherwise every process logs an error for each socket, and the sender knows nothing."""
    place.open(await place.session("ann"))
    with pytest.raises((TypeError, ValueError)):
        await place.watch.send(Message("ann", content))
    await place.settled()
    assert place.messages == []


@pytest.mark.parametrize("content", ["text", b"bytes", {"a": [1, None, {"b": "c"}]}, "", "\N{SNOWMAN}"])
async def test_what_is_sent_arrives_as_it_was(place: Place, content: Any) -> None:
    """Whatever a WebSocket can send."""
    place.open(await place.session("ann"))
    place.open(await place.session("bob"))
    await place.watch.send(Message("ann", content))
    await place.settled()
    assert place.messages == [content]


async def test_too_long_is_too_long_on_every_store(tmp_path: Path) -> None:
    """What works with files in development must not fail with Redis in production."""
    settings = Settings(path=tmp_path, cookie_secret=SECRET)
    manager = Manager(settings, FileStore(tmp_path / "data", clock=ManualClock()))
    with pytest.raises(ValueError, match="bytes"):
        await manager.watch.send(Message("ann", "x" * 6_000))
    await manager.aclose()
