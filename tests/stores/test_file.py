"""What the file store promises beyond the contract: privacy, distrust of the folder, and 503 not 500."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eyewall.core.record import Record
from eyewall.errors import ConfigurationError, DamagedRecordError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores import locks
from eyewall.stores.file import FileStore
from eyewall.stores.locks import FolderLocks
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record, next_version

HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the store is; not made yet."""
    return tmp_path / "sessions"


@pytest.fixture
async def store(folder: Path, clock: ManualClock) -> AsyncIterator[FileStore]:
    """A store in an empty folder; waits for locks for a twentieth of a second."""
    store = FileStore(folder, clock=clock, lock_timeout=timedelta(milliseconds=50))
    yield store
    await store.close()


def path_of(folder: Path, record: Record) -> Path:
    """The record's file."""
    return folder / "records" / record.digest.hex()


def marker_of(folder: Path, record: Record) -> Path:
    """The one marker that suggests whose the record is."""
    (marker,) = (folder / "principals").glob(f"*/{record.digest.hex()}")
    return marker


def modes_below(folder: Path) -> dict[Path, int]:
    """The permissions of everything in ``folder`` that could tell a secret."""
    paths = [folder, *(path for path in folder.rglob("*") if path.name != ".gitignore")]
    return {path: stat.S_IMODE(path.stat().st_mode) for path in paths}


def move(old: Path, new: Path) -> None:
    """What an operator does behind the store's back."""
    old.rename(new)


async def test_nobody_else_can_read_the_records(store: FileStore, folder: Path, clock: ManualClock) -> None:
    """Records name who is signed in; on a shared machine others must not even list them."""
    previous = os.umask(0)
    try:
        record = new_record(clock, principal="alice")
        await store.create(record)
    finally:
        os.umask(previous)
    for path, mode in modes_below(folder).items():
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_folder_is_never_committed_by_accident(store: FileStore, folder: Path) -> None:
    """Sessions in a public repository are sessions given away."""
    assert (folder / ".gitignore").read_text() == "*\n"


def test_folder_that_lets_others_in_is_refused_with_the_fix(folder: Path) -> None:
    """Whoever can write there can sign in as anybody."""
    folder.mkdir()
    for mode in (0o755, 0o710, 0o701, 0o770):
        folder.chmod(mode)
        with pytest.raises(ConfigurationError, match=f"chmod 700 {folder}"):
            FileStore(folder)
    folder.chmod(0o700)
    FileStore(folder)


@pytest.mark.parametrize("name", ["records", "principals", "locks"])
def test_inner_folder_that_lets_others_in_is_refused(folder: Path, name: str) -> None:
    """A private folder around a link to a public one is no protection."""
    FileStore(folder)
    (folder / name).chmod(0o777)
    with pytest.raises(ConfigurationError, match=f"chmod 700 {folder / name}"):
        FileStore(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_folder_of_somebody_else_is_refused(folder: Path) -> None:
    """Its owner could change every record in it."""
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, -1)
    with pytest.raises(ConfigurationError, match=f"belongs to user 65534.*chown {os.geteuid()} {folder}"):
        FileStore(folder)


def test_what_is_no_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    """A link planted beforehand would put the records where somebody else wants them."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.symlink_to(elsewhere)
    with pytest.raises(ConfigurationError, match="is not a folder"):
        FileStore(folder)
    folder.unlink()
    folder.write_text("a file")
    with pytest.raises(ConfigurationError, match="is not a folder"):
        FileStore(folder)
    with pytest.raises(ConfigurationError, match="cannot make the folder"):
        FileStore(folder / "below a file")
    assert list(elsewhere.iterdir()) == []


def test_system_without_file_locks_is_told_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks two processes would lose each other's changes in silence."""
    monkeypatch.setattr(locks, "fcntl", None)
    with pytest.raises(ConfigurationError, match="fcntl"):
        FileStore(folder)
    assert not folder.exists()


async def test_store_is_made_from_settings(folder: Path, clock: ManualClock) -> None:
    """The application chooses its store by settings alone."""
    store = FileStore.from_settings(Settings(backend="file", path=folder), clock)
    await store.create(record := new_record(clock))
    assert path_of(folder, record).is_file()
    await store.close()


def plant_link(path: Path, target: Path) -> None:
    """A symbolic link to somebody's file."""
    path.symlink_to(target)


def plant_dangling_link(path: Path, target: Path) -> None:
    """A symbolic link to nothing."""
    path.symlink_to(target.with_name("nothing"))


def plant_folder(path: Path, target: Path) -> None:
    """A folder where a file should be."""
    path.mkdir()


def plant_pipe(path: Path, target: Path) -> None:
    """A pipe that nobody writes to: opening it could wait for ever."""
    os.mkfifo(path)


def plant_socket(path: Path, target: Path) -> None:
    """A socket, which cannot be opened at all."""
    with socket.socket(socket.AF_UNIX) as listener:
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:  # the path of a socket may be 108 bytes long at most
            listener.bind(f"/proc/self/fd/{descriptor}/{path.name}")
        finally:
            os.close(descriptor)


PLANTS = [plant_link, plant_dangling_link, plant_folder, plant_pipe, plant_socket]


@pytest.mark.parametrize("plant", PLANTS)
async def test_what_is_planted_is_never_followed(
    store: FileStore, folder: Path, clock: ManualClock, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    """A link to a secret would be read, and one to a program overwritten, with our rights."""
    record = new_record(clock)
    target = tmp_path / "target"
    target.write_bytes(b"somebody's")
    target.chmod(0o444)
    plant(path_of(folder, record), target)
    with pytest.raises(DamagedRecordError):
        await store.load(record.digest)
    assert await store.create(record) is False
    assert await store.replace(next_version(record), version=1) is False
    assert await store.touch(record.digest, clock(), clock() + HOUR) is False
    await store.sweep(clock() + 100 * HOUR, 10)
    await store.delete(record.digest)
    assert await store.load(record.digest) is None
    assert target.read_bytes() == b"somebody's"
    assert not target.with_name("nothing").exists()
    assert await store.create(record) is True


async def test_planted_folder_with_content_is_left_to_its_owner(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """Removing a tree that somebody made is not the business of a sign-out; and it is no 500 either."""
    record = new_record(clock)
    path_of(folder, record).mkdir()
    (path_of(folder, record) / "theirs").touch()
    with pytest.raises(StoreUnavailable, match=record.digest.hex()):
        await store.delete(record.digest)


async def test_modification_time_tells_when_a_record_dies(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """Sweeping a million sessions must not open a million files."""
    end = datetime(2027, 1, 2, 3, 4, 5, 678_901, UTC)
    record = new_record(clock, expires_at=end)
    await store.create(record)
    assert path_of(folder, record).stat().st_mtime_ns == 1_798_859_045_678_901_000
    await store.touch(record.digest, clock(), end + timedelta(microseconds=1))
    assert path_of(folder, record).stat().st_mtime_ns == 1_798_859_045_678_902_000
    await store.replace(next_version(record), version=1)
    assert path_of(folder, record).stat().st_mtime_ns == 1_798_859_045_678_901_000


async def test_backup_restored_without_its_times_loses_nobody(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """The times of a copied folder are those of the copying; a sweep must not sign everybody out."""
    record = new_record(clock)
    await store.create(record)
    before = path_of(folder, record).stat().st_mtime_ns
    os.utime(path_of(folder, record), (1, 1))
    assert await store.sweep(clock(), 10) == 0
    assert await store.load(record.digest) == record
    assert path_of(folder, record).stat().st_mtime_ns == before, "mended, so the next sweep need not look"


async def test_sweep_removes_what_killed_writers_left(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """Left-overs of crashes would fill the disk; those of writers at work must stay."""
    now = int(clock().timestamp())
    names = {f"tmp-{now - 3601}-aa": False, f"tmp-{now - 3599}-bb": True, "tmp-x-cc": True, "README": True}
    for name in names:
        (folder / "records" / name).touch()
    assert await store.sweep(clock(), 10) == 0
    assert {name: (folder / "records" / name).exists() for name in names} == names


async def test_sweep_takes_markers_along(store: FileStore, folder: Path, clock: ManualClock) -> None:
    """An index that only grows is a leak, and tells for ever who was here."""
    for _ in range(3):
        await store.create(new_record(clock, principal="alice"))
    clock.advance(HOUR)
    assert await store.sweep(clock(), 10) == 3
    assert list((folder / "principals").iterdir()) == []


async def test_index_forgets_who_signed_out(store: FileStore, folder: Path, clock: ManualClock) -> None:
    """Markers tell whose sessions there are; one that stays behind costs every later look-up, too."""
    record = new_record(clock, principal="alice")
    await store.create(record)
    first = marker_of(folder, record)
    await store.replace(next_version(record, principal="bob"), version=1)
    assert marker_of(folder, record) != first
    await store.replace(next_version(record, version=3, principal=None), version=2)
    assert not list((folder / "principals").iterdir())
    await store.create(other := new_record(clock, principal="alice"))
    await store.delete(other.digest)
    assert not list((folder / "principals").iterdir())


async def test_index_names_nobody(store: FileStore, folder: Path, clock: ManualClock) -> None:
    """A principal may hold slashes, dots and NULs; as a path it would leave the folder."""
    for principal in ("../../alice", "/etc/passwd", "a\0b", "", "x" * 5000, "\ud800"):
        if principal.isprintable():
            await store.create(new_record(clock, principal=principal))
        assert isinstance(await store.find_principal(principal), list)
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}
    assert all(len(path.name) == 64 for path in (folder / "principals").iterdir())


async def test_wrong_markers_are_not_believed_and_go(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """A marker left by a crash must not show one person the session of another."""
    hers, his = new_record(clock, principal="alice"), new_record(clock, principal="bob")
    await store.create(hers)
    await store.create(his)
    index_of_alice = marker_of(folder, hers).parent
    (index_of_alice / his.digest.hex()).touch()
    (index_of_alice / new_record(clock).digest.hex()).touch()
    (index_of_alice / "not a digest").touch()
    assert await store.delete_principal("nobody") == 0
    assert await store.find_principal("alice") == [hers]
    assert {path.name for path in index_of_alice.iterdir()} == {hers.digest.hex(), "not a digest"}
    (index_of_alice / his.digest.hex()).touch()
    assert await store.delete_principal("alice") == 1
    assert await store.load(his.digest) == his


async def test_folder_that_is_gone_is_an_outage_and_not_a_sign_out(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """A disk that is not mounted must give 503; saying "no such session" would sign everybody out."""
    record = new_record(clock, principal="alice")
    await store.create(record)
    move(folder, folder.with_name("away"))
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.create(new_record(clock)),
        lambda: store.load(record.digest),
        lambda: store.replace(next_version(record), version=1),
        lambda: store.touch(record.digest, clock(), clock() + HOUR),
        lambda: store.delete(record.digest),
        lambda: store.sweep(clock(), 1),
        lambda: store.find_principal("alice"),
        lambda: store.delete_principal("alice"),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="No such file or directory"):
            await call()
    with pytest.raises(StoreUnavailable):
        _ = [record async for record in store.scan()]
    move(folder.with_name("away"), folder)
    assert await store.load(record.digest) == record, "and it works again without a restart"


async def test_inner_folder_that_is_gone_is_an_outage(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """Half a folder is not an empty store."""
    shutil.rmtree(folder / "records")
    with pytest.raises(StoreUnavailable, match="records"):
        await store.load(new_record(clock).digest)
    with pytest.raises(StoreUnavailable, match="records"):
        await store.delete(new_record(clock).digest)
    shutil.rmtree(folder / "principals")
    with pytest.raises(StoreUnavailable, match="principals"):
        await store.find_principal("alice")


async def test_failed_write_leaves_the_old_record_and_no_rest(
    store: FileStore, folder: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk that reports its error only at fsync must not cost the record that was there."""
    record = new_record(clock)
    await store.create(record)

    def refuse(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", refuse)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            await store.replace(next_version(record), version=1)
        with pytest.raises(StoreUnavailable, match="Input/output error"):
            await store.create(new_record(clock))
    assert await store.load(record.digest) == record
    assert [path.name for path in (folder / "records").iterdir()] == [record.digest.hex()]


async def test_lock_that_is_held_gives_an_outage_for_its_records_only(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """One writer that hangs must not take the whole site down, nor stop anybody from reading."""
    stuck = new_record(clock, digest=b"\0" * 32)
    free = new_record(clock, digest=b"\1" * 32)
    await store.create(stuck)
    await store.create(free)
    with FolderLocks(folder / "locks", HOUR).holding(stuck.digest):
        with pytest.raises(StoreUnavailable, match=r"locks/00 is locked .* more than 0\.05 s"):
            await store.replace(next_version(stuck), version=1)
        assert await store.load(stuck.digest) == stuck
        assert await store.replace(next_version(free), version=1)
    assert await store.replace(next_version(stuck), version=1)


async def test_lock_held_by_a_thread_of_ours_gives_an_outage_too(folder: Path, clock: ManualClock) -> None:
    """A thread that hangs in the disk must not hang the others."""
    FileStore(folder)
    ours = FolderLocks(folder / "locks", timedelta(milliseconds=20))

    def wait_in_vain() -> None:
        with pytest.raises(StoreUnavailable, match="locks/07"), ours.holding(b"\7" * 32):
            pytest.fail("two threads held one lock")

    with ours.holding(b"\7" * 32):
        await asyncio.to_thread(wait_in_vain)


async def test_waiting_for_a_lock_does_not_stop_the_loop(
    store: FileStore, folder: Path, clock: ManualClock
) -> None:
    """While one request waits, the others are served."""
    record = new_record(clock)
    turns = 0
    with FolderLocks(folder / "locks", HOUR).holding(record.digest):
        waiting = asyncio.ensure_future(store.create(record))
        while not waiting.done():
            await asyncio.sleep(0)
            turns += 1
    with pytest.raises(StoreUnavailable):
        await waiting
    assert turns > 100


async def test_close_ends_the_threads(store: FileStore, clock: ManualClock) -> None:
    """A store that is closed must not keep the process alive."""
    await store.create(new_record(clock))
    assert any(thread.name.startswith("eyewall-files") for thread in threading.enumerate())
    await store.close()
    assert not any(thread.name.startswith("eyewall-files") for thread in threading.enumerate())


async def test_calls_under_way_finish_when_the_store_is_closed(store: FileStore, clock: ManualClock) -> None:
    """A deployment in the middle of a save must not lose it."""
    record = new_record(clock)
    saving = asyncio.ensure_future(store.create(record))
    await asyncio.sleep(0)
    await store.close()
    assert await saving
    assert await store.load(record.digest) == record
