"""The site of these tests: on every server-side store, or in memory for what cannot differ between them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from eyewall.core.store import utc_now
from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock
from tests.signin.kit import STORES, Deployment, deployed, opener


@pytest_asyncio.fixture(params=STORES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Every server-side store in turn."""
    clock = ManualClock(utc_now())  # Redis and MongoDB expire records by their own clocks
    async with deployed(opener(request, tmp_path, clock), clock) as made:
        yield made


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Deployment]:
    """In memory."""
    clock = ManualClock()
    memory = MemoryStore(clock=clock)
    async with deployed(lambda: memory, clock) as made:
        yield made
