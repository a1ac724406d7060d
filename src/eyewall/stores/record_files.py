"""The store verbs over record files, blocking: what :class:`~eyewall.stores.file.FileStore` does in threads.

A record file is written aside, forced to disk and renamed, so it is the old record or the new one at any
moment. Reading takes no lock; whoever reads *and then* writes holds the record's lock meanwhile, or a slow
save could bring back what somebody else has deleted.

A file's modification time is the moment its record dies, so that sweeping opens only what may be due. The
record has the last word here too: a backup restored without its times loses nobody's session.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from eyewall.core.record import Record, decode_record, encode_record
from eyewall.core.store import Clock
from eyewall.errors import DamagedRecordError
from eyewall.stores.folder import (
    is_old_temp,
    make_private_folder,
    nanoseconds,
    read_file,
    sync_folder,
    written_aside,
)
from eyewall.stores.locks import FolderLocks
from eyewall.stores.markers import PrincipalMarkers, digest_named

TEMP_LIFETIME: Final = timedelta(hours=1)
"""A temporary file older than this belongs to a writer that was killed."""


class RecordFiles:
    """The record files of one folder. Every method may raise OSError; see the store contract for the rest.

    Raises:
        ConfigurationError: the folder cannot be made, or others can enter it, or there is no ``flock``.
    """

    def __init__(self, folder: Path, clock: Clock, lock_timeout: timedelta) -> None:
        self._locks = FolderLocks(folder / "locks", lock_timeout)
        self._markers = PrincipalMarkers(folder / "principals")
        self._records = folder / "records"
        self._clock = clock
        for place in (folder, self._records, folder / "principals", folder / "locks"):
            make_private_folder(place)
        with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
            file.write("*\n")

    def check(self) -> None:
        """Write a file where the records are, and remove it; an OSError says what is wrong."""
        now = self._clock()
        with written_aside(self._records, b"", now=now, modified=now):
            pass

    def create(self, record: Record) -> bool:
        """Put the record there under a name nobody has; False when it is taken."""
        path = self._path(record.digest)
        with self._locks.holding(record.digest):
            if os.path.lexists(path):
                return False
            self._mark(record)
            try:
                with self._written_aside(record) as temp:
                    os.link(temp, path)  # unlike a rename, fails when the name is taken
            except FileExistsError:
                return False
            sync_folder(self._records)
            return True

    def load(self, digest: bytes) -> Record | None:
        """Return the live record, or None."""
        record = self._read(digest)
        return record if record is not None and record.expires_at > self._clock() else None

    def replace(self, record: Record, version: int) -> bool:
        """Swap under the record's lock; False unless it is live and has that version."""
        with self._locks.holding(record.digest):
            old = self._load_undamaged(record.digest)
            if old is None or old.version != version:
                return False
            self._mark(record)
            self._write(record)
            if old.principal != record.principal:
                self._unmark(old)
            return True

    def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """Rewrite the live record with new times; False when there is none."""
        with self._locks.holding(digest):
            old = self._load_undamaged(digest)
            if old is None:
                return False
            self._write(msgspec.structs.replace(old, seen_at=seen_at, expires_at=expires_at))
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

    def _path(self, digest: bytes) -> Path:
        return self._records / digest.hex()

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

    def _written_aside(self, record: Record) -> AbstractContextManager[Path]:
        blob, now = encode_record(record), self._clock()
        return written_aside(self._records, blob, now=now, modified=record.expires_at)

    def _write(self, record: Record) -> None:
        with self._written_aside(record) as temp:
            temp.replace(self._path(record.digest))
        sync_folder(self._records)

    def _remove(self, digest: bytes, record: Record | None) -> bool:
        path = self._path(digest)
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


def _may_be_due(entry: os.DirEntry[str], now: datetime) -> bool:
    """Whether the file's times say that its record is dead. A planted folder is left for ``delete``."""
    try:
        facts = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return not stat.S_ISDIR(facts.st_mode) and facts.st_mtime_ns <= nanoseconds(now)
