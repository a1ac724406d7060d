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
from eyewall.core.store import utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import StoreUnavailable
from tests.core.world import SECRET, Browser
from tests.faults.kit import ABANDONING, let_go_of_abandoned_connections
from tests.servers.proxy import Flow, Proxy

pytestmark = [pytest.mark.server, ABANDONING]

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


@pytest.mark.parametrize("kind", ["redis7", "postgres", "mariadb"])  # not MongoDB yet: docs/reliability.md
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
        browser = Browser(whole)
        session = await browser.open()
        session.sign_in("alice")
        session["k"] = "cart"
        await browser.end(session)
        await Browser(manager, browser.cookie).data()  # the connections are open
        losing.left = left
        await _prove_again(Browser(manager, browser.cookie), browser)
        losing.left = 1_000_000
        losing.thaw()
        await manager._background.drained()  # what was half done is being taken back, for a second or two
        session = await browser.open()
        return session.principal, session.get("k")


def _manager(url: str, *, seconds: float) -> Manager:
    settings = Settings(url=url, cookie_secret=SECRET, store_timeout=timedelta(seconds=seconds))
    manager = Manager(settings, open_store(settings, utc_now))
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
