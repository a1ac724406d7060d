"""Announcements within one process, for sessions that live in its memory."""

from __future__ import annotations

import asyncio

from eyewall.core.announcing import Listener, require_sendable
from eyewall.stores.listening import tell


class LocalAnnouncer:
    """See :class:`eyewall.core.announcing.Announcer`. There is no connection, so none is ever lost."""

    def __init__(self) -> None:
        self._open: list[_LocalListening] = []

    async def announce(self, message: bytes) -> None:
        """See :meth:`eyewall.core.announcing.Announcer.announce`."""
        require_sendable(message)
        for one in self._open:
            one.tell_soon(message)
        await asyncio.sleep(0)  # those who listen get their turn, so nothing piles up

    def listen(self, listener: Listener) -> _LocalListening:
        """See :meth:`eyewall.core.announcing.Announcer.listen`."""
        one = _LocalListening(listener, self._open)
        self._open.append(one)
        return one

    async def close(self) -> None:
        """End what listens."""
        self._open.clear()


class _LocalListening:
    """See :class:`eyewall.core.announcing.Listening`."""

    def __init__(self, listener: Listener, among: list[_LocalListening]) -> None:
        self._listener = listener
        self._among = among
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._begin)

    async def aclose(self) -> None:
        """See :meth:`eyewall.core.announcing.Listening.aclose`."""
        if self in self._among:
            self._among.remove(self)

    def tell_soon(self, message: bytes) -> None:
        """Tell ``message``, if this is not closed by then."""
        self._loop.call_soon(self._tell, message)

    def _begin(self) -> None:
        if self in self._among:
            tell(self._listener.connected)

    def _tell(self, message: bytes) -> None:
        if self in self._among:
            tell(self._listener.heard, message)
