"""Shows how far a long command has come: one moving line on a terminal, a line per tenth elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TextIO

_SECONDS_BETWEEN: Final = 0.1


class Progress:
    """Counts towards a total.

    Args:
        label: what is being done.
        total: what is expected; more may come, the display then stays at 100 %.
        stream: where it is shown.
        seconds: a clock that only goes forward, in seconds.
    """

    def __init__(
        self, label: str, total: int, stream: TextIO, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._label = label
        self._total = total
        self._stream = stream
        self._seconds = seconds
        self._moving = stream.isatty()
        self._done = 0
        self._shown_at = float("-inf")
        self._tenths = 0

    def add(self, count: int) -> None:
        """So many more are done. Shows it if that is due: at most ten times a second, or once per tenth."""
        self._done += count
        if self._moving:
            if self._seconds() - self._shown_at >= _SECONDS_BETWEEN:
                self._shown_at = self._seconds()
                self._write(f"\r{self._text()}")
        elif self._percent() // 10 > self._tenths:
            self._tenths = self._percent() // 10
            self._write(f"{self._text()}\n")

    def finish(self) -> None:
        """Leave the last state on a line of its own."""
        if self._moving:
            self._write(f"\r{self._text()}\n")

    def _percent(self) -> int:
        return min(100, 100 * self._done // self._total) if self._total else 100

    def _text(self) -> str:
        return f"{self._label}: {self._done} of {max(self._total, self._done)} ({self._percent()} %)"

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
