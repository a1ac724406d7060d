"""The site that these attacks are made on, in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock
from tests.signin.kit import Deployment, deployed


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Deployment]:
    """In memory."""
    clock = ManualClock()
    memory = MemoryStore(clock=clock)
    async with deployed(lambda: memory, clock) as made:
        yield made
