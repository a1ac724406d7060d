"""Parallel requests lose nothing, and nothing brings an ended session back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.errors import SessionEndedError, SessionTooLargeError, StoreUnavailable
from tests.core.world import Browser, World


async def test_a_hundred_parallel_requests_keep_a_hundred_keys() -> None:
    """Saving the session whole keeps one of twenty (a JupyterLab page load)."""
    browser = World().browser()
    await browser.put(started=True)
    sessions = [await browser.open() for _ in range(100)]
    for number, session in enumerate(sessions):
        session[f"k{number}"] = number
    await asyncio.gather(*(browser.end(session) for session in sessions))
    data = await browser.data()
    assert all(data[f"k{number}"] == number for number in range(100))


async def test_parallel_changes_from_two_processes_merge() -> None:
    """Processes share nothing but the store."""
    world = World()
    here, there = world.browser(), Browser(world.another_process())
    await here.put(a=1, b=1, gone=1)
    there.cookie = here.cookie
    first, second = await here.open(), await there.open()
    first["a"] = 2
    first.delete("gone")
    second["b"] = 2
    second.flash("m", "hi")
    await here.end(first)
    await there.end(second)
    session = await here.open()
    assert session.all() == {"a": 2, "b": 2}
    assert session.flash("m") == "hi"


async def test_modify_loses_no_increment() -> None:
    """A thousand clicks are a thousand."""
    world = World()
    here, there = world.browser(), Browser(world.another_process())
    await here.put(n=0)
    there.cookie = here.cookie
    sessions = [await (here, there)[n % 2].open() for n in range(200)]

    async def five(session: Any) -> None:
        for _ in range(5):
            await session.modify("n", lambda n: n + 1)

    await asyncio.gather(*(five(session) for session in sessions))
    assert await here.data() == {"n": 1000}


async def test_modify_starts_from_a_fresh_default_each_time() -> None:
    """The function may change what it is given; a retry must not see it."""
    browser = World().browser()
    await browser.put(started=True)
    default: list[int] = []

    def add(items: list[int]) -> list[int]:
        items.append(1)
        return items

    for expected in ([1], [1, 1]):
        session = await browser.open()
        assert await session.modify("items", add, default) == expected
        assert session["items"] == expected
        await browser.end(session)
    assert default == []


async def test_modify_creates_the_session_of_a_new_visitor() -> None:
    """The first click counts too."""
    browser = World().browser()
    session = await browser.open()
    assert await session.modify("n", lambda n: n + 1, default=0) == 1
    await browser.end(session)
    assert await browser.data() == {"n": 1}


async def test_modify_sees_what_the_request_set_before() -> None:
    """``session["n"] = 5`` and then modify gives 6."""
    browser = World().browser()
    await browser.put(n=1, other=1)
    session = await browser.open()
    session["n"] = 5
    session["other"] = 2
    assert await session.modify("n", lambda n: n + 1) == 6
    session.delete("n")
    assert await session.modify("n", lambda n: n or "gone") == "gone"
    assert (await browser.data())["other"] == 1, "other changes wait for the end of the request"
    await browser.end(session)
    assert await browser.data() == {"n": "gone", "other": 2}


async def test_modify_after_clear_works_on_the_cleared_session() -> None:
    """clear() touches all keys, so it is stored first."""
    browser = World().browser()
    await browser.put(n=5, other=1)
    session = await browser.open()
    session.clear()
    assert await session.modify("n", lambda n: n + 1, default=0) == 1
    await browser.end(session)
    assert await browser.data() == {"n": 1}


async def test_a_function_that_raises_changes_nothing() -> None:
    """The error is the caller's; the session is as it was."""
    browser = World().browser()
    await browser.put(n=1)
    session = await browser.open()
    with pytest.raises(ZeroDivisionError):
        await session.modify("n", lambda n: n / 0)
    await browser.end(session)
    assert await browser.data() == {"n": 1}


@pytest.mark.parametrize("end", ["destroy", "sign_out", "regenerate", "expire"])
async def test_a_slow_request_never_revives_a_session(end: str) -> None:
    """Logging out during it must stay logged out (Rack CVE-2025-46336, express-session 632)."""
    world = World()
    browser = world.browser()
    await browser.put(k="old")
    old = browser.cookie
    slow = await browser.open()
    slow["k"] = "revived"
    if end == "expire":
        world.pass_time(hours=2)
    else:
        other = await browser.open()
        getattr(other, end)()
        await browser.end(other)
    slow_browser = Browser(world.manager, old)
    await slow_browser.end(slow)
    assert await Browser(world.manager, old).data() == {}
    assert "WRITE_DROPPED" in world.kinds()
    assert [r for r in await world.records() if b"revived" in r.payload] == []


async def test_a_dropped_change_clears_the_cookie_but_not_a_newer_one() -> None:
    """After a sign-in in another tab the browser has a new cookie, which must survive."""
    world = World()
    browser = world.browser()
    await browser.put(k=1)
    slow = await browser.open()
    slow["k"] = 2
    other = await browser.open()
    other.sign_in("alice")
    await browser.end(other)
    assert await browser.end(slow) is None
    assert (await browser.open()).principal == "alice"
    slow = await browser.open()
    slow["k"] = 2
    other = await browser.open()
    other.destroy()
    await browser.end(other)
    line = await browser.end(slow)
    assert line is not None
    assert "Max-Age=0" in line


async def test_strict_says_that_a_change_was_dropped() -> None:
    """Who wants a 409 instead of silence can have it; save() and modify() always say so."""
    for strict in (False, True):
        world = World(strict=strict)
        browser = world.browser()
        await browser.put(k=1)
        slow, explicit, modifying = [await browser.open() for _ in range(3)]
        other = await browser.open()
        other.destroy()
        await browser.end(other)
        slow["k"] = explicit["k"] = 2
        with pytest.raises(SessionEndedError):
            await explicit.save()
        with pytest.raises(SessionEndedError):
            await modifying.modify("k", lambda k: k)
        if strict:
            with pytest.raises(SessionEndedError):
                await browser.end(slow)
        else:
            await browser.end(slow)
        assert await world.records() == []


async def test_signing_in_over_a_session_that_ended_still_signs_in() -> None:
    """The password was right; only what the old session held is gone."""
    world = World()
    browser = world.browser()
    await browser.put(cart=[1])
    slow = await browser.open()
    slow.sign_in("alice")
    slow["note"] = "mine"
    other = await browser.open()
    other.destroy()
    await browser.end(other)
    await browser.end(slow)
    session = await browser.open()
    assert session.principal == "alice"
    assert session.all() == {"note": "mine"}


@pytest.mark.parametrize("is_late", [False, True])
async def test_signing_in_twice_at_once_is_one_session_with_the_cart(*, is_late: bool) -> None:
    """A double click on "sign in": the second request is under way, or arrives, when the ID has changed."""
    world = World()
    browser = world.browser()
    await browser.put(cart=[1])
    double = Browser(world.another_process(), browser.cookie)
    first = await browser.open()
    second = None if is_late else await double.open()
    first.sign_in("alice")
    await browser.end(first)
    second = second or await double.open()
    second.sign_in("alice")
    second["seen"] = True
    await double.end(second)
    (record,) = await world.records()
    assert await double.data() == {"cart": [1], "seen": True}
    assert await browser.data() == {}
    assert second.draft.identity.device_id == first.draft.identity.device_id
    assert record.principal == "alice"


@pytest.mark.parametrize("whose", ["bob", None])
@pytest.mark.parametrize("is_late", [False, True])
async def test_a_sign_in_with_an_old_id_takes_over_nothing_of_somebody_elses(
    whose: str | None, *, is_late: bool
) -> None:
    """Who has planted an ID signs in with it as themselves, just when its session became a victim's.

    That may be one whom the application knows by its own means, for whom it only regenerates.
    """
    world = World()
    victim = world.browser()
    await victim.put(planted=True)
    thief = Browser(world.manager, victim.cookie)
    early = None if is_late else await thief.open()
    session = await victim.open()
    if whose is not None:
        session.sign_in(whose)
    session.regenerate()
    session["secret"] = 1
    await victim.end(session)
    session = early or await thief.open()
    session.sign_in("mallory")
    await thief.end(session)
    assert await thief.data() == {}
    assert await victim.data() == {"planted": True, "secret": 1}


async def test_lists_changed_together_are_not_taken_for_nested_changes_afterwards() -> None:
    """Each request gets its own result, while later ones were stored with it: nothing may be put back."""
    browser = World().browser()
    await browser.put(items=[])
    sessions = [await browser.open() for _ in range(30)]

    async def act(number: int) -> None:
        await sessions[number].modify("items", lambda items: [*items, number])
        sessions[number].flash("m", number)
        await browser.end(sessions[number])

    await asyncio.gather(*map(act, range(30)))
    assert sorted((await browser.data())["items"]) == list(range(30))


async def test_one_function_that_raises_among_many_fails_alone() -> None:
    """Changes that wait for each other are written together; an error is still its own request's."""
    browser = World().browser()
    await browser.put(n=0)
    sessions = [await browser.open() for _ in range(20)]

    async def act(number: int) -> Any:
        return await sessions[number].modify("n", lambda n: n / 0 if number % 5 == 0 else n + 1)

    outcomes = await asyncio.gather(*map(act, range(20)), return_exceptions=True)
    assert [isinstance(o, ZeroDivisionError) for o in outcomes] == [n % 5 == 0 for n in range(20)]
    assert await browser.data() == {"n": 16}


async def test_one_change_that_is_too_large_among_many_fails_alone() -> None:
    """Others that happened to be written with it must not pay for it."""
    browser = World(max_size=3000).browser()
    await browser.put(start=1)
    sessions = [await browser.open() for _ in range(20)]

    async def act(number: int) -> Any:
        return await sessions[number].modify(f"k{number}", lambda _: "x" * (4000 if number == 7 else 1))

    outcomes = await asyncio.gather(*map(act, range(20)), return_exceptions=True)
    assert [isinstance(o, SessionTooLargeError) for o in outcomes] == [n == 7 for n in range(20)]
    assert len(await browser.data()) == 20


async def test_a_hundred_changes_of_one_process_cost_a_handful_of_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Taking turns one by one, the last of them would wait for a hundred round trips."""
    world = World()
    browser = world.browser()
    await browser.put(n=0)
    sessions = [await browser.open() for _ in range(100)]
    calls: list[str] = []
    for verb in ("load", "replace"):
        real = getattr(world.store, verb)

        async def slow(*args: Any, verb: str = verb, real: Any = real, **options: Any) -> Any:
            calls.append(verb)
            await asyncio.sleep(0)
            return await real(*args, **options)

        monkeypatch.setattr(world.store, verb, slow)
    await asyncio.gather(*(session.modify("n", lambda n: n + 1) for session in sessions))
    assert len(calls) <= 8
    assert await browser.data() == {"n": 100}


async def test_a_request_cancelled_while_others_wait_for_it_takes_nobody_along() -> None:
    """A client that leaves must not fail the requests queued behind its own."""
    world = World()
    browser = world.browser()
    await browser.put(n=0)
    gate = asyncio.Event()
    real = world.store.replace

    async def held(*args: Any, **options: Any) -> bool:
        await gate.wait()
        return await real(*args, **options)

    world.store.replace = held  # type: ignore[method-assign]
    sessions = [await browser.open() for _ in range(5)]
    tasks = [asyncio.ensure_future(session.modify("n", lambda n: n + 1)) for session in sessions]
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[3].cancel()
    await asyncio.sleep(0)
    gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(o, asyncio.CancelledError) for o in outcomes] == [True, False, False, True, False]
    assert (await browser.data())["n"] >= 3


async def test_regenerating_twice_at_once_leaves_one_session() -> None:
    """Two tabs sign in: one wins, and no orphan stays signed in."""
    world = World()
    browser = world.browser()
    await browser.put(k=1)
    sessions = [await browser.open() for _ in range(5)]
    for session in sessions:
        session.regenerate()
    await asyncio.gather(*(browser.end(session) for session in sessions))
    assert len(await world.records()) == 1


async def test_a_change_that_lands_during_a_regeneration_is_carried_along() -> None:
    """The compare-and-swap on the old record decides, so nothing slips in between."""
    world = World()
    browser = world.browser()
    await browser.put(k=1)
    moving, writing = await browser.open(), await browser.open()
    writing["late"] = True
    moving.regenerate()
    await Browser(world.manager, browser.cookie).end(writing)
    await browser.end(moving)
    assert await browser.data() == {"k": 1, "late": True}


async def test_deletes_and_destroys_survive_conflicts() -> None:
    """A merge must not bring back what one side removed."""
    world = World()
    browser = world.browser()
    await browser.put(a=1, b=1)
    first, second = await browser.open(), await browser.open()
    first.delete("a")
    second["b"] = 2
    await browser.end(second)
    await browser.end(first)
    assert await browser.data() == {"b": 2}
    first, second = await browser.open(), await browser.open()
    first.clear()
    first["c"] = 1
    second["d"] = 1
    await browser.end(second)
    await browser.end(first)
    assert await browser.data() == {"c": 1}, "clear means all that is there when it is stored"


class _Flaky:
    """Makes one store call fail: the n-th, before or after it took effect."""

    def __init__(self, world: World, fail_at: int, *, after: bool) -> None:
        self.left, self.after = fail_at, after
        for verb in ("create", "replace", "delete", "touch", "load"):
            self._wrap(world, verb)

    def _wrap(self, world: World, verb: str) -> None:
        real = getattr(world.store, verb)

        async def call(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise StoreUnavailable("injected")
            result = await real(*args, **options)
            if self.left == 0:
                raise StoreUnavailable("reply lost")
            return result

        setattr(world.store, verb, call)


@pytest.mark.parametrize("after", [False, True], ids=["call-failed", "reply-lost"])
@pytest.mark.parametrize("fail_at", range(1, 7))
async def test_whichever_store_call_fails_nobody_is_revived_or_orphaned(fail_at: int, after: bool) -> None:
    """SQLite's way of testing: break every call once, and look at what is left."""
    world = World()
    browser = world.browser()
    await browser.put(k="old")
    old = browser.cookie
    _Flaky(world, fail_at, after=after)
    outcomes = []
    for act in ("set", "regenerate", "destroy"):
        session = await browser.open()
        try:
            {
                "set": lambda s: s.set("k", "new"),
                "regenerate": lambda s: s.regenerate(),
                "destroy": lambda s: s.destroy(),
            }[act](session)
            await browser.end(session)
            outcomes.append(act)
        except StoreUnavailable:
            pass
    survivors: list[Record] = await world.records()
    assert len(survivors) <= 1, "an orphan nobody can end"
    if "destroy" in outcomes and "regenerate" in outcomes:
        assert await Browser(world.manager, old).data() == {}


VERBS = ["open", "set", "delete", "modify", "end", "regenerate", "destroy"]


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(VERBS), st.sampled_from("ab")), max_size=40))
async def test_any_interleaving_keeps_what_ended_ended(steps: list[tuple[int, str, str]]) -> None:
    """Three requests in two processes, in any order: one browser never has two live sessions at once."""
    race = _Race()
    await race.begin()
    for who, verb, key in steps:
        await race.step(who, verb, key)
    for who in list(race.requests):
        await race.end(who)
    for cookie in race.dead:
        assert await Browser(race.world.manager, cookie).data() == {}


class _Race:
    """Three requests of one browser, each at its own pace."""

    def __init__(self) -> None:
        self.world = World()
        here, there = self.world.manager, self.world.another_process()
        self.managers = [here, there, here]
        self.requests: dict[int, tuple[Browser, Session]] = {}
        self.dead: list[str | None] = []
        self.cookie: str | None = None

    async def begin(self) -> None:
        browser = self.world.browser()
        await browser.put(start=1)
        self.cookie = browser.cookie

    async def step(self, who: int, verb: str, key: str) -> None:
        if verb == "open" or who not in self.requests:
            browser = Browser(self.managers[who], self.cookie)
            self.requests[who] = (browser, await browser.open())
            return
        session = self.requests[who][1]
        if verb == "set":
            session[key] = who
        elif verb == "delete":
            session.delete(key)
        elif verb == "modify":
            with contextlib.suppress(SessionEndedError):
                await session.modify(key, lambda value: value, default=who)
        elif verb == "end":
            await self.end(who)
        else:
            getattr(session, verb)()

    async def end(self, who: int) -> None:
        browser, session = self.requests.pop(who)
        sent = browser.cookie
        ends = bool(session.draft.doomed) or (session.draft.renew and session.draft.record is not None)
        await browser.end(session)
        if ends:
            self.dead.append(sent)
        if self.cookie == sent:
            self.cookie = browser.cookie


async def test_a_request_on_its_way_during_a_sign_in_does_not_undo_it() -> None:
    """It brings the old cookie after the new one was sent: a session for it would take that one's place."""
    world = World()
    browser = world.browser()
    await browser.put(cart=[1])
    late = Browser(world.manager, browser.cookie)
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    request = await late.open()
    assert request.principal is None
    assert request.all() == {}
    request["k"] = 1
    assert await late.end(request) is None, "no cookie, or the browser loses the signed-in one"
    with pytest.raises(SessionEndedError):
        await (await late.open()).modify("n", lambda n: n, default=1)
    assert len(await world.records()) == 1
    assert "WRITE_DROPPED" in world.kinds()
    request = await late.open()
    request.sign_in("bob")
    assert await late.end(request) is not None, "who proves who they are is signed in all the same"


@pytest.mark.parametrize("when", ["had loaded", "arrives afterwards"])
async def test_signing_out_beside_a_regeneration_ends_the_session_under_its_new_id(when: str) -> None:
    """Only the marker of the old ID went; whoever had a copy of the new one stayed signed in."""
    world = World()
    browser = world.browser()
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    leaving_browser = Browser(world.manager, browser.cookie)
    leaving = await leaving_browser.open()
    moving = await browser.open()
    moving.regenerate()
    await browser.end(moving)
    if when == "arrives afterwards":
        leaving = await leaving_browser.open()
    leaving.sign_out()
    await leaving_browser.end(leaving)
    assert (await browser.open()).principal is None
    assert await world.records() == []
