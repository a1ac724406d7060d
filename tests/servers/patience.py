"""How long tests wait that are not about waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

PATIENCE: Final = 10.0
"""Seconds: the deadline in tests that are not about deadlines, for machines that do much at once."""


async def until(condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` holds, at most :data:`PATIENCE`; what holds then is for the test to say."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not condition() and loop.time() < end:  # noqa: ASYNC110 - no event tells of what is asked for
        await asyncio.sleep(0.01)
