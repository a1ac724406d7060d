"""The file store reads and writes several records together: what that must not break."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from eyewall.core.record import Record
from eyewall.errors import DamagedRecordError, StoreUnavailable
from eyewall.stores import folder as folder_module
from eyewall.stores.file import FileStore
from eyewall.stores.folder import read_file
from eyewall.stores.locks import FolderLocks
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record, next_version

MANY = 40


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Where the record files are."""
    return tmp_path / "sessions" / "records"


@pytest.fixture
async def store(records: Path, clock: ManualClock) -> AsyncIterator[FileStore]:
    """A store in an empty folder; waits for locks longer than any test takes."""
    store = FileStore(records.parent, clock=clock, lock_timeout=timedelta(seconds=30))
    yield store
    await store.close()


def names(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


async def test_records_read_together_are_each_their_own(
    store: FileStore, records: Path, clock: ManualClock
) -> None:
    """One that is damaged, gone, dead or somebody else's must be that for whoever asked for it alone."""
    good = [new_record(clock, payload=b"%d" % number) for number in range(MANY)]
    dead = new_record(clock, expires_at=clock() - timedelta(seconds=1))
    await asyncio.gather(*map(store.create, [*good, dead]))
    damaged, swapped, missing = (new_record(clock) for _ in range(3))
    (records / damaged.digest.hex()).write_bytes(b"\x92\x01")
    (records / swapped.digest.hex()).write_bytes((records / good[0].digest.hex()).read_bytes())
    asked = [damaged, *good[:20], dead, swapped, *good[20:], missing]
    answers = await asyncio.gather(*(store.load(record.digest) for record in asked), return_exceptions=True)
    assert [isinstance(answer, DamagedRecordError) for answer in answers].count(True) == 2
    assert isinstance(answers[0], DamagedRecordError)
    assert isinstance(answers[22], DamagedRecordError)
    assert answers[21] is answers[-1] is None
    assert [*answers[1:21], *answers[23:-1]] == good


async def test_of_writes_that_come_together_to_one_version_one_wins(
    store: FileStore, clock: ManualClock
) -> None:
    """Two winners are a lost change, however close together they come."""
    record = new_record(clock)
    assert sorted(await asyncio.gather(*(store.create(record) for _ in range(MANY)))) == [
        *[False] * (MANY - 1),
        True,
    ]
    for version in range(1, 4):
        rivals = [next_version(record, version=version + 1, payload=b"%d" % n) for n in range(MANY)]
        won = await asyncio.gather(*(store.replace(rival, version=version) for rival in rivals))
        assert won.count(True) == 1
        assert await store.load(record.digest) == rivals[won.index(True)]


async def test_a_write_that_fails_fails_alone_and_leaves_no_rest(
    store: FileStore, records: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One session that the disk refuses must not cost the others that are saved in the same moment."""
    written = [new_record(clock, payload=b"%d" % number) for number in range(MANY)]
    real_write, real_fsync = os.write, os.fsync

    def refuse_one(descriptor: int, blob: bytes) -> int:
        if written[3].digest in blob:
            raise OSError(28, "No space left on device")
        return real_write(descriptor, blob)

    def fail_one(descriptor: int) -> None:
        if written[4].digest in Path(f"/proc/self/fd/{descriptor}").read_bytes():
            raise OSError(5, "Input/output error")
        real_fsync(descriptor)

    def fail_one_file(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_file():
            fail_one(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", refuse_one)
        patched.setattr(os, "fsync", fail_one_file)
        answers = await asyncio.gather(*map(store.create, written), return_exceptions=True)
    assert [str(a).rpartition("] ")[2] for a in answers if a is not True] == [
        "No space left on device",
        "Input/output error",
    ]
    assert isinstance(answers[3], StoreUnavailable)
    assert isinstance(answers[4], StoreUnavailable)
    assert names(records) == {r.digest.hex() for r in [*written[:3], *written[5:]]}


@pytest.mark.parametrize("replacing", [False, True])
async def test_no_record_takes_its_name_before_it_is_on_disk_nor_is_told_of_before_the_name_is(
    store: FileStore, records: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, *, replacing: bool
) -> None:
    """After a power cut a name without its content is half a record, and one without its name is lost."""
    first = [new_record(clock) for _ in range(MANY)]
    if replacing:
        await asyncio.gather(*map(store.create, first))
    new = [next_version(record, payload=b"new") for record in first]
    forced: set[bytes] = set()
    named: set[bytes] = set()
    wrong: list[str] = []
    asked: list[asyncio.Future[bool]] = []
    real = os.fsync

    def there() -> set[bytes]:
        blobs = {path.read_bytes() for path in records.iterdir() if not path.name.startswith("tmp-")}
        return {record.digest for record in new for blob in blobs if record.digest in blob and b"new" in blob}

    def watching(descriptor: int) -> None:
        real(descriptor)
        target = Path(f"/proc/self/fd/{descriptor}")
        if target.is_dir():
            named.update(there())
        else:
            blob = target.read_bytes()
            forced.update(record.digest for record in new if record.digest in blob)

    def check(one: Record, _: object) -> None:
        if one.digest not in named:
            wrong.append("told before its name was on disk")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", watching)
        for record in new:
            call = store.replace(record, version=1) if replacing else store.create(record)
            asked.append(asyncio.ensure_future(call))
            asked[-1].add_done_callback(partial(check, record))
        while not all(one.done() for one in asked):
            unforced = there() - forced
            wrong += ["named before it was on disk"] * len(unforced)
            await asyncio.sleep(0)
    assert [await one for one in asked] == [True] * MANY
    assert wrong == []
    assert forced == named == {record.digest for record in new}


async def test_names_that_do_not_reach_the_disk_are_not_told_of(
    store: FileStore, records: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that the folder may forget must not be called saved."""
    real = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(5, "Input/output error")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse_folders)
        calls = (store.create(new_record(clock)) for _ in range(MANY))
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    assert not any(name.startswith("tmp-") for name in names(records))


async def test_a_lock_that_is_held_delays_nobody_who_writes_in_the_same_moment(
    store: FileStore, records: Path, clock: ManualClock
) -> None:
    """One process stopped in the middle of a save must not hold up every other session's."""
    stuck = [new_record(clock, digest=bytes([0]) + os.urandom(31)) for _ in range(MANY)]
    free = [new_record(clock, digest=bytes([1 + n % 63]) + os.urandom(31)) for n in range(MANY)]
    with FolderLocks(records.parent / "locks", timedelta(1)).holding(stuck[0].digest):
        waiting = [asyncio.ensure_future(store.create(record)) for record in stuck]
        async with asyncio.timeout(10):
            assert await asyncio.gather(*map(store.create, free)) == [True] * MANY
        assert not any(one.done() for one in waiting)
    assert await asyncio.gather(*waiting) == [True] * MANY


async def test_a_disk_that_takes_a_part_of_a_write_gets_the_rest(
    store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a record under its name would sign its owner out."""
    real = os.write
    record = new_record(clock, payload=bytes(range(256)) * 40)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda descriptor, blob: real(descriptor, blob[:1000]))
        assert await store.create(record)
    assert await store.load(record.digest) == record


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_file_that_has_grown_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A backup that is being copied back grows; its first half alone would be damage."""
    path, content = tmp_path / "file", bytes(range(250)) * 4
    path.write_bytes(content)
    real = folder_module._read_all
    monkeypatch.setattr(folder_module, "_read_all", lambda descriptor, _: real(descriptor, size))
    assert read_file(str(path)) == content


async def test_systems_without_hints_to_the_disk_store_all_the_same(
    store: FileStore, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no such call on macOS, and some file systems refuse it."""

    def refuse(*_: object) -> None:
        raise OSError(22, "Invalid argument")

    for name in ("refused", "missing"):
        with monkeypatch.context() as patched:
            if name == "refused":
                patched.setattr(os, "posix_fadvise", refuse, raising=False)
            else:
                patched.delattr(os, "posix_fadvise", raising=False)
            record = new_record(clock)
            assert await store.create(record)
        assert await store.load(record.digest) == record


async def test_closing_carries_out_all_that_was_asked_for(store: FileStore, clock: ManualClock) -> None:
    """A deployment in the middle of many saves must lose none of them."""
    records = [new_record(clock) for _ in range(3 * MANY)]
    saving = [asyncio.ensure_future(store.create(record)) for record in records]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*saving) == [True] * len(records)
    assert await asyncio.gather(*(store.load(record.digest) for record in records)) == records
