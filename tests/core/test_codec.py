"""Values come back as they were, or are refused at once; stored bytes are never code."""

from __future__ import annotations

import contextlib
import enum
import pickle
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.codec import decode_value, encode_value
from eyewall.errors import DamagedRecordError, UnstorableValueError

zones = st.one_of(
    st.none(),
    st.just(UTC),
    st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone),
    st.sampled_from(["Europe/Paris", "Asia/Kathmandu", "UTC"]).map(ZoneInfo),
)
hashables = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.binary(),
        st.dates(),
        st.timedeltas(),
        st.uuids(),
        st.decimals(allow_nan=False),
        st.datetimes(timezones=zones, allow_imaginary=False),
    ),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=5,
)
values = st.recursive(
    hashables,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=4),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal, of the same types all the way down, and in the same order."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return same(list(a.items()), list(b.items()))
    if isinstance(a, set):
        return a == b and sorted(map(repr, a)) == sorted(map(repr, b))
    if isinstance(a, datetime):
        return (
            a == b and a.fold == b.fold and str(a.tzinfo) == str(b.tzinfo) and a.utcoffset() == b.utcoffset()
        )
    return bool(a == b)


@given(values)
def test_every_supported_value_comes_back_exactly(value: Any) -> None:
    """A cart that changes its types on the way is a different cart."""
    assert same(decode_value(encode_value("k", value)), value)


@pytest.mark.parametrize(
    "value",
    [2**63, 2**64, -(2**63) - 1, 10**400, -(10**400), 0.0, -0.0, float("inf"), "\0", "\U0001f600", "é" * 9],
)
def test_edges_of_numbers_and_text_come_back_exactly(value: Any) -> None:
    """The numbers that other formats bend."""
    back = decode_value(encode_value("k", value))
    assert same(back, value)
    assert str(back) == str(value)


@pytest.mark.parametrize("value", [float("nan"), Decimal("NaN"), Decimal("sNaN")])
def test_nan_comes_back_as_nan(value: Any) -> None:
    """NaN equals nothing, itself included."""
    back = decode_value(encode_value("k", value))
    assert type(back) is type(value)
    assert str(back) == str(value)


@given(st.sets(st.text(), max_size=30))
def test_an_unchanged_set_encodes_the_same_whatever_its_order(items: set[str]) -> None:
    """Else every read of a set would look like a change and be written."""
    other: set[str] = set()
    for item in sorted(items, reverse=True):
        other.add(item)
    assert encode_value("k", items) == encode_value("k", other)


class _Colour(enum.IntEnum):
    RED = 1


class _Zone(tzinfo):
    def utcoffset(self, when: datetime | None, /) -> timedelta:
        return timedelta(0)

    dst = utcoffset

    def tzname(self, when: datetime | None, /) -> str:
        return "nowhere"


class _Point(NamedTuple):
    x: int


class _Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        object(),
        _Colour.RED,
        _Text("x"),
        OrderedDict(),
        defaultdict(list),
        _Point(1),
        frozenset(),
        bytearray(),
        range(3),
        lambda: None,
        datetime(2026, 1, 1, tzinfo=_Zone()),
        {"a": [{"b": object()}]},
        (object(),),
        {1: object()},
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_would_not_come_back_is_refused_naming_key_and_type(value: Any) -> None:
    """Silent coercion is how a datetime becomes a str a week later."""
    with pytest.raises(UnstorableValueError, match=r"session\['cart'\] cannot be stored: .*convert it"):
        encode_value("cart", value)


@pytest.mark.parametrize("value", ["\ud800", ["\udfff"], {"\ud800": 1}])
def test_a_lone_surrogate_is_refused(value: Any) -> None:
    """It has no UTF-8 form; half of the stores would fail at the save."""
    with pytest.raises(UnstorableValueError, match=r"session\['k'\]"):
        encode_value("k", value)


def test_a_list_that_holds_itself_is_refused_not_a_crash() -> None:
    """Recursion must end in an error that says why."""
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnstorableValueError, match="contain itself"):
        encode_value("k", loop)


@given(st.binary(max_size=60))
def test_any_bytes_decode_to_data_or_are_called_damaged(blob: bytes) -> None:
    """Whatever is in the store: no other exception, and no code."""
    with contextlib.suppress(DamagedRecordError):
        decode_value(blob)


@pytest.mark.parametrize(
    "blob",
    [
        pickle.dumps({"k": 1}),
        b"\xc1",
        b"\x91" * 5000,
        b"\xd4\x63\x00",  # unknown extension type
        b"\xd6\x07abcd",  # UUID of four bytes
        b"\xd4\x05x",  # date "x"
        b"\xd4\x08x",  # Decimal "x"
        b"",
    ],
)
def test_foreign_bytes_are_damaged(blob: bytes) -> None:
    """Pickle above all: there is no fallback decoder (CVE-2025-24813 and its family)."""
    with pytest.raises(DamagedRecordError):
        decode_value(blob)


def test_the_format_is_frozen() -> None:
    """Changing these bytes makes stored sessions unreadable: add a new version instead."""
    moment = datetime(2026, 11, 20, 12, 30, 1, 5, tzinfo=UTC)
    frozen: list[tuple[Any, str]] = [
        (None, "c0"),
        (True, "c3"),
        (7, "07"),
        (2**64, "c70901010000000000000000"),
        (1.5, "cb3ff8000000000000"),
        ("é", "a2c3a9"),
        (b"\x00\xff", "c40200ff"),
        ([1, [2]], "92019102"),
        ((1, 2), "c70302920102"),
        ({"a": 1}, "81a16101"),
        ({1: "a"}, "c70509919201a161"),
        ({2, 1}, "c70303920102"),
        (moment, "c71e0493ba323032362d31312d32305431323a33303a30312e3030303030350000"),
        (date(2026, 11, 20), "c70a05323032362d31312d3230"),
        (timedelta(days=1, seconds=2, microseconds=3), "d60693010203"),
        (UUID(int=1), "d80700000000000000000000000000000001"),
        (Decimal("1.50"), "d608312e3530"),
    ]
    assert [encode_value("k", value).hex() for value, _ in frozen] == [expected for _, expected in frozen]
    assert [decode_value(bytes.fromhex(expected)) for _, expected in frozen] == [v for v, _ in frozen]
