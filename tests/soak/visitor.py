"""A visitor in one browser, who remembers all that was acknowledged and holds every answer to it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from itertools import count
from random import Random
from typing import Any, Final

from bench.loads import forged
from tests.soak.browser import Answer, Browser
from tests.soak.ledger import Wrong
from tests.soak.place import Place

SESSION: Final = "session"
TOKEN: Final = "session-remember"
_NUMBERS: Final = count(1)


class TooSlowError(Exception):
    """The machine let so much time pass that nobody can say whether the session should still be there."""


class Visitor:
    """Somebody with a browser.

    Args:
        place: where they go.
        name: who they are when they sign in.
        address: where they come from.
        chance: decides what is left to chance.
    """

    def __init__(self, place: Place, name: str, address: str, chance: Random) -> None:
        self.place = place
        self.name = name
        self.chance = chance
        self.browser = Browser(place.ports, address)
        self.remembered_at: float | None = None
        self.forget()

    def forget(self) -> None:
        """From now on be nobody, with nothing: the session has ended."""
        self.principal: str | None = None
        self.marker: str | None = None
        self.began = self.began_by = self._used = time.monotonic()
        self.counted = 0
        self.cart: dict[str, set[str | None]] = {}
        self.unread: list[str] = []

    def leave_browser(self) -> None:
        """Go, and leave nothing behind but what the server has."""
        self.browser.cookies.clear()
        self.browser.close()
        self.remembered_at = None
        self.forget()

    @property
    def age(self) -> float:
        """Seconds since the session began, at most."""
        return time.monotonic() - self.began

    @property
    def least_age(self) -> float:
        """The same, at least: between the two, the request was under way that began it."""
        return time.monotonic() - self.began_by

    # -- asking, and holding the answer to what is known -------------------------------------------------

    async def ask(self, path: str, method: str = "GET", *, status: int = 200, **data: Any) -> Answer:
        """Send a request to one of the servers and check the answer.

        Raises:
            TooSlowError: it took so long that the session may have timed out.
        """
        asked = time.monotonic()
        answer = await self.browser.ask(self.chance.randrange(len(self.place.ports)), path, method, **data)
        if self.marker is not None and self._may_have_ended():
            raise TooSlowError
        self._used = asked
        self.check(answer, f"{method} {path}", status=status)
        return answer

    def _may_have_ended(self) -> bool:
        limits = self.place.limits
        silence = time.monotonic() - self._used  # a tenth of it may have gone unnoticed; see Timeouts
        return silence > 0.9 * limits.idle or self.age > limits.absolute

    async def post(self, path: str, **data: Any) -> dict[str, Any]:
        """Post, and return what was told."""
        return (await self.ask(path, "POST", **data)).told

    def check(self, answer: Answer, what: str, *, status: int = 200) -> None:
        """Hold ``answer`` to who this is."""
        self.place.ledger.answers[self.place.store] += 1
        if answer.status != status:
            self.complain(Wrong.STATUS, f"{what}: {answer.status}")
        elif "principal" in answer.told:
            self.check_identity(answer.told, what)

    def check_identity(self, told: dict[str, Any], what: str) -> None:
        """Hold what a server says of its session to who this is."""
        for fact, right in (("principal", self.principal), ("marker", self.marker)):
            said = told.get(fact)
            if said != right:
                self.complain(self._wrong(said), f"{what}: {fact} is {said!r}, not {right!r}")

    def _wrong(self, said: Any) -> Wrong:
        if said is None:
            return Wrong.SIGNED_OUT
        return Wrong.REVIVED if str(said).startswith(self.name) else Wrong.IDENTITY

    def complain(self, wrong: Wrong, what: str) -> None:
        """Note a broken promise."""
        self.place.ledger.complain(wrong, f"{self.place.store}, {self.name}, {self.age:.1f} s old: {what}")

    # -- what anybody does --------------------------------------------------------------------------------

    async def look(self) -> None:
        """Ask who this is."""
        await self.ask("/whoami")

    async def read_public(self) -> None:
        """A page without a session."""
        await self.ask("/public")

    async def claim(self) -> None:
        """Leave a secret in the session, so that it is told from everybody else's."""
        marker = self.marker = self._new()
        await self.post("/claim", marker=marker)

    async def count(self) -> None:
        """Count one."""
        self._check_counts([await self.post("/count")])

    def _check_counts(self, told: Sequence[dict[str, Any]]) -> None:
        counts = sorted(each.get("count", -1) for each in told)
        right = list(range(self.counted + 1, self.counted + 1 + len(told)))
        self.counted += len(told)
        if counts != right:
            self.complain(Wrong.LOST_WRITE, f"counted {counts}, not {right}")
            self.counted = max(counts)

    async def put(self, key: str | None = None) -> None:
        """Put something into the cart, or take it out."""
        key = key or f"cart {self.chance.randrange(10)}"
        value = self._new() if self.chance.random() < 0.9 else None
        answer = await self.ask("/cart", "POST", key=key, value=value)
        self.cart[key] = {value} if answer.status == 200 else {value, *self.cart.get(key, {None})}

    async def read_cart(self) -> None:
        """Everything acknowledged must be there, and nothing of anybody else."""
        told = (await self.ask("/cart")).told.get("cart")
        if told is None:
            return
        for key in self.cart.keys() | told.keys():
            value, right = told.get(key), self.cart.get(key, {None})
            if value not in right:
                own = value is None or value.startswith(self.name)
                wrong = Wrong.LOST_WRITE if own else Wrong.IDENTITY
                self.complain(wrong, f"{key} is {value!r}, not {right!r}")

    async def read_count(self) -> None:
        """Nothing counted may be gone."""
        told = (await self.ask("/count")).told.get("count")
        if told != self.counted:
            self.complain(Wrong.LOST_WRITE, f"the count is {told}, not {self.counted}")

    async def load_page(self) -> None:
        """A page and its six assets, all at once; some of them write."""
        async with asyncio.TaskGroup() as page:
            counted = [page.create_task(self.post("/count")) for _ in range(2)]
            for asset in (
                self.look(),
                self.look(),
                self.read_public(),
                self.put("cart 1"),
                self.put("cart 2"),
            ):
                page.create_task(asset)
        self._check_counts([each.result() for each in counted])

    async def leave_note(self) -> None:
        """Leave a message for the next page."""
        message = self._new()
        await self.post("/flash", message=message)
        self.unread.append(message)

    async def read_notes(self) -> None:
        """Each message is there once, in order."""
        told = (await self.ask("/flash")).told.get("messages")
        if told != self.unread:
            self.complain(Wrong.LOST_WRITE, f"the messages are {told!r}, not {self.unread!r}")
        self.unread = []

    async def wait_long(self) -> None:
        """A slow request beside others."""
        value = self._new()
        seconds = self.chance.uniform(0.2, 1.5)
        async with asyncio.TaskGroup() as both:
            slow = both.create_task(self.post("/slow", seconds=seconds, key="cart slow", value=value))
            await asyncio.sleep(seconds / 2)
            await self.put()
        if after := slow.result().get("after"):
            self.check_identity(after, "/slow at its end")
        self.cart["cart slow"] = {value}

    async def vanish(self) -> None:
        """Be gone in the middle of a request: it may happen or not, but by no half."""
        key, value = f"cart gone {self.chance.randrange(3)}", self._new()
        self.cart.setdefault(key, {None}).add(value)
        server, after = self.chance.randrange(len(self.place.ports)), self.chance.uniform(0, 0.01)
        await self.browser.ask_and_vanish(server, after, "/cart", key=key, value=value)

    async def regenerate(self) -> None:
        """Get a new ID; the old one is dead at once."""
        before = self.browser.copy()
        await self.post("/regenerate")
        before.cookies.pop(TOKEN, None)
        await self.check_dead(before, "an ID that was replaced")

    async def forge(self) -> None:
        """Change one's own cookie: that is nobody's."""
        thief = self.browser.copy()
        thief.cookies.pop(TOKEN, None)
        name = SESSION.encode()
        bent = forged(name + b"=" + thief.cookies[SESSION].encode())
        thief.cookies[SESSION] = bent.removeprefix(name + b"=").decode()
        await self.check_dead(thief, "a forged cookie")

    async def check_dead(self, thief: Browser, what: str) -> None:
        """No server may take ``thief``'s cookies for anybody's."""
        for server in range(len(thief.ports)):
            answer = await thief.ask(server, "/whoami")
            self.place.ledger.answers[self.place.store] += 1
            if answer.status != 200:
                self.complain(Wrong.STATUS, f"{what}: {answer.status}")
            elif answer.told != {"principal": None, "marker": None}:
                self.complain(Wrong.REVIVED, f"{what} opens {answer.told}")
        thief.close()

    # -- signing in and out -------------------------------------------------------------------------------

    async def sign_in(self, *, remember: bool) -> None:
        """Sign in, sometimes after a wrong password; what was in the cart stays there."""
        if self.chance.random() < 0.1:
            await self.ask("/sign-in", "POST", status=401, **self._credentials("wrong", remember=False))
        credentials = self._credentials("right", remember=remember)
        began, self.principal, self.marker = time.monotonic(), self.name, credentials["marker"]
        await self.post("/sign-in", **credentials)
        self.began, self.began_by = began, time.monotonic()
        if remember:
            self.remembered_at = began

    def _credentials(self, password: str, *, remember: bool) -> dict[str, Any]:
        return {
            "user": self.name,
            "password": f"{password} password of {self.name}",
            "marker": self._new(),
            "remember": remember,
        }

    async def sign_out(self) -> None:
        """Sign out; whoever has copied the cookies is nobody."""
        copied = self.browser.copy()
        self.forget()
        await self.post("/sign-out")
        self.remembered_at = None
        await self.check_dead(copied, "a cookie from before the sign-out")

    async def sign_out_beside(self) -> None:
        """Sign out while a slow request of the same browser is under way; it revives nothing."""
        copied, slow_one = self.browser.copy(), self.browser.copy()
        async with asyncio.TaskGroup() as both:
            value = self._new()
            late = both.create_task(
                slow_one.ask(0, "/slow", "POST", seconds=0.8, key="cart late", value=value)
            )
            await asyncio.sleep(0.3)
            await self.sign_out()
        answer = late.result()
        if answer.status != 200 or answer.told.get("principal") not in (self.name, None):
            self.complain(Wrong.IDENTITY, f"a slow request beside signing out: {answer}")
        slow_one.close()
        await self.check_dead(copied, "a cookie from before the sign-out, after a slow request")

    async def revoke_others(self) -> None:
        """Sign in with another browser, and end that from here."""
        other = Visitor(self.place, self.name, self.browser.address, self.chance)
        other.browser = self.browser.copy()
        other.browser.cookies.clear()
        await other.sign_in(remember=self.chance.random() < 0.5)
        await other.put()
        copied = other.browser.copy()
        await self.post("/revoke-others")
        self.remembered_at = None
        await self.check_dead(copied, "the cookie of a device that was ended")
        other.forget()
        await other.look()
        other.browser.close()

    async def come_back(self) -> None:
        """Return after the session has ended, or without its cookie: remembered, or nobody."""
        self.forget()
        if self.remembered_at is None:
            await self.look()
            return
        self.principal = self.name
        async with asyncio.TaskGroup() as tabs:
            for _ in range(3):
                tabs.create_task(self.look())
        self.began_by = time.monotonic()
        await self.claim()

    def _new(self) -> str:
        """Return a text that nobody else has, and that tells whose it is."""
        return f"{self.name}, {next(_NUMBERS)}, {secrets.token_hex(8)}"
