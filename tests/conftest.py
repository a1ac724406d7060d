"""Fixtures of every test: the real servers."""

from __future__ import annotations

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
