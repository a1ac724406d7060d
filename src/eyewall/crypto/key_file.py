"""The secret file: one secret per line, newest first, readable by its owner only.

::

    kY7-wq0Zr4Bn_81xTfLs3vHd6GmCe5Ju9pQaWzRt2Xo # made 2026-11-20T09:30:00Z
    Tn4vB8cM1xZ6qL0wE3rY7uI2oP5aS9dFgHjK-_kQ1Zs

The first line signs, all verify. A line without a date is what a first start makes: its text works in
``EYEWALL_COOKIE_SECRET`` as it stands. The file is never changed in place: whoever reads it meanwhile reads
the old keys or the new ones, and a machine that stops half way keeps the old ones.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from eyewall.crypto.secret import MINIMUM_BYTES
from eyewall.errors import ConfigurationError

KEPT: Final = 3
"""Retired keys that a rotation keeps unless told otherwise."""

MAX_KEYS: Final = 16
"""Most lines of a file. Every key that verifies is one more that may have leaked."""

_MAX_BYTES: Final = 100 * MAX_KEYS
_LINE: Final = re.compile(r"([A-Za-z0-9_-]{43})(?:[ \t]+# made (\S+))?[ \t]*")
_DATE: Final = "%Y-%m-%dT%H:%M:%SZ"
_POSIX: Final = os.name == "posix"
# Windows has neither symbolic links in the way nor the flag against them.
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO planted at the path must not hang


@dataclass(frozen=True, slots=True)
class FileKey:
    """One line of the file.

    Args:
        secret: 43 base64url characters (256 random bits), used as they stand. Not in the repr.
        made: when it was made (UTC), or None where the line does not say.
    """

    secret: bytes = field(repr=False)
    made: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did.

    Args:
        keys: what the file holds now, newest first.
        dropped: what it held before and no longer does.
    """

    keys: Sequence[FileKey]
    dropped: Sequence[FileKey]


def load_keys(path: Path) -> list[FileKey]:
    """Return the keys in the secret file ``path``, newest first; at least one.

    Raises:
        ConfigurationError: there is no such file; it is a symbolic link, belongs to or can be read by
            somebody else, or does not hold secrets. The message says what to do.
    """
    with _explained(path):
        if not os.path.lexists(path):
            raise ConfigurationError(
                f"there is no secret file {path}; make it with: eyewall new-key --file {path}"
            )
        return _read(path)


def load_or_make_keys(path: Path) -> list[FileKey]:
    """Return the keys in the secret file ``path``; make it with one key, and its folder, if there is none.

    Processes that start at once agree on one secret.

    Raises:
        ConfigurationError: as :func:`load_keys`; or the file cannot be made.
    """
    with _explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(path):
            _make_first(path)
        return _read(path)


def rotate_keys(path: Path, *, now: datetime, keep: int = KEPT) -> Rotation:
    """Put a new key in front of those in the secret file ``path``; make the file if there is none.

    Running servers go on with the keys they read at their start.

    Args:
        path: the file; its folder is made too.
        now: the new key's date (UTC).
        keep: how many retired keys stay, 0 to 15. With 0, every cookie signed so far is void.

    Raises:
        ConfigurationError: as :func:`load_keys`; the file cannot be written, ``keep`` is out of range, or
            another rotation is under way.
    """
    if not 0 <= keep < MAX_KEYS:
        raise ConfigurationError(f"keep={keep} is out of range; 0 to {MAX_KEYS - 1} retired keys can be kept")
    with _explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_rotation(path):
            before = _read(path) if os.path.lexists(path) else []
            keys = [FileKey(_new_secret(), now), *before[:keep]]
            with _draft_beside(path, keys) as draft:
                _publish(draft, path, replacing=bool(before))
        return Rotation(keys, before[keep:])


# --- writing ---------------------------------------------------------------------------------------------


def _new_secret() -> bytes:
    return secrets.token_urlsafe(MINIMUM_BYTES).encode("ascii")


def _make_first(path: Path) -> None:
    """Link a whole file to ``path``: of processes that start at once the first wins, the others read its key.

    Linking fails when the name is taken. Renaming would let the last one win while the first already signs.
    """
    with _draft_beside(path, [FileKey(_new_secret())]) as draft, contextlib.suppress(FileExistsError):
        os.link(draft, path)


@contextlib.contextmanager
def _only_rotation(path: Path) -> Iterator[None]:
    """Keep a file beside ``path`` as a lock.

    Of two rotations at once one would undo the other, and sign out whoever got a cookie between them.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600))
    except FileExistsError:
        raise ConfigurationError(
            f"{lock} exists: another rotation is under way, or one was interrupted; delete that file if no "
            "eyewall new-key is running"
        ) from None
    try:
        yield
    finally:
        lock.unlink()


@contextlib.contextmanager
def _draft_beside(path: Path, keys: Sequence[FileKey]) -> Iterator[Path]:
    """Lend a whole file under another name, so that nobody ever reads half a secret."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_to_text(keys).encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _publish(draft: Path, path: Path, *, replacing: bool) -> None:
    if replacing:
        draft.replace(path)
    else:
        try:
            os.link(draft, path)
        except FileExistsError:
            raise ConfigurationError(
                f"a starting server has just made {path}; run the command again to rotate it"
            ) from None
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a power cut: else servers that signed with the new key would lose it."""
    if not _POSIX:  # Windows has no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _to_text(keys: Sequence[FileKey]) -> str:
    dates = [f" # made {_written(key.made)}" if key.made else "" for key in keys]
    return "".join(f"{key.secret.decode()}{date}\n" for key, date in zip(keys, dates, strict=True))


def _written(made: datetime) -> str:
    # Not strftime(): it writes the year of a mistyped date with fewer digits than reading it back takes.
    return f"{made.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"


# --- reading ---------------------------------------------------------------------------------------------


def _read(path: Path) -> list[FileKey]:
    if path.is_symlink():
        raise ConfigurationError(f"the secret file {path} is a symbolic link; replace it by the file itself")
    with os.fdopen(os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT), "rb") as file:
        _check_private(path, os.fstat(file.fileno()))
        content = file.read(_MAX_BYTES + 1)
    try:
        return _from_text(content)
    except ValueError as problem:
        raise ConfigurationError(
            f"the secret file {path} is empty or damaged; restore it from a backup, or delete it to have a "
            f"new one made (which signs everybody out): {problem}"
        ) from None


def _from_text(content: bytes) -> list[FileKey]:
    """Read the file's lines; what is wrong is told by its line, never by its text.

    Raises:
        ValueError: with the reason.
    """
    lines = content.decode("latin-1").strip().split("\n")
    if len(content) > _MAX_BYTES or len(lines) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} lines")
    keys = [_from_line(number, line.rstrip("\r")) for number, line in enumerate(lines, 1)]
    if len({key.secret for key in keys}) != len(keys):
        raise ValueError("it has one secret twice; delete the lower of the two lines")
    return keys


def _from_line(number: int, line: str) -> FileKey:
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError(f"line {number} is not 43 base64url characters")
    secret, date = found.groups()
    try:
        made = datetime.strptime(date, _DATE).replace(tzinfo=UTC) if date else None
    except ValueError:
        raise ValueError(f"line {number} has a date that is not like 2026-11-20T09:30:00Z") from None
    return FileKey(secret.encode("ascii"), made)


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"the secret file {path} is not a regular file; remove it")
    if not _POSIX:  # owner and mode mean nothing there; the folder's access list protects the file
        return
    if status.st_uid != os.geteuid():
        raise ConfigurationError(
            f"the secret file {path} belongs to user {status.st_uid}, who can read and change it, but this "
            f"process runs as user {os.geteuid()}; chown it, or run as its owner"
        )
    if status.st_mode & 0o077:
        raise ConfigurationError(
            f"the secret file {path} can be read by others; run `chmod 600 {path}`, and delete it if "
            "anybody may have read it (a new one is then made, which signs everybody out)"
        )


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(
            f"the secret file {path} cannot be made or read ({error.strerror or error}); mend the folder's "
            "permissions, or set EYEWALL_COOKIE_SECRET instead"
        ) from None
