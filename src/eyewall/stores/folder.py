"""Reading and writing files so that a crash, a full disk or a planted link does no harm.

Three rules. A file appears under its name complete or not at all: it is written under another name, forced
to disk, and then renamed. Nothing is followed: a link, pipe or folder where a file should be is damage. And
what only we should read is checked to be readable by us alone.
"""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from errno import ELOOP, ENXIO
from pathlib import Path
from typing import Final

from eyewall.errors import ConfigurationError, DamagedRecordError

TEMP_PREFIX: Final = "tmp-"
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def make_private_folder(folder: Path) -> None:
    """Make ``folder`` (mode 0700), or check that the one that is there belongs to us alone.

    Raises:
        ConfigurationError: it cannot be made, is no folder, belongs to somebody else, or others may enter.
    """
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700, parents=True)
        facts = folder.lstat()
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {folder}: {error.strerror}") from error
    if not stat.S_ISDIR(facts.st_mode):
        raise ConfigurationError(f"{folder} is not a folder (links are not followed); give the real folder")
    if facts.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{folder} belongs to user {facts.st_uid}, but this process runs as user {os.geteuid()}; "
            f"run: chown {os.geteuid()} {folder}"
        )
    if facts.st_mode & 0o077:
        raise ConfigurationError(
            f"other users can enter {folder} (mode {facts.st_mode & 0o777:o}); run: chmod 700 {folder}"
        )


def read_file(path: str) -> bytes:
    """Return what the regular file ``path`` holds.

    Raises:
        DamagedRecordError: ``path`` is a link, a folder, a pipe: anything but a regular file.
        FileNotFoundError: there is nothing.
        OSError: it cannot be read.
    """
    descriptor = _open_unfollowed(path)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise DamagedRecordError(f"{path} is not a regular file")
        return _read_all(descriptor, facts.st_size)
    finally:
        os.close(descriptor)


def _read_all(descriptor: int, size: int) -> bytes:
    """Read to the end, which a read has met that gives less than was asked for."""
    blob = b""
    while more := os.read(descriptor, size + 1):
        blob += more
        if len(more) <= size:
            break
    return blob


def _open_unfollowed(path: str) -> int:
    # O_NONBLOCK: opening a planted pipe would wait for a writer for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno in (ELOOP, ENXIO):  # a link; a socket
            raise DamagedRecordError(f"{path} is a link or a socket, not a regular file") from None
        raise


class Aside:
    """A file on its way to disk under a temporary name, until it takes its own or is discarded.

    The disk begins at once: of several files written before the first is waited for, most are there by
    then, and it has worked for all of them together.

    Args:
        folder: where the file will stay, so that taking its name is one step of one file system.
        blob: the content.
        now: goes into the temporary name, so that :func:`is_old_temp` can tell left-overs.
        modified: the file's modification time.

    Raises:
        OSError: it cannot be written; nothing is left.
    """

    def __init__(self, folder: Path, blob: bytes, *, now: datetime, modified: datetime) -> None:
        self._path = f"{folder}/{TEMP_PREFIX}{int(now.timestamp())}-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor: int | None = os.open(self._path, flags, 0o600)
        self._is_temporary = True
        try:
            _write_all(self._descriptor, blob)
            end = nanoseconds(modified)
            os.utime(self._descriptor, ns=(end, end))
            _begin_writing(self._descriptor, len(blob))
        except BaseException:  # whatever ends it, a file half written must not stay
            self.discard()
            raise

    def force(self) -> None:
        """Wait until the disk has it. Before that, it must not take its name."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
            self._close()

    def replace(self, path: str) -> None:
        """Take the name ``path``, from whatever has it."""
        Path(self._path).rename(path)
        self._is_temporary = False

    def link(self, path: str) -> None:
        """Take the name ``path`` as well; unlike a rename, FileExistsError when something has it."""
        os.link(self._path, path)

    def discard(self) -> None:
        """Let go of it, and remove what still has the temporary name."""
        self._close()
        if self._is_temporary:
            with suppress(FileNotFoundError):
                Path(self._path).unlink()
            self._is_temporary = False

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _write_all(descriptor: int, blob: bytes) -> None:
    written = os.write(descriptor, blob)
    while written < len(blob):  # a disk that is nearly full takes a part, and refuses the rest
        written += os.write(descriptor, blob[written:])


def _begin_writing(descriptor: int, size: int) -> None:
    """Let the disk begin, where the system can be asked to: a hint that may do nothing."""
    if hasattr(os, "posix_fadvise"):
        # Without the last byte, so that the cache keeps the last page: small files are read soon.
        with suppress(OSError):
            os.posix_fadvise(descriptor, 0, max(size - 1, 1), os.POSIX_FADV_DONTNEED)


def is_old_temp(name: str, before: datetime) -> bool:
    """Whether ``name`` is that of a temporary file written before that time: its writer was killed."""
    if not name.startswith(TEMP_PREFIX):
        return False
    second = name.removeprefix(TEMP_PREFIX).partition("-")[0]
    return second.isdecimal() and int(second) < before.timestamp()


def sync_folder(folder: Path) -> None:
    """Force the folder's list of names to disk, so that a rename or removal survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def nanoseconds(moment: datetime) -> int:
    """``moment`` as nanoseconds since 1970, exact to the microsecond (floats are not)."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000
