"""One save of a session at a time, and nothing made for those that need not wait: nearly all.

A handler may save twice at once (``asyncio.gather``, a WebSocket's messages). The second waits its turn,
because each save settles what the request knows of its session. An :class:`asyncio.Lock` for each request
would do, but is more work than all else that a save has to note.
"""

from __future__ import annotations

import asyncio


class Turns:
    """Whose turn it is to save one session, as one request holds it."""

    _is_being_saved = False
    _line: asyncio.Lock | None = None  # of those who wait
    _saved: asyncio.Future[None] | None = None  # the first of them waits for this

    def is_being_saved(self) -> bool:
        """Whether a save of this session is under way."""
        return self._is_being_saved

    async def begin_turn(self) -> None:
        """Wait until no save of this session is under way, first come, first served; then begin one."""
        if self._is_being_saved or self._line is not None:
            await self._stand_in_line()
        self._is_being_saved = True

    async def _stand_in_line(self) -> None:
        if self._line is None:
            self._line = asyncio.Lock()
        async with self._line:
            if self._is_being_saved:  # and nobody else can begin: whoever comes stands in line, too
                self._saved = asyncio.get_running_loop().create_future()
                await self._saved

    def end_turn(self) -> None:
        """Note that the save is over."""
        self._is_being_saved = False
        if self._saved is not None and not self._saved.done():  # done: whoever waited has given up
            self._saved.set_result(None)
