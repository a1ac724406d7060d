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

    def begin_turn(self) -> bool:
        """Begin a save and return True, unless others save or wait: then :meth:`stand_in_line`."""
        if self._is_being_saved or self._line is not None:
            return False
        self._is_being_saved = True
        return True

    async def stand_in_line(self) -> None:
        """Wait until no save of this session is under way, first come, first served; then begin one."""
        if self._line is None:
            self._line = asyncio.Lock()
        async with self._line:
            if self._is_being_saved:  # and nobody else can begin: whoever comes stands in line, too
                self._saved = asyncio.get_running_loop().create_future()
                await self._saved
        self._is_being_saved = True

    def end_turn(self) -> None:
        """Note that the save is over."""
        self._is_being_saved = False
        if self._saved is not None and not self._saved.done():  # done: whoever waited has given up
            self._saved.set_result(None)
