"""Batches of writes that end otherwise than they should: nobody waits for ever, or for a stranger's row."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from eyewall.errors import StoreUnavailable
from eyewall.testing.check_kit import new_record, next_version
from eyewall.testing.clock import ManualClock
from tests.stores.sql_places import DATABASES, PATIENCE, Place, rival
from tests.stores.test_sql_writes import SERVERS, outcomes_of, stored


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still."""
    return ManualClock()


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A fresh table in each of the databases."""
    if request.param == "sqlite":
        return Place(f"sqlite:///{tmp_path}/sessions.db")
    return Place(request.getfixturevalue(request.param).url)


async def test_nobody_joins_a_batch_that_ended_before_it_began(place: Place, clock: ManualClock) -> None:
    """At the end of a process, whose tasks are all cancelled, a sign-out would hang without a deadline."""
    store = place.store(clock)
    early, late = await stored(store, clock, 2)
    writing = asyncio.ensure_future(store.delete(early.digest))
    await asyncio.sleep(0)
    for call in store._pools.current()._calls:
        call.task.cancel()
    with pytest.raises(StoreUnavailable):
        await writing
    assert await asyncio.wait_for(store.delete(late.digest), PATIENCE)
    await store.close()
