"""F19: the clock of a server jumps, by an hour or by ten years, ahead or back, under every kind of store.

The server's own clock decides nothing, and the application's may be wrong too: set back by hand, or set
ahead by a bad time server for a minute.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from eyewall import Settings
from eyewall.core.manager import Manager
from eyewall.core.opening import open_store
from eyewall.core.store import utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.testing import ManualClock
from tests.core.world import SECRET, Browser

HOUR, DECADE = timedelta(hours=1), timedelta(days=3653)
STEPS = {"hour": HOUR, "decade": DECADE}
STORES = ("memory", "file", "sqlite", "redis7", "postgres", "mariadb", "mongodb")


@pytest.fixture
def clock() -> ManualClock:
    """Starts now, as the servers' own clocks do."""
    return ManualClock(utc_now())


@pytest.fixture(params=STORES)
async def manager(
    request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock
) -> AsyncIterator[Manager]:
    """One application over a store of each kind, whose clock can be moved."""
    settings = Settings(
        url=_url(request, tmp_path), cookie_secret=SECRET, store_timeout=timedelta(seconds=10)
    )
    manager = Manager(settings, open_store(settings, clock), clock)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    yield manager
    await manager.aclose()


def _url(request: pytest.FixtureRequest, folder: Path) -> str:
    name: str = request.param
    own = {"memory": "memory://", "file": f"file://{folder}/data", "sqlite": f"sqlite:///{folder}/s.db"}
    return own.get(name) or str(request.getfixturevalue(name).url)


@pytest.mark.parametrize("step", STEPS)
async def test_a_clock_set_back_extends_no_session(manager: Manager, clock: ManualClock, step: str) -> None:
    """Harm: who sets a clock back, or lets it drift, keeps a stolen session alive beyond its absolute end."""
    browser = Browser(manager)
    await browser.put(k="v")
    began = clock()
    clock.advance(-STEPS[step])
    await browser.put(k="set back")  # no crash, no negative life
    assert await browser.data() == {"k": "set back"}
    clock.advance(began + timedelta(hours=24) - clock())
    assert await browser.data() == {}, "its absolute end has come"


@pytest.mark.parametrize("step", STEPS)
async def test_a_clock_that_jumped_ahead_ends_sessions_and_works_on(
    manager: Manager, clock: ManualClock, step: str
) -> None:
    """Harm: a minute of wrong time makes errors, or sessions that live for ten years."""
    browser, other = Browser(manager), Browser(manager)
    await browser.put(k="v")
    clock.advance(STEPS[step])
    assert await browser.data() == {}, "by this clock it is over"
    await other.put(k="from the future")
    clock.advance(-STEPS[step])
    await other.data()  # it may be served or refused, but it must end
    clock.advance(timedelta(hours=26))
    assert await other.data() == {}, "a session from the future lives on"
    await browser.put(k="now")
    assert await browser.data() == {"k": "now"}
