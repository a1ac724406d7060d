"""The sealer: hides a value, and proves that it is ours, for one purpose and one context.

A sealed text, the *token*, is ASCII; the bytes variant is the same without base64::

    ewx1.<key id>.<base64url(nonce + ciphertext + tag)>        8 characters of key ID, base64 unpadded
    12 bytes of nonce, as many of ciphertext as of plaintext, 16 of tag: 42 bytes more than the plaintext

``ewx1`` names everything at once: AES-256-GCM-SIV (RFC 8452) under the purpose's own HKDF sub-key, and the
associated data below. There is no algorithm field, so there is none to bend (JWT's ``alg``); another
algorithm would be ``ewx2``. The associated data, which is authenticated and not sent, is format, purpose, key
ID and each field of the caller's context, each with its length in front, as the signer does it. What was
sealed for one cookie, record or purpose therefore opens for no other.

Why GCM-SIV and not plain GCM, which takes 1 us where this takes 3: the nonces are random. Two messages under
one nonce cost plain GCM its authentication key, which limits a key to 2**32 messages (NIST SP 800-38D 8.3):
seven weeks at a thousand a second, with nobody able to count them over all processes. Here a repeated nonce
(also after a virtual machine's snapshot was restored twice) tells only whether two sealed values are equal.
**Key budget: 2**40 sealings per key**, a thousand a second for 34 years, after which the chance that any two
share a nonce is still 2**-17. Nothing counts them; rotating keys once a year stays far below.

When a value was sealed and when it ends is for the caller to put inside it.
"""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64encode
from binascii import a2b_base64
from typing import TYPE_CHECKING, Final

from eyewall.crypto.keyring import Key, KeyRing
from eyewall.errors import ConfigurationError, MissingDriverError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

FORMAT: Final = "ewx1"
"""First field of everything sealed. Secret scanners can look for it."""

_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_ID_CHARACTERS: Final = 8
_HEADER_BYTES: Final = len(FORMAT) + 1 + _ID_CHARACTERS + 1

_URL_SAFE: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
"""From base64url to base64; what stands for something in the latter alone becomes what stands for nothing."""

_LAST: Final = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
"""What the last character can be, by how many there are beyond whole groups of four. One alone is no byte;
the last of two or three has bits to spare, which must be zero, or there would be a second spelling."""


class Sealer:
    """Seals and opens values for one purpose with a key ring.

    Args:
        keyring: its newest key seals; all of its keys open.
        purpose: what the values are, e.g. ``"client-side session"``; a constant of the calling code.

    Raises:
        MissingDriverError: the library ``cryptography`` is not installed.
        ConfigurationError: that library was built here without AES-GCM-SIV.
    """

    __slots__ = ("_current", "_note_use", "_refusal", "_stand_in", "_sub_keys")

    def __init__(self, keyring: KeyRing, purpose: str) -> None:
        cipher, self._refusal = _load()
        prepared = [_SubKey(key, purpose, cipher) for key in keyring]
        self._sub_keys = {sub_key.header: sub_key for sub_key in prepared}
        self._current = prepared[0]
        self._note_use = keyring.note_use
        self._stand_in = _SubKey(Key(secrets.token_bytes(32)), purpose, cipher)

    def seal(self, plaintext: bytes, *context: str) -> str:
        """Return ``plaintext`` as a token that opens only with the same ``context``.

        Args:
            plaintext: any bytes; its length can be told from the token's.
            context: where the token belongs, e.g. the cookie's name. It is not kept in the token.
        """
        body = self._current.sealed(plaintext, context)
        return self._current.header + _encoded(body).decode("ascii")

    def open(self, token: str, *context: str) -> bytes | None:
        """Return what :meth:`seal` was given, or None when this is not its token for this ``context``.

        Whatever is wrong (shape, key, purpose, context, any bit), the answer is the same None, never an
        error. An unknown key takes as long as a known one.
        """
        body = _decoded(token[_HEADER_BYTES:])
        return None if body is None else self._opened(token[:_HEADER_BYTES], body, context)

    def seal_bytes(self, plaintext: bytes, *context: str) -> bytes:
        """As :meth:`seal`, without base64: for places that keep bytes."""
        return self._current.header_bytes + self._current.sealed(plaintext, context)

    def open_bytes(self, blob: bytes, *context: str) -> bytes | None:
        """As :meth:`open`, for what :meth:`seal_bytes` returned."""
        header = blob[:_HEADER_BYTES].decode("latin-1")
        return self._opened(header, blob[_HEADER_BYTES:], context)

    def is_current(self, sealed: str | bytes) -> bool:
        """Return whether the newest key is the one named in ``sealed``; else it should be sealed anew.

        Looks at the header alone, so it says nothing about whether ``sealed`` opens.
        """
        if isinstance(sealed, bytes):
            return sealed.startswith(self._current.header_bytes)
        return sealed.startswith(self._current.header)

    def _opened(self, header: str, body: bytes, context: tuple[str, ...]) -> bytes | None:
        if len(body) < _NONCE_BYTES + _TAG_BYTES:
            return None
        sub_key = self._sub_keys.get(header, self._stand_in)
        try:
            plaintext = sub_key.opened(body, context)
        except self._refusal:
            return None
        if sub_key is not self._current:
            self._note_use(sub_key.key_id)  # so that one learns when a retired key can go
        return plaintext


class _SubKey:
    """One key made ready for one purpose: its cipher, and what is the same in everything it seals."""

    __slots__ = ("_cipher", "_framed", "header", "header_bytes", "key_id")

    def __init__(self, key: Key, purpose: str, cipher: type[AESGCMSIV]) -> None:
        # Not the sub-key of a signer of that purpose: one key, one algorithm (NIST SP 800-57 part 1, 5.2).
        self._cipher = cipher(key.derive(f"sealer/{purpose}"))
        self._framed = _framed((FORMAT, purpose, key.id))
        self.key_id = key.id
        self.header = f"{FORMAT}.{key.id}."
        self.header_bytes = self.header.encode("ascii")

    def sealed(self, plaintext: bytes, context: tuple[str, ...]) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, self._framed + _framed(context))

    def opened(self, body: bytes, context: tuple[str, ...]) -> bytes:
        nonce, ciphertext = body[:_NONCE_BYTES], body[_NONCE_BYTES:]
        return self._cipher.decrypt(nonce, ciphertext, self._framed + _framed(context))


def _framed(fields: tuple[str, ...]) -> bytes:
    # Lone surrogates, which no honest client sends, get bytes of their own too instead of an exception.
    return "".join([f"{len(field)}:{field}" for field in fields]).encode("utf-8", "surrogatepass")


def token_length(plaintext_bytes: int) -> int:
    """Return how many characters the token of a plaintext of this many bytes has."""
    body = _NONCE_BYTES + plaintext_bytes + _TAG_BYTES
    return _HEADER_BYTES + -(-body * 4 // 3)


def _encoded(body: bytes) -> bytes:
    return urlsafe_b64encode(body).rstrip(b"=")


def _decoded(text: str) -> bytes | None:
    """Decode base64url in its one spelling: without padding, foreign characters or stray last bits."""
    beyond = len(text) % 4
    try:
        encoded = text.encode("ascii").translate(_URL_SAFE)
        if beyond and encoded[-1] not in _LAST[beyond]:
            return None
        return a2b_base64(encoded + b"==="[: -beyond % 4], strict_mode=True)
    except ValueError:
        return None


def _load() -> tuple[type[AESGCMSIV], type[Exception]]:
    """Return the cipher and the error it raises at what it did not seal."""
    try:
        from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
    except ImportError as error:
        raise MissingDriverError(
            "encryption needs the library 'cryptography', which is not installed; "
            "run: pip install 'eyewall[encryption]'"
        ) from error
    try:
        AESGCMSIV(bytes(32))
    except UnsupportedAlgorithm as error:
        raise ConfigurationError(
            "the library 'cryptography' was built here on an OpenSSL without AES-GCM-SIV (older than 3.2, or "
            "restricted to FIPS); install its wheel, which brings its own: "
            "pip install --force-reinstall --only-binary cryptography cryptography"
        ) from error
    return AESGCMSIV, InvalidTag
