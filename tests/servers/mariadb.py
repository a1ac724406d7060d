"""MariaDB from Debian, standing for the MySQL family."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import MissingServerError, ServerProcess, first_existing
from tests.servers.templates import fill

FASTER = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--performance-schema=off",
    "--skip-name-resolve",
)
SET_UP = (
    "CREATE DATABASE eyewall CHARACTER SET utf8mb4;"
    "CREATE USER 'eyewall'@'127.0.0.1' IDENTIFIED BY 'eyewall';"
    "GRANT ALL ON *.* TO 'eyewall'@'127.0.0.1';"
)


class MariaDB(ServerProcess):
    """MariaDB with the user, the password and the database ``eyewall``."""

    name = "mariadb"
    brought_by = "apt-get install -y mariadb-server"
    unprivileged = True

    @property
    def url(self) -> str:
        return f"mysql://eyewall:eyewall@127.0.0.1:{self.port}/eyewall"

    def prepare(self) -> None:
        daemon = first_existing(shutil.which("mariadbd"), "/usr/sbin/mariadbd")
        installer, client = shutil.which("mariadb-install-db"), shutil.which("mariadb")
        if daemon is None or installer is None or client is None:
            raise MissingServerError(self.name, self.brought_by)
        self._daemon, self._client = daemon, client
        command = (
            installer, "--no-defaults", f"--datadir={self.folder / 'data'}",
            "--auth-root-authentication-method=normal", "--skip-test-db", f"--tmpdir={self.folder}",
        )  # fmt: skip
        fill(self.folder / "data", self.name, lambda: self.run(*command))

    def command(self) -> Sequence[str | Path]:
        return [
            self._daemon, "--no-defaults", f"--datadir={self.folder / 'data'}", f"--socket={self._socket}",
            f"--pid-file={self.folder / 'pid'}", "--bind-address=127.0.0.1", f"--port={self.port}",
            f"--tmpdir={self.folder}", *FASTER,
        ]  # fmt: skip

    def is_ready(self) -> bool:
        return "ready for connections" in self.log

    def settle(self) -> None:
        self.run(self._client, "--no-defaults", "-S", self._socket, "-u", "root", "-e", SET_UP)

    @property
    def _socket(self) -> Path:
        return self.folder / "socket"
