"""Deadlines for awaited work, many at a time: what ``asyncio.timeout`` does, with one timer for all.

Every request that loads a session has a deadline, and nearly none of them is ever reached. A timer of the
event loop for each, made and cancelled, costs more than the rest of the loading. So the deadlines of one loop
are looked through together, twenty times a second, while there are any.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any, Final

TICK: Final = 0.05
"""Seconds between two looks: how late a deadline may be noticed."""


class Deadline:
    """When one task's work must be done; set by :meth:`Deadlines.begin`."""

    __slots__ = ("at", "cancelling", "expired", "task")
    at: float
    cancelling: int  # how often others had asked the task to stop before
    expired: bool
    task: asyncio.Task[Any]


class Deadlines:
    """The deadlines of this process; of one event loop at a time."""

    def __init__(self) -> None:
        self._waiting: dict[Deadline, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, deadline: Deadline, seconds: float) -> None:
        """Give the current task ``seconds`` for what it does until :meth:`end`; then it is cancelled."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is for work in a task")
        if self._timer is None or self._loop is not task.get_loop():
            self._start(task.get_loop())
        deadline.task, deadline.cancelling, deadline.expired = task, task.cancelling(), False
        deadline.at = monotonic() + seconds
        self._waiting[deadline] = None

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            self._loop, self._waiting = loop, {}  # a timer of another loop is not ours to touch
        self._timer = loop.call_later(TICK, self._look)

    def end(self, deadline: Deadline, error: BaseException | None) -> bool:
        """Note that the work is over, by ``error`` or by itself; return whether the deadline stopped it.

        False for a cancellation that somebody else asked for: that one goes on.
        """
        self._waiting.pop(deadline, None)
        if not deadline.expired:
            return False
        others_asked = deadline.task.uncancel() > deadline.cancelling
        return isinstance(error, asyncio.CancelledError) and not others_asked

    def _look(self) -> None:
        loop = self._loop
        if loop is None or not self._waiting:
            self._timer = None
            return
        self._timer = loop.call_later(TICK, self._look)
        now = monotonic()
        for deadline in [each for each in self._waiting if each.at <= now]:
            del self._waiting[deadline]
            deadline.expired = True
            deadline.task.cancel()
