"""A process forked after SQLite was used must not write to a log that others take away."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from eyewall.stores.sql import SqlStore

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

PREFORK = """
import asyncio, os, signal, sys
from eyewall.core.store import utc_now
from eyewall.stores.sql import SqlStore
from eyewall.testing.check_kit import new_record

store = SqlStore("sqlite:///" + sys.argv[1])
record = new_record(utc_now)

async def begin():
    await store.create(record)

async def sign_out():
    assert await store.load(record.digest) is not None
    print("serving", flush=True)
    sys.stdin.readline()
    print("signed out" if await store.delete(record.digest) else "not there", flush=True)
    os._exit(0)

asyncio.run(begin())
if os.fork() == 0:
    signal.alarm(30)
    asyncio.run(sign_out())
os.kill(os.getpid(), signal.SIGKILL)   # the parent has gone; the child goes on serving
"""


def test_a_sign_out_in_a_forked_process_is_not_lost(tmp_path: Path) -> None:
    """Who signed out in a forked worker is signed in again: the worker wrote to a log that was unlinked."""
    path = tmp_path / "sessions.db"
    with subprocess.Popen(
        [sys.executable, "-c", PREFORK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stdout.readline() == "serving\n"
        _visit(path)
        worker.stdin.write("\n")
        worker.stdin.flush()
        assert worker.stdout.readline() == "signed out\n"
    assert _visit(path) == 0, "the session is there although its end was acknowledged"


def test_no_connection_is_inherited(tmp_path: Path) -> None:
    """An inherited connection makes SQLite believe in locks that only the parent has."""
    store = SqlStore(f"sqlite:///{tmp_path / 'sessions.db'}")

    async def use() -> int:
        await asyncio.gather(*(store.load(bytes([number]) * 32) for number in range(9)))
        child = os.fork()
        if child == 0:
            os._exit(_has_open("sessions.db"))
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        await store.load(bytes(32))  # the parent goes on
        await store.close()
        return os.waitstatus_to_exitcode(status)

    assert asyncio.run(use()) == 0


def _has_open(name: str) -> bool:
    links = list(Path("/proc/self/fd").iterdir())
    return any(name in str(link.readlink()) for link in links if link.is_symlink())


def _visit(path: Path) -> int:
    """Open, write and close as any other process would; return how many sessions there are."""
    visitor = sqlite3.connect(path)
    try:
        visitor.execute("CREATE TABLE IF NOT EXISTS visits (number)")
        visitor.execute("INSERT INTO visits VALUES (1)")
        visitor.commit()
        (count,) = visitor.execute("SELECT count(*) FROM eyewall_session").fetchone()
        return int(count)
    finally:
        visitor.close()
