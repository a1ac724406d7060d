"""Database URLs as people write them, and the one driver Eyewall uses for each kind of database."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from eyewall.errors import ConfigurationError, MissingDriverError


@dataclass(frozen=True)
class Driver:
    """A driver, and what SQLAlchemy does not tell about it.

    Args:
        name: its name in a SQLAlchemy URL.
        module: what it is imported as.
        extra: the extra of Eyewall that installs it.
        connect_seconds: its argument for the longest wait for a connection; for SQLite, for a lock.
        sever: its connection's method that drops the connection at once, without a word to the server.
            Empty for a driver that blocks its thread instead of using the event loop.
        hung_up: its connection's attribute that tells whether the server has gone.
    """

    name: str
    module: str
    extra: str
    connect_seconds: str
    sever: str = ""
    hung_up: str = ""

    @property
    def blocks(self) -> bool:
        """Whether its calls block, so that they must run in threads."""
        return not self.sever

    def cut(self, connection: Any) -> None:
        """Drop a driver's connection at once. A call that waits on it ends with an error."""
        getattr(connection, self.sever)()

    def has_hung_up(self, connection: Any) -> bool:
        """Tell, without asking the server, whether an idle connection has died meanwhile."""
        state = getattr(connection, self.hung_up)
        return bool(state() if callable(state) else state)


SQLITE: Final = Driver("pysqlite", "sqlite3", "sqlite", "timeout")
ASYNCPG: Final = Driver("asyncpg", "asyncpg", "postgres", "timeout", "terminate", "is_closed")
ASYNCMY: Final = Driver("asyncmy", "asyncmy", "mysql", "connect_timeout", "close", "_stream_broken")

KINDS: Final = {
    "sqlite": ("sqlite", SQLITE),
    "postgresql": ("postgresql", ASYNCPG),
    "postgres": ("postgresql", ASYNCPG),
    "mysql": ("mysql", ASYNCMY),
    "mariadb": ("mariadb", ASYNCMY),
}
"""What stands before ``://`` -> SQLAlchemy's name of the database, and our driver for it."""


def driver_url(url: str) -> tuple[URL, Driver]:
    """Return ``url`` as SQLAlchemy wants it, with our driver named, and that driver.

    Args:
        url: ``sqlite:///relative``, ``sqlite:////absolute``, ``postgresql://``, ``postgres://``,
            ``mysql://`` or ``mariadb://``, as hosting services and SQLAlchemy users write them. libpq's
            ``?sslmode=`` is understood.

    Raises:
        ConfigurationError: the URL cannot be read, is of another kind, or names another driver.
        MissingDriverError: the driver is not installed.
    """
    try:
        written = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "the store's URL cannot be read; write it like postgresql://name:password@host:5432/database, "
            "with special characters in the password percent-encoded"
        ) from None
    kind, _, wanted = written.drivername.partition("+")
    if kind not in KINDS:
        raise ConfigurationError(f"no SQL store for {kind!r}; the URL may start with {', '.join(KINDS)}")
    dialect, driver = KINDS[kind]
    if wanted not in ("", driver.name, "aiosqlite" if driver is SQLITE else ""):
        raise ConfigurationError(
            f"{kind}+{wanted} does not work with Eyewall, which drives it with {driver.name}; write {kind}://"
        )
    _require_installed(driver)
    return _adapted(written.set(drivername=f"{dialect}+{driver.name}"), driver), driver


def _require_installed(driver: Driver) -> None:
    if find_spec(driver.module) is None:
        raise MissingDriverError(
            f"the driver {driver.module} is not installed; pip install 'eyewall[{driver.extra}]'"
        )


def _adapted(url: URL, driver: Driver) -> URL:
    if driver is SQLITE:
        return _file_url(url)
    if driver is ASYNCPG and "sslmode" in url.query:
        mode = url.query["sslmode"]
        return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url


def _file_url(url: URL) -> URL:
    if url.host:
        raise ConfigurationError(
            "sqlite:// needs three slashes before a relative path (sqlite:///sessions.db) and four before "
            "an absolute one (sqlite:////var/lib/app/sessions.db)"
        )
    path = url.database or ""
    if path in ("", ":memory:") or path.startswith("file:"):
        raise ConfigurationError(
            "SQLite in memory would give every connection a database of its own; name a file, or use the "
            "memory store"
        )
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ConfigurationError(f"the folder {folder} of the SQLite file does not exist; make it first")
    return url
