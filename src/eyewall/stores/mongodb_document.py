"""A record as a MongoDB document, and back. Knows no driver.

Digests are kept as lower-case hex: that is how the log shortens them, a shell can look them up, and no
collation of the collection can take two of them for one. Times are whole microseconds since 1970, for a
BSON date would lose the last three digits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec

from eyewall.core.record import Device, Record
from eyewall.core.store import utc_now
from eyewall.errors import DamagedRecordError

Document = dict[str, Any]

FORMAT: Final = 1
"""The ``format`` field of every document. Documents with another one are damaged to us."""

PURGE_MARGIN: Final = timedelta(days=1)
"""How long after its end the server's TTL index may remove a record; covers clocks that disagree."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
_OPTIONAL: Final = ("principal", "principal_digest", "device", "successor")
FOREVER: Final = timedelta(days=36_525)


class _Stored(msgspec.Struct, kw_only=True):
    """The fields a document must have, with their types; others (``purge_at``) do not matter to a reader."""

    digest: str = msgspec.field(name="_id")
    format: Literal[1]
    version: Annotated[int, msgspec.Meta(ge=1)]
    payload: bytes
    created_us: int
    seen_us: int
    expires_us: int
    principal: Any = None
    principal_digest: str | None = None
    device: dict[str, Any] | None = None
    successor: str | None = None


def microseconds(moment: datetime) -> int:
    """Return microseconds since 1970: a BSON date would lose the last three digits."""
    return (moment - EPOCH) // MICROSECOND


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)


LATEST: Final = microseconds(datetime.max.replace(tzinfo=UTC))


def _text(text: str) -> str | bytes:
    """Return ``text`` as BSON can keep it: lone surrogates are no UTF-8, so they travel as bytes."""
    encoded = text.encode("utf-8", "surrogatepass")
    return text if encoded.decode("utf-8", "ignore") == text else encoded


def _text_back(stored: object) -> str:
    if isinstance(stored, bytes):
        return stored.decode("utf-8", "surrogatepass")
    if isinstance(stored, str):
        return stored
    raise ValueError(f"text expected, got {type(stored).__name__}")


def principal_digest_of(principal: str) -> str:
    """Return what the principal is looked up by.

    A digest has one form only, whereas a collection's collation may hold "alice", "Alice" and "alicé" for
    the same text; signing out the one must not sign out the others.
    """
    return hashlib.sha256(principal.encode("utf-8", "surrogatepass")).hexdigest()


def document_of(record: Record, now: datetime) -> Document:
    """Return ``record`` as it is inserted. What it does not have is left out, not null."""
    document: Document = {
        "_id": record.digest.hex(),
        "format": FORMAT,
        "version": record.version,
        "payload": record.payload,
        "created_us": microseconds(record.created_at),
        **times_of(record.seen_at, record.expires_at, now),
    }
    if record.principal is not None:
        document["principal"] = _text(record.principal)
        document["principal_digest"] = principal_digest_of(record.principal)
    if record.device is not None:
        document["device"] = {
            "user_agent": _text(record.device.user_agent),
            "address": _text(record.device.address),
        }
    if record.successor is not None:
        document["successor"] = record.successor.hex()
    return document


def changes_of(record: Record, now: datetime) -> Document:
    """Return the update that makes any document of this digest into ``record``'s, as one atomic step.

    As good as a replacement, for it names every field a document of ours can have.
    """
    fields = document_of(record, now)
    del fields["_id"]
    absent = {name: "" for name in _OPTIONAL if name not in fields}
    return {"$set": fields, "$unset": absent} if absent else {"$set": fields}


def times_of(seen_at: datetime, expires_at: datetime, now: datetime) -> Document:
    """Return the fields a touch sets.

    ``purge_at`` is read by the server's TTL index, hence by the server's clock. So it counts the life that
    is left by *our* clock from the real time on: a store whose clock is far from the real time (a test's,
    or a badly set host's) loses no live record to it.
    """
    left = min(max(expires_at - now, timedelta()), FOREVER)
    return {
        "seen_us": microseconds(seen_at),
        "expires_us": microseconds(expires_at),
        "purge_at": utc_now() + left + PURGE_MARGIN,
    }


def record_of(document: Mapping[str, Any]) -> Record:
    """Read a document back.

    Raises:
        DamagedRecordError: a field is missing, or has a type or value that this store never writes.
    """
    try:
        stored = msgspec.convert(document, _Stored, builtin_types=(bytes,))
        return _checked(stored)
    except (msgspec.ValidationError, ValueError, OverflowError, LookupError) as error:
        raise DamagedRecordError(f"not a session document: {error}") from None


def _checked(stored: _Stored) -> Record:
    principal = None if stored.principal is None else _text_back(stored.principal)
    if stored.principal_digest != (None if principal is None else principal_digest_of(principal)):
        raise ValueError("principal and principal_digest do not belong together")
    return Record(
        digest=_digest_back(stored.digest),
        version=stored.version,
        payload=stored.payload,
        created_at=_moment(stored.created_us),
        seen_at=_moment(stored.seen_us),
        expires_at=_moment(stored.expires_us),
        principal=principal,
        device=None if stored.device is None else _device_of(stored.device),
        successor=None if stored.successor is None else _digest_back(stored.successor),
    )


def _digest_back(text: str) -> bytes:
    digest = bytes.fromhex(text)
    if len(digest) != 32 or digest.hex() != text:
        raise ValueError("a digest is 64 lower-case hex digits")
    return digest


def _device_of(fields: Mapping[str, Any]) -> Device:
    return Device(user_agent=_text_back(fields["user_agent"]), address=_text_back(fields["address"]))


def undamaged(documents: Iterable[Document]) -> Iterable[Record]:
    """Read documents back, leaving out those that cannot be read."""
    for document in documents:
        try:
            yield record_of(document)
        except DamagedRecordError:
            continue


def live(now: datetime) -> Document:
    """Return the filter for live records.

    The upper bound is for servers that compare across types, where text is greater than any number.
    """
    return {"format": FORMAT, "expires_us": {"$gt": microseconds(now), "$lte": LATEST}}


def dead(now: datetime) -> Document:
    """Return the filter for dead records."""
    return {"expires_us": {"$lte": microseconds(now)}}
