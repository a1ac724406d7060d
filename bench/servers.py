"""The places sessions are kept in while measuring: real servers, started as the tests start them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tests.servers.mariadb import MariaDB
from tests.servers.mongo import MongoWire
from tests.servers.postgres import Postgres, PostgresFromWheel
from tests.servers.process import MissingServerError, ServerProcess
from tests.servers.resp import Redis7, Valkey9

# The first that is installed is taken. Redis' and Valkey's protocols are the same, and so is the client.
KINDS: dict[str, tuple[Callable[[], ServerProcess], ...]] = {
    "redis": (Redis7, Valkey9),
    "valkey": (Valkey9,),
    "postgres": (PostgresFromWheel, Postgres),
    "mysql": (MariaDB,),
    "mongodb": (MongoWire,),
}
NOWHERE = ("", "memory", "cookie")


class Places:
    """Starts each server when it is first asked for, and ends them all."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._servers: dict[str, ServerProcess] = {}

    def address(self, store: str) -> str:
        """Return the address of a ``store``; a folder and a database file are made new.

        Raises:
            MissingServerError: it is not installed; the message says what brings it.
        """
        if store in NOWHERE:
            return store
        if store in ("file", "sqlite"):
            return self._in_folder(store)
        if store == "mongodb":
            # Before each read the wire server looks through the whole collection for documents to purge, so
            # what one system leaves behind would make the next one's reads ten times as slow.
            return self._started(store).url
        url = self.server(store).url
        # The peers' clients know only one of the two schemes.
        return url.replace("valkey://", "redis://") if store == "redis" else url

    def server(self, store: str) -> ServerProcess:
        """Return the server of a ``store`` that has one.

        Raises:
            MissingServerError: it is not installed; the message says what brings it.
        """
        if store not in self._servers:
            self._servers[store] = self._started(store)
        return self._servers[store]

    def _in_folder(self, store: str) -> str:
        folder = Path(tempfile.mkdtemp(prefix="eyewall-bench-"))
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return f"file://{folder}/sessions" if store == "file" else f"sqlite:///{folder}/sessions.db"

    def _started(self, store: str) -> ServerProcess:
        missing: MissingServerError | None = None
        for kind in KINDS[store]:
            try:
                return self._stack.enter_context(kind())
            except MissingServerError as error:
                missing = missing or error
        assert missing is not None
        raise missing
