"""The payload: all the data of one session as the bytes that a record carries.

The bytes are an 8-byte checksum followed by a msgpack map. The checksum is BLAKE2b keyed with the record's
digest, so a payload that was cut, bent, or moved to another record is noticed before any of it is used
(a client library that hands out another call's reply is the incident behind this: redis-py's
CVE-2023-28858). It is no secret and no defence against someone who can write to the store.

Values stay encoded until somebody asks for them: opening a session costs one shallow decode.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec

from eyewall.errors import DamagedRecordError

PREDECESSOR_BYTES: Final = 36
"""What the predecessor adds to a payload; it comes and goes by itself, so no limit may count it."""

_CHECKSUM_BYTES: Final = 8


# gc=False here and in records: nothing in them can lead back to them, and each is one object less for the
# collector to look through, for every request under way.


class FlashEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One flash message. The random ``id`` lets parallel requests add and take them independently."""

    id: bytes
    key: str
    category: str
    value: msgspec.Raw


class Payload(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, gc=False):
    """Session data, shallowly decoded. Field names are short because they are stored with every session.

    Args:
        format: version of this layout; another version is refused, never guessed at.
        data: the values by key, each still encoded.
        flash: messages waiting to be read, oldest first.
        principal: who is signed in; the record's ``principal`` is the copy that stores index.
        authenticated_at: when the principal last proved who they are (UTC); None when a remember token
            brought them back without proof.
        device_id: 16 random bytes made at sign-in. They stay when the session gets a new ID, and a session
            that a remember token starts has the same: so a device keeps its place in the list of devices.
        method: how the principal signed in, in the application's words.
        predecessor: digest of the record whose place this one takes, until the first change under the new
            ID. As long as that record is live, nobody has been told this one's ID, and the two are one
            session. Only where somebody is signed in.
    """

    format: Literal[1] = msgspec.field(name="v")
    data: dict[str, msgspec.Raw] = msgspec.field(name="d", default_factory=dict)
    flash: list[FlashEntry] = msgspec.field(name="f", default_factory=list)
    principal: str | None = msgspec.field(name="p", default=None)
    authenticated_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = msgspec.field(
        name="a", default=None
    )
    device_id: bytes | None = msgspec.field(name="i", default=None)
    method: str | None = msgspec.field(name="m", default=None)
    predecessor: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)] | None = msgspec.field(
        name="b", default=None
    )

    def is_empty(self) -> bool:
        """Whether nothing is kept here, so that no record needs to exist."""
        return not (self.data or self.flash or self.principal)


_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Payload)


def empty_payload() -> Payload:
    """Return a payload that holds nothing."""
    return Payload(format=1)


def encode_payload(payload: Payload, digest: bytes) -> bytes:
    """Return ``payload`` as bytes bound to the record of ``digest``."""
    body = _encode(payload)
    return _checksum(body, digest) + body


def decode_payload(blob: bytes, digest: bytes) -> Payload:
    """Read back what :func:`encode_payload` wrote for the same ``digest``.

    Raises:
        DamagedRecordError: the bytes are truncated, altered, another record's, or of another format.
    """
    body = blob[_CHECKSUM_BYTES:]
    if blob[:_CHECKSUM_BYTES] != _checksum(body, digest):
        raise DamagedRecordError("payload does not match its checksum, or belongs to another record")
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DamagedRecordError(f"not a session payload: {error}") from None


def _checksum(body: bytes, digest: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=_CHECKSUM_BYTES, key=digest).digest()
