"""Remember tokens over every server-side store: what depends on compare-and-swap, expiry and the index."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from eyewall.core.opening import open_store
from eyewall.core.record import Device
from eyewall.core.store import PrincipalIndex, Store, utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.settings import Settings
from eyewall.signin.remember import GRACE, Redeemed, RememberTokens, Replayed, token_in
from eyewall.stores.encrypted import encrypted
from eyewall.stores.file import FileStore
from eyewall.stores.memory import MemoryStore
from eyewall.stores.migrating import migrating
from eyewall.testing.clock import ManualClock

COOKIE = "remember"
DEVICE = Device("Browser/1.0", "192.0.2.7")
KEYRING = KeyRing.from_secret("Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi")
LIFE = timedelta(days=30)
PATIENCE = timedelta(seconds=10)  # these are no tests of deadlines, and the machine may be busy
WITHOUT_SERVER = ("memory", "file", "sqlite", "encrypted", "migrating")
SERVERS = ("postgres", "mariadb", "redis7", "valkey9", "cluster", "sentinel", "mongodb")

Open = Callable[[], Store]


class Place:
    """Somewhere to keep tokens, as several processes see it; the principal is new for each test."""

    def __init__(self, open_one: Open, clock: ManualClock) -> None:
        self.clock = clock
        self.principal = f"ann-{secrets.token_hex(8)}"
        self.device_id = secrets.token_bytes(16)
        self.theft = Replayed(self.principal, self.device_id)
        self.stores: list[Store] = []
        self._open = open_one

    def process(self) -> RememberTokens:
        """What one process has: a handle of its own."""
        self.stores.append(self._open())
        return RememberTokens(self.stores[-1], self.clock, KEYRING, LIFE)

    async def issued(self, tokens: RememberTokens) -> str:
        """The cookie value that the browser is given at sign-in."""
        value, _ = await tokens.issue(
            COOKIE, principal=self.principal, device_id=self.device_id, device=DEVICE
        )
        return value


def opener(kind: str, folder: Path, clock: ManualClock, url: str) -> Open:
    """Return what opens one more handle to a store of this kind."""
    memory = MemoryStore(clock=clock)
    openers: dict[str, Open] = {
        "memory": lambda: memory,
        "file": lambda: FileStore(folder / "data", clock=clock),
        "encrypted": lambda: encrypted(FileStore(folder / "data", clock=clock), KEYRING),
        "migrating": lambda: migrating(memory, FileStore(folder / "data", clock=clock)),
    }
    return openers.get(
        kind, lambda: open_store(Settings(url=url, migrate_from=None, store_timeout=PATIENCE), clock)
    )


@pytest.fixture(params=[*WITHOUT_SERVER, *(pytest.param(name, marks=pytest.mark.server) for name in SERVERS)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Every server-side store in turn."""
    clock = ManualClock(utc_now())  # Redis and MongoDB expire records by their own clocks
    kind = request.param
    url = request.getfixturevalue(kind).url if kind in SERVERS else f"sqlite:///{tmp_path}/s.db"
    made = Place(opener(kind, tmp_path, clock, url), clock)
    yield made
    for store in made.stores:
        await store.close()


async def bring(tokens: RememberTokens, value: str) -> Redeemed | Replayed | None:
    """One request with this cookie and no session."""
    presented = tokens.read(COOKIE, [value])
    assert presented is not None
    found = await tokens.redeem(COOKIE, presented)
    if isinstance(found, Replayed):  # as the manager does, once the device's sessions have ended
        await tokens.end(presented)
    return found


async def used(tokens: RememberTokens, value: str) -> Redeemed:
    """One request that is brought back."""
    found = await bring(tokens, value)
    assert isinstance(found, Redeemed)
    return found


async def test_twenty_tabs_of_two_processes_arrive_at_one_session_and_one_successor(place: Place) -> None:
    """Rotation that takes honest tabs for thieves, or leaves 20 sessions behind (spring-security #17292)."""
    processes = place.process(), place.process()
    value = await place.issued(processes[0])
    tabs = await asyncio.gather(*(used(processes[number % 2], value) for number in range(20)))
    assert len({(tab.session_id, tab.value) for tab in tabs}) == 1
    assert Counter(tab.was_first for tab in tabs) == {True: 1, False: 19}
    place.clock.advance(timedelta(days=1))
    assert (await used(processes[1], tabs[0].value)).was_first


async def test_replay_after_the_grace_ends_the_family_on_every_process(place: Place) -> None:
    """A copied cookie that still works on another server is a second key to the house."""
    here, there = place.process(), place.process()
    value = await place.issued(here)
    successor = (await used(here, value)).value
    place.clock.advance(GRACE + timedelta(microseconds=1))
    assert await bring(there, value) == place.theft
    assert await bring(here, successor) is None
    assert await bring(there, successor) is None


async def test_replay_beside_an_honest_use_always_ends_the_family(place: Place) -> None:
    """A rotation that is on its way must not bring the family back that a theft has just ended."""
    here, there = place.process(), place.process()
    for _ in range(5):
        value = await place.issued(here)
        successor = (await used(here, value)).value
        place.clock.advance(timedelta(hours=1))
        honest, replayed = await asyncio.gather(bring(here, successor), bring(there, value))
        assert replayed == place.theft
        assert honest is None or isinstance(honest, Redeemed)
        left = honest.value if isinstance(honest, Redeemed) else successor
        assert await bring(here, left) is None


async def test_revocation_beside_uses_always_wins(place: Place) -> None:
    """Signing out everywhere while a stolen token is in use must leave the thief nothing."""
    here, there = place.process(), place.process()
    index = cast(PrincipalIndex, place.stores[1])
    for _ in range(5):
        value = await place.issued(here)
        *found, _ = await asyncio.gather(
            *(bring(here, value) for _ in range(3)), index.delete_principal(place.principal)
        )
        presented = there.read(COOKIE, [value])
        assert presented is not None
        assert not await there.is_live(presented)
        assert await bring(there, value) is None
        assert all(one is None or isinstance(one, Redeemed) for one in found)


async def test_token_is_listed_with_its_principal_until_it_ends(place: Place) -> None:
    """A token that no list shows is one that nobody can revoke."""
    tokens = place.process()
    issued_at = place.clock()
    value = await place.issued(tokens)
    place.clock.advance(timedelta(days=1))
    await used(tokens, value)
    index = cast(PrincipalIndex, place.stores[0])
    (record,) = await index.find_principal(place.principal)
    token = token_in(record)
    assert token is not None
    assert (token.principal, token.device_id) == (place.principal, place.device_id)
    assert (token.issued_at, token.ends_at, record.device) == (issued_at, issued_at + LIFE, DEVICE)
    presented = tokens.read(COOKIE, [value])
    assert presented is not None
    assert await tokens.end(presented)
    assert await index.find_principal(place.principal) == []


async def test_use_never_lengthens_life(place: Place) -> None:
    """A token that lives on by being used is a password that never has to be typed (NIST SP 800-63B-4)."""
    tokens = place.process()
    value, ends_at = await place.issued(tokens), place.clock() + LIFE
    for _ in range(2):
        place.clock.advance(timedelta(days=10))
        found = await used(tokens, value)
        assert found.ends_at == ends_at
        value = found.value
    place.clock.advance(timedelta(days=10))
    assert await bring(tokens, value) is None
