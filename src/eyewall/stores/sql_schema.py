"""The SQL store's one table, and how a record becomes a row and comes back.

Nothing in a row depends on the database it is in:

- Times are microseconds since 1970 in a BIGINT. Database types for times differ in what they keep
  (MySQL's drop fractions unless told, SQLite has none, PostgreSQL converts to the connection's time
  zone); an integer comes back to the microsecond, and compares and indexes alike, in all three.
- Principals are bytes (UTF-8): text columns refuse NUL (PostgreSQL), or take ``Alice``, ``alice`` and
  ``alice `` for one (MySQL). Found by their SHA-256, they may be of any length, and match exactly.
- The device is one small msgpack value, since the header it comes from may hold any byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    make_url,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from eyewall.core.record import FORMAT_VERSION, Record
from eyewall.errors import ConfigurationError, DamagedRecordError
from eyewall.stores.sql_urls import KINDS

DEFAULT_TABLE: Final = "eyewall_session"
_TABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_Digest: Final = LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb")
_Blob: Final = LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")


def session_table(metadata: MetaData, name: str = DEFAULT_TABLE) -> Table:
    """Add the table of sessions to ``metadata`` and return it.

    Args:
        metadata: the application's own, so that its Alembic migrations make the table too.
        name: ASCII letters, digits and ``_``, at most 40, not beginning with a digit.

    Raises:
        ConfigurationError: ``name`` is none.
    """
    if not _TABLE_NAME.fullmatch(name):
        raise ConfigurationError(f"table {name!r}: use 1 to 40 of A-Z a-z 0-9 _, not a digit first")
    return Table(
        name,
        metadata,
        Column("digest", _Digest, primary_key=True, comment="SHA-256 of the session ID"),
        Column("version", BigInteger, nullable=False, comment="grows by one with every change"),
        Column("payload", _Blob, nullable=False),
        Column("created_at", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
        Column("seen_at", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
        Column("expires_at", BigInteger, nullable=False, comment="microseconds since 1970, UTC"),
        Column("principal", _Blob, comment="UTF-8"),
        Column("device", _Blob, comment="msgpack"),
        Column("successor", _Digest),
        Column("principal_digest", _Digest, comment="SHA-256 of the principal"),
        Column("format", SmallInteger, nullable=False, comment="version of this layout"),
        Index(f"{name}_principal", "principal_digest"),
        Index(f"{name}_expiry", "expires_at"),
    )


metadata: Final = MetaData()
"""Holds the table under its default name, for Alembic's ``target_metadata``."""

session_table(metadata)


def schema_sql(dialect_name: str, *, table: str = DEFAULT_TABLE) -> str:
    """Return the statements that make the table, for people who apply their schemas by hand.

    Nothing is connected to and no driver is needed.

    Args:
        dialect_name: ``sqlite``, ``postgresql``, ``postgres``, ``mysql`` or ``mariadb``.
        table: the table's name.

    Raises:
        ConfigurationError: another dialect, or no possible name.
    """
    made = session_table(MetaData(), table)
    dialect = _dialect(dialect_name)
    indexes = sorted(made.indexes, key=lambda index: str(index.name))
    statements: list[ExecutableDDLElement] = [CreateTable(made), *map(CreateIndex, indexes)]
    printed = [str(statement.compile(dialect=dialect)).strip() for statement in statements]
    return ";\n\n".join(printed) + ";\n"


def _dialect(name: str) -> Dialect:
    if name not in KINDS:
        raise ConfigurationError(f"no schema for {name!r}; choose one of {', '.join(KINDS)}")
    return make_url(f"{KINDS[name][0]}://").get_dialect()()


def to_micros(moment: datetime) -> int:
    """Return an aware ``datetime`` as whole microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def principal_digest(principal: str) -> bytes:
    """Return what ``principal`` is found by."""
    return hashlib.sha256(_principal_bytes(principal)).digest()


def _principal_bytes(principal: str) -> bytes:
    # surrogatepass: every str comes back as it was, even one that is not valid Unicode.
    return principal.encode("utf-8", "surrogatepass")


def to_row(record: Record) -> dict[str, Any]:
    """Return ``record`` as column values."""
    principal = None if record.principal is None else _principal_bytes(record.principal)
    return {
        "digest": record.digest,
        "version": record.version,
        "payload": record.payload,
        "created_at": to_micros(record.created_at),
        "seen_at": to_micros(record.seen_at),
        "expires_at": to_micros(record.expires_at),
        "principal": principal,
        "device": None if record.device is None else msgspec.msgpack.encode(record.device),
        "successor": record.successor,
        "principal_digest": None if principal is None else hashlib.sha256(principal).digest(),
        "format": FORMAT_VERSION,
    }


def to_record(row: Sequence[Any]) -> Record:
    """Return the record of a row that holds all columns in the table's order.

    Raises:
        DamagedRecordError: the row is of another format, or a column holds what no record can.
    """
    if row[-1] != FORMAT_VERSION:
        raise DamagedRecordError(f"row format {row[-1]!r}, but this Eyewall reads {FORMAT_VERSION}")
    digest, version, payload, created_at, seen_at, expires_at, principal, device, successor, *_ = row
    try:
        fields = (
            digest,
            version,
            payload,
            _EPOCH + created_at * _MICROSECOND,
            _EPOCH + seen_at * _MICROSECOND,
            _EPOCH + expires_at * _MICROSECOND,
            None if principal is None else principal.decode("utf-8", "surrogatepass"),
            None if device is None else msgspec.msgpack.decode(device),
            successor,
        )
        return msgspec.convert(fields, Record)
    except (ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        raise DamagedRecordError(f"not a session record: {error}") from None
