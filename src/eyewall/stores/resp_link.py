"""Carries commands to Redis or Valkey and replies back to who asked: few writes, one deadline each.

:class:`Link` serves one server or the master behind sentinels. All calls made in one turn of the event
loop leave in one write on one connection, and their replies are matched in order. Calls made while every
connection is busy wait, and leave together in the next write: the busier the server, the fuller the
writes.

A batch runs in a task of its own; who called only awaits a future. So a cancelled request abandons its
reply, which is still read and thrown away, and never shifts it onto somebody else (as CVE-2023-28858 did
to redis-py 4.5). A batch that misses its deadline is given up together with its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, cast

from eyewall.stores.resp_address import AbstractConnection, NoScriptError, ResponseError, Source
from eyewall.stores.resp_replies import (
    SCAN_COUNT,
    Command,
    Reply,
    Script,
    is_read_only,
    sound,
    unavailable,
)

_pack: Callable[[Command], bytes] | None = None
with contextlib.suppress(ImportError):  # redis-py works without it, slower
    import hiredis

    _pack = cast("Any", hiredis.pack_command)

CONNECTIONS: Final = 2
"""Connections of a link. Few, because a full batch costs hardly more than a single command; more than one,
so that a slow answer does not hold up everybody else's calls."""

BATCH: Final = 256
"""Most calls in one write: bounds what a lost connection can fail, and how long a batch holds the loop."""

_AROUND: Final = ("ASKING", "PUBLISH", "WAIT")
"""Commands that belong to the one after or before them: what is done again is so together with them."""


class _Call:
    """The commands of one caller, and the future that will hold their replies."""

    __slots__ = ("commands", "due", "future")

    def __init__(
        self, commands: tuple[Command, ...], future: asyncio.Future[list[Reply]], due: float
    ) -> None:
        self.commands = commands
        self.future = future
        self.due = due

    def answer(self, replies: list[Reply]) -> None:
        if not self.future.done():
            self.future.set_result(replies)

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(unavailable(error))


class _Lane:
    """One connection and the batch that travels on it."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self.calls: list[_Call] = []
        self.task: asyncio.Task[None] | None = None
        self.demoted = False
        """Whether the last batch met a server that has become a replica; then this address may lead to
        another one by now."""

    async def carry(self, calls: list[_Call]) -> None:
        """Send the commands of ``calls`` in one write and give each call its replies. Never fails."""
        self.calls = calls
        try:
            await self._exchange(calls)
        except asyncio.CancelledError:
            await self.disconnect()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, the replies still to come belong to nobody
            await self.disconnect()
            for call in calls:
                call.fail(error)
        finally:
            self.calls = []

    async def disconnect(self) -> None:
        """Drop the connection; the next batch opens another."""
        await self._connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close the connection and wait, not longer than for opening one, until it is closed."""
        with contextlib.suppress(OSError, TimeoutError):
            await self._connection.disconnect()

    async def _exchange(self, calls: list[_Call]) -> None:
        connection = self._connection
        if not connection.is_connected:
            await connection.connect()  # type: ignore[no-untyped-call]
        elif await connection.can_read():  # closed by the server, or not in step with us
            await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]
        commands = [command for call in calls for command in call.commands]
        await connection.send_packed_command(_packed(connection, commands), check_health=False)
        self.demoted = False
        for call in calls:
            replies = [await self._reply() for _ in call.commands]
            self.demoted |= any(map(is_read_only, replies))
            call.answer(replies)
        if self.demoted:
            await self.disconnect()

    async def _reply(self) -> Reply:
        try:
            return await self._connection.read_response()
        except ResponseError as refusal:
            return refusal


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
        self._queue: deque[_Call] = deque()
        self._idle: list[_Lane] = [_Lane(source.make()) for _ in range(CONNECTIONS)]
        self._busy: set[_Lane] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, *commands: Command) -> list[Reply]:
        """Run ``commands`` in this order; return the reply to each. See :class:`Carrier`."""
        replies = await self._enqueue(commands)
        for reply in replies:
            if isinstance(reply, NoScriptError):
                return await self._send_in_full(commands, replies)
        return replies

    async def _send_in_full(self, commands: tuple[Command, ...], replies: list[Reply]) -> list[Reply]:
        """Send again what the server has forgotten; what it did is not done twice, but waited for again."""
        again = {
            index: Script.in_full(command) if isinstance(reply, NoScriptError) else command
            for index, (command, reply) in enumerate(zip(commands, replies, strict=True))
            if isinstance(reply, NoScriptError) or command[0] in _AROUND
        }
        second = dict(zip(again, await self._enqueue(tuple(again.values())), strict=True))
        return [second.get(index, reply) for index, reply in enumerate(replies)]

    async def send_to_all(self, command: Command) -> list[Reply]:
        """Run ``command`` on the one server; return its reply. See :class:`Carrier`."""
        return await self.send(command)

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
        return not self._queue and not self._busy

    async def close(self) -> None:
        """Fail what is under way and close the connections."""
        for call in self._queue:
            call.fail(ConnectionError("the store was closed"))
        self._queue.clear()
        under_way = [lane.task for lane in self._busy if lane.task is not None]
        for lane in list(self._busy):
            self._give_up(lane, "the store was closed")
        await asyncio.gather(*under_way, return_exceptions=True)
        for lane in self._idle:
            await lane.close()
        await self._source.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _enqueue(self, commands: tuple[Command, ...]) -> asyncio.Future[list[Reply]]:
        call = _Call(commands, self._loop.create_future(), self._loop.time() + self._timeout)
        if self._timer is None:
            self._timer = self._loop.call_at(call.due, self._expire)
        if not self._queue:
            self._loop.call_soon(self._dispatch)
        self._queue.append(call)
        return call.future

    def _dispatch(self) -> None:
        """Put what was asked in this turn on a connection, if one is idle."""
        if self._queue and self._idle:
            lane = self._idle.pop()
            self._busy.add(lane)
            lane.task = self._loop.create_task(self._work(lane))

    async def _work(self, lane: _Lane) -> None:
        """Carry batches until nobody waits any more."""
        while self._queue:
            await lane.carry([self._queue.popleft() for _ in range(min(len(self._queue), BATCH))])
            if lane.demoted:
                for idle in self._idle:  # else they would go on reading what the replica believes
                    await idle.disconnect()
        self._busy.discard(lane)
        self._idle.append(lane)

    def _expire(self) -> None:
        """Fail every call that is past its deadline, and set the timer for the next one."""
        now = self._loop.time()
        while self._queue and self._queue[0].due <= now:
            self._queue.popleft().fail(self._overdue())
        for lane in list(self._busy):
            if lane.calls and lane.calls[0].due <= now:
                self._give_up(lane, str(self._overdue()))
        pending = [lane.calls[0].due for lane in self._busy if lane.calls]
        pending += [self._queue[0].due] if self._queue else []
        self._timer = self._loop.call_at(min(pending), self._expire) if pending else None
        self._dispatch()

    def _give_up(self, lane: _Lane, reason: str) -> None:
        """Fail the lane's batch and put a new connection in its place; the old one closes by itself."""
        for call in lane.calls:
            call.fail(TimeoutError(reason))
        if lane.task is not None:
            lane.task.cancel()
        self._busy.discard(lane)
        self._idle.append(_Lane(self._source.make()))

    def _overdue(self) -> TimeoutError:
        return TimeoutError(f"no answer within {self._timeout} s")


def _packed(connection: AbstractConnection, commands: list[Command]) -> list[bytes]:
    """Return ``commands`` as bytes to send. redis-py's own packing costs ten times hiredis's."""
    if _pack is None:
        return connection.pack_commands(commands)
    return [b"".join(map(_pack, commands))]
