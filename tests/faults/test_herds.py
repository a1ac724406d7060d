"""Many at once: on one session (F20), with expired cookies (F21), without any (F28).

``EYEWALL_TEST_SOAK=1`` adds the million visitors, and ten thousand expired cookies at a real server. With
``-s`` every test shows what it measured.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eyewall import Settings
from eyewall.core.manager import Manager
from eyewall.core.opening import open_store
from eyewall.core.store import utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.stores.memory import MemoryStore
from eyewall.stores.resp import RespStore
from eyewall.testing import ManualClock
from tests.core.world import SECRET, Browser, World
from tests.faults.kit import report

SOAK = "EYEWALL_TEST_SOAK" in os.environ
AT_ONCE = 10_000
HERD = 10_000 if SOAK else 1_000
VISITORS = 1_000_000
ROOM = 100_000
MOST_GROWTH = 64 * 1024 * 1024
"""Bytes that the process may grow once the store is full: what an allocator's fragments come to."""


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store of the kind that the test is parametrised with."""
    kind: str = request.param
    if kind == "memory":
        return "memory://"
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/sessions.db"
    url: str = request.getfixturevalue(kind).url
    return url


@pytest.mark.parametrize(
    "place",
    ["memory", "sqlite", *(pytest.param(name, marks=pytest.mark.server) for name in ("redis7", "postgres"))],
    indirect=True,
)
async def test_ten_thousand_requests_on_one_session_lose_nothing(
    place: str, request: pytest.FixtureRequest
) -> None:
    """F20. Harm: under load a counter is wrong, a key is gone, or the last in the queue waits for ever."""
    settings = Settings(url=place, cookie_secret=SECRET, store_timeout=timedelta(seconds=60))
    async with aclosing(Manager(settings, open_store(settings, utc_now))) as manager:
        manager.use_keyring(KeyRing.from_secret(SECRET))
        browser = Browser(manager)
        await browser.put(n=0)
        took = await asyncio.gather(*(_one_of_many(browser, number) for number in range(AT_ONCE)))
        data = await browser.data()
    assert data.pop("n") == AT_ONCE
    assert {key: value % 100 for key, value in data.items()} == {f"k{n}": n for n in range(100)}
    took.sort()
    report(
        f"{AT_ONCE} on one session, {request.node.callspec.id}: "
        f"p50 {_ms(took[AT_ONCE // 2])}, p99 {_ms(took[-AT_ONCE // 100])}, slowest {_ms(took[-1])}"
    )
    assert took[-1] < 60


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


async def _one_of_many(browser: Browser, number: int) -> float:
    """One request that counts and stores; returns how long it took (seconds)."""
    began = time.perf_counter()
    session = await browser.open()
    await session.modify("n", _one_more)
    session[f"k{number % 100}"] = number
    await browser.end(session)
    return time.perf_counter() - began


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
    began = time.perf_counter()
    found = await asyncio.gather(*(browser.data() for browser in browsers))
    report(f"{AT_ONCE} expired cookies, memory: {time.perf_counter() - began:.2f} s")
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
    settings = Settings(backend="memory", cookie_secret=SECRET, store_timeout=timedelta(seconds=60))
    manager = Manager(settings, RespStore(server.url, clock=clock, timeout=60), clock)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    browsers = [Browser(manager) for _ in range(HERD)]
    await asyncio.gather(*(browser.put(k="v") for browser in browsers))
    clock.advance(timedelta(hours=2))
    before = server.ask("DBSIZE")
    server.ask("CONFIG", "RESETSTAT")
    began = time.perf_counter()
    assert await asyncio.gather(*(browser.data() for browser in browsers)) == [{}] * HERD
    report(f"{HERD} expired cookies, Redis: {time.perf_counter() - began:.2f} s")
    counted = {line.split(":")[0] for line in server.ask("INFO", "commandstats").splitlines() if ":" in line}
    assert f"cmdstat_get:calls={HERD}," in server.ask("INFO", "commandstats")
    assert not counted & {"cmdstat_set", "cmdstat_del", "cmdstat_evalsha", "cmdstat_pexpire"}
    assert server.ask("DBSIZE") == before
    await manager.aclose()


def resident() -> int:
    """How much memory this process has (bytes)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(
    not SOAK, reason="minutes long: EYEWALL_TEST_SOAK=1 runs it; tests/stores has a short one"
)
@pytest.mark.timeout(1800)
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
    empty = resident()
    first = await _flood(manager, store, 2 * ROOM)
    full = resident()
    rest = await _flood(manager, store, VISITORS - 2 * ROOM)
    at_end = resident()
    report(
        f"{VISITORS} visitors in {first + rest:.0f} s, {len(store)} kept; "
        f"memory {empty / 1e6:.0f} MB before, {full / 1e6:.0f} MB after {2 * ROOM}, "
        f"{at_end / 1e6:.0f} MB at the end"
    )
    assert len(store) == ROOM
    assert at_end - full < MOST_GROWTH
    for number, user in enumerate(users):
        session = await user.open()
        assert session.principal == f"user {number}"


async def _flood(manager: Manager, store: MemoryStore, visitors: int) -> float:
    """Let so many new visitors start a session each; return how long it took (seconds)."""
    began = time.perf_counter()
    for _ in range(visitors):
        await Browser(manager).put(k="v")
        assert len(store) <= ROOM
    return time.perf_counter() - began
