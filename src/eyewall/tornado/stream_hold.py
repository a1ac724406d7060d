"""Answers that stay open for long (server-sent events, long polling), and end with their session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.core.watched import Watched

LAST_WORDS: Final = 1.0
"""Seconds that a handler has to finish by itself when its answer is to end; then the connection is cut."""


class StreamHold:
    """One long answer and its session.

    Args:
        session: the request's.
        manager: watches it.
        cut: closes the connection.
        owner: the handler.
    """

    def __init__(self, session: Session, manager: Manager, cut: Callable[[], None], owner: object) -> None:
        self.ended: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._cut = cut
        self._manager = manager
        self._timer: asyncio.TimerHandle | None = None
        self._watched: Watched | None = None
        self._waiter: asyncio.Future[str | None] | None = None
        if session.draft.record is not None and not session.draft.in_cookie:
            self._watched = Watched(session, self._end, None, owner)
            manager.watch.add(self._watched)
        manager.watch.still_open.add(self)

    def done(self) -> None:
        """The answer is finished, or the client is gone."""
        if self._watched is not None:
            self._manager.watch.remove(self._watched)
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended.done():
            self.ended.set_result(None)
        self._manager.watch.still_open.remove(self)

    def waiter(self) -> asyncio.Future[str | None]:
        """What handlers await. To cancel it, as ``wait_for`` does, ends nothing; the next gets a new one."""
        if self._waiter is None or self._waiter.cancelled():
            self._waiter = asyncio.shield(self.ended)
        return self._waiter

    def go_away(self) -> None:
        """Ask the handler to finish, because the process stops."""
        self._end(None)

    def _end(self, reason: str | None) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
            self._timer = asyncio.get_running_loop().call_later(LAST_WORDS, self._cut)
