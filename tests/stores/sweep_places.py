"""Stores full of expired sessions, planted behind their backs: a million in seconds, not in hours."""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
from pymongo import AsyncMongoClient
from sqlalchemy import bindparam, func, select, text

from eyewall.core.record import Record, encode_record
from eyewall.core.store import Clock
from eyewall.stores.file import FileStore
from eyewall.stores.mongodb import MongoStore
from eyewall.stores.mongodb_document import document_of
from eyewall.stores.sql import SqlStore
from eyewall.stores.sql_schema import to_row
from eyewall.testing.check_kit import new_record
from tests.servers.patience import PATIENCE
from tests.stores.sql_places import execute

Store = FileStore | SqlStore | MongoStore
Plant = Callable[[Store, Record, int], Awaitable[None]]
"""Puts that many copies of a record there, each under a digest of its own."""

DATABASE = COLLECTION = "sweeping"  # the wire server keeps collections apart, not databases
AT_ONCE = 5_000
_NUMBERS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :many)",
    "postgresql": "WITH n AS (SELECT generate_series(1, :many) AS i)",
}
_DIGESTS = {"sqlite": "randomblob(32)", "postgresql": "sha256(int8send(i) || :salt)"}


def dead_record(clock: Clock) -> Record:
    """A signed-in session that ended an hour ago."""
    ended = clock() - timedelta(hours=1)
    return new_record(clock, expires_at=ended, principal="somebody", payload=bytes(300))


async def plant_files(store: Store, record: Record, many: int) -> None:
    """Write record files as the store would, but do not force them to disk."""
    assert isinstance(store, FileStore)
    end = record.expires_at.timestamp()
    for _ in range(many):
        digest = secrets.token_bytes(32)
        path = store._folder / "records" / digest.hex()
        path.write_bytes(encode_record(msgspec.structs.replace(record, digest=digest, principal=None)))
        os.utime(path, (end, end))


async def plant_rows(store: Store, record: Record, many: int) -> None:
    """Have the database make the rows by itself."""
    assert isinstance(store, SqlStore)
    await store.check()
    (table,) = store.metadata.tables.values()
    dialect = store._pools.current()._engine.dialect.name
    names = [column.name for column in table.c]
    values = ", ".join(_DIGESTS[dialect] if name == "digest" else f":{name}" for name in names)
    insert = f"INSERT INTO {table.name} ({', '.join(names)}) {_NUMBERS[dialect]} SELECT {values} FROM n"  # noqa: S608
    row = to_row(record)
    del row["digest"]
    types = [bindparam(name, type_=table.c[name].type) for name in row]
    salt = {"salt": secrets.token_bytes(8)} if ":salt" in insert else {}
    await execute(store, text(insert).bindparams(*types), {**row, **salt, "many": many})


async def plant_documents(store: Store, record: Record, many: int) -> None:
    """Insert documents a thousand at a time."""
    assert isinstance(store, MongoStore)
    document = document_of(record, record.created_at)
    async with AsyncMongoClient[dict[str, Any]](store._url) as client:
        records = client[DATABASE][COLLECTION]
        for start in range(0, many, AT_ONCE):
            some = range(min(AT_ONCE, many - start))
            await records.insert_many([document | {"_id": secrets.token_hex(32)} for _ in some])


async def count(store: Store) -> int:
    """How many records are there, dead ones included."""
    if isinstance(store, FileStore):
        return len(store._files.digests())
    if isinstance(store, MongoStore):
        async with AsyncMongoClient[dict[str, Any]](store._url) as client:
            return await client[DATABASE][COLLECTION].count_documents({})
    (table,) = store.metadata.tables.values()
    (row,) = await store._select(select(func.count()).select_from(table), {})
    return int(row[0])


def open_place(name: str, folder: Path, url: str, clock: Clock) -> tuple[Store, Plant]:
    """Return an empty store of a kind, and what fills it."""
    if name == "file":
        return FileStore(folder / "data", clock=clock), plant_files
    if name == "mongodb":
        store = MongoStore(url, clock=clock, database=DATABASE, collection=COLLECTION, timeout=PATIENCE)
        return store, plant_documents
    return SqlStore(url, clock=clock, table=f"sweeping_{name}", timeout=PATIENCE), plant_rows
