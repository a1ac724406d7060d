"""Tasks that nobody awaits: none is lost, and none is kept for ever."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

from eyewall.core.background import Background


async def test_a_task_that_nobody_refers_to_is_not_lost() -> None:
    """The event loop refers to tasks weakly: one could vanish while it waits, and its save with it."""
    background, ended = Background(), []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        gc.collect()
        ended.append(number)

    for number in range(3):
        background.spawn(work(number))
    await background.drained()
    assert ended == [0, 1, 2]


async def test_a_task_in_a_cycle_of_its_own_survives_the_collector() -> None:
    """Nothing but the background holds it: its future is known to itself alone."""
    background = Background()
    seen: list[str] = []

    async def work() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await future
        finally:
            seen.append("gone")

    background.spawn(work())
    await asyncio.sleep(0)
    gc.collect()
    assert seen == []
    (task,) = background.under_way()
    task.cancel()
    await background.drained()


async def test_tasks_that_have_ended_do_not_pile_up() -> None:
    """One is started for every request that saves."""
    background = Background()

    async def nothing() -> None:
        pass

    for _ in range(10_000):
        await background.spawn(nothing())
    assert len(background._tasks) < 100
    assert background.under_way() == []


async def test_ended_tasks_do_not_pile_up_behind_one_that_lasts() -> None:
    """A sweep, or a look at what is open, may take half a minute while thousands of requests save."""
    looks: list[int] = []

    class Counting(Background):
        def under_way(self) -> list[asyncio.Task[Any]]:
            looks.append(len(self._tasks))
            return super().under_way()

    background, gate = Counting(), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    async def nothing() -> None:
        pass

    lasting = [background.spawn(wait()) for _ in range(300)]
    for _ in range(10_000):
        await background.spawn(nothing())
    assert len(background._tasks) < 1_000
    assert sum(looks) < 30_000, "each look goes through all of them, so it must come seldom"
    assert background.under_way() == lasting
    gate.set()
    await background.drained()
    assert all(task.done() for task in lasting)


async def test_draining_waits_for_what_is_started_meanwhile() -> None:
    """A store that is closed before the last task has ended fails that task."""
    background, ended = Background(), []

    async def work(left: int) -> None:
        await asyncio.sleep(0)
        if left:
            background.spawn(work(left - 1))
        ended.append(left)

    background.spawn(work(5))
    await background.drained()
    assert ended == [5, 4, 3, 2, 1, 0]
