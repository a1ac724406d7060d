"""Servers that keep what they acknowledged when they are killed; the usual ones trade that for speed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.servers.fixtures import KINDS, Server
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import PostgresFromWheel
from tests.servers.resp import Redis7, Valkey9


class DurablePostgres(PostgresFromWheel):
    """Acknowledges a commit once it is in the kernel: a crash of the server loses nothing."""

    def command(self) -> Sequence[str | Path]:
        return [*super().command(), "-c", "synchronous_commit=on"]


class DurableMariaDB(MariaDB):
    """As above."""

    def command(self) -> Sequence[str | Path]:
        return [*super().command(), "--innodb-flush-log-at-trx-commit=2"]


def _redis() -> Server:
    return Redis7("--appendonly", "yes", "--appendfsync", "always")


def _valkey() -> Server:
    return Valkey9("--appendonly", "yes", "--appendfsync", "always")


DURABLE: Final = ["durable_mariadb", "durable_postgres", "durable_redis", "mongodb"]
"""Names for ``started``. The last keeps its documents in SQLite, and so needs no other form."""

if "EYEWALL_TEST_SOAK" in os.environ:
    DURABLE.append("durable_valkey")  # as Redis, as far as the store can tell

KINDS.update(
    durable_mariadb=DurableMariaDB,
    durable_postgres=DurablePostgres,
    durable_redis=_redis,
    durable_valkey=_valkey,
)
