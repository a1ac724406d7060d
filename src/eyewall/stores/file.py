"""Records as files in a folder: shared by the processes of one machine, safe across crashes.

::

    .eyewall/             0700, ours alone, ignored by git
    ├── records/          one file per record, named by its digest; modified = when the record dies
    ├── principals/       which records may be whose (markers.py)
    └── locks/            64 files to lock records with (locks.py)

The work is done by :class:`~eyewall.stores.record_files.RecordFiles` in a few threads of the store's own, so
the event loop never waits for the disk. The folder must be on a local file system that has hard links; for
a network file system choose another store.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from eyewall.core.record import Record
from eyewall.core.store import Clock, utc_now
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.stores.locks import LockHeldError
from eyewall.stores.record_files import RecordFiles, Write
from eyewall.stores.thread_batches import ThreadBatches

if TYPE_CHECKING:
    from eyewall.settings import Settings

T = TypeVar("T")

THREADS: Final = 8
"""Threads for reading, and as many for waiting for locks; :data:`WRITERS` come on top. Nobody who waits for a
lock keeps others from reading or writing."""

MOST_LOADS: Final = 8
"""How many records one thread reads in a row."""

WRITERS: Final = 4
"""Threads for writing. More of them wait for the disk side by side, which is faster; fewer force more records
to disk together, which costs less."""

MOST_WRITES: Final = 16
"""How many records one thread forces to disk together."""

SCAN_BATCH: Final = 64
_NOT_WRITABLE: Final = (PermissionError, FileNotFoundError, NotADirectoryError)


class FileStore:
    """Keeps records in a folder; also a ``SelfCheck``, a ``PrincipalIndex`` and a ``Scan``.

    Args:
        folder: where; made with mode 0700 when it is not there.
        clock: returns the current time (aware, UTC).
        lock_timeout: how long a write waits for another process that is writing the same record.

    Raises:
        ConfigurationError: the folder cannot be made, is somebody else's, lets others in, or the system
            has no POSIX file locks (Windows). The message says how to mend it.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        clock: Clock = utc_now,
        lock_timeout: timedelta = timedelta(seconds=1),
    ) -> None:
        self._folder = Path(folder).absolute()
        self._files = RecordFiles(self._folder, clock, lock_timeout)
        self._process = _Process(self._files)

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock) -> FileStore:
        """Make the store that ``settings`` ask for: in the folder ``settings.path``."""
        return cls(settings.path, clock=clock)

    async def check(self) -> None:
        """See :meth:`eyewall.core.store.SelfCheck.check`. Writes a file and removes it.

        Raises:
            ConfigurationError: the folder is gone, or may not be written to.
            StoreUnavailable: the disk is full or fails.
        """
        try:
            await self._run(self._files.check)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, _NOT_WRITABLE) or _is_read_only(error.__cause__):
                raise ConfigurationError(f"{error}; let this process write there") from None
            raise

    async def create(self, record: Record) -> bool:
        """See :meth:`eyewall.core.store.Store.create`."""
        return await self._write(Write(record, None))

    async def load(self, digest: bytes) -> Record | None:
        """See :meth:`eyewall.core.store.Store.load`."""
        try:
            return await self._here().loads.ask(digest)
        except OSError as error:
            raise self._failed(error) from error

    async def replace(self, record: Record, *, version: int) -> bool:
        """See :meth:`eyewall.core.store.Store.replace`."""
        return await self._write(Write(record, version))

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """See :meth:`eyewall.core.store.Store.touch`."""
        return await self._run(self._files.touch, digest, seen_at, expires_at)

    async def delete(self, digest: bytes) -> bool:
        """See :meth:`eyewall.core.store.Store.delete`."""
        return await self._run(self._files.delete, digest)

    async def sweep(self, now: datetime, limit: int) -> int:
        """See :meth:`eyewall.core.store.Store.sweep`. Removes what killed writers have left, too."""
        return await self._run(self._files.sweep, now, limit)

    async def close(self) -> None:
        """Let calls under way finish and end the threads."""
        process, self._process = self._process, _Process(self._files)
        if process.pid == os.getpid():
            process.loads.hand_over()
            process.writes.hand_over()
            for pool in process.pools:
                await asyncio.to_thread(pool.shutdown)

    async def find_principal(self, principal: str) -> list[Record]:
        """See :meth:`eyewall.core.store.PrincipalIndex.find_principal`."""
        return await self._run(self._files.find_principal, principal)

    async def delete_principal(self, principal: str) -> int:
        """See :meth:`eyewall.core.store.PrincipalIndex.delete_principal`."""
        return await self._run(self._files.delete_principal, principal)

    async def scan(self) -> AsyncIterator[Record]:
        """See :meth:`eyewall.core.store.Scan.scan`."""
        digests = await self._run(self._files.digests, reading=True)
        for start in range(0, len(digests), SCAN_BATCH):
            batch = digests[start : start + SCAN_BATCH]
            for record in await self._run(self._files.load_many, batch, reading=True):
                yield record

    async def _write(self, write: Write) -> bool:
        """Write together with others, or alone where that means to wait for a lock."""
        try:
            return await self._here().writes.ask(write)
        except LockHeldError:
            return await self._run(self._files.write, write)
        except OSError as error:
            raise self._failed(error) from error

    async def _run(self, work: Callable[..., T], *args: object, reading: bool = False) -> T:
        """Do ``work`` in a thread; a refusal of the file system becomes StoreUnavailable."""
        process = self._here()
        pool = process.reading if reading else process.waiting
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, partial(work, *args))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"the file store in {self._folder} failed: {error}")

    def _here(self) -> _Process:
        """This process's threads; those of a parent that forked us do not run here."""
        if self._process.pid != os.getpid():
            self._process = _Process(self._files)
        return self._process


class _Process:
    """The threads of one process, which start when there is something to do, and what waits for them."""

    def __init__(self, files: RecordFiles) -> None:
        self.pid = os.getpid()
        self.reading = _pool("read", THREADS)
        self.writing = _pool("write", WRITERS)
        self.waiting = _pool("lock", THREADS)
        self.pools = (self.writing, self.reading, self.waiting)
        self.loads = ThreadBatches(files.load_each, self.reading, MOST_LOADS)
        self.writes = ThreadBatches(files.write_each, self.writing, MOST_WRITES)


def _pool(name: str, threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix=f"eyewall-files-{name}")


def _is_read_only(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EROFS
