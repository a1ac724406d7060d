"""Deadlines that share one timer end what hangs, whichever event loop it hangs in."""

from __future__ import annotations

import asyncio

from eyewall.core.deadlines import Deadline, Deadlines


async def _begins_and_is_gone(deadlines: Deadlines) -> None:
    deadlines.begin(Deadline(), 60)


async def _hangs(deadlines: Deadlines) -> bool:
    deadline = Deadline()
    deadlines.begin(deadline, 0)
    try:
        async with asyncio.timeout(10):
            await asyncio.Event().wait()
    except asyncio.CancelledError as error:
        return deadlines.end(deadline, error)
    return False


def test_a_deadline_holds_in_a_second_event_loop_too() -> None:
    """A test runner, or a server that was started again: the first loop's timer never fires again."""
    deadlines = Deadlines()
    asyncio.run(_begins_and_is_gone(deadlines))
    assert asyncio.run(_hangs(deadlines))
