"""F23: requests that are cancelled at any moment, behind a slow wire: nobody ever reads another's answer.

An off-by-one in a connection's replies made visitors of one site somebody else (CVE-2023-28858). So two
users ask 5,000 times through a proxy that delays and cuts up everything, and half of the requests are given
up somewhere on the way. Over every driver.
"""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from eyewall import Settings
from eyewall.core.manager import Manager
from eyewall.core.opening import open_store
from eyewall.core.store import utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import StoreUnavailable
from tests.core.world import SECRET
from tests.faults.kit import ABANDONING, let_go_of_abandoned_connections
from tests.servers.proxy import Proxy

pytestmark = [pytest.mark.server, ABANDONING]

REQUESTS = 50_000 if "EYEWALL_TEST_SOAK" in os.environ else 5_000
AT_ONCE = 100
LATENCY = 0.004


@dataclass
class User:
    """Somebody whose requests come in at this manager, as the adapter brings them."""

    manager: Manager
    name: str
    cookie: str = ""
    answers: int = 0
    attempts: list[int] = field(default_factory=list)

    async def sign_in(self) -> None:
        """Begin a session with the name in it."""
        session = self.manager.open([], https=True)
        session["owner"] = self.name
        session.sign_in(self.name)
        await self.manager.commit(session)
        (line,) = self.manager.set_cookie_lines(session, https=True)
        self.cookie = line.partition(";")[0]

    async def read(self) -> None:
        """One request that looks who it is."""
        session = self.manager.open([self.cookie], https=True)
        await self.manager.load(session)
        if session.failure is not None:
            assert isinstance(session.failure, StoreUnavailable)
            return
        assert session.principal == self.name
        assert session["owner"] == self.name
        self.answers += 1

    async def write(self, number: int) -> None:
        """One request that changes something."""
        session = self.manager.open([self.cookie], https=True)
        await self.manager.load(session)
        if session.failure is not None:
            return
        assert session.principal == self.name
        self.attempts.append(number)
        session[f"n{number % 5}"] = number
        await self.manager.commit(session)
        self.answers += 1


async def storm(users: list[User], chance: random.Random) -> None:
    """Ask in waves; give up half of each wave, each request at a random moment."""
    for first in range(0, REQUESTS, AT_ONCE):
        asked = [
            asyncio.ensure_future(user.write(first + number) if chance.random() < 0.1 else user.read())
            for number in range(AT_ONCE // len(users))
            for user in users
        ]
        given_up = chance.sample(asked, len(asked) // 2)
        for request in given_up:
            asyncio.get_running_loop().call_later(chance.random() * 3 * LATENCY, request.cancel)
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(
                outcome, asyncio.CancelledError | StoreUnavailable
            ):
                raise outcome


@pytest.mark.parametrize("kind", ["redis7", "cluster", "postgres", "mariadb", "mongodb"])
async def test_no_cancelled_request_hands_its_answer_to_another(
    kind: str, request: pytest.FixtureRequest
) -> None:
    """Harm: a visitor closes a tab, and the next one sees the visitor's account."""
    server: Any = request.getfixturevalue(kind)
    if kind == "cluster":  # it names its servers' own ports, so nothing can stand in between
        await _two_users(server.url)
        return
    async with Proxy(server.port) as proxy:
        proxy.requests.latency = proxy.replies.latency = LATENCY
        proxy.replies.slice_bytes = 512
        await _two_users(proxy.url_for(server.url))


async def _two_users(url: str) -> None:
    settings = Settings(url=url, cookie_secret=SECRET, store_timeout=timedelta(seconds=10))
    async with aclosing(Manager(settings, open_store(settings, utc_now))) as manager:
        manager.use_keyring(KeyRing.from_secret(SECRET))
        users = [User(manager, name) for name in ("alice", "bob")]
        for user in users:
            await user.sign_in()
        await storm(users, random.Random(28858))
        for user in users:
            assert user.answers > REQUESTS / 8, "too few got through to tell"
            session = manager.open([user.cookie], https=True)
            await manager.load(session)
            assert session.principal == user.name
            written = {value for key, value in session.items() if key != "owner"}
            assert written <= set(user.attempts), "written by the other"
    let_go_of_abandoned_connections()
