"""One connection to a Redis or Valkey server, and the batch of calls that travels on it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from eyewall.stores.resp_address import AbstractConnection, ResponseError
from eyewall.stores.resp_opening import connect, hang_up
from eyewall.stores.resp_replies import Call, Reply, is_read_only
from eyewall.stores.resp_wire import Wire


class Lane:
    """Carries one batch at a time, over a connection that it opens when there is none.

    Opening takes a task. Once open, a batch needs none: it is written, and answered by whatever wakes the
    :class:`~eyewall.stores.resp_wire.Wire`. Without a wire, the task also reads the replies.

    Args:
        make: returns a connection that is not yet connected.
        when_idle: is told that the lane's batch is over, answered or failed.
    """

    def __init__(self, make: Callable[[], AbstractConnection], when_idle: Callable[[Lane], None]) -> None:
        self._make = make
        self._connection = make()
        self._when_idle = when_idle
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stale = False
        self._is_closed = False
        self.calls: deque[Call] = deque()
        """The calls that have no answer yet, in the order of the replies to come."""
        self.is_demoted = False
        """Whether the last batch met a server that has become a replica; then this address may lead to
        another one by now."""

    def carry(self, calls: deque[Call]) -> None:
        """Send the commands of ``calls`` in one write, and give each call its replies. Never fails."""
        self.calls = calls
        self.is_demoted = False
        if self._wire is not None and self._wire.is_open():
            self._wire.send(calls)
        else:
            carrying = self._carry_in_task(self._connection, calls)
            self._task = asyncio.get_running_loop().create_task(carrying)

    def leave(self) -> None:
        """Let the next batch open another connection."""
        self._is_stale = True
        if self._wire is not None:
            self._wire.drop()

    def give_up(self, error: BaseException) -> None:
        """Fail the batch and leave its connection: the replies still to come belong to nobody."""
        self._fail(error)
        if self._task is not None and not self._task.done():
            self._task.cancel()
            closing = _closed_after(self._task, self._connection)
            self._task = asyncio.get_running_loop().create_task(closing)
            self._connection, self._wire = self._make(), None
        else:
            self.leave()

    async def close(self) -> None:
        """Close the connection and wait until it is closed. Whoever sends on it later fails."""
        self._is_closed = True
        if self._task is not None:
            await asyncio.wait([self._task])
        await hang_up(self._connection)

    # What the wire calls

    def refused(self, refusal: Exception) -> None:
        """See :meth:`eyewall.stores.resp_wire.Owner.refused`."""
        if not isinstance(refusal, ResponseError):
            raise refusal
        self.is_demoted |= is_read_only(refusal)

    def carried(self) -> None:
        """See :meth:`eyewall.stores.resp_wire.Owner.carried`."""
        if self.is_demoted:
            self.leave()
        self._when_idle(self)

    def lost(self, error: BaseException) -> None:
        """See :meth:`eyewall.stores.resp_wire.Owner.lost`."""
        if self.calls:  # else it was idle, and the next batch will notice
            self._fail(error)
            self._when_idle(self)

    def _fail(self, error: BaseException) -> None:
        while self.calls:
            self.calls.popleft().fail(error)

    # The way by redis-py

    async def _carry_in_task(self, connection: AbstractConnection, calls: deque[Call]) -> None:
        try:
            await self._connect(connection)
            self._wire = Wire.over(connection, self)
            if self._wire is not None:
                self._wire.send(calls)
                return
            await self._exchange(connection, calls)
        except asyncio.CancelledError:
            await hang_up(connection)
            raise
        except Exception as error:  # noqa: BLE001 - as in the wire
            await hang_up(connection)
            self._fail(error)
        self.carried()

    async def _connect(self, connection: AbstractConnection) -> None:
        """Open the connection, anew if it was left, closed by the server, or is not in step with us."""
        had_wire, self._wire = self._wire is not None, None
        if connection.is_connected and (had_wire or self._is_stale or await connection.can_read()):
            await hang_up(connection)
        self._is_stale = False
        if self._is_closed:
            raise ConnectionError("the store was closed")
        if not connection.is_connected:
            await connect(connection)
        if await connection.can_read():
            raise ConnectionError("the server closed the connection")

    async def _exchange(self, connection: AbstractConnection, calls: deque[Call]) -> None:
        commands = [command for call in calls for command in call.commands]
        await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        while calls:
            replies = [await self._reply(connection) for _ in calls[0].commands]
            calls.popleft().answer(replies)

    async def _reply(self, connection: AbstractConnection) -> Reply:
        try:
            return await connection.read_response(disconnect_on_error=False)
        except ResponseError as refusal:
            self.refused(refusal)
            return refusal


async def _closed_after(carrying: asyncio.Task[None], connection: AbstractConnection) -> None:
    """Close what ``carrying`` used: cancelled before it began, it has not done so."""
    await asyncio.wait([carrying])
    await hang_up(connection)
