"""Tasks that outlive the call that started them, and are not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Final

_KEPT_AT_LEAST: Final = 64


class Background:
    """Holds on to tasks, which asyncio itself only refers to weakly, and awaits them at the end."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []
        self._most = _KEPT_AT_LEAST

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` as a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        if len(self._tasks) > self._most:
            self._let_go()
        return task

    def _let_go(self) -> None:
        """Forget the tasks that have ended; so seldom that it costs each of them next to nothing.

        A callback for each, when it ends, is one more turn of the event loop for every request that saves.
        """
        self._tasks = self.under_way()
        self._most = 2 * len(self._tasks) + _KEPT_AT_LEAST

    def under_way(self) -> list[asyncio.Task[Any]]:
        """Return the tasks that have not ended."""
        return [task for task in self._tasks if not task.done()]

    async def drained(self) -> None:
        """Wait until every task, also one started meanwhile, has ended."""
        while tasks := self.under_way():
            await asyncio.wait(tasks)
