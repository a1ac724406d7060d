"""Fixtures of every test: the real servers. And where all of it writes."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.servers.fixtures import (  # noqa: F401 - pytest finds fixtures and hooks by their names here
    cluster,
    fresh_server,
    mariadb,
    mongo,
    mongodb,
    postgres,
    postgres_debian,
    pytest_terminal_summary,
    redis6,
    redis7,
    redis7_tls,
    sentinel,
    valkey8,
    valkey9,
)

MEMORY = Path("/dev/shm")  # noqa: S108 - each file below it is made by tempfile or pytest, for us alone
ROOM = 3 << 30
"""Bytes: more than all servers of eight workers need at once."""


def _work_in_memory() -> None:
    """Put temporary files where waiting for the disk costs nothing: it was most of what the tests waited for.

    Not where the user names a place (``TMPDIR``), memory is short, or no program may be run from it.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK):
        return
    if shutil.disk_usage(MEMORY).free > ROOM and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


_work_in_memory()
