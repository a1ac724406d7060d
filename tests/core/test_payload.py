"""A payload is ours, whole, and its own record's — or it is not used at all."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.codec import encode_value
from eyewall.core.payload import (
    PREDECESSOR_BYTES,
    Payload,
    decode_payload,
    empty_payload,
    encode_payload,
)
from eyewall.errors import DamagedRecordError

DIGEST = bytes(range(32))


def sample() -> Payload:
    """A payload with one value."""
    return Payload(format=1, data={"k": msgspec.Raw(encode_value("k", [1, "two"]))}, principal="alice")


def test_a_payload_comes_back() -> None:
    """What goes in comes out, values still encoded."""
    back = decode_payload(encode_payload(sample(), DIGEST), DIGEST)
    assert back.principal == "alice"
    assert bytes(back.data["k"]) == encode_value("k", [1, "two"])


def test_another_records_payload_is_refused() -> None:
    """A client that mixes up replies must not show one user's session to another (CVE-2023-28858)."""
    with pytest.raises(DamagedRecordError, match="another record"):
        decode_payload(encode_payload(sample(), DIGEST), bytes(32))


def test_every_flipped_bit_is_noticed() -> None:
    """Half a record is no record."""
    blob = encode_payload(sample(), DIGEST)
    for position in range(len(blob) * 8):
        damaged = bytearray(blob)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(DamagedRecordError):
            decode_payload(bytes(damaged), DIGEST)


def test_every_truncation_is_noticed() -> None:
    """A full disk or a killed process leaves the beginning of something."""
    blob = encode_payload(sample(), DIGEST)
    for length in range(len(blob)):
        with pytest.raises(DamagedRecordError):
            decode_payload(blob[:length], DIGEST)


@given(st.binary(max_size=100))
def test_foreign_bytes_are_refused(blob: bytes) -> None:
    """Nothing but DamagedRecordError, whatever is in the store."""
    with pytest.raises(DamagedRecordError):
        decode_payload(blob, DIGEST)


def test_a_payload_of_another_version_is_refused_not_guessed_at() -> None:
    """A newer Eyewall may have written it; half-understanding it would lose data at the next save."""
    newer = msgspec.msgpack.encode({"v": 2, "d": {}})
    unknown = msgspec.msgpack.encode({"v": 1, "new": 1})
    from eyewall.core.payload import _checksum

    for body in (newer, unknown):
        with pytest.raises(DamagedRecordError):
            decode_payload(_checksum(body, DIGEST) + body, DIGEST)


def test_the_format_is_frozen() -> None:
    """Changing these bytes makes stored sessions unreadable: add a new version instead."""
    assert encode_payload(sample(), DIGEST).hex() == FROZEN
    assert encode_payload(empty_payload(), DIGEST)[8:].hex() == "81a17601"
    moved = msgspec.structs.replace(empty_payload(), predecessor=DIGEST)
    assert encode_payload(moved, DIGEST)[8:].hex() == "82a17601a162c420" + DIGEST.hex()
    assert (
        len(encode_payload(moved, DIGEST)) - len(encode_payload(empty_payload(), DIGEST)) == PREDECESSOR_BYTES
    )


FROZEN = "2a2ff269ba5ea47983a17601a16481a16b9201a374776fa170a5616c696365"
