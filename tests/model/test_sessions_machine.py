"""Random histories of several browsers in two processes on one store, against a plain model.

A step is a whole request, a revocation, time that passes, or a *race*: two requests whose store calls take
turns as hypothesis chooses, and of which one may be cancelled at any call and never goes on. After every step
the model says what each browser must see; after a race it says what nobody may see, and what may be.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from eyewall.core.session import Session
from eyewall.signin.devices import handle_of
from eyewall.signin.service import SignInManager
from eyewall.testing.clock import ManualClock
from tests.model.stepping import RequestWorld, SteppingLoop, WaitingStore
from tests.model.visits import SESSION, Act, Answer, Browser, look, process, visit

SOAK: Final = bool(os.environ.get("EYEWALL_TEST_SOAK"))
NAMES: Final = ("ann", "bob")
MOST_STEPS: Final = 500
MOST: Final = 3
"""The limit of sessions per principal; there are four browsers."""

STILL_ALIVE: Final = timedelta(minutes=54)
SURELY_DEAD: Final = timedelta(minutes=61)
"""The idle timeout is an hour, and a use is noted every five minutes at least."""

BROWSERS: Final = st.integers(0, 3)
PROCESSES: Final = st.integers(0, 1)
CHANGES: Final = ("write", "modify")
ENDS: Final = ("sign out", "everywhere")
REACHES_OTHERS: Final = ("everywhere", "others", "new password")
RACERS: Final = (*CHANGES, "read", "regenerate", "sign in", *ENDS, "others", "new password")


@dataclass
class Client:
    """One browser, and what the model knows of it.

    Attributes:
        certain: whether the model knows it; after a race it looks.
        device_ids: of the sessions that it was seen with.
    """

    browser: Browser
    principal: str | None = None
    data: dict[str, object] = field(default_factory=dict)
    seen_at: datetime | None = None
    began_at: datetime | None = None
    certain: bool = True
    device_id: bytes | None = None

    def session_pair(self) -> str | None:
        """Its session cookie."""
        return self.browser.cookies(SESSION)

    def forget(self) -> None:
        """It has no session any more."""
        self.principal, self.data, self.seen_at, self.began_at = None, {}, None, None


class Sessions(RuleBasedStateMachine):
    """The machine."""

    @initialize()
    def begin(self) -> None:
        self.loop = SteppingLoop()
        self.clock = ManualClock()
        self.store = WaitingStore(clock=self.clock)
        self.processes = [process(self.store, self.clock, max_sessions=MOST) for _ in range(2)]
        self.clients = [Client(Browser(self.clock)) for _ in range(4)]
        self.written_by: dict[object, tuple[int, str | None]] = {}
        self.dead: set[str] = set()
        self.count = 0

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            RequestWorld(self.store, self.loop, []).stop()

    # -- one request after the other ----------------------------------------------------------------------

    @rule(who=BROWSERS, where=PROCESSES, what=st.sampled_from(["read", "write", "modify", "regenerate"]))
    def use(self, who: int, where: int, what: str) -> None:
        client = self.looked_up(who)
        before, act = client.session_pair(), self.act(what, who)
        assert not self.request(client, where, act).refused
        if what in CHANGES:
            self.wrote(client, what)
        if what == "regenerate" and before is not None:
            self.ends(before)
        self.check(client)

    @rule(who=BROWSERS, where=PROCESSES, name=st.sampled_from(NAMES), remember=st.booleans())
    def sign_in(self, who: int, where: int, name: str, remember: bool) -> None:
        client = self.looked_up(who)
        before, was_full = client.session_pair(), self.sessions_of(name) >= MOST
        assert not self.request(client, where, self.act("sign in", who, name, remember=remember)).refused
        if before is not None:
            self.ends(before)
        if client.principal not in (None, name):
            client.data = {}
        client.principal, client.began_at = name, self.clock()
        if was_full:
            self.doubt(name, but=client)
        self.check(client)

    @rule(who=BROWSERS, where=PROCESSES, what=st.sampled_from([*REACHES_OTHERS, "sign out"]))
    def end(self, who: int, where: int, what: str) -> None:
        client = self.looked_up(who)
        before, principal = client.session_pair(), client.principal
        self.request(client, where, self.act(what, who))
        if principal is not None and what in REACHES_OTHERS:
            for other in self.clients:
                if other is not client and other.principal == principal and other.certain:
                    self.ended(other)
                elif other is not client and not other.certain:
                    self.doubt(principal, but=client)
        if what in ENDS:
            self.ends(before)
            client.forget()
        elif what == "new password" and principal is not None:
            self.ends(before)
        self.check(client)

    @rule(who=BROWSERS, where=PROCESSES)
    def revoke(self, who: int, where: int) -> None:
        client = self.looked_up(who)
        if client.principal is None or client.device_id is None:
            return
        pair, handle = client.session_pair(), handle_of(client.device_id)
        stranger = NAMES[client.principal == NAMES[0]]
        manager = self.processes[where]
        assert not self.loop.finished(manager.revoke(handle, principal=stranger)), "somebody else's device"
        assert self.loop.finished(manager.revoke(handle, principal=client.principal))
        self.ends(pair)
        self.doubt(client.principal, but=client)  # another browser may have the same device by a race
        client.forget()
        self.check(client)

    @rule(name=st.sampled_from(NAMES), where=PROCESSES)
    def revoke_all(self, name: str, where: int) -> None:
        for who in range(len(self.clients)):
            self.looked_up(who)
        self.loop.finished(self.processes[where].revoke_all(name))
        assert self.sessions_of(name) == 0
        for client in self.clients:
            if client.principal == name:
                self.ended(client)

    @rule(who=BROWSERS, where=PROCESSES)
    def close_and_reopen(self, who: int, where: int) -> None:
        client = self.looked_up(who)
        principal = client.principal
        client.browser.lose_session()
        client.forget()
        found, data = pair_of(self.request(client, where, look))
        assert found in (None, principal)
        assert not data, "a token brings back who it is, and no data"
        client.certain = False
        self.looked_up(who)

    @rule(seconds=st.sampled_from([5, 45, 400, 3700, 90_000]))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    @rule(where=PROCESSES)
    def sweep(self, where: int) -> None:
        self.loop.finished(self.processes[where].store.sweep(self.clock(), 1000))

    # -- two at once --------------------------------------------------------------------------------------

    @rule(
        first=st.tuples(BROWSERS, PROCESSES, st.sampled_from(RACERS), st.sampled_from(NAMES)),
        second=st.tuples(BROWSERS, PROCESSES, st.sampled_from(RACERS), st.sampled_from(NAMES)),
        turns=st.lists(st.integers(0, 1), max_size=24),
        cut=st.none() | st.tuples(st.integers(0, 12), st.sampled_from([1, 2])),
    )
    def race(
        self,
        first: tuple[int, int, str, str],
        second: tuple[int, int, str, str],
        turns: list[int],
        cut: tuple[int, int] | None,
    ) -> None:
        racers = (first, second)
        for who, *_ in racers:
            self.looked_up(who)
        before = {who: self.clients[who].session_pair() for who, *_ in racers}
        principals = {who: self.clients[who].principal for who, *_ in racers}
        written = [self.racing_act(what, who, name) for who, _, what, name in racers]
        programs = [
            (what, self.visited(self.clients[who], where, act))
            for (who, where, what, _), (act, _) in zip(racers, written, strict=True)
        ]
        world = RequestWorld(self.store, self.loop, programs, cuts=True)
        run_in_turns(world, turns, cut)
        self.judge_race(racers, world, written)
        for (who, _, what, _), actor in zip(racers, world.waiting, strict=True):
            is_done = actor.error is None and isinstance(actor.result, Answer) and not actor.result.refused
            if what in ENDS and is_done:
                self.ends(before[who])
            if what in (*REACHES_OTHERS, "sign in"):
                for name in NAMES:
                    self.doubt(name)
            self.clients[who].certain = False
            if principals[who] is not None:
                self.doubt(principals[who])
        for who, *_ in racers:
            self.looked_up(who)

    def judge_race(self, racers: Any, world: RequestWorld, written: list[Any]) -> None:
        """Nothing unexpected, and what was acknowledged is there, unless the other one ended or moved it."""
        for actor in world.waiting:
            assert actor.error is None or actor.was_cut, actor.error
        quiet = all(what in (*CHANGES, "read", "regenerate") for _, _, what, _ in racers)
        for number, actor in enumerate(world.waiting):
            (who, _, what, _), (_, token), other = racers[number], written[number], racers[1 - number]
            acknowledged = isinstance(actor.result, Answer) and not actor.result.refused
            replaced = other[0] == who and other[2] in ("write", "regenerate")
            if quiet and what == "write" and acknowledged and self.clients[who].principal and not replaced:
                _, data = pair_of(self.request(self.clients[who], 0, look))
                assert token in data.values(), "an acknowledged write is readable"

    # -- what the model says ------------------------------------------------------------------------------

    @invariant()
    def limits_hold(self) -> None:
        if hasattr(self, "store"):
            for name in NAMES:
                assert self.sessions_of(name) <= MOST

    @invariant()
    def what_ended_stays_ended(self) -> None:
        if hasattr(self, "store"):
            for pair in sorted(self.dead):
                answer = self.loop.finished(visit(Browser(self.clock), self.processes[0], look, header=pair))
                assert pair_of(answer) == (None, {}), "it came back"

    def check(self, client: Client) -> None:
        """Look, and find what the model says."""
        principal, data = pair_of(self.request(client, 0, look))
        assert principal == client.principal
        assert data == client.data
        self.check_owners(client, principal, data)

    def looked_up(self, who: int) -> Client:
        """Return a client of which the model knows what it sees now; time and races may have changed it."""
        client = self.clients[who]
        principal, data = pair_of(self.request(client, who % 2, look))
        self.check_owners(client, principal, data)
        if client.certain and client.principal is not None and self.is_surely_alive(client):
            assert (principal, data) == (client.principal, client.data), "signed out without cause"
        if (principal, data) != (client.principal, client.data):
            client.began_at = self.clock()
        client.principal, client.data, client.certain = principal, data, True
        client.seen_at = self.clock()
        client.began_at = client.began_at or self.clock()
        return client

    def is_surely_alive(self, client: Client) -> bool:
        now = self.clock()
        if client.seen_at is None or client.began_at is None:
            return False
        return now - client.seen_at < STILL_ALIVE and now - client.began_at < timedelta(hours=23)

    def check_owners(self, client: Client, principal: str | None, data: dict[str, Any]) -> None:
        """What a browser sees was written by who is signed in, or by nobody in this very browser (I1)."""
        for value in data.values():
            browser, author = self.written_by[value]
            assert author == principal or (author is None and browser == self.clients.index(client))

    # -- requests -----------------------------------------------------------------------------------------

    def request(self, client: Client, where: int, act: Act) -> Answer:
        return self.loop.finished(self.visited(client, where, act))

    def visited(self, client: Client, where: int, act: Act) -> Coroutine[Any, Any, Answer]:
        async def acting(session: Session, manager: SignInManager) -> object:
            result = await act(session, manager)
            client.device_id = session.draft.identity.device_id or client.device_id
            return result

        return visit(client.browser, self.processes[where], acting, header=client.browser.cookies())

    def act(self, what: str, who: int, name: str = "", *, remember: bool = False) -> Act:
        return self.racing_act(what, who, name, remember=remember)[0]

    def racing_act(self, what: str, who: int, name: str, *, remember: bool = False) -> tuple[Act, object]:
        """Return what the handler does, and what it writes: a value that nobody else writes."""
        self.count += 1
        token = f"{what} {self.count}"
        act = ACTS[what](token, name, remember)

        async def noted(session: Session, manager: SignInManager) -> object:
            self.written_by[token] = (who, session.principal)
            return await act(session, manager)

        return noted, token

    def wrote(self, client: Client, what: str) -> None:
        client.data = {**client.data, what: f"{what} {self.count}"}

    # -- ends ---------------------------------------------------------------------------------------------

    def ends(self, pair: str | None) -> None:
        if pair is not None:
            self.dead.add(pair)

    def ended(self, client: Client) -> None:
        self.ends(client.session_pair())
        client.forget()

    def doubt(self, name: str | None, but: Client | None = None) -> None:
        """Whoever is signed in as ``name`` may have been ended."""
        for client in self.clients:
            if client is not but and client.principal == name:
                client.certain = False

    def sessions_of(self, name: str) -> int:
        now = self.clock()
        held = self.store.held().values()
        return sum(r.principal == name and r.successor is None and r.expires_at > now for r in held)


def pair_of(answer: Answer) -> tuple[str | None, dict[str, Any]]:
    """Who is signed in, and the data, as a page that only reads has shown them."""
    assert isinstance(answer.value, tuple)
    return answer.value


def run_in_turns(world: RequestWorld, turns: list[int], cut: tuple[int, int] | None) -> None:
    """Let both go on as ``turns`` say, then one by one; ``cut`` names a step, and how to cut there."""
    for index in range(len(world.waiting)):
        world.advance(index)
    for step in range(MOST_STEPS):
        ready = [index for index in world.next_ones() if index < len(world.waiting)]
        if not ready:
            return
        wanted = turns[step] if step < len(turns) else ready[0]
        index = wanted if wanted in ready else ready[0]
        kind = cut[1] if cut is not None and cut[0] == step else 0
        can_cut = not world.waiting[index].done
        world.advance(index + (kind if can_cut else 0) * len(world.waiting))
    raise AssertionError("they never come to an end")


def _reading(token: str, name: str, remember: bool) -> Act:
    return look


def _writing(token: str, name: str, remember: bool) -> Act:
    async def act(session: Session, _: object) -> None:
        session["write"] = token

    return act


def _modifying(token: str, name: str, remember: bool) -> Act:
    async def act(session: Session, _: object) -> object:
        return await session.modify("modify", lambda _: token)

    return act


def _regenerating(token: str, name: str, remember: bool) -> Act:
    async def act(session: Session, _: object) -> None:
        session.regenerate()

    return act


def _signing_in(token: str, name: str, remember: bool) -> Act:
    async def act(session: Session, _: object) -> None:
        session.sign_in(name, remember=remember)

    return act


def _signing_out(token: str, name: str, remember: bool) -> Act:
    async def act(session: Session, _: object) -> None:
        session.sign_out()

    return act


def _signing_out_everywhere(token: str, name: str, remember: bool) -> Act:
    async def act(session: Session, _: object) -> None:
        session.sign_out(everywhere=True)

    return act


def _ending_others(token: str, name: str, remember: bool) -> Act:
    async def act(session: Session, manager: SignInManager) -> None:
        if session.principal is not None:
            await manager.revoke_others(session)

    return act


def _changing_password(token: str, name: str, remember: bool) -> Act:
    async def act(session: Session, manager: SignInManager) -> None:
        if session.principal is not None:
            await manager.credentials_changed(session.principal, keep=session)

    return act


ACTS: Final[dict[str, Callable[[str, str, bool], Act]]] = {
    "read": _reading,
    "write": _writing,
    "modify": _modifying,
    "regenerate": _regenerating,
    "sign in": _signing_in,
    "sign out": _signing_out,
    "everywhere": _signing_out_everywhere,
    "others": _ending_others,
    "new password": _changing_password,
}

TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=5000 if SOAK else 300,
    stateful_step_count=60 if SOAK else 25,
    derandomize=not SOAK,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
