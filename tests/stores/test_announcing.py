"""Announcements over every store that has them: heard by all of one place, and by nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eyewall.core.announcing import MAX_MESSAGE, Announcer, Announcing, Listener, announcer_of
from eyewall.core.store import Clock, Store, utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.stores.encrypted import encrypted
from eyewall.stores.file import FileStore
from eyewall.stores.local_announcer import LocalAnnouncer
from eyewall.stores.memory import MemoryStore
from eyewall.stores.migrating import migrating
from eyewall.stores.mongodb import MongoStore
from eyewall.stores.resp import RespStore
from eyewall.stores.sql import SqlStore
from eyewall.testing import ANNOUNCER_CHECKS, announcer_checks, checks_for
from eyewall.testing.announcer_checks import hearing
from eyewall.testing.check_kit import Check, MakeStore, opened
from tests.servers.patience import PATIENCE
from tests.servers.resp import RespServer
from tests.stores.mongodb_proxy import proxied, refusing
from tests.stores.resp_kit import EVERY_KIND
from tests.stores.sql_places import Place
from tests.stores.test_store_checks import in_memory, name_of

POSTGRES = ("postgres", "postgres_debian")
OVER_A_WIRE = (*EVERY_KIND, *POSTGRES)
KEYS = KeyRing.from_secret("K7wq!vR2m#Zp9sLx4TdGh8Bn6YcJf3Ue")

OTHERS = (
    "CREATE DATABASE another",
    "CREATE ROLE neighbour LOGIN",
    'CREATE SCHEMA "An""other" AUTHORIZATION neighbour',
    'ALTER ROLE neighbour SET search_path = "An""other"',
)
"""Somebody with a schema of their own in our database, and another database."""


def opener(url: str, *, timeout: float = PATIENCE, **options: Any) -> MakeStore:
    """Handles to the place that ``url`` names."""
    kind: Any = SqlStore if url.startswith("postgres") else RespStore

    async def make(clock: Clock) -> Store:
        store: Store = kind(url, clock=clock, timeout=timeout, **options)
        return store

    return make


@asynccontextmanager
async def announcer_at(url: str, **options: Any) -> AsyncIterator[Announcer]:
    """The announcer of a store of its own."""
    async with opened(opener(url, **options), utc_now) as store:
        announcer = announcer_of(store)
        assert announcer is not None
        yield announcer


# What every announcer promises


@pytest.mark.parametrize("kind", OVER_A_WIRE)
@pytest.mark.parametrize("check", ANNOUNCER_CHECKS, ids=name_of)
async def test_announcements_over_a_wire(check: Check, kind: str, request: pytest.FixtureRequest) -> None:
    """A socket in another process stays open for somebody who has signed out."""
    await check(opener(request.getfixturevalue(kind).url))


@pytest.mark.parametrize("check", ANNOUNCER_CHECKS, ids=name_of)
async def test_announcements_within_one_process(check: Check) -> None:
    """What works with Redis must work in the first steps too."""
    await check(in_memory())


@pytest.mark.parametrize("check", ANNOUNCER_CHECKS, ids=name_of)
async def test_announcements_through_an_encrypted_store(check: Check, valkey9: RespServer) -> None:
    """Encryption at rest must not cost the prompt end of sockets."""
    inner = opener(valkey9.url, prefix="sealed:")

    async def make(clock: Clock) -> Store:
        return encrypted(await inner(clock), KEYS)

    await check(make)


@pytest.mark.parametrize("check", ANNOUNCER_CHECKS, ids=name_of)
async def test_announcements_while_migrating(check: Check, valkey9: RespServer) -> None:
    """Nor must moving to another store."""
    old, new = in_memory(), opener(valkey9.url, prefix="moved:")

    async def make(clock: Clock) -> Store:
        return migrating(await old(clock), await new(clock))

    await check(make)


async def test_stores_that_cannot_announce_say_so(tmp_path: Path, mongodb: Any) -> None:
    """An application that relies on what never comes leaves sockets open."""
    silent: list[Store] = [
        FileStore(tmp_path / "sessions", clock=utc_now),
        SqlStore(f"sqlite:///{tmp_path / 'sessions.db'}"),
        MongoStore(mongodb.url),
    ]
    for store in (*silent, encrypted(silent[0], KEYS), migrating(silent[0], silent[1])):
        assert announcer_of(store) is None
    for store in silent:
        await store.close()


async def test_a_migration_announces_by_the_old_store_when_the_new_one_cannot(tmp_path: Path) -> None:
    """During a move all processes run the same pair; one of the two is enough."""
    old = MemoryStore()
    assert announcer_of(migrating(old, FileStore(tmp_path, clock=utc_now))) is old.announcer()


async def test_a_check_says_that_the_capability_is_missing(tmp_path: Path) -> None:
    """Running the checks on a store that cannot announce must not look like a success."""

    async def make(clock: Clock) -> Store:
        return FileStore(tmp_path, clock=clock)

    for check in ANNOUNCER_CHECKS:
        with pytest.raises(AssertionError, match="FileStore should be able to announce"):
            await check(make)


class Repeating(LocalAnnouncer):
    """Sends everything twice."""

    async def announce(self, message: bytes) -> None:
        await super().announce(message)
        await super().announce(message)


class CuttingShort(LocalAnnouncer):
    """Takes NUL for the end, as text in C does."""

    async def announce(self, message: bytes) -> None:
        await super().announce(message.partition(b"\0")[0])


class TakingAnything(LocalAnnouncer):
    """Knows no limit."""

    async def announce(self, message: bytes) -> None:
        await super().announce(message[:MAX_MESSAGE])


class Overtaking(LocalAnnouncer):
    """Sends some later than it says."""

    def __init__(self) -> None:
        super().__init__()
        self._held: list[bytes] = []

    async def announce(self, message: bytes) -> None:
        if message.endswith(b"7"):
            self._held.append(message)
            return
        await super().announce(message)
        while self._held:
            await super().announce(self._held.pop())


class NeverClosing(LocalAnnouncer):
    """What listens through it goes on."""

    def listen(self, listener: Listener) -> Any:
        super().listen(listener)
        return OpenForEver()


class OpenForEver:
    """Closes nothing."""

    async def aclose(self) -> None:
        """Do nothing."""


class LeavingTasks(LocalAnnouncer):
    """Starts a task for each listener and forgets it."""

    def listen(self, listener: Listener) -> Any:
        self.task = asyncio.ensure_future(asyncio.sleep(0.5))
        return super().listen(listener)


BROKEN = {
    "an_announcement_is_heard_by_all": Repeating,
    "an_announcement_is_exactly_what_was_sent": CuttingShort,
    "a_long_announcement_is_refused": TakingAnything,
    "a_flood_is_heard_in_order": Overtaking,
    "nothing_is_heard_after_closing": NeverClosing,
    "closing_twice_does_nothing_more": NeverClosing,
    "closing_the_store_ends_its_listeners": LeavingTasks,
}


@pytest.mark.parametrize(("promise", "kind"), BROKEN.items())
async def test_an_announcer_that_breaks_a_promise_is_caught(promise: str, kind: type[LocalAnnouncer]) -> None:
    """A check that cannot fail would certify an announcer that leaves sockets open."""

    class Broken(MemoryStore):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._announcer = kind()

    (check,) = [check for check in ANNOUNCER_CHECKS if name_of(check) == promise]
    with pytest.raises(AssertionError, match="broken promise: "):
        await check(in_memory(Broken))


def test_every_check_written_is_listed() -> None:
    """A check that nobody runs is a promise nobody keeps."""
    written = {name for name in vars(announcer_checks) if name.startswith("check_")}
    assert written == {check.__name__ for check in ANNOUNCER_CHECKS}
    assert set(checks_for(MemoryStore, announces=True)) - set(checks_for(MemoryStore)) == {*ANNOUNCER_CHECKS}
    assert isinstance(MemoryStore(), Announcing)


@pytest.mark.parametrize("check", ANNOUNCER_CHECKS, ids=name_of)
async def test_announcements_by_change_streams(check: Check, mongodb: Any) -> None:
    """As by Redis; the server tells of what is inserted."""

    async def make(clock: Clock) -> Store:
        store = MongoStore(mongodb.url, clock=clock, timeout=PATIENCE)
        assert announcer_of(store) is None  # before anybody has asked the server
        await store.check()
        return store

    await check(make)


async def test_a_server_without_change_streams_is_found_out(mongodb: Any) -> None:
    """A MongoDB that stands alone would refuse every listener, for ever."""
    alone = refusing("aggregate", 40573, when="$changeStream")
    async with proxied(mongodb.url, alone) as host:
        store = MongoStore(f"mongodb://{host}/eyewall", timeout=PATIENCE)
        await store.check()
        assert announcer_of(store) is None
        await store.close()


# Who hears whom


async def test_other_prefixes_and_databases_hear_nothing(valkey9: RespServer) -> None:
    """Two applications on one server: what ends here must not make work there."""
    elsewhere = valkey9.url.removesuffix("/0") + "/1"
    async with (
        announcer_at(valkey9.url) as here,
        announcer_at(valkey9.url, prefix="other:") as prefixed,
        announcer_at(elsewhere) as numbered,
    ):
        await _require_apart(here, prefixed, numbered)


async def test_other_tables_schemas_and_databases_hear_nothing(postgres: Any) -> None:
    """The same table's name in another schema, or another database, is another application's."""
    place = Place(postgres.url)
    await administer(postgres.url, *OTHERS)
    elsewhere = postgres.url.removesuffix("/postgres") + "/another"
    neighbour = postgres.url.replace("postgres@", "neighbour@")
    async with (
        announcer_at(place.url, table=place.table) as here,
        announcer_at(place.url, table="Other") as table,
        announcer_at(neighbour, table=place.table) as schema,
        announcer_at(elsewhere, table=place.table) as database,
    ):
        await _require_apart(here, table, schema, database)


async def _require_apart(*announcers: Announcer) -> None:
    async with asyncio.timeout(PATIENCE):
        here, *others = announcers
        async with hearing(here) as hearer:
            for number, other in enumerate(others):
                async with hearing(other) as foreign:
                    await here.announce(b"here %d" % number)
                    await other.announce(b"there")
                    await foreign.until_heard(b"there")
                    await hearer.until_heard(b"here %d" % number)
                    assert foreign.messages == [b"there"]
            assert b"there" not in hearer.messages


async def administer(url: str, *statements: str) -> None:
    """Execute ``statements`` behind every store's back."""
    import asyncpg

    connection = await asyncpg.connect(url)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()
