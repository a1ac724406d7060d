"""Keys: the newest one signs, all verify, and each purpose has its own sub-key.

A :class:`Key` is one secret. Nothing is ever signed with the secret itself: :meth:`Key.derive` makes a
sub-key per purpose (HKDF), so that what was signed for one purpose proves nothing for another. A
:class:`KeyRing` holds the current key and the retired ones that old cookies still refer to by key ID.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from eyewall.crypto.key_use import KeyUse
from eyewall.crypto.secret import FIX, check_secret
from eyewall.errors import ConfigurationError, WeakSecretError

_HASH_BYTES: Final = 32
_ID_BYTES: Final = 6
_ID_INFO: Final = b"eyewall/1/key-id"
_PURPOSE_INFO: Final = b"eyewall/1/purpose/"


def hkdf_sha256(secret: bytes, *, info: bytes, length: int = _HASH_BYTES, salt: bytes = b"") -> bytes:
    """Derive ``length`` bytes (at most 8160) from ``secret`` by HKDF with SHA-256 (RFC 5869).

    Written here because the core depends on Tornado and msgspec only, and the standard library has the
    HMAC but not these few lines round it. The tests run the RFC's own vectors.
    """
    pseudorandom_key = hmac.digest(salt or bytes(_HASH_BYTES), secret, "sha256")
    block, output = b"", b""
    for counter in range(1, -(-length // _HASH_BYTES) + 1):
        block = hmac.digest(pseudorandom_key, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


class Key:
    """One secret, its public name, and the sub-keys made from it.

    Args:
        secret: at least 32 bytes nobody can guess; not checked here, see :meth:`KeyRing.from_secret`.
    """

    __slots__ = ("_derived", "_secret", "id")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._derived: dict[str, bytes] = {}
        id_bytes = hkdf_sha256(secret, info=_ID_INFO, length=_ID_BYTES)
        self.id: Final = urlsafe_b64encode(id_bytes).decode("ascii")
        """Eight base64url characters. Made from the secret, not from its place in the ring, so that a
        cookie finds its key whatever was added or dropped meanwhile."""

    def derive(self, purpose: str) -> bytes:
        """Return this key's sub-key (32 bytes) for ``purpose``, a constant of the calling code."""
        if purpose not in self._derived:
            self._derived[purpose] = hkdf_sha256(self._secret, info=_PURPOSE_INFO + purpose.encode())
        return self._derived[purpose]

    def __repr__(self) -> str:
        return f"Key({self.id!r})"


class KeyRing:
    """The current key and the retired ones.

    Args:
        keys: newest first. The newest signs, all of them verify.

    Raises:
        ConfigurationError: there is no key, or one secret is given twice.
    """

    __slots__ = ("_key_use", "_keys", "current")

    def __init__(self, keys: Iterable[Key]) -> None:
        ordered = list(keys)
        self._keys = {key.id: key for key in ordered}
        if not ordered:
            raise ConfigurationError("a key ring needs at least one secret; set cookie_secret")
        if len(self._keys) != len(ordered):
            raise ConfigurationError(
                "cookie_secret has one secret under two versions; dropping one of them would then retire "
                "nothing. Give every version a secret of its own"
            )
        self.current: Final = ordered[0]
        """The key that signs."""
        self._key_use: KeyUse | None = None

    @classmethod
    def from_secret(
        cls,
        value: str | bytes | Mapping[int, str | bytes],
        *,
        key_version: int | None = None,
        check: bool = True,
    ) -> KeyRing:
        """Make a ring from what Tornado calls ``cookie_secret``.

        Args:
            value: one secret, or several by version. Text stands for its UTF-8 bytes.
            key_version: version of the current secret (Tornado's setting of that name); the highest one
                unless given. Without meaning for a single secret.
            check: refuse secrets that could be guessed. Only tests should turn it off.

        Raises:
            WeakSecretError: a secret, also a retired one, could be guessed; whoever guesses it can sign.
            ConfigurationError: ``value`` is of a wrong type or empty, or ``key_version`` is not in it.
        """
        secrets = dict(value) if isinstance(value, Mapping) else {0: value}
        if not all(type(version) is int for version in secrets):
            raise ConfigurationError("cookie_secret's versions must be whole numbers: {1: old, 2: new}")
        if isinstance(value, Mapping) and key_version is not None and key_version not in secrets:
            raise ConfigurationError(
                f"key_version={key_version} is not in cookie_secret, which has {sorted(secrets)}"
            )
        newest = key_version if key_version in secrets else max(secrets, default=None)
        versions = sorted(secrets, key=lambda version: (version == newest, version), reverse=True)
        return cls(
            Key(_as_bytes(f"cookie_secret (version {version})", secrets[version], check=check))
            for version in versions
        )

    @classmethod
    def from_lines(cls, secrets: Sequence[bytes], *, place: str) -> KeyRing:
        """Make a ring from the lines of a secret file.

        Args:
            secrets: newest first.
            place: what an error shall call the file.

        Raises:
            WeakSecretError: a secret, also a retired one, could be guessed.
        """
        return cls(
            Key(_as_bytes(f"{place}, line {number}", secret, check=True))
            for number, secret in enumerate(secrets, 1)
        )

    def count_uses(self, clock: Callable[[], datetime]) -> KeyUse:
        """Start counting what retired keys verify, and return the counter.

        Args:
            clock: returns the current time (UTC).
        """
        self._key_use = KeyUse([key_id for key_id in self._keys if key_id != self.current.id], clock)
        return self._key_use

    def note_use(self, key_id: str) -> None:
        """Count that the key ``key_id`` verified a value; to be called by whatever verified one."""
        if self._key_use is not None:
            self._key_use.note(key_id)

    def find(self, key_id: str) -> Key | None:
        """Return the key of this ID, or None when it is not (or no longer) in the ring."""
        return self._keys.get(key_id)

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the keys, newest first."""
        return iter(self._keys.values())

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"KeyRing({list(self._keys)})"


def _as_bytes(named: str, value: object, *, check: bool) -> bytes:
    try:
        # What the environment holds that is not UTF-8 comes back as the bytes it was.
        secret = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise ConfigurationError(f"{named} has characters that are not text; {FIX}") from None
    if not isinstance(secret, bytes) or not secret:
        raise ConfigurationError(f"{named} must be text or bytes and not empty; {FIX}")
    try:
        if check:
            check_secret(secret)
    except WeakSecretError as error:
        raise WeakSecretError(f"{named}: {error}") from None
    return secret
