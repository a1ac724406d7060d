"""F11: what a failover of Redis or Valkey can bring back, and what ``wait_replicas`` does about it.

The first test holds the documentation to the truth: if it ever fails, a promise can be made that is not
made today.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from eyewall import Settings
from eyewall.core.manager import Manager
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import StoreUnavailable
from eyewall.stores.resp import RespStore
from tests.core.world import SECRET, Browser
from tests.faults.kit import ABANDONING, let_go_of_abandoned_connections
from tests.servers.group import wait_for
from tests.servers.proxy import Proxy
from tests.servers.resp import Redis7, RespServer

pytestmark = [pytest.mark.server, ABANDONING]


@dataclass
class Pair:
    """A master, its replica, the way between them, and an application whose address for them can be moved."""

    manager: Manager
    master: RespServer
    replica: RespServer
    replication: Proxy
    address: Proxy

    async def fail_over(self) -> None:
        """The master dies, the replica takes its place with what it has heard."""
        self.master.kill()
        self.replication.cut()
        self.replica.ask("REPLICAOF", "NO", "ONE")
        self.address._target = self.replica.port


@asynccontextmanager
async def master_and_replica(wait_replicas: int) -> AsyncIterator[Pair]:
    """Run both; the application writes to the master."""
    with ExitStack() as stack:
        master = stack.enter_context(Redis7("--repl-diskless-sync-delay", "0"))
        async with Proxy(master.port) as replication, Proxy(master.port) as address:
            replica = Redis7("--replicaof", "127.0.0.1", str(replication.port))
            stack.push(replica)
            await asyncio.to_thread(replica.start)
            await _until("attaching the replica", lambda: "state=online" in master.ask("INFO", "replication"))
            store = RespStore(address.url_for(master.url), wait_replicas=wait_replicas)
            manager = Manager(Settings(backend="memory", cookie_secret=SECRET), store)
            manager.use_keyring(KeyRing.from_secret(SECRET))
            async with aclosing(manager):
                yield Pair(manager, master, replica, replication, address)
        let_go_of_abandoned_connections()


async def _until(what: str, condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_for, what, condition)


async def signed_in(pair: Pair) -> Browser:
    """Somebody whose session the replica has heard of; it hears of nothing after that."""
    browser = Browser(pair.manager)
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    await _until("replicating", lambda: "keys=2" in pair.replica.ask("INFO", "keyspace"))
    pair.replication.replies.freeze()
    return browser


async def ends(browser: Browser) -> None:
    """Sign out, keeping the cookie as a thief would."""
    session = await browser.open()
    session.sign_out()
    cookie = browser.cookie
    await browser.end(session)
    browser.cookie = cookie


async def principal(browser: Browser) -> Any:
    """Who the application says this is, as soon as it says anything."""
    while True:
        session = await browser.open()
        if session.failure is None:
            return session.principal


async def test_without_wait_replicas_a_failover_brings_a_signed_out_session_back() -> None:
    """Harm: somebody relies on more than the page on Redis promises."""
    async with master_and_replica(0) as pair:
        browser = await signed_in(pair)
        await ends(browser)
        assert await principal(browser) is None
        await pair.fail_over()
        assert await principal(browser) == "alice", "if this is so no longer, the page must say so"


async def test_with_wait_replicas_a_sign_out_that_could_come_back_is_refused() -> None:
    """Harm: "you are signed out", and after a failover one is not."""
    async with master_and_replica(1) as pair:
        browser = await signed_in(pair)
        with pytest.raises(StoreUnavailable, match="0 of 1 replicas"):
            await ends(browser)
        await pair.fail_over()
        assert await principal(browser) == "alice", "it was refused, and must be done again"
