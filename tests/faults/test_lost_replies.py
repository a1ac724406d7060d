"""F5: the n-th reply of a real server is lost, and all after it, while somebody proves again who they are.

A new ID takes several steps: the session is written under it, then the old record becomes a marker. Wherever
the way breaks, the browser is told 503 and has its old cookie. With that it must be able to go on.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest

from eyewall import Settings
from eyewall.core.manager import Manager
from eyewall.core.opening import open_store
from eyewall.core.record import Record
from eyewall.core.store import Store, utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import StoreUnavailable
from eyewall.stores.memory import MemoryStore
from tests.core.world import SECRET, Browser
from tests.faults.kit import ABANDONING, let_go_of_abandoned_connections
from tests.servers.proxy import Flow, Proxy

pytestmark = ABANDONING

REPLIES = 8
"""More than the request gets when all is well."""


class Losing(Flow):
    """Lets ``left`` more pieces through, then nothing until it is thawed."""

    left = 1_000_000

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if self.left == 0:
                self.freeze()
            self.left -= 1
            await self._running.wait()
            sink.write(data)
            await sink.drain()


@pytest.mark.server
@pytest.mark.parametrize("kind", ["redis7", "postgres", "mariadb", "mongodb"])
async def test_no_lost_reply_to_a_new_id_ends_the_session(kind: str, request: pytest.FixtureRequest) -> None:
    """Harm: a moment's outage while signing in again signs somebody out, and empties their cart."""
    server: Any = request.getfixturevalue(kind)
    found = await asyncio.gather(*(_found_after(server, left) for left in range(REPLIES)))
    let_go_of_abandoned_connections()
    assert found == [("alice", "cart")] * REPLIES


async def _found_after(server: Any, left: int) -> tuple[str | None, Any]:
    """Who is signed in, with what, after all replies but the first ``left`` were lost for a while."""
    async with (
        Proxy(server.port) as proxy,
        aclosing(_manager(proxy.url_for(server.url), seconds=1)) as manager,
        aclosing(_manager(server.url, seconds=10)) as whole,
    ):
        proxy.replies = losing = Losing()
        browser = await _signed_in(whole)
        await Browser(manager, browser.cookie).data()  # the connections are open
        losing.left = left
        await _prove_again(Browser(manager, browser.cookie), browser)
        losing.left = 1_000_000
        losing.thaw()
        await manager._background.drained()  # what was half done is being taken back, for a second or two
        return await _seen_by(browser)


class HangsAfterwards(MemoryStore):
    """Loses the reply to one compare-and-swap, and from then on answers no load until it is mended."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        self.mended = asyncio.Event()
        self.mended.set()

    async def replace(self, record: Record, *, version: int) -> bool:
        done = await super().replace(record, version=version)
        if self.fails:
            self.fails = False
            self.mended.clear()
            raise StoreUnavailable("the reply was lost")
        return done

    async def load(self, digest: bytes) -> Record | None:
        await self.mended.wait()
        return await super().load(digest)


async def test_asking_whether_the_new_id_holds_may_take_too_long() -> None:
    """Harm: the request's time is up while it asks; the marker stays, and leads to a cookie nobody has."""
    store = HangsAfterwards()
    manager = _manager_of(store, Settings(backend="memory", store_timeout=timedelta(seconds=0.05)))
    browser = await _signed_in(manager)
    store.fails = True
    await _prove_again(browser, browser)
    store.mended.set()
    await manager._background.drained()
    assert await _seen_by(browser) == ("alice", "cart")
    sessions = [record async for record in store.scan() if record.successor is None]
    assert len(sessions) == 1, "nobody was told the new ID"


class Late(MemoryStore):
    """Says of one compare-and-swap that it got no answer, and carries it out when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        self._late: tuple[Record, int] | None = None

    async def replace(self, record: Record, *, version: int) -> bool:
        if self.fails:
            self.fails = False
            self._late = record, version
            raise StoreUnavailable("no answer yet")
        return await super().replace(record, version=version)

    async def arrive(self) -> bool:
        """Carry it out now."""
        assert self._late is not None
        record, version = self._late
        return await super().replace(record, version=version)


async def test_a_marker_that_arrives_late_leads_nowhere() -> None:
    """Harm: a database that was merely slow ends a session that the browser was told goes on."""
    store = Late()
    manager = _manager_of(store, Settings(backend="memory"))
    browser = await _signed_in(manager)
    store.fails = True
    await _prove_again(browser, browser)
    await manager._background.drained()
    assert not await store.arrive()
    assert await _seen_by(browser) == ("alice", "cart")


async def _signed_in(manager: Manager) -> Browser:
    browser = Browser(manager)
    session = await browser.open()
    session.sign_in("alice")
    session["k"] = "cart"
    await browser.end(session)
    return browser


async def _seen_by(browser: Browser) -> tuple[str | None, Any]:
    """Who is signed in, with what."""
    session = await browser.open()
    return session.principal, session.get("k")


def _manager(url: str, *, seconds: float) -> Manager:
    settings = Settings(url=url, store_timeout=timedelta(seconds=seconds), cookie_secret=SECRET)
    return _manager_of(open_store(settings, utc_now), settings)


def _manager_of(store: Store, settings: Settings) -> Manager:
    manager = Manager(settings, store)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    return manager


async def _prove_again(behind: Browser, browser: Browser) -> None:
    """Sign in again by the way that breaks; ``browser`` gets the new cookie if there was an answer."""
    session = await behind.open()
    if session.failure is not None:
        return
    session.sign_in("alice")
    try:
        await behind.end(session)
    except StoreUnavailable:
        return
    browser.cookie = behind.cookie
