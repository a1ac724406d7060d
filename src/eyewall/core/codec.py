"""Session data <-> bytes: typed, inert, and every value decodable alone.

A value is msgpack. Types that msgpack lacks are extension types of ours, listed in the table below; there
is no pickle, no class lookup and no fallback decoder, so stored bytes can be wrong but never code. The
formats are frozen by literal bytes in the tests: changing one makes stored sessions unreadable.

=====  =====================  ============================================================
code   type                   content
=====  =====================  ============================================================
1      int beyond 64 bits     big-endian two's complement
2      tuple                  msgpack array
3      set                    msgpack array, elements ordered by their encoded bytes
4      datetime               msgpack array: ISO text without offset, fold, zone: nil (naive), offset from
                              UTC in microseconds, or the name of a ``ZoneInfo``
5      date                   ISO text
6      timedelta              msgpack array: days, seconds, microseconds
7      UUID                   16 bytes
8      Decimal                its text
9      dict, keys not all str msgpack array of key/value pairs
=====  =====================  ============================================================
"""

from __future__ import annotations

import contextlib
import zoneinfo
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec

from eyewall.errors import DamagedRecordError, UnstorableValueError

MAX_DEPTH: Final = 64
"""How deep containers may nest; deeper data is refused rather than risking the interpreter's stack."""

MUTABLE_TYPES: Final = frozenset({list, dict, set, tuple})
"""Types whose values may change without an assignment (a tuple may hold a list)."""

_STORABLE: Final = (
    "None, bool, int, float, str, bytes, list, tuple, dict, set, datetime, date, timedelta, UUID, Decimal"
)
_PLAIN: Final = frozenset({type(None), bool, float, bytes})
_NATIVE_INT: Final = range(-(2**63), 2**64)

_encode: Final = msgspec.msgpack.Encoder().encode
_Ext: Final = msgspec.msgpack.Ext
_Packer = Callable[[Any, int], Any]


class _UnstorableError(Exception):
    """Internal: carries the offending value's description up to where the key is known."""


def encode_value(key: str, value: object) -> bytes:
    """Return ``value`` as bytes.

    Args:
        key: the session key; only used to name it in the error.
        value: None, bool, int, float, str, bytes, list, tuple, dict, set, datetime, date, timedelta, UUID
            or Decimal, nested up to 64 deep. Exactly these types: a subclass would come back as its base.

    Raises:
        UnstorableValueError: names the key and the type that cannot be stored.
    """
    try:
        if not key.isascii():
            key.encode()  # as for a text in _pack_str
        return _encode(_pack(value, 0))
    except _UnstorableError as error:
        raise UnstorableValueError(f"session[{key!r}] cannot be stored: {error}") from None
    except (UnicodeEncodeError, OverflowError) as error:
        raise UnstorableValueError(f"session[{key!r}] cannot be stored: {error}") from None


def decode_value(raw: bytes | memoryview | msgspec.Raw) -> Any:
    """Return the value that :func:`encode_value` wrote, equal and of the same type.

    Raises:
        DamagedRecordError: the bytes are not such a value.
    """
    try:
        return _decoder.decode(raw)
    except _DECODE_ERRORS as error:
        raise DamagedRecordError(f"not a session value: {error}") from None


def decode_or_default(raw: bytes | msgspec.Raw | None, default: bytes) -> Any:
    """Return a fresh copy of the value in ``raw``; of that in ``default`` if it is missing or damaged."""
    if raw is not None:
        with contextlib.suppress(DamagedRecordError):
            return decode_value(raw)
    return decode_value(default)


def _pack(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    packer = _PACKERS.get(kind)
    if packer is None:
        raise _UnstorableError(_refusal(kind))
    if depth > MAX_DEPTH:
        raise _UnstorableError(f"it nests deeper than {MAX_DEPTH} levels (does it contain itself?)")
    return packer(value, depth + 1)


def _refusal(kind: type) -> str:
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return f"it is or contains a {name}; convert it to one of: {_STORABLE}"


def _pack_str(value: str, _depth: int) -> Any:
    if not value.isascii():
        value.encode()  # a lone surrogate has no UTF-8 form; better refused here than half-written
    return value


def _pack_int(value: int, _depth: int) -> Any:
    if value in _NATIVE_INT:
        return value
    return _Ext(1, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _pack_list(value: list[Any], depth: int) -> Any:
    return [_pack(item, depth) for item in value]


def _pack_tuple(value: tuple[Any, ...], depth: int) -> Any:
    return _Ext(2, _encode([_pack(item, depth) for item in value]))


def _pack_set(value: set[Any], depth: int) -> Any:
    # Ordered by encoded bytes: an unchanged set must look unchanged, whatever the hash seed.
    items = sorted(_encode(_pack(item, depth)) for item in value)
    return _Ext(3, _encode([msgspec.Raw(item) for item in items]))


def _pack_dict(value: dict[Any, Any], depth: int) -> Any:
    if all(type(key) is str for key in value):
        return {_pack_str(key, depth): _pack(item, depth) for key, item in value.items()}
    pairs = [[_pack(key, depth), _pack(item, depth)] for key, item in value.items()]
    return _Ext(9, _encode(pairs))


def _pack_datetime(value: datetime, _depth: int) -> Any:
    # The offset apart from the text: Python 3.11 cannot read back one of less than a second.
    text = value.replace(tzinfo=None).isoformat()
    return _Ext(4, _encode([text, value.fold, _zone_of(value.tzinfo)]))


def _zone_of(zone: tzinfo | None) -> int | str | None:
    if zone is None:
        return None
    if type(zone) is timezone:
        return zone.utcoffset(None) // timedelta(microseconds=1)
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key is not None:
        return zone.key
    raise _UnstorableError(f"its time zone is {_refusal(type(zone))}; use datetime.UTC or a ZoneInfo")


_PACKERS: Final[dict[type, _Packer]] = {
    str: _pack_str,
    int: _pack_int,
    list: _pack_list,
    dict: _pack_dict,
    tuple: _pack_tuple,
    set: _pack_set,
    datetime: _pack_datetime,
    date: lambda value, _: _Ext(5, value.isoformat().encode()),
    timedelta: lambda value, _: _Ext(6, _encode([value.days, value.seconds, value.microseconds])),
    UUID: lambda value, _: _Ext(7, value.bytes),
    Decimal: lambda value, _: _Ext(8, str(value).encode()),
}


def _read_datetime(data: bytes) -> datetime:
    text, fold, zone = _decoder.decode(data)
    moment = datetime.fromisoformat(text).replace(fold=fold)
    if zone is None:
        return moment
    if isinstance(zone, int):
        return moment.replace(tzinfo=timezone(timedelta(microseconds=zone)) if zone else UTC)
    return moment.replace(tzinfo=zoneinfo.ZoneInfo(zone))


_UNPACKERS: Final[dict[int, Callable[[bytes], Any]]] = {
    1: lambda data: int.from_bytes(data, "big", signed=True),
    2: lambda data: tuple(_decoder.decode(data)),
    3: lambda data: set(_decoder.decode(data)),
    4: _read_datetime,
    5: lambda data: date.fromisoformat(data.decode("ascii")),
    6: lambda data: timedelta(*_decoder.decode(data)),
    7: lambda data: UUID(bytes=data),
    8: lambda data: Decimal(data.decode("ascii")),
    9: lambda data: dict(_decoder.decode(data)),
}


def _unpack(code: int, data: memoryview) -> Any:
    unpacker = _UNPACKERS.get(code)
    if unpacker is None:
        raise ValueError(f"unknown extension type {code}")
    return unpacker(bytes(data))


_decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(ext_hook=_unpack)

_DECODE_ERRORS: Final = (
    msgspec.DecodeError,
    ValueError,  # bad ISO text, bad UTF-8, wrong UUID length
    TypeError,  # wrong element types, unhashable set members
    ArithmeticError,  # timedelta out of range, no Decimal
    RecursionError,
    zoneinfo.ZoneInfoNotFoundError,
)
