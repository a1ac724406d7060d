"""A store that keeps its own time gets no second deadline; any other gets one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from eyewall.core.manager import Manager
from eyewall.core.record import Record
from eyewall.core.store import Store
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores.memory import MemoryStore
from tests.core.world import SECRET


class Hanging(MemoryStore):
    """A store that is derived from one that keeps time, and does not."""

    async def load(self, digest: bytes) -> Record | None:
        """Never answer."""
        await asyncio.Event().wait()
        return await super().load(digest)


class Slow(MemoryStore):
    """A store that keeps time, but more of it than a request may wait."""

    longest_wait = 60.0

    async def load(self, digest: bytes) -> Record | None:
        """Never answer."""
        await asyncio.Event().wait()
        return await super().load(digest)


def _manager(store: Store) -> Manager:
    manager = Manager(Settings(backend="memory", store_timeout=timedelta(milliseconds=50)), store)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    return manager


async def _cookie() -> str:
    manager = _manager(MemoryStore())
    session = manager.open([], https=True)
    session["n"] = 1
    await manager.commit(session)
    return manager.set_cookie_lines(session, https=True)[0].partition(";")[0]


@pytest.mark.parametrize("store", [Hanging(), Slow()], ids=["derived", "slow"])
async def test_a_store_that_only_seems_to_keep_time_holds_no_request(store: Store) -> None:
    """A request that hangs for ever because the wrong store was believed."""
    manager = _manager(store)
    session = manager.open([await _cookie()], https=True)
    async with asyncio.timeout(10):
        await manager.load(session)
    with pytest.raises(StoreUnavailable, match="did not answer within"):
        session.get("n")


async def test_a_store_that_keeps_time_is_watched_by_no_second_clock() -> None:
    """The table of deadlines is for those that need it."""
    manager = _manager(MemoryStore())
    session = manager.open([await _cookie()], https=True)
    await manager.load(session)
    assert manager._health.deadlines._timer is None


async def test_a_session_that_could_not_be_loaded_fails_at_every_use() -> None:
    """A handler that catches the first failure goes on with an empty session, and stores it."""
    manager = _manager(Hanging())
    session = manager.open([await _cookie()], https=True)
    await manager.load(session)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            session.get("n")
        with pytest.raises(StoreUnavailable):
            session["n"]
        with pytest.raises(StoreUnavailable):
            session["n"] = 2
