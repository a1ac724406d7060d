"""A store of six methods and no PrincipalIndex, which the contract allows."""

from __future__ import annotations

from datetime import datetime

import pytest
from tornado.web import Application

from eyewall import ConfigurationError, SessionError, Sessions, Settings
from eyewall.core.record import Record
from eyewall.stores.memory import MemoryStore
from tests.signin import kit
from tests.signin.kit import Deployment, Meddled, user
from tests.signin.pages import ROUTES
from tests.tornado.site import SECRET


class Six:
    """The contract's methods and nothing else."""

    def __init__(self, inner: MemoryStore) -> None:
        self._inner = inner

    async def create(self, record: Record) -> bool:
        return await self._inner.create(record)

    async def load(self, digest: bytes) -> Record | None:
        return await self._inner.load(digest)

    async def replace(self, record: Record, *, version: int) -> bool:
        return await self._inner.replace(record, version=version)

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        return await self._inner.touch(digest, seen_at, expires_at)

    async def delete(self, digest: bytes) -> bool:
        return await self._inner.delete(digest)

    async def sweep(self, now: datetime, limit: int) -> int:
        return await self._inner.sweep(now, limit)

    async def close(self) -> None:
        await self._inner.close()


async def test_signing_out_is_no_500_and_remembering_is_refused_at_once(here: Deployment) -> None:
    """A remembered user presses "sign out" and is answered 500, with the dead cookies left in the browser."""
    store = Six(MemoryStore(clock=here.clock))
    sessions = Sessions(Settings(backend="memory", cookie_secret=SECRET), store=store, clock=here.clock)
    site = Application(ROUTES, sessions=sessions, disabled=set())
    process = await here._stack.enter_async_context(kit._serving(sessions, Meddled(store), site))
    session = sessions.open([], https=False)
    with pytest.raises(SessionError, match=r"remember=True does not work here: Six cannot find"):
        session.sign_in(here.ann, remember=True)
    with pytest.raises(ConfigurationError, match="max_sessions"):
        Sessions(Settings(backend="memory", cookie_secret=SECRET, max_sessions=3), store=store)
    browser = await here.signed_in(process, here.ann)
    assert (await browser.post("/out")).code == 200
    assert await user(browser) is None
