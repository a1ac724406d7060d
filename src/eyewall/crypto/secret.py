"""Secrets: refuses those that could be guessed, and makes a good one where none was given."""

from __future__ import annotations

import os
import re
import secrets
import stat
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

from eyewall.errors import ConfigurationError, WeakSecretError

MINIMUM_BYTES: Final = 32
"""256 bits, the key length HMAC-SHA256 is made for (RFC 2104 section 3, ASVS 11.2.3)."""

FIX: Final = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'

# Fragments of secrets that are printed somewhere, in lower case: attackers try these first (two of three
# public Superset servers used its printed default, CVE-2023-27524). A fragment that is a common word must
# be harmless inside a longer good secret, so only what remains beside all fragments counts.
_PUBLISHED: Final = tuple(
    fragment.encode()
    for fragment in (
        # Tornado's documentation, demos, and the tutorials that vary their first digits
        "__todo:_generate_your_own_random_value_here__",
        "__fill_in_random_data_here__",
        "__generate_random_value__",
        "generate_your_own_random_value",
        "oetzkxqagaydkl5gemgejjfuyh7eqnp2xdtp1o/vo=",
        "oetzkxqagaydkl5gemgejjfuyh7eqnp2xdtp1o",
        "l8lwecinrxq2n0n2egxx9mzlrpmumeimlydnx/vt1lm=",
        "bzjc2swbqlkos6gkhn/vb9oxwqt8s0r0krvj5/xj89e=",
        # Flask, Django, FastAPI, Superset, Redash, jwt.io, Express
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        '_5#y2l"f4q8z\n\\xec]/',
        '_5#y2l"f4q8z\\n\\xec]/',
        "a0zr98j/3yx r~xhh!jmn]lwx/,?rt",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "thisismyscretkey",
        "change_me_to_a_complex_random_secret",
        "change_me_secret_key",
        "your_own_random_generated_secret_key",
        "thisisasecret_1234",
        "test_non_dev_secret",
        "c292a0a3aa32397cdb050e233733900f",
        "a-string-secret-at-least-256-bits-long",
        "your-256-bit-secret",
        "keyboard cat",
        # What people type
        "correct horse battery staple",
        "correcthorsebatterystaple",
        "qwertyuiop",
        "asdfghjkl",
        "zxcvbnm",
        "abcdefghijklmnopqrstuvwxyz",
        "0123456789abcdef",
        "1234567890",
        "0123456789",
        "replace",
        "insecure",
        "development",
        "production",
        "password",
        "changeme",
        "change",
        "example",
        "default",
        "session",
        "tornado",
        "eyewall",
        "cookie",
        "secret",
        "random",
        "super",
        "value",
        "string",
        "please",
        "your",
        "this",
        "key",
        "my",
        "me",
    )
)
_SEPARATORS: Final = re.compile(rb"[\s_.,:;!?+*#/=-]+")
_COMMITTED: Final = b"django-insecure-"
"""Random, but ``startproject`` wrote it into a file that is under version control (Django's check W009)."""

_UNKNOWN_BYTES: Final = 16
_DISTINCT_BYTES: Final = 8
_FEWEST_RUNS: Final = 24
_TELLING_OVERLAP: Final = 8


def check_secret(value: bytes) -> None:
    """Refuse a secret that could be guessed.

    Args:
        value: the secret. It never appears in the error.

    Raises:
        WeakSecretError: it is shorter than 32 bytes, repetitive, sequential, or published somewhere (also
            when it was repeated or padded to length). The message says how to make a good one.
    """
    if len(value) < MINIMUM_BYTES:
        raise WeakSecretError(f"the secret has {len(value)} bytes, {MINIMUM_BYTES} are needed; {FIX}")
    if _is_published(value):
        raise WeakSecretError(f"the secret is made of published examples or common words; {FIX}")
    if _is_repetitive(value):
        raise WeakSecretError(f"the secret repeats itself, so few of its bytes are unknown; {FIX}")
    if _is_sequential(value):
        raise WeakSecretError(f"the secret counts up or down, so it is easily guessed; {FIX}")


def _is_published(value: bytes) -> bool:
    rest = value.lower()
    for fragment in _PUBLISHED:
        rest = rest.replace(fragment, b"")
    unknown = _SEPARATORS.sub(b"", rest)
    touched = rest != value.lower()
    return value.startswith(_COMMITTED) or (
        touched and (len(unknown) < _UNKNOWN_BYTES or len(set(unknown)) < _DISTINCT_BYTES)
    )


def _is_repetitive(value: bytes) -> bool:
    """Few different bytes, long runs of one byte (padding), or a short pattern again and again."""
    runs = sum(1 for _ in groupby(value))
    longest_period = min(MINIMUM_BYTES, len(value) - _TELLING_OVERLAP)
    periodic = any(value[period:] == value[:-period] for period in range(1, longest_period))
    return len(set(value)) < _DISTINCT_BYTES or runs < _FEWEST_RUNS or periodic


def _is_sequential(value: bytes) -> bool:
    """Three of four neighbours differ by at most one; in random text fewer than one of three do."""
    steps = sum(1 for left, right in pairwise(value) if abs(left - right) <= 1)
    return steps * 4 > (len(value) - 1) * 3


# --- the secret file -------------------------------------------------------------------------------------

_MADE_SECRET: Final = re.compile(rb"[A-Za-z0-9_-]{43}")
_POSIX: Final = os.name == "posix"
# Windows has neither symbolic links in the way nor the flag against them.
_NO_FOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO planted at the path must not hang


def load_or_create_secret(path: Path) -> bytes:
    """Return the secret kept in the file ``path``; make the file, and its folder, where there is none.

    The file holds 43 base64url characters (256 random bits), readable by its owner only. They are the
    secret as they stand: the same text works in ``EYEWALL_COOKIE_SECRET``. Processes that start at once
    agree on one secret.

    Raises:
        ConfigurationError: the file is a symbolic link, belongs to or can be read by somebody else, or does
            not hold a secret; or it cannot be made. The message says what to do.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(path):
            _create(path)
        return _read(path)
    except OSError as error:
        raise ConfigurationError(
            f"the secret file {path} cannot be made or read ({error.strerror or error}); mend the folder's "
            "permissions, or set EYEWALL_COOKIE_SECRET instead"
        ) from None


def _create(path: Path) -> None:
    """Write a whole file beside ``path`` and link it there, so that nobody ever reads half a secret.

    Linking fails when the name is taken: of processes that start at once the first one wins, and the others
    read its secret. Renaming would let the last one win while the first already signs.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_urlsafe(MINIMUM_BYTES).encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first
    finally:
        draft.unlink()


def _read(path: Path) -> bytes:
    if path.is_symlink():
        raise ConfigurationError(f"the secret file {path} is a symbolic link; replace it by the file itself")
    with os.fdopen(os.open(path, os.O_RDONLY | _NO_FOLLOW | _NO_WAIT), "rb") as file:
        _check_private(path, os.fstat(file.fileno()))
        content = file.read(1024).strip()
    if not _MADE_SECRET.fullmatch(content):
        raise ConfigurationError(
            f"the secret file {path} is empty or damaged; restore it from a backup, or delete it to have a "
            "new one made (which signs everybody out)"
        )
    return content


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
