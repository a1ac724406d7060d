"""Carries commands to a Redis or Valkey cluster: a link to each master, and who has which slot.

redis-py's own client for clusters is not used: a redirected command it may announce (``ASKING``) on one
connection and send on another, it finds no master that has no slot yet, and at every fifth slot that moved it
closes the connections under everybody's calls. So slots that move would fail requests of a busy site.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

from eyewall.errors import StoreUnavailable
from eyewall.stores.resp_address import (
    Address,
    AskError,
    ClusterDownError,
    MovedError,
    Place,
    Source,
    TryAgainError,
    slot_of,
)
from eyewall.stores.resp_link import Link
from eyewall.stores.resp_replies import Command, Reply, Script, sound, unavailable

T = TypeVar("T")
Owners = list[Place | None]
"""Who has each of the slots."""

SLOTS: Final = 16384
REDIRECTIONS: Final = 32
"""Most times that one command is sent elsewhere. A slot that moves costs one or two; while masters disagree
about who has it, they send a command to and fro."""

HASTY: Final = 4
"""So many of them come without a pause."""

LONGEST_PAUSE: Final = 0.05
"""Seconds before each of the others."""

ASKING: Final[Command] = ("ASKING",)


class ClusterLink:
    """Connections of one event loop in one process to the masters of a cluster.

    Args:
        address: of the cluster.
        timeout: longest wait of a call, from its start to its last reply (seconds).
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._links: dict[Place, Link] = {}
        self._known = address.nodes
        self._owners: Owners = []
        self._finding = asyncio.Lock()
        self._doubted: Place | None = None
        self._is_closed = False

    async def send(self, *commands: Command) -> list[Reply]:
        """Run ``commands`` in this order; return the reply to each. See :class:`Carrier`."""
        return await self._within_deadline(self._run(commands))

    async def send_to_all(self, command: Command) -> list[Reply]:
        """Run ``command`` on every master; return the replies. See :class:`Carrier`."""
        return await self._within_deadline(self._run_everywhere(command))

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """Yield every key of every master that matches ``pattern``. See :class:`Carrier`."""
        for place in _masters_in(await self._within_deadline(self._who_has_what())):
            async for key in self._link(place).scan(pattern):
                yield key

    async def close(self) -> None:
        """Close the connections. Calls under way fail, also those that were about to open one more."""
        self._is_closed = True
        links, self._links = self._links, {}
        await asyncio.gather(*(link.close() for link in links.values()))

    async def _within_deadline(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(self._timeout):
                return await work
        except TimeoutError:
            self._forget_owners()
            raise unavailable(TimeoutError(f"no answer within {self._timeout} s")) from None
        except StoreUnavailable:
            self._forget_owners()  # another may have taken its place
            raise

    async def _run(self, commands: tuple[Command, ...]) -> list[Reply]:
        return [await self._reply_to(command) for command in commands]

    async def _run_everywhere(self, command: Command) -> list[Reply]:
        asked = (self._link(place).send(command) for place in _masters_in(await self._who_has_what()))
        return [reply for (reply,) in await asyncio.gather(*asked)]

    async def _reply_to(self, command: Command) -> Reply:
        """Run ``command`` where its key is, and follow it to where that is by now."""
        slot, owners = slot_of(_key_of(command)), await self._who_has_what()
        place, announced = _owner_of(slot, owners), False
        reply: Reply = None
        for redirections in range(REDIRECTIONS):
            if redirections >= HASTY:
                await asyncio.sleep(random.uniform(0, LONGEST_PAUSE))  # noqa: S311 - not a secret
            words = (ASKING, command) if announced else (command,)
            *_, reply = await self._link(place).send(*words)
            if isinstance(reply, AskError | MovedError):
                place = _place(reply.host, reply.port, told_by=place)
                announced = not isinstance(reply, MovedError)  # only this key is there, the slot not yet
                if not announced:
                    owners[slot] = place
                    if place not in self._known:
                        self._forget_owners()  # one more, so others may have gone
            elif not isinstance(reply, TryAgainError):
                break
        if isinstance(reply, ClusterDownError):
            self._doubted = place  # that may be true of the part of the cluster it is cut off with
            self._forget_owners()
        return reply

    def _link(self, place: Place) -> Link:
        if (link := self._links.get(place)) is None:
            if self._is_closed:
                raise unavailable(ConnectionError("the store was closed"))
            server = replace(self._address, kind="", nodes=(place,))
            link = self._links[place] = Link(Source(server, self._timeout), self._timeout)
        return link

    # Who has what

    def _forget_owners(self) -> None:
        self._owners = []

    async def _who_has_what(self) -> Owners:
        if not self._owners:
            async with self._finding:
                if not self._owners:
                    self._owners = owners = await self._told_by_anyone()
                    self._known = tuple(dict.fromkeys([*self._address.nodes, *_masters_in(owners)]))
                    await self._leave_those_who_are_gone()
                    return owners
        return self._owners

    async def _leave_those_who_are_gone(self) -> None:
        gone = [place for place, link in self._links.items() if place not in self._known and link.is_idle()]
        for link in [self._links.pop(place) for place in gone]:
            await link.close()

    async def _told_by_anyone(self) -> Owners:
        """Ask all who are known, for some may hang; the first answer counts.

        Not that of a server which has just said that the cluster is down: others may have left it behind.
        """
        doubted = self._doubted
        self._doubted = None
        others = [place for place in self._known if place != doubted] or [*self._known]
        asked = [asyncio.ensure_future(self._told_by(place)) for place in others]
        failure = StoreUnavailable("the url of the cluster names no server")
        try:
            for answered in asyncio.as_completed(asked):
                try:
                    return await answered
                except StoreUnavailable as error:
                    failure = error
            raise failure
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _told_by(self, place: Place) -> Owners:
        (reply,) = await self._link(place).send(("CLUSTER", "SLOTS"))
        owners: Owners = [None] * SLOTS
        for first, last, (host, port, *_), *_ in sound(reply):
            owner = _place((host or b"").decode(), port, told_by=place)
            owners[first : last + 1] = [owner] * (last + 1 - first)
        if not any(owners):
            raise unavailable(ConnectionError("this server belongs to no cluster yet"))
        return owners


def _masters_in(owners: Owners) -> list[Place]:
    return [place for place in dict.fromkeys(owners) if place is not None]


def _owner_of(slot: int, owners: Owners) -> Place:
    owner = owners[slot]
    if owner is None:
        raise unavailable(ConnectionError(f"no server of the cluster has the slot {slot}"))
    return owner


def _place(host: str, port: int, told_by: Place) -> Place:
    """Return where a server of the cluster is; one that does not know its own name is where it was met."""
    return (host if host not in ("", "?") else told_by[0], port)


def _key_of(command: Command) -> str | bytes:
    """Return the key that ``command`` is about: our scripts have one, too."""
    key = command[3 if command[0] in (Script.COMMAND, Script.IN_FULL) else 1]
    return key if isinstance(key, bytes) else str(key)
