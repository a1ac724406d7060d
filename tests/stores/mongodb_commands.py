"""What MongoDB's driver sends, told by the driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import monitoring


class CommandLog(monitoring.CommandListener):
    """Remembers the commands of every client while ``kept`` is a list."""

    kept: list[tuple[str, Any]] | None = None

    def started(self, event: Any) -> None:
        if self.kept is not None:
            self.kept.append((event.command_name, event.command))

    def succeeded(self, event: Any) -> None: ...

    def failed(self, event: Any) -> None: ...


COMMANDS = CommandLog()
monitoring.register(COMMANDS)  # for good: the driver knows no way back


@contextmanager
def commands_sent() -> Iterator[list[tuple[str, Any]]]:
    """Yield a list that fills with the commands sent meanwhile."""
    kept: list[tuple[str, Any]] = []
    COMMANDS.kept = kept
    try:
        yield kept
    finally:
        COMMANDS.kept = None
