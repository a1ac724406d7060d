"""Microseconds per call of the SQL store, on SQLite, PostgreSQL and MariaDB of this machine.

Run from the checkout: ``python -m bench.micro.sql_calls``. ``alone`` awaits one call after the other;
``together`` has 50 in progress at any time, as a busy server has. The best of five rounds is shown.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

import msgspec

from eyewall.core.record import Record
from eyewall.core.store import utc_now
from eyewall.stores.sql import SqlStore
from eyewall.testing.check_kit import new_record
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres, PostgresFromWheel

CALLS = 500
ROUNDS = 5
AT_ONCE = 50

Call = Callable[[Record], Awaitable[object]]


async def alone(call: Call, records: list[Record]) -> None:
    """One after the other."""
    for record in records:
        assert await call(record)


async def together(call: Call, records: list[Record]) -> None:
    """In groups that start at the same moment."""
    for start in range(0, len(records), AT_ONCE):
        assert all(await asyncio.gather(*map(call, records[start : start + AT_ONCE])))


async def measure(name: str, url: str) -> None:
    """Print one line."""
    store = SqlStore(url, timeout=10)
    records = [new_record(utc_now, payload=bytes(500)) for _ in range(CALLS)]
    await together(store.create, records)
    version = 1

    async def load(record: Record) -> object:
        return await store.load(record.digest)

    async def replace(record: Record) -> object:
        return await store.replace(msgspec.structs.replace(record, version=version + 1), version=version)

    cells = []
    for call in (load, replace):
        for manner in (alone, together):
            best = float("inf")
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                await manner(call, records)
                best = min(best, time.perf_counter() - begin)
                version += call is replace
            cells.append(f"{best / CALLS * 1e6:>18.0f}")
    print(f"{name:<12}{''.join(cells)}")
    await store.close()


def main() -> None:
    """Measure each database."""
    print(f"{'us':<12}{'load alone':>18}{'load together':>18}{'replace alone':>18}{'replace together':>18}")
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        asyncio.run(measure("SQLite", f"sqlite:///{folder}/sessions.db"))
    for kind in (PostgresFromWheel, Postgres, MariaDB):
        with kind() as server:
            asyncio.run(measure(server.name, server.url))


if __name__ == "__main__":
    main()
