"""Carries commands to Redis or Valkey and replies back to who asked: few writes, one deadline each.

:class:`Link` serves one server or the master behind sentinels. All calls made in one turn of the event
loop leave in one write on one connection, and their replies are matched in order. Calls made while every
connection is busy wait, and leave together in the next write: the busier the server, the fuller the
writes.

Who called only awaits a future. So a cancelled request abandons its reply, which is still read and thrown
away, and never shifts it onto somebody else (as CVE-2023-28858 did to redis-py 4.5). A batch that misses its
deadline is given up together with its connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from time import monotonic
from typing import Final

from eyewall.stores.resp_address import Source
from eyewall.stores.resp_lane import Lane
from eyewall.stores.resp_replies import SCAN_COUNT, Call, Command, Reply, sound

CONNECTIONS: Final = 2
"""Connections of a link. Few, because a full batch costs hardly more than a single command; more than one,
so that a slow answer does not hold up everybody else's calls."""

BATCH: Final = 256
"""Most calls in one write: bounds what a lost connection can fail, and how long a batch holds the loop."""


class Link:
    """Connections of one event loop in one process to one server, shared by all callers.

    Args:
        source: makes connections that are not yet connected.
        timeout: longest wait of a call, from its start to its last reply (seconds).
    """

    def __init__(self, source: Source, timeout: float) -> None:
        self._source = source
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Call] = deque()
        self._lanes = [Lane(source.make, self._on_idle) for _ in range(CONNECTIONS)]
        self._idle = self._lanes.copy()
        self._timer: asyncio.TimerHandle | None = None

    def send(self, *commands: Command) -> asyncio.Future[list[Reply]]:
        """Run ``commands`` in this order; return the reply to each. See :class:`Carrier`."""
        future: asyncio.Future[list[Reply]] = self._loop.create_future()
        self._queue.append(Call(commands, future, monotonic() + self._timeout))
        if len(self._queue) == 1:  # else the first one has seen to it
            self._begin_batch()
        return future

    def send_to_all(self, command: Command) -> asyncio.Future[list[Reply]]:
        """Run ``command`` on the one server; return its reply. See :class:`Carrier`."""
        return self.send(command)

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """Yield every key that matches the glob ``pattern``. See :class:`Carrier`."""
        cursor: bytes = b"0"
        while True:
            (reply,) = await self.send(("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT))
            cursor, keys = sound(reply)
            for key in keys:
                yield key
            if cursor == b"0":
                return

    def is_idle(self) -> bool:
        """Whether nobody waits for it."""
        return not self._queue and not self._busy()

    async def close(self) -> None:
        """Fail what is under way and close the connections."""
        closed = ConnectionError("the store was closed")
        while self._queue:
            self._queue.popleft().fail(closed)
        for lane in self._busy():
            self._give_up(lane, closed)
        await asyncio.gather(*(lane.close() for lane in self._lanes))
        await self._source.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin_batch(self) -> None:
        """See to it that what is asked in this turn leaves, and is waited for no longer than it may."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._expire)
        if self._idle:
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Put what was asked in this turn on a connection, if one is idle."""
        if self._queue and self._idle:
            self._idle.pop().carry(self._next_batch())

    def _next_batch(self) -> deque[Call]:
        if len(self._queue) <= BATCH:
            batch, self._queue = self._queue, deque()
            return batch
        return deque(self._queue.popleft() for _ in range(BATCH))

    def _on_idle(self, lane: Lane) -> None:
        """Give the lane what has been asked meanwhile, if anything."""
        if lane.is_demoted:
            for idle in self._idle:  # else they would go on reading what the replica believes
                idle.leave()
        if self._queue:
            lane.carry(self._next_batch())
        else:
            self._idle.append(lane)

    def _busy(self) -> list[Lane]:
        return [lane for lane in self._lanes if lane.calls]

    def _expire(self) -> None:
        """Fail every call that is past its deadline, and set the timer for the next one."""
        now = monotonic()
        overdue = TimeoutError(f"no answer within {self._timeout} s")
        while self._queue and self._queue[0].due <= now:
            self._queue.popleft().fail(overdue)
        for lane in self._busy():
            if lane.calls[0].due <= now:
                self._give_up(lane, overdue)
        waiting = [calls[0].due for calls in (self._queue, *(lane.calls for lane in self._lanes)) if calls]
        self._timer = self._loop.call_later(min(waiting) - now, self._expire) if waiting else None
        self._dispatch()

    def _give_up(self, lane: Lane, error: BaseException) -> None:
        """Fail the lane's batch; the next one gets another connection."""
        lane.give_up(error)
        self._idle.append(lane)
