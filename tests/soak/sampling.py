"""What a process and a store hold at a moment."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench.machine import resident_bytes
from tests.servers.resp import ask
from tests.soak.browser import Browser

MEGABYTE: Final = 1024 * 1024
_COUNTED: Final = text(
    "SELECT count(*) AS records, pg_total_relation_size('eyewall_session') AS size FROM eyewall_session"
)


async def process_sample(pid: int, browser: Browser, server: int) -> dict[str, Any]:
    """Return memory (MB), open files, threads, and what the process says of itself."""
    probe = (await browser.ask(server, "/probe")).told
    return {
        "rss": round(resident_bytes(pid) / MEGABYTE, 2),
        "files": _entries(f"/proc/{pid}/fd"),
        "threads": _entries(f"/proc/{pid}/task"),
        **probe,
    }


def _entries(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


async def store_sample(url: str) -> dict[str, float]:
    """Return how many records a store holds, dead ones included, and how large it is (MB)."""
    address = urlsplit(url)
    if address.scheme == "file":
        return _folder(Path("/", address.path.lstrip("/"), "records"))
    if address.scheme == "sqlite":
        return _sqlite(Path("/", address.path.lstrip("/")))
    if address.scheme == "postgresql":
        return await _postgres(url)
    return _redis(address.port or 0)


def _folder(records: Path) -> dict[str, float]:
    sizes = []
    for entry in os.scandir(records):
        try:
            sizes.append(entry.stat().st_size)
        except FileNotFoundError:  # gone meanwhile
            continue
    return {"records": len(sizes), "size": round(sum(sizes) / MEGABYTE, 2)}


def _sqlite(path: Path) -> dict[str, float]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        (records,) = connection.execute("SELECT count(*) FROM eyewall_session").fetchone()
    size = sum(each.stat().st_size for each in path.parent.glob(path.name + "*"))
    return {"records": records, "size": round(size / MEGABYTE, 2)}


async def _postgres(url: str) -> dict[str, float]:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        row = (await connection.execute(_COUNTED)).one()
    await engine.dispose()
    return {"records": row.records, "size": round(row.size / MEGABYTE, 2)}


def _redis(port: int) -> dict[str, float]:
    memory = ask(port, "INFO", "memory").partition("used_memory:")[2].partition("\r")[0]
    return {"records": int(ask(port, "DBSIZE")[1:]), "size": round(int(memory) / MEGABYTE, 2)}
