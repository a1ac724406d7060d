"""Calls that go to a thread together: each keeps its own answer, and nobody waits for the others to come."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from eyewall.stores.thread_batches import ThreadBatches


class Halves:
    """Halves even numbers, refuses odd ones, and fails altogether at 13; waits for the gate."""

    def __init__(self, threads: ThreadPoolExecutor, at_once: int = 8) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.begun = threading.Event()
        self.gate.set()
        self.calls = ThreadBatches(self.halve, threads, at_once)

    def halve(self, numbers: list[int]) -> list[int | Exception]:
        self.begun.set()
        assert self.gate.wait(10)
        self.batches.append(numbers)
        if 13 in numbers:
            raise RuntimeError("13")
        return [number // 2 if number % 2 == 0 else ValueError(number) for number in numbers]

    async def blocked(self, number: int) -> asyncio.Future[int]:
        """A call that a thread is at, until the gate opens."""
        self.gate.clear()
        first = self.calls.ask(number)
        assert await asyncio.to_thread(self.begun.wait, 10)
        return first


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """One thread."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


async def test_each_call_gets_its_own_answer_or_error(threads: ThreadPoolExecutor) -> None:
    """An answer that goes to another call is somebody else's session."""
    halves = Halves(threads)
    answers = await asyncio.gather(*map(halves.calls.ask, range(12)), return_exceptions=True)
    assert [a for a in answers if isinstance(a, int)] == [0, 1, 2, 3, 4, 5]
    assert [a.args for a in answers if isinstance(a, ValueError)] == [(n,) for n in range(1, 12, 2)]


async def test_a_lone_call_waits_for_no_other(threads: ThreadPoolExecutor) -> None:
    """Gathering must not slow down a site with one visitor."""
    halves = Halves(threads)
    assert await halves.calls.ask(2) == 1
    assert halves.batches == [[2]]


async def test_calls_of_one_turn_go_together(threads: ThreadPoolExecutor) -> None:
    """A thread that takes the first call before the second is made gains nothing."""
    halves = Halves(threads)
    calls = []
    for number in range(2, 10, 2):
        calls.append(halves.calls.ask(number))
        time.sleep(0.002)  # noqa: ASYNC251 - a thread that was asked has begun by now
    assert [await call for call in calls] == [1, 2, 3, 4]
    assert halves.batches == [[2, 4, 6, 8]]


async def test_what_comes_meanwhile_goes_together_and_never_more_than_allowed(
    threads: ThreadPoolExecutor,
) -> None:
    """One hop for many calls is the gain; without a bound one thread would do what eight should."""
    halves = Halves(threads, at_once=3)
    first = await halves.blocked(2)
    others = [halves.calls.ask(number) for number in range(4, 20, 2)]
    halves.gate.set()
    assert await asyncio.gather(first, *others) == list(range(1, 10))
    assert halves.batches == [[2], [4, 6, 8], [10, 12, 14], [16, 18]]


async def test_a_call_given_up_before_a_thread_takes_it_is_not_done(threads: ThreadPoolExecutor) -> None:
    """A write that nobody waits for any more must not happen behind their back."""
    halves = Halves(threads)
    first = await halves.blocked(2)
    given_up, kept = halves.calls.ask(4), halves.calls.ask(6)
    given_up.cancel()
    halves.gate.set()
    assert (await first, await kept) == (1, 3)
    assert halves.batches == [[2], [6]]


async def test_work_that_fails_altogether_leaves_nobody_waiting(threads: ThreadPoolExecutor) -> None:
    """A bug must be an error in every request it hits, never a request without an answer."""
    halves = Halves(threads)
    first = await halves.blocked(2)
    failing = [halves.calls.ask(number) for number in (4, 13)]
    halves.gate.set()
    assert await first == 1
    answers = await asyncio.gather(*failing, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["13", "13"]
    assert await halves.calls.ask(8) == 4, "and it goes on"


def test_a_loop_that_ended_takes_nothing_from_the_next(threads: ThreadPoolExecutor) -> None:
    """Programs run one loop after another; answers for the dead must not stop those for the living."""
    halves = Halves(threads)

    async def leave() -> None:
        await halves.blocked(2)
        halves.calls.ask(4).add_done_callback(lambda _: None)

    async def stay() -> int:
        asking = halves.calls.ask(6)
        halves.gate.set()
        return await asking

    asyncio.run(leave())
    assert asyncio.run(stay()) == 3


async def test_threads_that_are_gone_refuse_and_forget_the_call(threads: ThreadPoolExecutor) -> None:
    """A call that no thread will ever take must say so, instead of waiting for ever."""
    halves = Halves(threads)
    threads.shutdown()
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await halves.calls.ask(2)
