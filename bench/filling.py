"""Filling a store with very many sessions, quickly, and asking it how large it is."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
from sqlalchemy import Connection, MetaData, Table, create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

from bench.micro.pieces import stored
from eyewall.core.payload import decode_payload, encode_payload
from eyewall.core.record import Record
from eyewall.core.store import PrincipalIndex, Store, utc_now
from eyewall.stores.resp import RespStore
from eyewall.stores.sql import SqlStore
from eyewall.stores.sql_schema import DEFAULT_TABLE, session_table, to_row
from eyewall.stores.sql_urls import driver_url

AT_ONCE = 500
LIFE = timedelta(hours=12)


class IndexedStore(Store, PrincipalIndex, Protocol):
    """What both kinds of store here can do."""


def many_records(count: int, *, principal: str | None = None, dead: bool = False) -> Iterator[Record]:
    """Yield ``count`` sessions of about 500 bytes; of ``principal``, if one is named; long dead, if asked."""
    now = utc_now()
    born = now - 2 * LIFE if dead else now
    template = decode_payload(stored(500), bytes(range(32)))
    plain = Record(
        digest=b"", version=1, payload=b"", created_at=born, seen_at=born, expires_at=born + LIFE,
        principal=principal,
    )  # fmt: skip
    for _ in range(count):
        digest = secrets.token_bytes(32)
        yield msgspec.structs.replace(plain, digest=digest, payload=encode_payload(template, digest))


class Filling(Protocol):
    """A store, how to fill it by the hundred thousand, and its size."""

    @property
    def store(self) -> IndexedStore:
        """The store."""

    async def add(self, records: Iterable[Record]) -> None:
        """Store ``records``."""

    async def size(self) -> int:
        """Return the bytes that the store uses now."""

    async def close(self) -> None:
        """Close all connections."""


class RespFilling:
    """Redis or Valkey at ``url``: by the store itself, which sends many at once."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self.store = RespStore(url, timeout=10)

    async def add(self, records: Iterable[Record]) -> None:
        """Store ``records``."""
        coming = iter(records)
        while batch := list(islice(coming, AT_ONCE)):
            await asyncio.gather(*map(self.store.create, batch))

    async def size(self) -> int:
        """Return the bytes that the server's data take."""
        with socket.create_connection(self._address, 5) as connection:
            connection.sendall(b"INFO memory\r\n")
            answer = connection.recv(65536).decode()
        return int(answer.partition("used_memory:")[2].split()[0])

    async def close(self) -> None:
        """Close all connections."""
        await self.store.close()


class SqlFilling:
    """A database: by one INSERT for many rows, past the store."""

    def __init__(self, url: str) -> None:
        self.store = SqlStore(url, timeout=10)
        self._address, _ = driver_url(url)
        self._is_sqlite = self._address.get_backend_name() == "sqlite"
        self._table = session_table(MetaData())
        self._is_made = False

    async def add(self, records: Iterable[Record]) -> None:
        """Store ``records``."""
        if not self._is_made:
            await self.store.create_schema()
            self._is_made = True
        coming = iter(records)
        while batch := [to_row(record) for record in islice(coming, 10 * AT_ONCE)]:
            await self._run(partial(_insert, self._table, batch))

    async def size(self) -> int:
        """Return the bytes of the table and its indexes; of SQLite, of the file."""
        if not self._is_made:
            return 0
        if self._is_sqlite:
            return await self._number("PRAGMA page_count") * await self._number("PRAGMA page_size")
        return await self._number(f"SELECT pg_total_relation_size('{DEFAULT_TABLE}')")

    async def _number(self, question: str) -> int:
        return int(await self._run(lambda connection: connection.execute(text(question)).scalar_one()))

    async def _run(self, work: Callable[[Connection], Any]) -> Any:
        """Do ``work`` in a transaction of a connection of its own."""
        if self._is_sqlite:
            engine = create_engine(self._address.set(drivername="sqlite"))
            with engine.begin() as connection:
                found = work(connection)
            engine.dispose()
            return found
        remote = create_async_engine(self._address)
        async with remote.begin() as connection:
            found = await connection.run_sync(work)
        await remote.dispose()
        return found

    async def close(self) -> None:
        """Close all connections."""
        await self.store.close()


def _insert(table: Table, rows: list[dict[str, Any]], connection: Connection) -> None:
    connection.execute(table.insert(), rows)
