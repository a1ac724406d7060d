"""Many at once: on one session (F20), with expired cookies (F21), without any (F28).

``EYEWALL_TEST_SOAK=1`` adds the million visitors.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from typing import Any

import pytest

from eyewall import Settings
from eyewall.core.manager import Manager
from eyewall.crypto.keyring import KeyRing
from eyewall.stores.memory import MemoryStore
from eyewall.stores.resp import RespStore
from eyewall.testing import ManualClock
from tests.core.world import SECRET, Browser, World
from tests.faults.kit import report

SOAK = "EYEWALL_TEST_SOAK" in os.environ
AT_ONCE = 10_000
VISITORS = 1_000_000
ROOM = 10_000


@pytest.mark.server
async def test_ten_thousand_requests_on_one_session_lose_nothing(redis7: Any) -> None:
    """F20. Harm: under load a counter is wrong, a key is gone, or the last in the queue waits for ever."""
    settings = Settings(url=redis7.url, cookie_secret=SECRET, store_timeout=timedelta(seconds=30))
    manager = Manager(settings, RespStore(redis7.url, timeout=30, prefix="one:"))
    manager.use_keyring(KeyRing.from_secret(SECRET))
    browser = Browser(manager)
    await browser.put(n=0)
    took: list[float] = []

    async def request(number: int) -> None:
        began = time.perf_counter()
        session = await browser.open()
        await session.modify("n", _one_more)
        session[f"k{number % 100}"] = number
        await browser.end(session)
        took.append(time.perf_counter() - began)

    await asyncio.gather(*(request(number) for number in range(AT_ONCE)))
    data = await browser.data()
    assert data.pop("n") == AT_ONCE
    assert {key: value % 100 for key, value in data.items()} == {f"k{n}": n for n in range(100)}
    await manager.aclose()
    took.sort()
    report(f"{AT_ONCE} on one session: p50 {took[AT_ONCE // 2]:.2f} s, p99 {took[-AT_ONCE // 100]:.2f} s")
    assert took[-1] < 30


def _one_more(number: int) -> int:
    return number + 1


async def test_ten_thousand_expired_cookies_cost_one_read_each_and_no_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F21. Harm: after an outage everybody comes back at once, and each makes a new empty session."""
    world = World()
    browsers = [world.browser() for _ in range(AT_ONCE)]
    for number, browser in enumerate(browsers):
        await browser.put(n=number)
    world.pass_time(hours=2)
    calls: list[str] = []
    for verb in ("create", "load", "replace", "touch", "delete"):
        monkeypatch.setattr(world.store, verb, _noting(calls, verb, getattr(world.store, verb)))
    found = await asyncio.gather(*(browser.data() for browser in browsers))
    assert found == [{}] * AT_ONCE
    assert calls == ["load"] * AT_ONCE
    assert await world.records() == []


def _noting(calls: list[str], verb: str, real: Any) -> Any:
    async def call(*arguments: Any, **options: Any) -> Any:
        calls.append(verb)
        return await real(*arguments, **options)

    return call


@pytest.mark.server
async def test_expired_cookies_cost_a_real_server_one_read_each(fresh_server: Any) -> None:
    """F21. Harm: the herd is harmless in the tests, and floods the server in life."""
    server = fresh_server("redis7")
    clock = ManualClock()
    settings = Settings(backend="memory", cookie_secret=SECRET, store_timeout=timedelta(seconds=10))
    manager = Manager(settings, RespStore(server.url, clock=clock, timeout=10), clock)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    browsers = [Browser(manager) for _ in range(1_000)]
    await asyncio.gather(*(browser.put(k="v") for browser in browsers))
    clock.advance(timedelta(hours=2))
    before = server.ask("DBSIZE")
    server.ask("CONFIG", "RESETSTAT")
    assert await asyncio.gather(*(browser.data() for browser in browsers)) == [{}] * 1_000
    counted = {line.split(":")[0] for line in server.ask("INFO", "commandstats").splitlines() if ":" in line}
    assert "cmdstat_get:calls=1000," in server.ask("INFO", "commandstats")
    assert not counted & {"cmdstat_set", "cmdstat_del", "cmdstat_evalsha", "cmdstat_pexpire"}
    assert server.ask("DBSIZE") == before
    await manager.aclose()


@pytest.mark.skipif(
    not SOAK, reason="minutes long: EYEWALL_TEST_SOAK=1 runs it; tests/stores has a short one"
)
@pytest.mark.timeout(900)
async def test_a_flood_of_visitors_is_bounded_and_signs_nobody_out() -> None:
    """F28. Harm: a crawler that starts a session at every page takes all memory, or signs everybody out."""
    settings = Settings(backend="memory", cookie_secret=SECRET)
    store = MemoryStore(max_records=ROOM)
    manager = Manager(settings, store)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    users = [Browser(manager) for _ in range(100)]
    for number, user in enumerate(users):
        session = await user.open()
        session.sign_in(f"user {number}")
        await user.end(session)
    began = time.perf_counter()
    for _ in range(VISITORS):
        await Browser(manager).put(k="v")
        assert len(store) <= ROOM
    report(f"{VISITORS} visitors in {time.perf_counter() - began:.1f} s, {len(store)} kept")
    for number, user in enumerate(users):
        session = await user.open()
        assert session.principal == f"user {number}"
