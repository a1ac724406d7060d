"""Checks of the capability ``Announcing``: telling every process something."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from eyewall.core.announcing import MAX_MESSAGE, Announcer, announcer_of
from eyewall.core.store import Clock
from eyewall.testing.check_kit import Check, MakeStore, clock_of_today, opened, require

PATIENCE: Final = 10.0
"""Seconds after which something has not been heard."""


class Hearer:
    """A listener that writes down what it is told."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.states: list[str] = []
        """``connected`` or ``lost``, in order."""
        self._told = asyncio.Event()

    def heard(self, message: bytes) -> None:
        """See :meth:`eyewall.core.announcing.Listener.heard`."""
        self.messages.append(message)
        self._told.set()

    def connected(self) -> None:
        """See :meth:`eyewall.core.announcing.Listener.connected`."""
        self.states.append("connected")
        self._told.set()

    def lost(self, _reason: str) -> None:
        """See :meth:`eyewall.core.announcing.Listener.lost`."""
        self.states.append("lost")
        self._told.set()

    async def until_heard(self, last: bytes) -> None:
        """Wait until ``last`` has been heard."""
        await self._until(lambda: last in self.messages[-50:], "what is announced is heard by all who listen")

    async def until_states(self, *states: str) -> None:
        """Wait until it has been told exactly these, in this order."""
        await self._until(lambda: self.states == list(states), f"a listener is told {states}")

    async def _until(self, condition: Callable[[], bool], promise: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    self._told.clear()
                    await self._told.wait()
        except TimeoutError:
            raise AssertionError(
                f"broken promise: {promise}; it was told {self.states} and {self.messages[-3:]}"
            ) from None


@asynccontextmanager
async def hearing(announcer: Announcer) -> AsyncIterator[Hearer]:
    """A listener that is connected, and closed when the check is over."""
    hearer = Hearer()
    listening = announcer.listen(hearer)
    try:
        await hearer.until_states("connected")
        yield hearer
    finally:
        await listening.aclose()


async def check_an_announcement_is_heard_by_all(make: MakeStore) -> None:
    """Another process's listener and one's own hear the same messages, in order."""
    async with _two(make) as (one, other), hearing(one) as own, hearing(other) as foreign:
        messages = [secrets.token_bytes(16) for _ in range(20)]
        for message in messages:
            await one.announce(message)
        for hearer in (own, foreign):
            await hearer.until_heard(messages[-1])
            require(hearer.messages == messages, "announcements come once each, in order")


async def check_an_announcement_is_exactly_what_was_sent(make: MakeStore) -> None:
    """Every byte, no byte, and the longest message: a digest cut short ends nobody's socket."""
    messages = [bytes(range(256)), b"", b"\0", b"\xff" * MAX_MESSAGE, "\u00e9\U0001f600".encode(), b"last"]
    async with _two(make) as (one, other), hearing(other) as hearer:
        for message in messages:
            await one.announce(message)
        await hearer.until_heard(b"last")
        require(hearer.messages == messages, "a message is heard exactly as it was sent")


async def check_a_long_announcement_is_refused(make: MakeStore) -> None:
    """A message that one store carries and the next does not, breaks on the day the store is changed."""
    async with _two(make) as (one, _):
        try:
            await one.announce(bytes(MAX_MESSAGE + 1))
        except ValueError:
            return
        raise AssertionError(f"broken promise: more than {MAX_MESSAGE} bytes are a ValueError")


async def check_nothing_is_heard_after_closing(make: MakeStore) -> None:
    """A closed listener that is called all the same works with what has been taken down."""
    async with _two(make) as (one, other), hearing(one) as witness:
        async with hearing(other) as hearer:
            await one.announce(b"before")
            await hearer.until_heard(b"before")
        await one.announce(b"after")
        await witness.until_heard(b"after")
        require(hearer.messages == [b"before"], "who has been closed hears nothing more")
        require(hearer.states == ["connected"], "closing is no loss")


async def check_closing_twice_does_nothing_more(make: MakeStore) -> None:
    """Whoever takes an application down may do so from two ends; and before it was ever connected."""
    async with _two(make) as (one, _):
        hearer = Hearer()
        listening = one.listen(hearer)
        await listening.aclose()
        await listening.aclose()
        await asyncio.sleep(0)
        require(not hearer.states, "closed before it began, a listener is told nothing")


async def check_closing_the_store_ends_its_listeners(make: MakeStore) -> None:
    """A task that outlives its store keeps the process from ending cleanly."""
    before = asyncio.all_tasks()
    async with _two(make) as (one, other):
        one.listen(Hearer())
        other.listen(hearer := Hearer())
        await hearer.until_states("connected")
    require(asyncio.all_tasks() <= before, "closing the store leaves no task behind")


async def check_a_flood_is_heard_in_order(make: MakeStore) -> None:
    """Many announcements at once, from two sides: none may be cut, joined, or put before an earlier one."""
    async with _two(make) as (one, other), hearing(other) as hearer:
        await asyncio.gather(*(_announce_many(one, side, 500) for side in (b"a", b"b")))
        await one.announce(b"last")
        await hearer.until_heard(b"last")
        for side in (b"a", b"b"):
            heard = [message for message in hearer.messages if message.startswith(side)]
            require(heard == [b"%b%d" % (side, n) for n in range(500)], "one who announces is heard in order")


async def _announce_many(announcer: Announcer, side: bytes, count: int) -> None:
    for number in range(count):
        await announcer.announce(b"%b%d" % (side, number))


@asynccontextmanager
async def _two(make: MakeStore) -> AsyncIterator[tuple[Announcer, Announcer]]:
    """The announcers of two handles to one place."""
    clock = clock_of_today()
    async with _opened_announcer(make, clock) as one, _opened_announcer(make, clock) as other:
        yield one, other


@asynccontextmanager
async def _opened_announcer(make: MakeStore, clock: Clock) -> AsyncIterator[Announcer]:
    async with opened(make, clock) as store:
        announcer = announcer_of(store)
        if announcer is None:
            raise AssertionError(f"broken promise: {type(store).__name__} should be able to announce")
        require(announcer_of(store) is announcer, "a store has one announcer")
        yield announcer


ANNOUNCER_CHECKS: Final[tuple[Check, ...]] = (
    check_an_announcement_is_heard_by_all,
    check_an_announcement_is_exactly_what_was_sent,
    check_a_long_announcement_is_refused,
    check_nothing_is_heard_after_closing,
    check_closing_twice_does_nothing_more,
    check_closing_the_store_ends_its_listeners,
    check_a_flood_is_heard_in_order,
)
"""What a store promises whose :meth:`~eyewall.core.announcing.Announcing.announcer` is not None."""
