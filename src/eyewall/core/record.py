"""The record: a session's stored form, and all that a store ever sees of it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec

from eyewall.errors import DamagedRecordError

FORMAT_VERSION: Final = 1
"""First element of every encoded record. A reader refuses versions it does not know."""

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""An aware ``datetime`` in UTC."""


class Device(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a session was started from, as raw as the request told it.

    Args:
        user_agent: the ``User-Agent`` header, cut to 512 characters.
        address: the client's IP address.
    """

    user_agent: str = ""
    address: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One session as a store keeps it.

    Args:
        digest: SHA-256 of the session ID (32 bytes); the record's key. The ID itself is never stored.
        version: starts at 1 and grows by one with every :meth:`~eyewall.core.store.Store.replace`.
        payload: the encoded session data; opaque to stores.
        created_at: when the session began (UTC). A regenerated session keeps it.
        seen_at: when the session was last used, to within the touch interval (UTC).
        expires_at: from this moment on the record is dead (UTC).
        principal: who is signed in, or None.
        device: where it was started, or None.
        successor: digest of the record that took over when the ID was regenerated, else None.
            A record with a successor is a marker: it is never served as a session.
    """

    digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    version: Annotated[int, msgspec.Meta(ge=1)]
    payload: bytes
    created_at: Instant
    seen_at: Instant
    expires_at: Instant
    principal: str | None = None
    device: Device | None = None
    successor: bytes | None = None


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[int, Record])


def encode_record(record: Record) -> bytes:
    """Return ``record`` as one blob, for stores that keep blobs (files, Redis)."""
    return _encoder.encode((FORMAT_VERSION, record))


def decode_record(blob: bytes) -> Record:
    """Read back what :func:`encode_record` wrote.

    Raises:
        DamagedRecordError: the blob is truncated, foreign, or of another format version.
    """
    try:
        version, record = _decoder.decode(blob)
    except (msgspec.DecodeError, RecursionError, OverflowError, ValueError) as error:
        raise DamagedRecordError(f"not a session record: {error}") from None
    if version != FORMAT_VERSION:
        raise DamagedRecordError(f"record format {version}, but this Eyewall reads {FORMAT_VERSION}")
    return record
