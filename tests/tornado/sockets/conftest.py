"""The site of these tests: in memory, with re-checks that the tests make themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock
from tests.signin.kit import Deployment, Process, deployed
from tests.tornado.sockets.kit import start


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Deployment]:
    """In memory."""
    clock = ManualClock()
    memory = MemoryStore(clock=clock)
    async with deployed(lambda: memory, clock) as made:
        yield made


@pytest_asyncio.fixture
async def process(here: Deployment) -> Process:
    """One process."""
    return await start(here)


@pytest_asyncio.fixture
async def other(here: Deployment) -> Process:
    """Another process on the same store."""
    return await start(here)
