"""Sessions copied from store to store are all there afterwards, and the command knows when they are not."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from eyewall.cli.copying import IN_FLIGHT, Copier, Mover, Tally
from eyewall.cli.progress import Progress
from eyewall.core.record import Device, Record
from eyewall.core.store import Store, utc_now
from eyewall.errors import StoreUnavailable
from eyewall.stores.memory import MemoryStore
from eyewall.stores.migrating import migrating
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import created, new_record, next_version
from tests.cli.command import Answer, eyewall, file_url, fill, in_store, kept, sqlite_url

HOUR = timedelta(hours=1)
Urls = tuple[str, str]


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture(params=[(file_url, sqlite_url), (sqlite_url, file_url)], ids=["file-sqlite", "sqlite-file"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Urls:
    """Two places: from and to."""
    makes: tuple[Callable[[Path], str], Callable[[Path], str]] = request.param
    return makes[0](tmp_path / "from"), makes[1](tmp_path / "to")


def migrate(urls: Urls, folder: Path, *options: str) -> Answer:
    """Run ``eyewall migrate``."""
    return eyewall("migrate", *urls, *options, folder=folder)


def some_records(count: int) -> list[Record]:
    """Anonymous and signed-in ones, with and without device and successor."""
    kinds: list[dict[str, object]] = [
        {},
        {"principal": "alice", "device": Device("Firefox \x1b", "::1")},
        {"successor": b"s" * 32, "payload": b""},
    ]
    return [new_record(utc_now, **kinds[number % 3]) for number in range(count)]


def test_every_session_arrives_exactly_as_it_was(urls: Urls, tmp_path: Path) -> None:
    """One that is missed or changed is somebody signed out."""
    records = some_records(2 * IN_FLIGHT + 5)
    dead = new_record(utc_now, expires_at=utc_now() - HOUR)
    fill(urls[0], *records, dead)
    answer = migrate(urls, tmp_path)
    assert answer.code == 0, answer.err
    assert "69 copied, 0 updated, 0 already there" in answer.out
    assert "69 sessions verified" in answer.out
    assert kept(urls[1], *records, dead) == [*records, None]
    assert kept(urls[0], *records) == records, "the source is only read"


def test_second_run_brings_what_has_changed_since_and_nothing_twice(urls: Urls, tmp_path: Path) -> None:
    """A run that was interrupted, or done ahead of the change-over, must not cost a fresh start."""
    same, touched, changed, late = records = some_records(4)
    fill(urls[0], *records[:3])
    assert migrate(urls, tmp_path).code == 0

    async def use(store: Store) -> None:
        await store.touch(touched.digest, touched.seen_at + HOUR / 2, touched.expires_at + HOUR)
        assert await store.replace(next_version(changed), version=1)
        assert await store.create(late)

    in_store(urls[0], use)
    answer = migrate(urls, tmp_path)
    assert answer.code == 0, answer.err
    assert "1 copied, 2 updated, 1 already there" in answer.out
    assert kept(urls[1], *records) == kept(urls[0], *records)
    assert same in kept(urls[1], same)


def test_newer_record_in_the_target_is_left_alone(urls: Urls, tmp_path: Path) -> None:
    """A run by mistake after the change-over must not undo what visitors did since."""
    (record,) = some_records(1)
    newer = next_version(record)
    fill(urls[0], record)
    fill(urls[1], newer)
    answer = migrate(urls, tmp_path)
    assert answer.code == 0, answer.err
    assert "1 already there" in answer.out
    assert kept(urls[1], record) == [newer]


def test_session_ended_between_two_runs_is_noticed_and_ended_by_prune(urls: Urls, tmp_path: Path) -> None:
    """Else a copy made ahead of time would sign somebody in again who had signed out."""
    stays, ends = some_records(2)
    fill(urls[0], stays, ends)
    assert migrate(urls, tmp_path).code == 0
    in_store(urls[0], lambda store: store.delete(ends.digest))
    answer = migrate(urls, tmp_path)
    assert answer.code == 1
    assert "TO has 1 sessions that FROM has not" in answer.err
    assert kept(urls[1], ends) == [ends], "not without being told to"
    assert migrate(urls, tmp_path, "--prune").code == 0
    assert kept(urls[1], stays, ends) == [stays, None]


def test_live_moves_what_is_left_and_says_when_the_old_store_is_done_with(urls: Urls, tmp_path: Path) -> None:
    """Nobody should have to guess when the old store can be switched off."""
    records = some_records(IN_FLIGHT + 3)
    fill(urls[0], *records)
    answer = migrate(urls, tmp_path, "--live")
    assert answer.code == 0, answer.err
    assert f"{len(records)} sessions moved" in answer.out
    assert "FROM has no live session any more" in answer.out
    moved = kept(urls[1], *records)
    assert [each and each.payload for each in moved] == [record.payload for record in records]
    assert kept(urls[0], *records) == [None] * len(records)
    assert migrate(urls, tmp_path, "--live").code == 0


def test_output_names_neither_ids_nor_passwords(tmp_path: Path) -> None:
    """The output of an operator's command ends up in tickets."""
    (record,) = some_records(1)
    source = file_url(tmp_path / "from")
    fill(source, record)
    target = "postgresql://shop:s3cr3t@127.0.0.1:1/shop?sslpassword=s3cr3t"
    answer = migrate((source, target), tmp_path)
    said = answer.out + answer.err
    assert answer.code in (1, 2)
    assert "s3cr3t" not in said
    assert record.digest.hex()[:12] not in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("memory://", "sqlite:///to.db", "FROM: sessions in memory live inside the process"),
        ("sqlite:///from.db", "memory://", "TO: sessions in memory live inside the process"),
        ("sqlite:///from.db", "sqlite:///from.db", "same store"),
        ("nowhere", "sqlite:///to.db", "FROM is not a URL"),
        ("file:///no/such/folder", "sqlite:///to.db", "FROM: there is no folder /no/such/folder"),
    ],
)
def test_pair_that_makes_no_sense_is_refused_with_the_reason(
    source: str, target: str, reason: str, tmp_path: Path
) -> None:
    """After a typing error "0 sessions copied" would be believed."""
    answer = migrate((source, target), tmp_path)
    assert answer.code == 2
    assert reason in answer.err
    assert answer.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


class Tiring(MemoryStore):
    """Refuses after a number of creates; counts how many calls are under way at once."""

    creates_left = 10**9

    async def create(self, record: Record) -> bool:
        self.creates_left -= 1
        if self.creates_left < 0:
            raise StoreUnavailable("disk full")
        return await super().create(record)


async def test_interrupted_copy_goes_on_where_it_stopped(clock: ManualClock) -> None:
    """A million sessions in, a full disk must not mean to begin again."""
    source, target = MemoryStore(clock=clock), Tiring(clock=clock)
    records = [new_record(clock) for _ in range(3 * IN_FLIGHT)]
    await created(source, *records)
    target.creates_left = IN_FLIGHT + 7
    copier = Copier(source, target, clock)
    with pytest.raises(StoreUnavailable, match="disk full"):
        await copier.copy_all(io.StringIO())
    assert await copier.verify(io.StringIO()) == (IN_FLIGHT + 7, 2 * IN_FLIGHT - 7)
    target.creates_left = 10**9
    tally = await copier.copy_all(io.StringIO())
    assert tally == Tally(copied=2 * IN_FLIGHT - 7, skipped=IN_FLIGHT + 7)
    assert await copier.verify(io.StringIO()) == (3 * IN_FLIGHT, 0)


async def test_dead_record_in_the_way_is_replaced(clock: ManualClock) -> None:
    """An expired leftover under the digest would refuse the create for ever."""
    source, target = MemoryStore(clock=clock), MemoryStore(clock=clock)
    record = new_record(clock)
    await source.create(record)
    await target.create(new_record(clock, digest=record.digest, expires_at=clock()))
    assert await Copier(source, target, clock).copy(record) == "updated"
    assert await target.load(record.digest) == record


async def test_verify_finds_what_is_wrong(clock: ManualClock) -> None:
    """A verification that cannot fail would be worse than none."""
    source, target = MemoryStore(clock=clock), MemoryStore(clock=clock)
    missing, differing, right = records = [new_record(clock) for _ in range(3)]
    await created(source, *records)
    await created(target, new_record(clock, digest=differing.digest), right)
    assert await Copier(source, target, clock).verify(io.StringIO()) == (1, 2)
    await target.create(missing)
    assert await Copier(source, target, clock).verify(io.StringIO()) == (2, 1)


async def test_moving_beside_a_serving_site_brings_nothing_deleted_back(clock: ManualClock) -> None:
    """Visitors sign out while the mover walks."""
    old, new = MemoryStore(clock=clock), MemoryStore(clock=clock)
    records = [new_record(clock) for _ in range(2 * IN_FLIGHT)]
    await created(old, *records)
    pair = migrating(old, new)
    for record in records[::2]:
        await pair.delete(record.digest)
    assert await Mover(old, new).move_all(io.StringIO()) == IN_FLIGHT
    assert len(old) == 0
    assert [await new.load(record.digest) is None for record in records] == [True, False] * IN_FLIGHT


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_progress_in_a_log_is_a_line_per_tenth() -> None:
    """A million lines would bury what matters."""
    stream = io.StringIO()
    progress = Progress("copied", 1000, stream)
    for _ in range(1000):
        progress.add(1)
    progress.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert (lines[0], lines[-1]) == ("copied: 100 of 1000 (10 %)", "copied: 1000 of 1000 (100 %)")


def test_progress_on_a_terminal_is_one_line_at_a_bounded_rate() -> None:
    """Writing to a slow terminal for every record would be slower than copying."""
    stream, ticks = Terminal(), itertools.count()
    progress = Progress("copied", 1000, stream, lambda: next(ticks) / 1000)
    for _ in range(1000):
        progress.add(1)
    progress.finish()
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().count("\r") < 20
    assert stream.getvalue().endswith("\rcopied: 1000 of 1000 (100 %)\n")
