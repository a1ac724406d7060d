"""A process of its own on a folder of the file store, for tests that stop, starve or kill it.

Run as ``python file_worker.py COMMAND FOLDER [ARGUMENT ...]``; each command below says what it prints.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from eyewall.errors import StoreUnavailable
from eyewall.stores.file import FileStore
from eyewall.stores.locks import FolderLocks
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record, next_version

HOUR = timedelta(hours=1)
CLOCK = ManualClock()


def say(word: object) -> None:
    """Print at once, so that the test knows how far we are."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def count(folder: str, digest: str, writers: str) -> None:
    """``writers`` tasks add 1 to the record's number, each twice, by load and replace; prints "done"."""
    asyncio.run(
        _count(FileStore(folder, clock=CLOCK, lock_timeout=HOUR), bytes.fromhex(digest), int(writers))
    )
    say("done")


async def _count(store: FileStore, digest: bytes, writers: int) -> None:
    await asyncio.gather(*(_add_one(store, digest) for _ in range(writers) for _ in range(2)))
    await store.close()


async def _add_one(store: FileStore, digest: bytes) -> None:
    while True:
        record = await store.load(digest)
        assert record is not None
        new = next_version(record, payload=b"%d" % (int(record.payload) + 1))
        if await store.replace(new, version=record.version):
            return


def breed_writers(folder: str, digest: str) -> None:
    """For each line of input fork a writer and wait for its death; prints its pid, and "dead"."""
    breeder = os.getpid()
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            say(os.getpid())
            asyncio.run(_write_under(breeder, FileStore(folder, clock=CLOCK), bytes.fromhex(digest)))
            os._exit(0)
        os.waitpid(child, 0)
        say("dead")


async def _write_under(parent: int, store: FileStore, digest: bytes) -> None:
    """Replace, touch and create until killed; prints each number after the store acknowledged it."""
    while os.getppid() == parent:
        record = await store.load(digest)
        assert record is not None
        number = int(record.payload.split()[0]) + 1
        await store.touch(digest, CLOCK(), CLOCK() + HOUR)
        await store.create(new_record(CLOCK, principal="crash"))
        # Long, so that half of it would be noticed.
        await store.replace(next_version(record, payload=b"%d " % number * 5000), version=record.version)
        say(number)


def hold(folder: str, digest: str) -> None:
    """Print "held" while holding the record's lock, until the test stops, kills or forgets us."""
    with FolderLocks(Path(folder) / "locks", HOUR).holding(bytes.fromhex(digest)):
        say("held")
        sys.stdin.read()


def limited(folder: str, digest: str) -> None:
    """Write more than a file may hold; prints the error's class and text."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    say(asyncio.run(_replace_by_much(FileStore(folder, clock=CLOCK), bytes.fromhex(digest))))


async def _replace_by_much(store: FileStore, digest: bytes) -> str:
    record = await store.load(digest)
    assert record is not None
    try:
        await store.replace(next_version(record, payload=bytes(65_536)), version=record.version)
    except StoreUnavailable as error:
        return f"StoreUnavailable: {error}"
    return "replaced"


def fill(folder: str) -> None:
    """Fill a small disk with records; prints "whole" when all that was acknowledged is still there."""
    say(asyncio.run(_fill(FileStore(folder, clock=CLOCK))))


async def _fill(store: FileStore) -> str:
    records = [new_record(CLOCK, payload=bytes(8192)) for _ in range(100)]
    acknowledged = []
    try:
        for record in records:
            await store.create(record)
            acknowledged.append(record)
    except StoreUnavailable as error:
        assert "No space left" in str(error), error  # noqa: PT017 - the disk must be what refuses
    assert 0 < len(acknowledged) < 100, len(acknowledged)
    try:
        await store.replace(next_version(acknowledged[0], payload=bytes(60_000)), version=1)
    except StoreUnavailable:
        assert [await store.load(record.digest) for record in acknowledged] == acknowledged
    else:
        return "replaced on a full disk"
    assert await store.delete(acknowledged.pop().digest), "a sign-out needs no space"
    assert await store.delete(acknowledged.pop().digest)
    assert await store.create(new_record(CLOCK, payload=bytes(8192))), "and gives some back"
    return "whole"


def fork(folder: str) -> None:
    """Use one store before and after forking; prints "child" three times, then "parent"."""
    store = FileStore(folder, clock=CLOCK)
    asyncio.run(_use(store))
    for _ in range(3):
        child = os.fork()
        if child == 0:
            signal.alarm(30)  # a child that hangs must not outlive the test that found it
            asyncio.run(_use(store))
            say("child")
            os._exit(0)
        os.waitpid(child, 0)
    asyncio.run(_use(store))
    say("parent")


async def _use(store: FileStore) -> None:
    record = new_record(CLOCK)
    await asyncio.gather(store.create(record), *(store.create(new_record(CLOCK)) for _ in range(20)))
    assert await store.load(record.digest) == record


def fork_holding(folder: str, digest: str) -> None:
    """Fork while holding a lock, then be killed; the child, which lives on, prints "child"."""
    locks = FolderLocks(Path(folder) / "locks", HOUR)
    with locks.holding(bytes.fromhex(digest)):
        if os.fork():
            os.kill(os.getpid(), signal.SIGKILL)
        signal.alarm(30)
        with locks.holding(b"\xff" * 32):  # another lock: using any of them, the child lets go of this one
            say("child")
        sys.stdin.read()


def forbidden(folder: str) -> None:
    """As an ordinary user, find the records forbidden for a while; prints what load said."""
    asyncio.run(_use(FileStore(folder, clock=CLOCK)))  # imports all that is needed while we may
    if os.geteuid() == 0:
        os.setuid(65534)
    with tempfile.TemporaryDirectory() as place:
        asyncio.run(_forbid(Path(place) / "sessions"))


async def _forbid(folder: Path) -> None:
    store = FileStore(folder, clock=CLOCK)
    record = new_record(CLOCK)
    await store.create(record)
    _set_mode(folder / "records", 0)
    try:
        await store.load(record.digest)
    except StoreUnavailable as error:
        say(f"StoreUnavailable: {error}")
    _set_mode(folder / "records", 0o700)
    say(await store.load(record.digest) == record)
    await store.close()


def _set_mode(folder: Path, mode: int) -> None:
    folder.chmod(mode)


COMMANDS: list[Callable[..., None]] = [
    count,
    breed_writers,
    hold,
    limited,
    fill,
    fork,
    fork_holding,
    forbidden,
]

if __name__ == "__main__":
    {command.__name__: command for command in COMMANDS}[sys.argv[1]](*sys.argv[2:])
