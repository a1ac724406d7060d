"""Filling a store with very many sessions, quickly, and asking it how large it is.

The records are made by Eyewall's own code and laid out by the store's own; only their way into a database is
shorter than ``create``. A sample of them comes with its cookies: the benchmark reads these through an
application, which proves that what was filled in is what the store would have written.
"""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol, TypeVar

import asyncpg

from bench.apps.answers import SECRET
from bench.loads import Visitor
from bench.micro.pieces import stored
from eyewall.core.ids import digest_of, new_session_id
from eyewall.core.payload import Payload, decode_payload, encode_payload
from eyewall.core.record import Record
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.core.store import PrincipalIndex, Store, utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.stores.resp import RespStore
from eyewall.stores.sql import SqlStore
from eyewall.stores.sql_schema import DEFAULT_TABLE, to_row
from eyewall.stores.sql_urls import driver_url
from tests.servers.resp import RespServer

AT_ONCE = 500
LIFE = timedelta(hours=12)
DEVICES = 10
"""Sessions of one principal, where sessions have principals."""
COOKIE = "session"

T = TypeVar("T")


class IndexedStore(Store, PrincipalIndex, Protocol):
    """What all stores here can do."""


def record_of(
    digest: bytes, payload: Payload, *, principal: str | None = None, life: timedelta = LIFE
) -> Record:
    """Return a live record that was made just now."""
    now = utc_now()
    blob = encode_payload(payload, digest)
    return Record(
        digest=digest, version=1, payload=blob, created_at=now, seen_at=now, expires_at=now + life,
        principal=principal,
    )  # fmt: skip


def payload_of_500() -> Payload:
    """Return what a session of about 500 bytes holds: who reads it is told ``alice 7``."""
    nobody = bytes(range(32))
    return decode_payload(stored(500), nobody)


def anonymous(count: int, *, life: timedelta = LIFE) -> Iterator[Record]:
    """Yield ``count`` sessions of about 500 bytes whose cookies nobody has."""
    payload = payload_of_500()
    for _ in range(count):
        yield record_of(secrets.token_bytes(32), payload, life=life)


def signed_in(count: int) -> Iterator[Record]:
    """Yield the same, each group of ten with a principal of its own."""
    for _ in range(count // DEVICES):
        yield from of_principal(f"user-{secrets.token_hex(6)}")


def of_principal(principal: str) -> Iterator[Record]:
    """Yield the sessions of one principal."""
    payload = payload_of_500()
    for _ in range(DEVICES):
        yield record_of(secrets.token_bytes(32), payload, principal=principal)


def with_cookies(count: int, every: int, visitors: list[Visitor]) -> Iterator[Record]:
    """Yield ``count`` sessions, and put one visitor for ``every`` so many of them into ``visitors``."""
    signer, payload = SessionCookieSigner(KeyRing.from_secret(SECRET)), payload_of_500()
    for number in range(count):
        if number % every:
            yield record_of(secrets.token_bytes(32), payload)
            continue
        session_id = new_session_id()
        visitors.append(Visitor(f"{COOKIE}={signer.issue(COOKIE, session_id)}".encode()))
        yield record_of(digest_of(session_id), payload)


class Filling(Protocol):
    """A store, how to fill it by the hundred thousand, and its size."""

    @property
    def store(self) -> IndexedStore:
        """The store."""

    async def add(self, records: Iterable[Record]) -> None:
        """Store ``records``."""

    async def size(self) -> int:
        """Return the bytes that the sessions and their indexes use now."""

    async def close(self) -> None:
        """Close all connections."""


class RespFilling:
    """Redis or Valkey: by the store itself, which sends many at once.

    Args:
        server: runs, and is empty.
    """

    def __init__(self, server: RespServer) -> None:
        self._server = server
        self.store = RespStore(server.url, timeout=10)
        self._empty = self._used()

    async def add(self, records: Iterable[Record]) -> None:
        """Store ``records``."""
        for batch in _by(AT_ONCE, records):
            assert all(await asyncio.gather(*map(self.store.create, batch)))

    async def size(self) -> int:
        """Return by how many bytes the server's data have grown."""
        return self._used() - self._empty

    def _used(self) -> int:
        return int(self._server.ask("INFO", "memory").partition("used_memory:")[2].split()[0])

    async def close(self) -> None:
        """Close all connections."""
        await self.store.close()


class PostgresFilling:
    """PostgreSQL: by COPY.

    Args:
        url: of an empty database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self.store = SqlStore(url, timeout=10)

    async def add(self, records: Iterable[Record]) -> None:
        """Store ``records``."""
        await self.store.create_schema()
        connection = await asyncpg.connect(self._url)
        try:
            for batch in _by(20 * AT_ONCE, map(to_row, records)):
                await connection.copy_records_to_table(
                    DEFAULT_TABLE, columns=list(batch[0]), records=[tuple(row.values()) for row in batch]
                )
            # What the server would do on its own, some time while we measure.
            await connection.execute(f"VACUUM ANALYZE {DEFAULT_TABLE}")
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def size(self) -> int:
        """Return the bytes of the table and its indexes."""
        connection = await asyncpg.connect(self._url)
        try:
            return int(await connection.fetchval(f"SELECT pg_total_relation_size('{DEFAULT_TABLE}')"))
        finally:
            await connection.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.store.close()


class SqliteFilling:
    """SQLite: by one INSERT for many rows, with a large cache and without waiting for the disk.

    Args:
        url: of an empty database.
    """

    def __init__(self, url: str) -> None:
        self.store = SqlStore(url, timeout=10)
        self._path = str(driver_url(url)[0].database)

    async def add(self, records: Iterable[Record]) -> None:
        """Store ``records``."""
        await self.store.create_schema()
        with closing(sqlite3.connect(self._path)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("PRAGMA cache_size=-500000")  # KiB: the indexes of a million fit
            for batch in _by(100 * AT_ONCE, map(to_row, records)):
                connection.executemany(_insert(batch[0]), batch)
                connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def size(self) -> int:
        """Return the bytes of the database."""
        with closing(sqlite3.connect(self._path)) as connection:
            (pages,), (size,) = (
                connection.execute(f"PRAGMA {what}").fetchone() for what in ("page_count", "page_size")
            )
            return int(pages * size)

    async def close(self) -> None:
        """Close all connections."""
        await self.store.close()


def _insert(row: dict[str, Any]) -> str:
    values = ", ".join(f":{name}" for name in row)
    return f"INSERT INTO {DEFAULT_TABLE} ({', '.join(row)}) VALUES ({values})"  # noqa: S608 - our own names


def _by(count: int, things: Iterable[T]) -> Iterator[list[T]]:
    coming = iter(things)
    while few := list(islice(coming, count)):
        yield few
