"""How the Redis and Valkey store lays a record out under its key, and the Lua that works on it.

What a session's key holds::

    1 byte    length of the principal's digest: 32, or 0 when nobody is signed in
    4 bytes   length of the whole value
    8 bytes   version
    1 byte    1 once the record was touched: then the two times below hold, not those in the record
    8 bytes   expires_at    microseconds since 1970, signed
    8 bytes   seen_at       the same
    0 or 32   SHA-256 of the principal
    the rest  the record, as eyewall.core.record encodes it

All numbers are big-endian. So a script compares versions and moves times without reading the record, and
a truncated or foreign value is told by its length.
"""

from __future__ import annotations

import contextlib
import hashlib
from base64 import urlsafe_b64decode
from binascii import b2a_base64
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Final

import msgspec

from eyewall.core.record import Record, decode_record, encode_record
from eyewall.errors import DamagedRecordError
from eyewall.stores.resp_replies import Script

HEADER: Final = Struct(">BIQ?qq")
START: Final = Struct(">BI8x?")
"""What every load needs of the header: without the version, and the times that only a touched record has."""
TIMES: Final = Struct(">?qq")
"""The last three fields of the header, which a touch overwrites."""

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
DIGEST_BYTES: Final = 32
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
MILLISECOND: Final = timedelta(milliseconds=1)

LATE: Final = timedelta(minutes=1)
"""How long the server keeps what our clock calls dead; and how far apart the servers' clocks may be."""

LISTED_LATE: Final = timedelta(days=1)
"""How long a principal's list keeps a session after the end it knows of. A touch that is cut short between
its two writes prolongs the session and not its entry, so this should exceed the idle timeout."""


def text_of(digest: bytes) -> bytes:
    """Return ``digest`` as it stands in the name of a key: base64url without padding."""
    return b2a_base64(digest).translate(_TO_URL, b"=\n")


def digest_in(text: bytes) -> Iterable[bytes]:
    """Yield the digest that ends a session's key; nothing when a stranger made the key."""
    with contextlib.suppress(ValueError):
        yield urlsafe_b64decode(text + b"=" * (-len(text) % 4))


def mark_of(principal: str | None) -> bytes:
    """Return the digest that stands for ``principal`` in keys and values; empty for nobody."""
    return b"" if principal is None else hashlib.sha256(principal.encode("utf-8", "surrogatepass")).digest()


def pack(record: Record) -> bytes:
    """Return the value that keeps ``record``."""
    mark, blob = mark_of(record.principal), encode_record(record)
    length = HEADER.size + len(mark) + len(blob)
    times = microseconds(record.expires_at), microseconds(record.seen_at)
    return HEADER.pack(len(mark), length, record.version, False, *times) + mark + blob


def unpack(value: bytes, digest: bytes, now: datetime) -> Record | None:
    """Return the record that ``value`` keeps, or None when it is dead.

    Raises:
        DamagedRecordError: ``value`` is no record, or that of another digest.
    """
    if len(value) < HEADER.size:
        raise DamagedRecordError("not a session record: too short")
    mark_length, length, touched = START.unpack_from(value)
    if length != len(value) or mark_length not in (0, DIGEST_BYTES):
        raise DamagedRecordError("not a session record: the header does not fit")
    record = decode_record(value[HEADER.size + mark_length :])
    if record.digest != digest:
        raise DamagedRecordError("the record of another session")
    if touched:
        record = _touched(record, *TIMES.unpack_from(value, START.size - 1))
    return record if record.expires_at > now else None


def pack_version(version: int) -> bytes:
    """Return ``version`` as the header holds it."""
    return version.to_bytes(8, "big")


def pack_times(seen_at: datetime, expires_at: datetime) -> bytes:
    """Return the part of the header that a touch overwrites."""
    return TIMES.pack(True, microseconds(expires_at), microseconds(seen_at))


def life(expires_at: datetime, now: datetime, late: timedelta = LATE) -> int:
    """How long the server keeps something (milliseconds); relative, so that its clock does not matter."""
    return max((expires_at - now + late) // MILLISECOND, 1)


def microseconds(moment: datetime) -> int:
    """Return ``moment`` as microseconds since 1970, exactly."""
    return (moment - EPOCH) // MICROSECOND


def _touched(record: Record, _: bool, expires_at: int, seen_at: int) -> Record:  # noqa: FBT001 - as packed
    return msgspec.structs.replace(record, seen_at=_moment(seen_at), expires_at=_moment(expires_at))


def _moment(count: int) -> datetime:
    try:
        return EPOCH + count * MICROSECOND
    except OverflowError:
        raise DamagedRecordError("not a session record: a time that no calendar has") from None


_READ_HEADER: Final = """
local head = redis.pcall('GETRANGE', KEYS[1], 0, 61)
local whole = type(head) == 'string' and #head >= 30
    and struct.unpack('>I4', head, 2) == redis.call('STRLEN', KEYS[1])
local owner = whole and string.sub(head, 31, 30 + string.byte(head)) or ''
"""
# What follows knows `whole`: the key holds an undamaged header and all its bytes; and `owner`: the mark of
# the record's principal. Each answers {owner} for done, so that the caller can keep the index, or 0.

REPLACE: Final = Script(
    _READ_HEADER
    + """
if not whole or string.sub(head, 6, 13) ~= ARGV[1] then return 0 end
if struct.unpack('>i8', head, 15) <= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return {owner}
"""
)
"""Arguments: expected version, now, new value, life in milliseconds."""

# PEXPIRE comes first on purpose: a server that is full refuses SETRANGE to a script that has not written yet.
TOUCH: Final = Script(
    _READ_HEADER
    + """
if not whole or struct.unpack('>i8', head, 15) <= tonumber(ARGV[1]) then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SETRANGE', KEYS[1], 13, ARGV[3])
return {owner}
"""
)
"""Arguments: now, life in milliseconds, the packed times."""

DELETE: Final = Script(_READ_HEADER + "return redis.call('DEL', KEYS[1]) == 1 and {owner} or 0")

DELETE_OF: Final = Script(_READ_HEADER + "return owner == ARGV[1] and redis.call('DEL', KEYS[1]) or 0")
"""Argument: the mark whose record may be deleted. Answers 1 or 0."""

# ZREMRANGEBYSCORE keeps the set from growing for ever; that it comes first has the reason given for PEXPIRE.
ENLIST: Final = Script(
    """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return 1
"""
)
"""Arguments: the score up to which members go, the new member's score, the member, life in milliseconds."""
