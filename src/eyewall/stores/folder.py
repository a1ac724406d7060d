"""Reading and writing files so that a crash, a full disk or a planted link does no harm.

Three rules. A file appears under its name complete or not at all: it is written under another name, forced
to disk, and then renamed. Nothing is followed: a link, pipe or folder where a file should be is damage. And
what only we should read is checked to be readable by us alone.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


def read_file(path: Path) -> bytes:
    """Return what the regular file ``path`` holds.

    Raises:
        DamagedRecordError: ``path`` is a link, a folder, a pipe: anything but a regular file.
        FileNotFoundError: there is nothing.
        OSError: it cannot be read.
    """
    descriptor = _open_unfollowed(path)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise DamagedRecordError(f"{path} is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _open_unfollowed(path: Path) -> int:
    # O_NONBLOCK: opening a planted pipe would wait for a writer for ever.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except OSError as error:
        if error.errno in (ELOOP, ENXIO):  # a link; a socket
            raise DamagedRecordError(f"{path} is a link or a socket, not a regular file") from None
        raise


@contextmanager
def written_aside(folder: Path, blob: bytes, *, now: datetime, modified: datetime) -> Iterator[Path]:
    """Write ``blob`` to a new file in ``folder``, force it to disk, and yield its path to be renamed.

    Args:
        folder: where the file will stay, so that the rename is one step of one file system.
        blob: the content.
        now: goes into the name, so that :func:`is_old_temp` can tell left-overs.
        modified: the file's modification time.

    Whatever still has the temporary name afterwards is removed, as after an error.
    """
    path = folder / f"{TEMP_PREFIX}{int(now.timestamp())}-{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(blob)
            file.flush()
            os.utime(descriptor, ns=(nanoseconds(modified), nanoseconds(modified)))
            os.fsync(descriptor)
        yield path
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


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
