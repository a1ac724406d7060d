"""Announcements by way of Redis and Valkey: PUBLISH and SUBSCRIBE.

The channel is ``<prefix>a:<database>``: channels are one space for all databases of a server, so the
database has to be in the name. A user limited by access rules needs the right to it: ``&<prefix>*``.

In a cluster what is published at one node is heard at all. Behind sentinels, the master is looked up anew
for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from itertools import cycle
from typing import Any, Final

from eyewall.core.announcing import Listener, Listening, require_sendable
from eyewall.stores import listening
from eyewall.stores.listening import Ear, Listenings, ended_with
from eyewall.stores.resp_address import AbstractConnection, Address, Source
from eyewall.stores.resp_opening import connect, hang_up

AT_ONCE: Final = 64
"""Messages handed on before other tasks get their turn, should they come faster than they are heard."""


class RespAnnouncer:
    """See :class:`eyewall.core.announcing.Announcer`.

    Args:
        address: where the servers are.
        prefix: begins the channel's name.
        timeout: longest wait for a connection (seconds).
        ask: runs one command over the store's connections.
    """

    def __init__(
        self, address: Address, prefix: str, timeout: float, ask: Callable[..., Awaitable[Any]]
    ) -> None:
        self._channel = f"{prefix}a:{address.options.get('db', 0)}"
        self._sources: Iterator[Address] = cycle(_single(address))
        self._timeout = timeout
        self._ask = ask
        self._listenings = Listenings()

    async def announce(self, message: bytes) -> None:
        """See :meth:`eyewall.core.announcing.Announcer.announce`."""
        require_sendable(message)
        await self._ask(("PUBLISH", self._channel, message))

    def listen(self, listener: Listener) -> Listening:
        """See :meth:`eyewall.core.announcing.Announcer.listen`."""
        return self._listenings.begin(listener, self._attend)

    async def close(self) -> None:
        """End what listens on the running event loop."""
        await self._listenings.close()

    async def _attend(self, ear: Ear) -> None:
        source = Source(next(self._sources), self._timeout)
        connection = source.make()
        try:
            async with asyncio.timeout(self._timeout):
                await self._subscribe(connection)
            ear.connected()
            asking = asyncio.ensure_future(_ask_now_and_then(connection))
            try:
                await _hear(connection, ear)
            finally:
                await ended_with(asking)
        finally:
            await hang_up(connection)
            await source.close()

    async def _subscribe(self, connection: AbstractConnection) -> None:
        await connect(connection)
        await _send(connection, "SUBSCRIBE", self._channel)
        await connection.read_response(disconnect_on_error=False)  # raises what the server refuses with


def _single(address: Address) -> list[Address]:
    """Return the addresses to try in turn: any one node of a cluster will do."""
    if address.kind != "cluster":
        return [address]
    return [Address("", (node,), address.options) for node in address.nodes]


async def _hear(connection: AbstractConnection, ear: Ear) -> None:
    """Hand on what comes, until nothing comes any more, not even an answer to our asking."""
    loop, heard = asyncio.get_running_loop(), 0
    patience = listening.ASK_SECONDS + listening.SILENCE_SECONDS
    async with asyncio.timeout(patience) as silence:
        while True:
            reply = await connection.read_response(disconnect_on_error=False)
            silence.reschedule(loop.time() + patience)
            if reply[0] == b"message":
                ear.heard(reply[2])
                heard += 1
                if heard % AT_ONCE == 0:
                    await asyncio.sleep(0)


async def _ask_now_and_then(connection: AbstractConnection) -> None:
    with contextlib.suppress(Exception):  # whoever reads from the connection will notice, too
        while True:
            await asyncio.sleep(listening.ASK_SECONDS)
            await _send(connection, "PING")


async def _send(connection: AbstractConnection, *command: str) -> None:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
