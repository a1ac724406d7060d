"""What stores give back, after anybody at all has written into them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final

import argon2
import msgspec

from eyewall.core.announcements import decode as decode_announcement
from eyewall.core.codec import decode_value, encode_value
from eyewall.core.payload import decode_payload, encode_payload
from eyewall.core.record import Record, decode_record, encode_record
from eyewall.core.session import MAX_PRINCIPAL_BYTES
from eyewall.core.side_records import SideRecordReader
from eyewall.errors import DamagedRecordError, UnstorableValueError
from eyewall.signin.passwords import Passwords
from eyewall.stores.encrypted import EncryptedStore
from eyewall.stores.markers import digest_named
from eyewall.stores.memory import MemoryStore
from eyewall.stores.mongodb_document import document_of, record_of
from eyewall.stores.resp_layout import pack, unpack
from eyewall.stores.sql_schema import to_record, to_row
from eyewall.tornado.compat import _principal_in
from tests.fuzz.kit import CLOCK, DIGEST, RING, utf8

SIDE_RECORDS: Final = SideRecordReader("fuzz", dict[str, int])
ENCRYPTED: Final = EncryptedStore(MemoryStore(clock=CLOCK), RING)
PASSWORDS: Final = Passwords()
PASSWORD: Final = "correct horse"
"""The one that the seed was made from."""
MOST_WORK: Final = 40 * 1024
WHOLE: Final = Record(
    digest=DIGEST,
    version=1,
    payload=b"",
    created_at=CLOCK(),
    seen_at=CLOCK(),
    expires_at=CLOCK() + timedelta(hours=1),
    successor=DIGEST,
)
COLUMNS: Final = len(to_row(WHOLE))


def record(data: bytes) -> bool:
    """Bytes are damage, or a record that comes back equal."""
    try:
        found = decode_record(data)
    except DamagedRecordError:
        return False
    assert decode_record(encode_record(found)) == found
    return True


def payload(data: bytes) -> bool:
    """A body with the right checksum is damage, or a payload that comes back equal."""
    checksum = hashlib.blake2b(data, digest_size=8, key=DIGEST).digest()
    try:
        found = decode_payload(checksum + data, DIGEST)
    except DamagedRecordError:
        return False
    again = decode_payload(encode_payload(found, DIGEST), DIGEST)
    assert again == found
    return True


def stored_value(data: bytes) -> bool:
    """Bytes are damage, or a value that can be stored again and then stays as it is.

    But one that somebody has nested too deep in the store itself is read, and refused at the next save.
    """
    try:
        value = decode_value(data)
    except DamagedRecordError:
        return False
    try:
        once = encode_value("k", value)
    except UnstorableValueError as error:
        return "nests deeper" in str(error) or _surprised(error)
    assert encode_value("k", decode_value(once)) == once
    return True


def _surprised(error: Exception) -> bool:
    raise AssertionError(f"read, but not to be stored again: {error}")


def side_record(data: bytes) -> bool:
    """A side record's payload is one of its kind or nothing; also with the right checksum."""
    checksum = hashlib.blake2b(data, digest_size=8, key=DIGEST, person=b"side record").digest()
    found = SIDE_RECORDS.read(msgspec.structs.replace(WHOLE, payload=checksum + data))
    assert found is None or isinstance(found, dict)
    if data != checksum:
        assert SIDE_RECORDS.read(msgspec.structs.replace(WHOLE, payload=data)) is None
    return found is not None


def announcement(data: bytes) -> bool:
    """A message is one of ours or nothing."""
    return decode_announcement(data) is not None


def redis_value(data: bytes) -> bool:
    """A Redis value is damage, dead, or a record that comes back equal; also when its length is right."""
    bent = data[:1] + len(data).to_bytes(4, "big") + data[5:]
    kept = [_is_kept(partial(unpack, each, DIGEST, CLOCK()), _through_redis) for each in (data, bent)]
    return any(kept)


def _through_redis(found: Record) -> Record | None:
    return unpack(pack(found), found.digest, CLOCK())


def sql_row(data: bytes) -> bool:
    """A row of any values is damage, or a record that comes back equal."""
    row = _unpacked(data, list)
    whole = row is not None and len(row) == COLUMNS
    return whole and _is_kept(partial(to_record, row), _through_sql)


def _through_sql(found: Record) -> Record:
    return to_record(tuple(to_row(found).values()))


def mongo_document(data: bytes) -> bool:
    """A document of any values is damage, or a record that comes back equal."""
    document = _unpacked(data, dict[str, Any])
    return document is not None and _is_kept(partial(record_of, document), _through_mongo)


def _through_mongo(found: Record) -> Record:
    return record_of(document_of(found, CLOCK()))


def _unpacked(data: bytes, kind: Any) -> Any:
    with suppress(msgspec.DecodeError, ValueError, RecursionError):
        return msgspec.msgpack.decode(data, type=kind)
    return None


def _is_kept(read: Callable[[], Record | None], through: Callable[[Record], Record | None]) -> bool:
    """Whether ``read`` finds a record; it must come back equal from where it was found."""
    try:
        found = read()
    except DamagedRecordError:
        return False
    if found is None:
        return False
    again = through(found)
    # What was dated beyond the store's own end of time may have died on the way.
    assert again == found or (again is None and found.expires_at <= CLOCK())
    return True


def sealed_record(data: bytes) -> bool:
    """Nothing opens in an encrypted store but what was sealed for this very record."""
    try:
        found = ENCRYPTED._opened(msgspec.structs.replace(WHOLE, payload=data))
    except DamagedRecordError:
        return False
    assert found.payload == b"a plain text"
    return True


def file_name(data: bytes) -> bool:
    """A file's name is a digest in one spelling only, or none."""
    name = utf8(data)
    digest = digest_named(name)
    assert digest is None or (len(digest) == 32 and digest.hex() == name)
    return digest is not None


def old_principal(data: bytes) -> bool:
    """Who is signed in with tornado-auth-sessions: exactly the text in its key, or nobody."""
    found = _principal_in(data)
    assert found is None or (found.encode() == data and 0 < len(data) <= MAX_PRINCIPAL_BYTES)
    return found is not None


def password_hash(data: bytes) -> bool:
    """Whatever a row of the users' table holds is a hash of the password, or a no.

    Hashes that ask for more work than ours are left out: they are slow, and meant to be.
    """
    stored = utf8(data)
    PASSWORDS.needs_rehash(stored)
    if stored.startswith("$2"):
        return False  # bcrypt's shape is one fixed expression, and each costs milliseconds
    try:
        asked = argon2.extract_parameters(stored)
        if asked.memory_cost * asked.time_cost <= MOST_WORK:
            return PASSWORDS._matches(PASSWORD, PASSWORD.encode(), stored)
    except (argon2.exceptions.VerificationError, ValueError):
        pass
    return False


TARGETS: Final = (
    record,
    payload,
    stored_value,
    side_record,
    announcement,
    redis_value,
    sql_row,
    mongo_document,
    sealed_record,
    file_name,
    old_principal,
    password_hash,
)
