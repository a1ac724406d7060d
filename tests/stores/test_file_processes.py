"""The file store under several processes, and under all that can happen to a process.

``EYEWALL_TEST_KILLS`` says how many writers are killed in the middle of their work (60 unless told).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from eyewall.core.record import Record
from eyewall.errors import StoreUnavailable
from eyewall.stores.file import FileStore
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record, next_version

WORKER = Path(__file__).with_name("file_worker.py")
KILLS = int(os.environ.get("EYEWALL_TEST_KILLS", "60"))

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def clock() -> ManualClock:
    """Shows what the workers' clocks show."""
    return ManualClock()


@pytest.fixture
async def store(tmp_path: Path, clock: ManualClock) -> AsyncIterator[FileStore]:
    """Our own handle to the folder of the workers."""
    store = FileStore(tmp_path / "sessions", clock=clock, lock_timeout=timedelta(milliseconds=200))
    yield store
    await store.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a worker on the folder; kills it when the test is over."""
    with ExitStack() as cleanup:

        def start(command: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
            line = [*before, sys.executable, "-W", "ignore::DeprecationWarning", str(WORKER), command]
            line += [str(tmp_path / "sessions"), *map(str, arguments)]
            process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            cleanup.enter_context(process)
            cleanup.callback(process.kill)
            return process

        yield start


def said(process: subprocess.Popen[str]) -> str:
    """The next line a worker prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def names_in(folder: Path) -> list[str]:
    """What is in a folder."""
    return [path.name for path in folder.iterdir()]


async def created(store: FileStore, clock: ManualClock, payload: bytes) -> Record:
    """A record to quarrel about."""
    record = new_record(clock, payload=payload)
    assert await store.create(record)
    return record


async def test_hundred_writers_in_two_processes_lose_nothing(
    store: FileStore, clock: ManualClock, start: Start
) -> None:
    """Two workers behind one proxy must not overwrite each other's changes."""
    record = await created(store, clock, b"0")
    workers = [start("count", record.digest.hex(), 50) for _ in range(2)]
    assert [said(worker) for worker in workers] == ["done", "done"]
    after = await store.load(record.digest)
    assert after is not None
    assert after.payload == b"200"
    assert after.version == 201


async def test_kill_in_the_middle_of_a_write_leaves_the_old_or_the_new_record(
    store: FileStore, clock: ManualClock, start: Start, tmp_path: Path
) -> None:
    """A crash must cost no acknowledged change, sign nobody out, and leave no rubbish for ever."""
    chance = random.Random(18)
    record = await created(store, clock, b"0 " * 5000)
    breeder = start("breed_writers", record.digest.hex())
    acknowledged = 0
    for _ in range(KILLS):
        acknowledged = _last_word_of_a_killed_writer(breeder, chance, acknowledged)
        after = await store.load(record.digest)
        assert after is not None
        numbers = set(after.payload.split())
        assert len(numbers) == 1, "half a record"
        assert len(after.payload.split()) == 5000, "half a record"
        assert int(numbers.pop()) in (acknowledged, acknowledged + 1), "an acknowledged write is there"
        acknowledged = int(after.payload.split()[0])
    for other in await store.find_principal("crash"):
        assert await store.load(other.digest) == other
    await store.sweep(clock() + timedelta(hours=2), 10**6)
    assert names_in(tmp_path / "sessions" / "records") == []
    await store.find_principal("crash")
    assert names_in(tmp_path / "sessions" / "principals") == []


def _last_word_of_a_killed_writer(breeder: subprocess.Popen[str], chance: random.Random, before: int) -> int:
    """Let a writer acknowledge a few writes, kill it at a random moment, return the last it told of."""
    assert breeder.stdin is not None
    breeder.stdin.write("one more\n")
    breeder.stdin.flush()
    pid = int(said(breeder))
    last = before
    for _ in range(chance.randrange(1, 4)):
        last = int(said(breeder))
    time.sleep(chance.random() / 200)  # somewhere within the next writes
    os.kill(pid, signal.SIGKILL)
    while (line := said(breeder)) != "dead":
        last = int(line)
    return last


async def test_stopped_process_that_holds_a_lock_gives_an_outage(
    store: FileStore, clock: ManualClock, start: Start
) -> None:
    """A process stopped in a debugger must not hang every request of its session for ever."""
    record = await created(store, clock, b"here")
    holder = start("hold", record.digest.hex())
    assert said(holder) == "held"
    holder.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreUnavailable, match=r"locked by another process or thread for more than 0\.2 s"):
        await store.replace(next_version(record), version=1)
    with pytest.raises(StoreUnavailable):
        await store.delete(record.digest)
    assert await store.load(record.digest) == record, "reading needs no lock"
    holder.kill()
    holder.wait()
    assert await store.replace(next_version(record), version=1), "the kernel freed the lock of the dead"


async def test_file_that_may_not_grow_costs_nothing(
    store: FileStore, clock: ManualClock, start: Start, tmp_path: Path
) -> None:
    """A quota reached while saving must leave the old record as it was."""
    record = await created(store, clock, b"old")
    answer = said(start("limited", record.digest.hex()))
    assert answer.startswith("StoreUnavailable: the file store in ")
    assert "File too large" in answer
    assert await store.load(record.digest) == record
    assert len(names_in(tmp_path / "sessions" / "records")) == 1, "no rest of the attempt"


def test_full_disk_costs_no_record(start: Start, tmp_path: Path) -> None:
    """A full disk must refuse new sessions, keep the old ones, and still let people sign out."""
    namespace = ("unshare", "--user", "--map-root-user", "--mount")
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], check=False).returncode:
        pytest.skip("needs unshare and user namespaces to mount a small disk")
    small_disk = tmp_path / "sessions"
    small_disk.mkdir(mode=0o700)
    mount = f'mount -t tmpfs -o size=256k,mode=700 tmpfs {small_disk} && exec "$@"'
    assert said(start("fill", before=(*namespace, "sh", "-c", mount, "sh"))) == "whole"


def test_store_works_on_both_sides_of_a_fork(start: Start) -> None:
    """Threads do not survive a fork; a child that waits for its parent's threads waits for ever."""
    worker = start("fork")
    assert [said(worker) for _ in range(4)] == ["child", "child", "child", "parent"]
    assert worker.wait() == 0


async def test_child_does_not_keep_the_lock_of_its_dead_parent(
    store: FileStore, clock: ManualClock, start: Start
) -> None:
    """A lock is shared by all who inherit it; the session would be locked until the last child ends."""
    record = await created(store, clock, b"here")
    worker = start("fork_holding", record.digest.hex())
    assert said(worker) == "child"
    assert await store.replace(next_version(record), version=1)


def test_forbidden_folder_is_an_outage_and_heals(start: Start) -> None:
    """A wrong chmod must give 503 and not 500, and its repair must need no restart."""
    worker = start("forbidden")
    answer = said(worker)
    assert answer.startswith("StoreUnavailable: the file store in ")
    assert "Permission denied" in answer
    assert said(worker) == "True"
