"""Passwords: hashed with argon2id, off the event loop, in the same time whoever asks.

What is stored is argon2's own text, ``$argon2id$v=19$m=...,t=...,p=...$salt$hash``, so that any other library
reads it. Hashes of bcrypt are verified too, until the next sign-in replaces them.

An account that does not exist costs one hash like any other, so the time of an answer does not tell who has
an account (OWASP ASVS 5.0, 6.3.8). So does a stored hash that is damaged or empty, and a password too long.

Passwords are brought into Unicode's NFC before they are hashed, because one and the same "e" with an accent
leaves one keyboard as one character and another as two. NIST SP 800-63B-4, 3.1.1.2 names this form (the
edition before it named NFKC or NFKD, which also take different characters for the same), as RFC 8265 does.
"""

from __future__ import annotations

import os
import re
import secrets
import unicodedata
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Final

from eyewall.errors import ConfigurationError, MissingDriverError, UnusablePasswordError
from eyewall.signin.hashing_threads import HashingThreads

try:
    import argon2
    import bcrypt
except ImportError as error:
    raise MissingDriverError(
        f"passwords need the library {error.name!r}, which is not installed; "
        "run: pip install 'eyewall[passwords]'"
    ) from error

LONGEST_PASSWORD: Final = 4096
"""Bytes of UTF-8. NIST SP 800-63B-4, 3.1.1.2 asks for at least 64 characters; a limit keeps megabytes out."""

_SALT_BYTES: Final = 16  # RFC 9106, section 3.1
_HASH_BYTES: Final = 32  # RFC 9106, section 4
_BCRYPT_BYTES: Final = 72
# Cost 17 takes ten seconds; above it, a damaged digit would keep a thread for hours.
_BCRYPT: Final = re.compile(r"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{53}", re.ASCII)

_MOST_MEMORY: Final = 1024 * 1024
_MOST_PASSES: Final = 64
_MOST_WORK: Final = 16 * _MOST_MEMORY
_MOST_LANES: Final = 64
"""More KiB, passes, KiB times passes (some ten seconds), or lanes than these has no hash that anybody made on
purpose. A damaged or planted one may ask for all the memory there is, for a thread for hours, or for a
hundred thousand threads.
"""


def _is_too_much(passes: int, memory: int, lanes: int) -> bool:
    return (
        memory > _MOST_MEMORY or passes > _MOST_PASSES or passes * memory > _MOST_WORK or lanes > _MOST_LANES
    )


@dataclass(frozen=True, slots=True)
class Strength:
    """How much work one argon2id hash is.

    Args:
        passes: how often the memory is gone over (argon2's ``t``).
        memory: KiB for one hash (``m``).
        lanes: threads within one hash (``p``).

    Raises:
        ConfigurationError: less than the least that OWASP names, 12 MiB and 3 passes or the equivalent; or
            so much that :meth:`Passwords.verify` would take a hash of it for a planted one.
    """

    passes: int
    memory: int
    lanes: int = 1

    def __post_init__(self) -> None:
        if (
            self.passes < 1
            or self.lanes < 1
            or self.memory < 7 * 1024
            or self.passes * self.memory < 35 * 1024
        ):
            raise ConfigurationError(
                f"{self} is less work than OWASP's minimum for argon2id; take eyewall.signin.passwords.OWASP"
            )
        if _is_too_much(self.passes, self.memory, self.lanes):
            raise ConfigurationError(
                f"{self} is more work than any server can do at a sign-in; take RFC_9106"
            )


OWASP: Final = Strength(passes=2, memory=19 * 1024)
"""The default: OWASP's Password Storage Cheat Sheet and ASVS 5.0, appendix C (11.4.2). About 25 ms."""

RFC_9106: Final = Strength(passes=3, memory=64 * 1024, lanes=4)
"""RFC 9106, section 4, second recommended option: harder to guess offline, and five times the work here."""


class Passwords:
    """Hashes and verifies passwords in threads of its own.

    Args:
        strength: how much work new hashes are.
        at_once: how many hashes are worked on at the same time, each with ``strength.memory``. Default: as
            many as there are processors, at most 4.
        most_waiting: how many more may wait; the default is some two seconds' worth.

    Raises:
        ConfigurationError: ``at_once`` or ``most_waiting`` makes no sense.
    """

    def __init__(
        self, *, strength: Strength = OWASP, at_once: int | None = None, most_waiting: int = 128
    ) -> None:
        processors = min(4, os.cpu_count() or 1)
        self._threads = HashingThreads(
            at_once=processors if at_once is None else at_once, most_waiting=most_waiting
        )
        self._hasher = argon2.PasswordHasher(
            time_cost=strength.passes,
            memory_cost=strength.memory,
            parallelism=strength.lanes,
            hash_len=_HASH_BYTES,
            salt_len=_SALT_BYTES,
        )
        self._nobodys = _hash_of_nothing(strength)

    async def hash(self, password: str) -> str:
        """Return what to store for ``password``; it is different each time.

        Raises:
            UnusablePasswordError: it is empty, longer than 4096 bytes, or holds half a character.
            TooBusyError: too many wait already.
        """
        secret = _bytes_of(password)
        return await self._threads.run(partial(self._hasher.hash, secret))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether ``stored`` was made from ``password``.

        Args:
            password: what was typed, as it came.
            stored: what :meth:`hash` returned, or a hash of bcrypt; None when there is no such account. Then,
                and when it is no hash at all, the answer is False after the time that a wrong password takes.

        Raises:
            TooBusyError: too many wait already.
        """
        return await self._threads.run(partial(self._verify, password, stored))

    def needs_rehash(self, stored: str) -> bool:
        """Return whether ``stored`` was made otherwise than :meth:`hash` does it now.

        True for bcrypt, for other parameters, and for what is no hash. Ask after a successful
        :meth:`verify`, while the password is at hand, and store a new hash.
        """
        try:
            return self._hasher.check_needs_rehash(stored)
        except ValueError:  # argon2's own errors about hashes that are none are ValueErrors, too
            return True

    def close(self) -> None:
        """Let the threads end; who still waits is cancelled. Later calls would start new ones."""
        self._threads.close()

    def _verify(self, password: str, stored: str | None) -> bool:
        try:
            return self._matches(password, _bytes_of(password), stored or self._nobodys)
        except argon2.exceptions.VerifyMismatchError:
            return False
        except (argon2.exceptions.VerificationError, ValueError):
            # What cannot be a password or a hash is noticed before any work is done. So it is done now.
            return self._work_for_nothing()

    def _matches(self, password: str, secret: bytes, stored: str) -> bool:
        if _BCRYPT.fullmatch(stored):
            return bcrypt.checkpw(_bytes_for_bcrypt(password), stored.encode("ascii"))
        asked = argon2.extract_parameters(stored)
        if _is_too_much(asked.time_cost, asked.memory_cost, asked.parallelism):
            raise ValueError("a hash that asks for more than anybody would have chosen")
        return self._hasher.verify(stored, secret)

    def _work_for_nothing(self) -> bool:
        with suppress(argon2.exceptions.VerifyMismatchError):
            self._hasher.verify(self._nobodys, b"")
        return False


def _bytes_of(password: str) -> bytes:
    """Return what is hashed: NFC, in UTF-8."""
    if not password:
        raise UnusablePasswordError("the password is empty")
    if len(password) > LONGEST_PASSWORD:  # before NFC, whose work grows with the length
        raise UnusablePasswordError(f"the password is longer than {LONGEST_PASSWORD} bytes")
    try:
        secret = unicodedata.normalize("NFC", password).encode("utf-8")
    except UnicodeEncodeError:
        raise UnusablePasswordError("the password holds half a character (a lone surrogate)") from None
    if len(secret) > LONGEST_PASSWORD:
        raise UnusablePasswordError(f"the password is longer than {LONGEST_PASSWORD} bytes")
    return secret


def _bytes_for_bcrypt(password: str) -> bytes:
    """Return what other applications gave to bcrypt: the text as it came, of which it read 72 bytes."""
    return password.encode("utf-8")[:_BCRYPT_BYTES]


def _hash_of_nothing(strength: Strength) -> str:
    """Return a hash with the parameters of ``strength`` that no password gives."""
    salt, tag = (
        b64encode(secrets.token_bytes(size)).rstrip(b"=").decode("ascii")
        for size in (_SALT_BYTES, _HASH_BYTES)
    )
    return f"$argon2id$v=19$m={strength.memory},t={strength.passes},p={strength.lanes}${salt}${tag}"


@cache
def _default() -> Passwords:
    return Passwords()


async def hash_password(password: str) -> str:
    """As :meth:`Passwords.hash`, with the default strength and threads."""
    return await _default().hash(password)


async def verify_password(password: str, stored: str | None) -> bool:
    """As :meth:`Passwords.verify`, with the default strength and threads."""
    return await _default().verify(password, stored)


def needs_rehash(stored: str) -> bool:
    """As :meth:`Passwords.needs_rehash`, with the default strength."""
    return _default().needs_rehash(stored)


def close_passwords() -> None:
    """Let the threads of the three functions above end; only at the end of a program."""
    _default().close()
