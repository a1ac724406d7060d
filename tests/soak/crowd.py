"""What the users do: they come, think, do this and that, and leave in one way or another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.soak.ledger import Wrong
from tests.soak.streams import Socket, Stream
from tests.soak.visitor import SESSION, TOKEN, TooSlowError, Visitor

Open = Stream | Socket


@dataclass(kw_only=True)
class Rhythm:
    """How fast users are, in seconds; each a range.

    Args:
        think: between two things they do.
        rest: between two visits; ``factor`` times this.
        things: how many things they do in one visit.
        factor: raised while the machine has too much to do.
    """

    think: tuple[float, float] = (0.5, 4.0)
    rest: tuple[float, float] = (10.0, 60.0)
    things: tuple[int, int] = (20, 80)
    factor: float = 1.0


_THINGS: Final[dict[Callable[[Visitor], Awaitable[None]], int]] = {
    Visitor.look: 16,
    Visitor.read_public: 5,
    Visitor.count: 14,
    Visitor.read_count: 6,
    Visitor.put: 14,
    Visitor.read_cart: 8,
    Visitor.leave_note: 6,
    Visitor.read_notes: 6,
    Visitor.load_page: 8,
    Visitor.wait_long: 4,
    Visitor.regenerate: 4,
    Visitor.forge: 3,
    Visitor.vanish: 4,
    Visitor.revoke_others: 1,
}


class User:
    """One of the crowd.

    Args:
        visitor: who.
        rhythm: how fast.
    """

    def __init__(self, visitor: Visitor, rhythm: Rhythm) -> None:
        self.visitor = visitor
        self.rhythm = rhythm
        self._open: Open | None = None

    @property
    def chance(self) -> Random:
        """Decides."""
        return self.visitor.chance

    async def live(self) -> None:
        """Visit again and again, until cancelled."""
        await asyncio.sleep(self.chance.uniform(0, self.rhythm.rest[1] * self.rhythm.factor))
        while True:
            await self.visit()
            await asyncio.sleep(self.chance.uniform(*self.rhythm.rest) * self.rhythm.factor)

    async def visit(self) -> None:
        """Visit; give up where nobody can say what must be."""
        try:
            await self.come_and_go()
        except* TooSlowError:
            self._did("was too slow to be judged")
            await self.vanish()

    async def come_and_go(self) -> None:
        """Come, do things, leave."""
        if not await self.arrive():
            return
        for _ in range(self.chance.randint(*self.rhythm.things)):
            await self.think()
            if not await self.outlast():
                return
            await self.do_something()
        await self.leave()

    def end(self) -> None:
        """Hang up everything."""
        if self._open is not None:
            self._open.close()
        self.visitor.browser.end()

    async def think(self) -> None:
        """Do nothing for a moment."""
        await asyncio.sleep(self.chance.uniform(*self.rhythm.think))

    def _did(self, what: str) -> None:
        self.visitor.place.ledger.actions[what] += 1

    async def arrive(self) -> bool:
        """Look around, perhaps fill a cart, and sign in; or leave again."""
        visitor = self.visitor
        await visitor.look()
        await visitor.read_public()
        if self.chance.random() < 0.5:
            await visitor.claim()
            await visitor.put()
            await visitor.count()
        if self.chance.random() < 0.1:
            self._did("left before signing in")
            visitor.leave_browser()
            return False
        self._did("signed in")
        await visitor.sign_in(remember=self.chance.random() < 0.4)
        if self.chance.random() < 0.3:
            await self.open()
        return True

    async def open(self) -> None:
        """Open a stream or a socket."""
        kind: type[Stream | Socket] = self.chance.choice((Stream, Socket))
        self._did(f"opened a {kind.__name__.lower()}")
        self._open = await kind.opened(self.visitor, self.chance.randrange(len(self.visitor.place.ports)))

    async def do_something(self) -> None:
        """One thing."""
        if self._open is not None and self.chance.random() < 0.1:
            await self._open.speak(self.visitor)
        (thing,) = self.chance.choices(list(_THINGS), weights=list(_THINGS.values()))
        self._did(thing.__name__.replace("_", " "))
        await thing(self.visitor)

    async def outlast(self) -> bool:
        """Wait until the session has ended if it soon will; return whether the visit goes on."""
        limits = self.visitor.place.limits
        if self.visitor.age < limits.absolute - limits.margin:
            return True
        self._did("reached the absolute timeout")
        await asyncio.sleep(limits.absolute + limits.margin - self.visitor.least_age)
        return await self.come_back()

    async def come_back(self) -> bool:
        """Return to a session that has ended; return whether somebody is signed in again."""
        visitor = self.visitor
        await self.expect_end()
        if visitor.remembered_at is not None and self._is_token_old(visitor.remembered_at):
            visitor.browser.cookies.pop(TOKEN, None)
            visitor.remembered_at = None
        await visitor.come_back()
        if visitor.principal is not None:
            self._did("came back by a remember token")
            return True
        visitor.leave_browser()
        return False

    def _is_token_old(self, since: float) -> bool:
        limits = self.visitor.place.limits
        return asyncio.get_running_loop().time() - since > limits.remember - limits.absolute

    async def expect_end(self) -> None:
        """What is open must have been told of the end."""
        opened, self._open = self._open, None
        if opened is None:
            return
        self._did("was told the end")
        try:
            if not await opened.has_ended():
                self.visitor.complain(Wrong.OUTLIVED, type(opened).__name__)
        finally:
            opened.close()

    async def leave(self) -> None:
        """Leave in one of five ways."""
        ways = (self.sign_out, self.sign_out_beside, self.vanish, self.fall_asleep, self.close_browser)
        (way,) = self.chance.choices(ways, weights=(4, 2, 2, 2, 2))
        self._did(way.__name__.replace("_", " "))
        await way()

    async def sign_out(self) -> None:
        """As one should."""
        await self.visitor.sign_out()
        await self.expect_end()
        self.visitor.leave_browser()

    async def sign_out_beside(self) -> None:
        """While a slow request is under way."""
        await self.visitor.sign_out_beside()
        await self.expect_end()
        self.visitor.leave_browser()

    async def vanish(self) -> None:
        """For good: the store has to sweep what is left."""
        if self._open is not None:
            self._open.close()
            self._open = None
        self.visitor.leave_browser()

    async def fall_asleep(self) -> None:
        """Until the session has timed out."""
        limits = self.visitor.place.limits
        await asyncio.sleep(limits.idle + limits.margin)
        if await self.come_back():
            await self.sign_out()

    async def close_browser(self) -> None:
        """The session's cookie goes, a remember token stays."""
        if self._open is not None:
            self._open.close()
            self._open = None
        self.visitor.browser.cookies.pop(SESSION, None)
        if await self.come_back():
            await self.visitor.load_page()
            await self.visitor.read_cart()
            await self.sign_out()
