"""What stays open beyond its request (WebSockets, streams), and is to end when the process stops."""

from __future__ import annotations

import asyncio
from typing import Protocol


class StaysOpen(Protocol):
    """Something that stays open, with a stored session or without."""

    def go_away(self) -> None:
        """End in an orderly way and soon, although the session goes on; then say so to :class:`StillOpen`."""


class StillOpen:
    """All that stays open in this process."""

    def __init__(self) -> None:
        self._open: set[StaysOpen] = set()
        self._nothing_left = asyncio.Event()
        self._is_stopping = False

    def add(self, one: StaysOpen) -> None:
        """Note that ``one`` is open. When the process is about to stop, it is told so at once."""
        self._open.add(one)
        if self._is_stopping:
            asyncio.get_running_loop().call_soon(one.go_away)  # it is just being opened

    def remove(self, one: StaysOpen) -> None:
        """Note that ``one`` has ended; nothing happens when it is not known."""
        self._open.discard(one)
        if not self._open:
            self._nothing_left.set()

    async def end(self) -> None:
        """Tell all to go away, also what opens from now on; wait until they have."""
        self._is_stopping = True
        for one in list(self._open):
            one.go_away()
        if self._open:
            self._nothing_left.clear()
            await self._nothing_left.wait()
