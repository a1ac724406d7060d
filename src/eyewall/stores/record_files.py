"""The store verbs over record files, blocking: what :class:`~eyewall.stores.file.FileStore` does in threads.

A record file is written aside, forced to disk and renamed, so it is the old record or the new one at any
moment. Reading takes no lock; whoever reads *and then* renames holds the record's lock meanwhile, or a slow
save could bring back what somebody else has deleted.

What takes long is the disk, and it takes hardly longer for several files than for one. So records are
written aside side by side, waited for together, and take their names, each under its lock; then the folder
is forced to disk once. Nobody is told of any of it before.

A file's modification time is the moment its record dies, so that sweeping opens only what may be due. The
record has the last word here too: a backup restored without its times loses nobody's session.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from eyewall.core.record import Record, decode_record, encode_record
from eyewall.core.store import Clock
from eyewall.errors import DamagedRecordError
from eyewall.stores.folder import Aside, is_old_temp, make_private_folder, nanoseconds, read_file, sync_folder
from eyewall.stores.locks import FolderLocks
from eyewall.stores.markers import PrincipalMarkers, digest_named

S = TypeVar("S")
T = TypeVar("T")

TEMP_LIFETIME: Final = timedelta(hours=1)
"""A temporary file older than this belongs to a writer that was killed."""


class Write(NamedTuple):
    """A record that is to be written.

    Args:
        record: what is to be there.
        version: what it takes the place of; None when nothing may be there yet.
    """

    record: Record
    version: int | None


class _Written(NamedTuple):
    """A write whose record is in a file, which waits for its name."""

    record: Record
    version: int | None
    aside: Aside


class RecordFiles:
    """The record files of one folder. Every method may raise OSError; see the store contract for the rest.

    Raises:
        ConfigurationError: the folder cannot be made, or others can enter it, or there is no ``flock``.
    """

    def __init__(self, folder: Path, clock: Clock, lock_timeout: timedelta) -> None:
        self._locks = FolderLocks(folder / "locks", lock_timeout)
        self._markers = PrincipalMarkers(folder / "principals")
        self._records = folder / "records"
        self._prefix = f"{self._records}/"
        self._clock = clock
        for place in (folder, self._records, folder / "principals", folder / "locks"):
            make_private_folder(place)
        with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
            file.write("*\n")

    def check(self) -> None:
        """Write a file where the records are, and remove it; an OSError says what is wrong."""
        now = self._clock()
        probe = Aside(self._records, b"", now=now, modified=now)
        try:
            probe.force()
        finally:
            probe.discard()

    def write(self, write: Write) -> bool:
        """As :meth:`write_each` for one, waiting for its lock; raises what went wrong."""
        (answer,) = self.write_each([write], waiting=True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def write_each(self, writes: Sequence[Write], *, waiting: bool = False) -> list[bool | Exception]:
        """Put records where they belong, each by itself; what was done is on disk.

        Args:
            writes: what to write.
            waiting: whether to wait for locks that others hold.

        Returns:
            For each write whether its record is there now, or why that is not known. False: the name is
            taken, or no live record has that version. LockHeldError: ask again, and wait.
        """
        written = _each(self._written, writes)
        try:
            placed = _each(partial(self._placed, waiting=waiting), _each(_forced, written))
        finally:
            _each(_discarded, written)  # what cannot be removed is swept like what killed writers leave
        return self._synced(placed)

    def load_each(self, digests: Sequence[bytes]) -> list[Record | Exception | None]:
        """For each of ``digests`` what :meth:`load` returns or raises."""
        return _each(self.load, digests)

    def load(self, digest: bytes) -> Record | None:
        """Return the live record, or None."""
        record = self._read(digest)
        return record if record is not None and record.expires_at > self._clock() else None

    def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """Rewrite the live record with new times; False when there is none."""
        with self._locks.holding(digest):
            old = self._load_undamaged(digest)
            if old is None:
                return False
            aside = self._aside(msgspec.structs.replace(old, seen_at=seen_at, expires_at=expires_at))
            try:
                aside.force()
                aside.replace(self._path(digest))
            finally:
                aside.discard()
        sync_folder(self._records)
        return True

    def delete(self, digest: bytes) -> bool:
        """Remove the record, whatever it is; False when none was there."""
        with self._locks.holding(digest):
            was_there = self._remove(digest, self._read_undamaged(digest))
        if was_there:
            sync_folder(self._records)
        return was_there

    def sweep(self, now: datetime, limit: int) -> int:
        """Remove what is due, at most ``limit`` records, and old temporary files on the way."""
        went = 0
        with os.scandir(self._records) as entries:
            for entry in entries:
                if went >= limit:
                    break
                digest = digest_named(entry.name)
                if is_old_temp(entry.name, now - TEMP_LIFETIME):
                    Path(entry.path).unlink(missing_ok=True)
                elif digest is not None and _may_be_due(entry, now):
                    went += self._remove_if_due(digest, now)
        return went

    def find_principal(self, principal: str) -> list[Record]:
        """Return the live records of ``principal``, and mend the markers that were wrong."""
        digests = self._markers.digests(principal)
        records = [record for record in self.load_many(digests) if record.principal == principal]
        for digest in set(digests).difference(record.digest for record in records):
            self._remove_marker_if_wrong(principal, digest)
        return records

    def delete_principal(self, principal: str) -> int:
        """Delete the records of ``principal``; return how many."""
        digests = self._markers.digests(principal)
        deleted = sum(self._delete_if_of(principal, digest) for digest in digests)
        if deleted:
            sync_folder(self._records)
        return deleted

    def digests(self) -> list[bytes]:
        """The digests of all records there, dead and damaged ones included."""
        names = (path.name for path in self._records.iterdir())
        return [digest for name in names if (digest := digest_named(name)) is not None]

    def load_many(self, digests: Iterable[bytes]) -> list[Record]:
        """The live, undamaged records among ``digests``."""
        found = (self._load_undamaged(digest) for digest in digests)
        return [record for record in found if record is not None]

    def _path(self, digest: bytes) -> str:
        return self._prefix + digest.hex()  # a path would take longer to make than the file to open

    def _read(self, digest: bytes) -> Record | None:
        path = self._path(digest)
        try:
            record = decode_record(read_file(path))
        except FileNotFoundError:
            self._records.stat()  # the record is not there; but is the folder?
            return None
        if record.digest != digest:
            raise DamagedRecordError(f"{path} holds the record of another session")
        return record

    def _read_undamaged(self, digest: bytes) -> Record | None:
        with suppress(DamagedRecordError):
            return self._read(digest)
        return None

    def _load_undamaged(self, digest: bytes) -> Record | None:
        with suppress(DamagedRecordError):
            return self.load(digest)
        return None

    def _aside(self, record: Record) -> Aside:
        return Aside(self._records, encode_record(record), now=self._clock(), modified=record.expires_at)

    def _written(self, write: Write) -> _Written:
        return _Written(*write, self._aside(write.record))

    def _placed(self, written: _Written, *, waiting: bool) -> bool:
        with self._locks.holding(written.record.digest, waiting=waiting):
            if written.version is None:
                return self._created(written.record, written.aside)
            return self._replaced(written.record, written.version, written.aside)

    def _created(self, record: Record, aside: Aside) -> bool:
        path = self._path(record.digest)
        if os.path.lexists(path):
            return False
        self._mark(record)
        with suppress(FileExistsError):
            aside.link(path)
            return True
        return False

    def _replaced(self, record: Record, version: int, aside: Aside) -> bool:
        old = self._load_undamaged(record.digest)
        if old is None or old.version != version:
            return False
        self._mark(record)
        aside.replace(self._path(record.digest))
        if old.principal != record.principal:
            self._unmark(old)
        return True

    def _synced(self, placed: list[bool | Exception]) -> list[bool | Exception]:
        """Force the names to disk that were taken; where that fails, nobody is told that they are there."""
        if True not in placed:
            return placed
        try:
            sync_folder(self._records)
        except OSError as error:
            return [error if answer is True else answer for answer in placed]
        return placed

    def _remove(self, digest: bytes, record: Record | None) -> bool:
        path = Path(self._path(digest))
        try:
            path.unlink()
        except FileNotFoundError:
            self._records.stat()
            return False
        except IsADirectoryError:
            path.rmdir()  # somebody planted it; what is in it is not ours to remove
        if record is not None:
            self._unmark(record)
        return True

    def _remove_if_due(self, digest: bytes, now: datetime) -> bool:
        with self._locks.holding(digest):
            record = self._read_undamaged(digest)
            if record is None or record.expires_at <= now:
                return self._remove(digest, record)
            end = nanoseconds(record.expires_at)
            os.utime(self._path(digest), ns=(end, end), follow_symlinks=False)
            return False

    def _delete_if_of(self, principal: str, digest: bytes) -> bool:
        with self._locks.holding(digest):
            record = self._read_undamaged(digest)
            return record is not None and record.principal == principal and self._remove(digest, record)

    def _mark(self, record: Record) -> None:
        if record.principal is not None:
            self._markers.add(record.principal, record.digest)

    def _unmark(self, record: Record) -> None:
        if record.principal is not None:
            self._markers.remove(record.principal, record.digest)

    def _remove_marker_if_wrong(self, principal: str, digest: bytes) -> None:
        with self._locks.holding(digest):
            record = self._read_undamaged(digest)
            right = record.principal == principal if record else os.path.lexists(self._path(digest))
            if not right:
                self._markers.remove(principal, digest)


def _forced(written: _Written) -> _Written:
    written.aside.force()
    return written


def _discarded(written: _Written) -> None:
    written.aside.discard()


def _each(work: Callable[[S], T], items: Iterable[S | Exception]) -> list[T | Exception]:
    """Do ``work`` to each item by itself; one with which something went wrong is left at that."""
    return [item if isinstance(item, Exception) else _outcome(work, item) for item in items]


def _outcome(work: Callable[[S], T], item: S) -> T | Exception:
    try:
        return work(item)
    except Exception as error:  # noqa: BLE001 - raised where it was asked for
        return error


def _may_be_due(entry: os.DirEntry[str], now: datetime) -> bool:
    """Whether the file's times say that its record is dead. A planted folder is left for ``delete``."""
    try:
        facts = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return not stat.S_ISDIR(facts.st_mode) and facts.st_mtime_ns <= nanoseconds(now)
