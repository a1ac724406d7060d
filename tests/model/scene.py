"""The scene of the interleavings: ann has a browser with several tabs, and another device; bob has one.

There is a spare browser for whoever turns up: ann at a friend's, or a thief with the cookies of her tabs.

What ann and others do there (:data:`PLAYS`) happens in tabs that were all opened before: each sends the
cookies that the browser had at the start. Each play has a process of its own, or all share one.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any, Final, NamedTuple

from eyewall.core.ids import digest_of
from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.signin.devices import handle_of
from eyewall.signin.service import SignInManager
from eyewall.testing.clock import ManualClock
from tests.model.stepping import (
    RequestWorld,
    SteppingLoop,
    Waiting,
    WaitingStore,
    draw_from_the_start,
)
from tests.model.visits import REMEMBER, SESSION, Answer, Browser, look, process, visit
from tests.stores.interleaving import finished

TOUCH_IS_DUE: Final = timedelta(minutes=6)
THIEF: Final = "regenerate by a thief"
ELSEWHERE: Final = "sign in elsewhere"
SIGN_IN_FIRST: Final = "a redirect to the page for signing in"
PAST_THE_IDLE_TIMEOUT: Final = timedelta(hours=2)


class Scene:
    """Three browsers and a store at one moment."""

    def __init__(self, options: dict[str, Any], *, remembered: bool) -> None:
        draw_from_the_start()
        self.options = options
        self.remembered = remembered
        self.loop = SteppingLoop()
        self.clock = ManualClock()
        self.store = WaitingStore(clock=self.clock)
        self.ann, self.far, self.bob, self.spare = (Browser(self.clock) for _ in range(4))
        self._begin()
        self.tab = self.ann.cookies()
        self.handle = self._handle()
        self.records = list(self.store.held().values())
        self.loop.close()

    def _begin(self) -> None:
        manager = process(self.store, self.clock, **self.options)

        async def fill(session: Session, _: object) -> None:
            session.update(base=1, n=0)
            session.flash("note", "hi")

        async def fill_bobs(session: Session, _: object) -> None:
            session["bobs"] = 1

        for browser, name, remember in (
            (self.ann, "ann", self.remembered),
            (self.far, "ann", False),
            (self.bob, "bob", False),
        ):
            self._run(manager, browser, signing_in(name, remember=remember))
        self._run(manager, self.ann, fill)
        self._run(manager, self.bob, fill_bobs)
        self.clock.advance(TOUCH_IS_DUE)

    def _run(self, manager: SignInManager, browser: Browser, act: Act) -> Answer:
        return self.loop.finished(visit(browser, manager, act, header=browser.cookies()))

    def _handle(self) -> str:
        manager = process(self.store, self.clock, **self.options)

        async def own(session: Session, _: object) -> bytes | None:
            return session.draft.identity.device_id

        device_id = self._run(manager, self.ann, own).value
        assert isinstance(device_id, bytes)
        return handle_of(device_id)

    def again(self) -> Scene:
        """Return the same moment once more, independent of what happens in this one."""
        draw_from_the_start()
        other = copy.copy(self)
        other.clock = ManualClock(self.clock())
        other.loop = SteppingLoop()
        other.store = WaitingStore(clock=other.clock)
        for record in self.records:
            finished(other.store.create(record))
        other.ann, other.far, other.bob, other.spare = (
            one.copied(other.clock) for one in (self.ann, self.far, self.bob, self.spare)
        )
        return other

    # -- afterwards ---------------------------------------------------------------------------------------

    @cached_property
    def afterwards(self) -> SignInManager:
        """A process that starts when all is over."""
        return process(self.store, self.clock, **self.options)

    def seen_by(self, header: str | None) -> tuple[str | None, dict[str, Any]]:
        """What whoever sends ``header`` now sees: who is signed in, and the data."""
        answer = self.loop.finished(visit(Browser(self.clock), self.afterwards, look, header=header))
        assert isinstance(answer.value, tuple), "reading is never refused"
        return answer.value

    def signs_in(self) -> bool:
        """Whether ann can sign in, in another browser."""
        work = visit(Browser(self.clock), self.afterwards, signing_in_same, header=None)
        return not self.loop.finished(work).refused

    def waiting_messages(self, browser: Browser) -> int:
        """How many messages wait for ``browser``."""

        async def count(session: Session, _: object) -> int:
            return len(session.flash.messages("note"))

        found = self.loop.finished(visit(browser, self.afterwards, count, header=browser.cookies())).value
        assert isinstance(found, int)
        return found

    def sessions(self) -> list[Record]:
        """The live sessions; no markers, tokens and locks."""
        now = self.clock()
        held = self.store.held().values()
        return [record for record in held if record.successor is None and record.expires_at > now]

    def known_digests(self) -> set[bytes]:
        """Digests of all sessions that any browser was ever told of."""
        browsers = (self.ann, self.far, self.bob, self.spare)
        pairs = {pair for browser in browsers for pair in browser.ever}
        values = [value for name, _, value in (pair.partition("=") for pair in pairs) if name == SESSION]
        return {digest_of(value.split(".")[2]) for value in values}


Act = Callable[[Session, SignInManager], Awaitable[object]]


def signing_in(name: str, *, remember: bool = False) -> Act:
    """What the page does to which a password was sent."""

    async def act(session: Session, _: object) -> None:
        session.sign_in(name, remember=remember)

    return act


async def writing_a(session: Session, _: object) -> None:
    """A page that stores a key."""
    session["a"] = 1


async def writing_b(session: Session, _: object) -> None:
    """A page that stores another."""
    session["b"] = 1


async def modifying(session: Session, _: object) -> object:
    """A click that counts."""
    return await session.modify("n", lambda n: n + 1, default=0)


async def taking(session: Session, _: object) -> object:
    """A socket that takes the message."""
    return len(await session.flash.take("note"))


async def regenerating(session: Session, _: object) -> None:
    """A change of privilege."""
    session.regenerate()


async def signing_in_same(session: Session, _: object) -> None:
    """The password again."""
    session.sign_in("ann")


async def signing_in_other(session: Session, _: object) -> None:
    """Somebody else, in the same browser."""
    session.sign_in("bob")
    session["bobs"] = 1


async def signing_out(session: Session, _: object) -> None:
    """The usual way."""
    session.sign_out()


async def signing_out_everywhere(session: Session, _: object) -> object:
    """On all devices."""
    known = session.principal is not None or session.draft.moved_from is not None
    session.sign_out(everywhere=True)
    return None if known else SIGN_IN_FIRST


async def revoking_others(session: Session, manager: SignInManager) -> object:
    """On all devices but this."""
    return await manager.revoke_others(session) if session.principal else SIGN_IN_FIRST


async def changing_password(session: Session, manager: SignInManager) -> object:
    """Which ends all but this."""
    if session.principal is None:
        return SIGN_IN_FIRST
    return await manager.credentials_changed(session.principal, keep=session)


class Play(NamedTuple):
    """One thing that happens.

    Args:
        name: for people.
        run: makes the program.
        ends: it ends ann's session, whatever tab it is in.
        ends_far: it ends the session of her other device.
        moves: it gives her browser another session cookie.
        principal: who signs in.
        ends_token: nobody comes back by ann's remember token.
        writes: a key that it sets to 1.
    """

    name: str
    run: Callable[[Scene, SignInManager], Awaitable[object]]
    ends: bool = False
    ends_far: bool = False
    moves: bool = False
    principal: str | None = None
    ends_token: bool = False
    writes: str | None = None


def in_tab(act: Act) -> Callable[[Scene, SignInManager], Awaitable[object]]:
    """In a tab of ann's browser."""
    return lambda scene, manager: visit(scene.ann, manager, act, header=scene.tab)


def from_far(act: Act) -> Callable[[Scene, SignInManager], Awaitable[object]]:
    """On ann's other device."""
    return lambda scene, manager: visit(scene.far, manager, act, header=scene.far.cookies())


async def regenerating_by_thief(scene: Scene, manager: SignInManager) -> object:
    """Whoever has copied the ID gets another one for it."""
    return await visit(scene.spare, manager, regenerating, header=scene.tab)


async def signing_in_elsewhere(scene: Scene, manager: SignInManager) -> object:
    """At a friend's."""
    return await visit(scene.spare, manager, signing_in_same, header=None)


async def restoring(scene: Scene, manager: SignInManager) -> object:
    """A tab that comes with the remember token only."""
    return await visit(scene.ann, manager, look, header=scene.ann.cookies(REMEMBER))


async def revoking(scene: Scene, manager: SignInManager) -> object:
    """From a list of devices."""
    return await manager.revoke(scene.handle, principal="ann")


async def revoking_all(_: Scene, manager: SignInManager) -> object:
    """By an operator."""
    return await manager.revoke_all("ann")


async def expiring(scene: Scene, _: SignInManager) -> object:
    """Nobody comes for hours, and a sweep."""
    await scene.store.load(b"-" * 32)
    scene.clock.advance(PAST_THE_IDLE_TIMEOUT)
    return await scene.store.sweep(scene.clock(), 1000)


PLAYS: Final = {
    play.name: play
    for play in (
        Play("read", in_tab(look)),
        Play("write a", in_tab(writing_a), writes="a"),
        Play("write b", in_tab(writing_b), writes="b"),
        Play("modify", in_tab(modifying)),
        Play("take", in_tab(taking)),
        Play("regenerate", in_tab(regenerating), moves=True),
        Play("sign in same", in_tab(signing_in_same), moves=True, principal="ann"),
        Play("sign in other", in_tab(signing_in_other), moves=True, principal="bob", ends_token=True),
        Play("sign out", in_tab(signing_out), ends=True, ends_token=True),
        Play("everywhere", in_tab(signing_out_everywhere), ends=True, ends_far=True, ends_token=True),
        Play("revoke", revoking, ends=True, ends_token=True),
        Play("revoke all", revoking_all, ends=True, ends_far=True, ends_token=True),
        Play("revoke others", in_tab(revoking_others), ends_far=True, ends_token=True),
        Play("revoked by far", from_far(revoking_others), ends=True, ends_token=True),
        Play("new password", in_tab(changing_password), moves=True, ends_far=True, ends_token=True),
        Play("new password from far", from_far(changing_password), ends=True, ends_token=True),
        Play("restore", restoring, moves=True),
        Play("expire", expiring, ends=True),
        Play(THIEF, regenerating_by_thief, moves=True),
        Play(ELSEWHERE, signing_in_elsewhere, principal="ann"),
    )
}
"""Everything that can happen, by name."""


class Performance(RequestWorld):
    """Some plays at once, in one of their orders."""

    def __init__(self, start: Scene, plays: Sequence[Play], *, cuts: bool, shared: bool) -> None:
        self.scene = scene = start.again()
        self.plays = plays
        managers = [process(scene.store, scene.clock, **scene.options) for _ in plays]
        if shared:
            managers = managers[:1] * len(plays)
        programs = [
            (play.name, as_program(play.run(scene, manager)))
            for play, manager in zip(plays, managers, strict=True)
        ]
        super().__init__(scene.store, scene.loop, programs, cuts=cuts, shared=shared)

    def done(self, **wanted: object) -> list[Waiting]:
        """Those that were carried out and answered, of the plays that are as ``wanted``."""
        return [actor for actor in self.of(**wanted) if was_carried_out(actor)]

    def of(self, **wanted: object) -> list[Waiting]:
        """Those of the plays that are as ``wanted``."""
        pairs = zip(self.waiting, self.plays, strict=True)
        return [
            actor
            for actor, play in pairs
            if all(getattr(play, name) == value for name, value in wanted.items())
        ]


def was_carried_out(actor: Waiting) -> bool:
    """Whether it was answered, and neither by a 409 nor by asking for a password."""
    result = actor.result
    said_no = isinstance(result, Answer) and (result.refused or result.value == SIGN_IN_FIRST)
    return actor.done and actor.error is None and not said_no


async def as_program(work: Awaitable[object]) -> object:
    """One coroutine, whatever awaits inside."""
    return await work
