"""pytest fixtures that lend a running server to a test.

``postgres``, ``redis7`` and so on live as long as the test run and are started when first asked for; a
test that stops, starves or reconfigures its server asks ``fresh_server`` for one of its own. Under
pytest-xdist every worker has its own servers.

``EYEWALL_TEST_POSTGRES_URL`` (and so on, by fixture name) lends a server that runs already. A server
that is not installed skips the test and is named at the end of the run, with the command that brings
it; ``EYEWALL_REQUIRE_SERVERS=all`` makes that a failure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NoReturn, Protocol, Self

import pytest

from tests.servers.group import Cluster, SentinelGroup
from tests.servers.mariadb import MariaDB
from tests.servers.mongo import MongoWire
from tests.servers.postgres import Postgres, PostgresFromWheel
from tests.servers.process import MissingServerError
from tests.servers.resp import Redis6, Redis7, Redis7TLS, Valkey8, Valkey9


class Server(Protocol):
    """What a test sees of a server, whoever started it."""

    @property
    def url(self) -> str: ...
    @property
    def pids(self) -> list[int]: ...
    def start(self) -> Self: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class LentServer:
    """A server named by an environment variable. It is not ours to stop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.pids: list[int] = []

    def start(self) -> Self:
        """Do nothing: it runs."""
        return self

    def stop(self) -> None:
        """Do nothing: it was there before us."""

    def kill(self) -> NoReturn:
        """Skip the test that wanted to break somebody's server."""
        pytest.skip("the server was lent by an environment variable; tests do not break it")

    pause = resume = kill

    def __getattr__(self, name: str) -> NoReturn:
        """Skip the test that wants to look into the server; those of our own let it."""
        if name.startswith("_"):
            raise AttributeError(name)
        pytest.skip(f"the server was lent by an environment variable; this test uses its {name!r}")


KINDS: dict[str, Callable[[], Server]] = {
    "postgres": PostgresFromWheel,
    "postgres_debian": Postgres,
    "mariadb": MariaDB,
    "mongodb": MongoWire,
    "redis6": Redis6,
    "redis7": Redis7,
    "redis7_tls": Redis7TLS,
    "valkey8": Valkey8,
    "valkey9": Valkey9,
    "cluster": Cluster,
    "sentinel": SentinelGroup,
}


def started(name: str) -> Server:
    """Return a running server of the kind ``name``, or skip (or fail) the test that asked for it."""
    lent = os.environ.get(f"EYEWALL_TEST_{name.upper()}_URL")
    if lent:
        return LentServer(lent)
    try:
        return KINDS[name]().start()
    except MissingServerError as missing:
        if os.environ.get("EYEWALL_REQUIRE_SERVERS") == "all":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


def _shared(name: str) -> Any:
    @pytest.fixture(scope="session", name=name)
    def lend() -> Iterator[Server]:
        server = started(name)
        yield server
        server.stop()

    return lend


postgres = _shared("postgres")
postgres_debian = _shared("postgres_debian")
mariadb = _shared("mariadb")
mongodb = _shared("mongodb")
redis6 = _shared("redis6")
redis7 = _shared("redis7")
redis7_tls = _shared("redis7_tls")
valkey8 = _shared("valkey8")
valkey9 = _shared("valkey9")
cluster = _shared("cluster")
sentinel = _shared("sentinel")


@pytest.fixture(scope="session")
def mongo(mongodb: Server) -> Server:
    """``mongodb`` under its short name."""
    return mongodb


@pytest.fixture
def fresh_server() -> Iterator[Callable[[str], Server]]:
    """Return a function that starts a server of a kind for this test alone."""
    with ExitStack() as stack:

        def start(name: str) -> Server:
            server = started(name)
            stack.callback(server.stop)
            return server

        yield start


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name every missing server at the end, so that a skip is never mistaken for a pass."""
    missing = {
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and "server missing:" in report.longrepr[2]
    }
    for line in sorted(missing):
        terminalreporter.write_line(f"NOT TESTED, {line}", yellow=True, bold=True)
