"""A server that speaks MongoDB's wire protocol: nx-27017, which keeps its documents in SQLite."""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import MissingServerError, ServerProcess, first_existing


class MongoWire(ServerProcess):
    """nx-27017 over files in its folder, so that what it acknowledged outlives a crash."""

    name = "mongo"
    brought_by = "pip install nx-27017"

    @property
    def url(self) -> str:
        return f"mongodb://127.0.0.1:{self.port}/eyewall"

    def prepare(self) -> None:
        program = first_existing(Path(sys.executable).with_name("nx-27017"), shutil.which("nx-27017"))
        if program is None:
            raise MissingServerError(self.name, self.brought_by)
        self._program = program

    # One file, not a folder of them: there, only commands of one database wait for each other, and bulkWrite
    # counts as one of "admin" whatever it writes to.
    def command(self) -> Sequence[str | Path]:
        return [
            self._program, "--db", self.folder / "data.db", "--host", "127.0.0.1", "-p", str(self.port),
            "--log-file", self.folder / "nx.log", "--pid-file", self.folder / "nx.pid",
        ]  # fmt: skip

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
