"""Listening that never gives up: it connects again after every loss, and says when it was deaf."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from eyewall.core.announcing import MAX_MESSAGE, Listener

ASK_SECONDS: Final = 3.0
"""How often a silent server is asked whether it is still there."""

SILENCE_SECONDS: Final = 4.0
"""How long the answer may take; so a frozen server or a half-open connection is noticed within 7 seconds."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 3.0
"""Seconds, give or take half, between two attempts to connect; each pause is twice the one before."""

STEADY_SECONDS: Final = 10.0
"""A connection that held so long makes the next pause the first again. Without that, a server that accepts
and hangs up would have everybody look at everything twenty times a second."""

LONGEST_REASON: Final = 300
"""Characters; some drivers describe every server they know."""

_logger: Final = logging.getLogger("eyewall.stores.listening")


class Ear(Protocol):
    """What a connection tells while it lives."""

    def connected(self) -> None:
        """Tell that it hears from now on."""

    def heard(self, message: bytes) -> None:
        """Tell what came."""


Attend = Callable[[Ear], Coroutine[Any, Any, None]]
"""Connects, tells the ear what it hears, and raises when the connection is lost; leaves nothing open."""


class KeptListening:
    """See :class:`eyewall.core.announcing.Listening`. Belongs to the event loop it was made on.

    Nothing queues up here: each message is handed on as it is read, and what is not yet read waits at the
    server, which hangs up on those who fall far behind. That is a loss like any other.

    Args:
        listener: is told.
        attend: one connection, from its beginning to its loss.
    """

    def __init__(self, listener: Listener, attend: Attend) -> None:
        self._listener = listener
        self._attend = attend
        self._is_connected: bool | None = None
        self._connected_at = 0.0
        self._failures = 0
        self.loop: Final = asyncio.get_running_loop()
        self._task = self.loop.create_task(self._keep())

    async def aclose(self) -> None:
        """See :meth:`eyewall.core.announcing.Listening.aclose`."""
        self._is_connected = False
        self._task.cancel()
        await asyncio.wait({self._task})

    def connected(self) -> None:
        """See :meth:`Ear.connected`."""
        self._is_connected = True
        self._connected_at = self.loop.time()
        tell(self._listener.connected)

    def heard(self, message: bytes) -> None:
        """See :meth:`Ear.heard`. A message longer than any of ours is a stranger's.

        A driver may bring one before it says that it is connected, or after it was closed.
        """
        if self._is_connected and len(message) <= MAX_MESSAGE:
            tell(self._listener.heard, message)

    async def _keep(self) -> None:
        while True:
            try:
                await self._attend(self)
            except asyncio.CancelledError:
                if _own_task_is_cancelled():
                    raise
                self._lost("the driver gave up")
            except Exception as error:  # noqa: BLE001 - whatever it was, the next attempt may work
                self._lost(f"{type(error).__name__}: {error}".rstrip(": ")[:LONGEST_REASON])
            await asyncio.sleep(self._pause())

    def _lost(self, reason: str) -> None:
        if self._is_connected and self.loop.time() - self._connected_at >= STEADY_SECONDS:
            self._failures = 0
        if self._is_connected is not False:
            self._is_connected = False
            tell(self._listener.lost, reason)

    def _pause(self) -> float:
        pause = min(FIRST_PAUSE * 2.0**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 10)
        return pause * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


class Listenings:
    """What listens through one store."""

    def __init__(self) -> None:
        self._open: list[KeptListening] = []

    def begin(self, listener: Listener, attend: Attend) -> KeptListening:
        """Listen on the running event loop."""
        self._open = [one for one in self._open if not one.loop.is_closed()]
        self._open.append(KeptListening(listener, attend))
        return self._open[-1]

    async def close(self) -> None:
        """End those of the running event loop."""
        loop = asyncio.get_running_loop()
        ending = [one for one in self._open if one.loop is loop]
        self._open = [one for one in self._open if one.loop is not loop]
        for one in ending:
            await one.aclose()


async def ended_with(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and wait until it has ended; how it ended concerns nobody."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def tell(call: Callable[..., None], *arguments: object) -> None:
    """Call one of a listener's methods. Its bug is logged, and must not make the process deaf."""
    try:
        call(*arguments)
    except Exception:
        _logger.exception("a listener of announcements failed")


def _own_task_is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
