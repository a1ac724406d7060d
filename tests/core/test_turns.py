"""Saves of one request at the same time: one after the other, whatever becomes of those before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eyewall.core.record import Record
from tests.core.world import Browser, World


class Gate:
    """A store whose ``replace`` waits until it is let through, and counts who is inside."""

    def __init__(self, world: World) -> None:
        self._open = asyncio.Event()
        self._real = world.store.replace
        self.inside = self.most_inside = 0
        world.store.replace = self._replace  # type: ignore[method-assign]

    async def _replace(self, *args: Any, **options: Any) -> bool:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        try:
            await self._open.wait()
            await asyncio.sleep(0)
            return await self._real(*args, **options)
        finally:
            self.inside -= 1

    def open(self) -> None:
        """Let everybody through from now on."""
        self._open.set()


@pytest.fixture
def world() -> World:
    """A store in memory."""
    return World()


@pytest.fixture
async def browser(world: World) -> Browser:
    """Somebody who has a session already."""
    browser = world.browser()
    await browser.put(n=0)
    return browser


async def settled() -> None:
    """Let every task come as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_saves_of_one_request_never_overlap_and_lose_nothing(world: World, browser: Browser) -> None:
    """Two at once would each settle what the request knows of its session, the older one last."""
    session = await browser.open()
    gate = Gate(world)
    tasks = []
    for number in range(5):
        session[f"key{number}"] = number
        tasks.append(asyncio.ensure_future(session.save()))
        await settled()
    gate.open()
    await asyncio.gather(*tasks)
    assert gate.most_inside == 1
    assert await browser.data() == {"n": 0} | {f"key{number}": number for number in range(5)}


async def test_a_save_that_had_to_wait_is_known_to_be_under_way(world: World, browser: Browser) -> None:
    """The end of an answer that has nothing else to store would leave before what it tells is stored."""
    session = await browser.open()
    real, known = world.store.replace, list[bool]()

    async def replace(record: Record, *, version: int) -> bool:
        known.append(session.is_being_saved() and not session.is_untouched())
        await settled()
        return await real(record, version=version)

    world.store.replace = replace  # type: ignore[method-assign]
    await asyncio.gather(*(session.modify("n", lambda n: n + 1) for _ in range(4)))
    assert known == [True] * 4
    assert not session.is_being_saved()


async def test_a_new_visitor_who_saves_twice_at_once_gets_one_session(world: World) -> None:
    """Two would be created, and the browser told of the one that was stored last: the other half is lost."""
    browser = world.browser()
    session = await browser.open()
    real, gate = world.store.create, asyncio.Event()

    async def slow(record: Record) -> bool:
        await gate.wait()
        return await real(record)

    world.store.create = slow  # type: ignore[method-assign]
    session["one"] = 1
    first = asyncio.ensure_future(session.save())
    await settled()
    session["two"] = 2
    second = asyncio.ensure_future(session.save())
    await settled()
    gate.set()
    await asyncio.gather(first, second)
    await browser.end(session)
    assert len(await world.records()) == 1
    assert await browser.data() == {"one": 1, "two": 2}


async def test_changes_of_one_request_take_their_turns_in_the_order_they_came(
    world: World, browser: Browser
) -> None:
    """Whoever comes while others wait must not overtake them again and again."""
    session = await browser.open()
    gate = Gate(world)
    order: list[int] = []

    async def change_twice(number: int) -> None:
        for _ in range(2):  # the second time at the very moment when the next one is woken
            await session.modify("n", lambda n: n + 1)
            order.append(number)

    tasks = [asyncio.ensure_future(change_twice(number)) for number in range(4)]
    await settled()
    gate.open()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 0, 1, 2, 3]
    assert (await browser.data())["n"] == 8


@pytest.mark.parametrize("given_up", [[0], [1], [2], [1, 2], [0, 1, 2], [3]])
async def test_a_save_that_is_given_up_keeps_nobody_waiting(
    world: World, browser: Browser, given_up: list[int]
) -> None:
    """A turn that is never handed on would hold every later answer until its deadline."""
    session = await browser.open()
    gate = Gate(world)
    tasks = [asyncio.ensure_future(session.modify("n", lambda n: n + 1)) for _ in range(4)]
    await settled()
    for number in given_up:
        tasks[number].cancel()
    gate.open()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in outcomes] == [n in given_up for n in range(4)]
    assert not session.is_being_saved()
    assert await session.modify("n", lambda n: n + 1) == 5 - len(given_up)


async def test_the_one_whose_turn_has_come_may_give_up_at_that_moment(world: World, browser: Browser) -> None:
    """Woken and cancelled at once, it must not take the wake-up of the next one along."""
    session = await browser.open()
    gate = Gate(world)
    tasks = [asyncio.ensure_future(session.modify("n", lambda n: n + 1)) for _ in range(3)]
    await settled()
    tasks[0].add_done_callback(lambda _: tasks[1].cancel())
    gate.open()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in outcomes] == [False, True, False]
    assert not session.is_being_saved()


async def test_a_save_that_fails_lets_the_next_one_go(world: World, browser: Browser) -> None:
    """An error is its own request's; those who wait behind it are served."""
    session = await browser.open()
    gate = Gate(world)
    failing = asyncio.ensure_future(session.modify("n", lambda n: n / 0))
    fine = asyncio.ensure_future(session.modify("n", lambda n: n + 1))
    gate.open()
    with pytest.raises(ZeroDivisionError):
        await failing
    assert await fine == 1


async def test_an_answer_waits_for_a_save_under_way(world: World, browser: Browser) -> None:
    """It would tell what is not stored yet."""
    session = await browser.open()
    gate = Gate(world)
    session["n"] = 1
    saving = asyncio.ensure_future(session.save())
    await settled()
    assert not session.draft.has_work(), "all that was changed is on its way"
    assert world.manager.needs_commit(session)
    gate.open()
    await saving
    assert not world.manager.needs_commit(session)
