"""Counts what a driver sends to its store, where no server could tell: SQLite, and MongoDB.

The application tells the count under ``/statements``; it is started for counting, never for measuring.
"""

from __future__ import annotations

from typing import Any

from tornado.web import RequestHandler

_SENT: list[object] = []  # appending is atomic: SQLite's statements come from several threads


class Statements(RequestHandler):
    """How many there were."""

    def get(self) -> None:
        self.write(str(len(_SENT)))


def count_statements(store: str) -> None:
    """Count every statement of the driver that the address ``store`` needs, from now on."""
    if store.startswith("sqlite:"):
        _count_of_sqlite()
    elif store.startswith("mongodb"):
        _count_of_mongodb()


def _count_of_sqlite() -> None:
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    def watch(connection: Any, _: object) -> None:
        connection.set_trace_callback(_SENT.append)

    event.listen(Pool, "connect", watch)


def _count_of_mongodb() -> None:
    from pymongo import monitoring

    class Listener(monitoring.CommandListener):
        """Hears of every command."""

        def started(self, event: monitoring.CommandStartedEvent) -> None:
            _SENT.append(event.command_name)

        def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
            """It was counted when it started."""

        def failed(self, event: monitoring.CommandFailedEvent) -> None:
            """It was counted when it started."""

    monitoring.register(Listener())
