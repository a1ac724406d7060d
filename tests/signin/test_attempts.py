"""Limits of sign-in attempts: exact under load, over every store, and no lever against the victim."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import pytest

from eyewall.core.opening import open_store
from eyewall.core.record import Record
from eyewall.core.store import Store, utc_now
from eyewall.errors import ConfigurationError, DamagedRecordError, TooManyAttemptsError
from eyewall.settings import Settings
from eyewall.signin.attempt_rules import DEFAULT_LIMITS, Limit, Limits
from eyewall.signin.attempts import Attempts
from eyewall.stores.file import FileStore
from eyewall.stores.memory import MemoryStore
from eyewall.testing.check_kit import new_record
from eyewall.testing.clock import ManualClock

SERVERS = ("postgres", "mariadb", "redis7", "valkey9", "cluster", "sentinel", "mongodb")
PATIENCE = timedelta(seconds=10)  # these are no tests of deadlines, and the machine may be busy
PAIR, ADDRESS, ACCOUNT = DEFAULT_LIMITS.pair, DEFAULT_LIMITS.address, DEFAULT_LIMITS.account
NO_LIMIT = Limit(1000, PAIR.window)


@dataclass
class Counting:
    """A store that counts what is written to it."""

    inner: Store
    writes: int = 0

    async def create(self, record: Record) -> bool:
        self.writes += 1
        return await self.inner.create(record)

    async def load(self, digest: bytes) -> Record | None:
        return await self.inner.load(digest)

    async def replace(self, record: Record, *, version: int) -> bool:
        self.writes += 1
        return await self.inner.replace(record, version=version)

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        self.writes += 1
        return await self.inner.touch(digest, seen_at, expires_at)

    async def delete(self, digest: bytes) -> bool:
        self.writes += 1
        return await self.inner.delete(digest)

    async def sweep(self, now: datetime, limit: int) -> int:
        return await self.inner.sweep(now, limit)

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class Place:
    """Somewhere to keep counts, as several processes see it. Names and addresses are new for each test."""

    open: Callable[[], Store]
    clock: ManualClock
    account: str = field(default_factory=lambda: f"ann-{secrets.token_hex(8)}@example.com")
    stores: list[Store] = field(default_factory=list)
    _next_network: int = field(default_factory=lambda: secrets.randbits(40) << 80)

    def process(self, **limits: Any) -> Attempts:
        """What one process has: a handle of its own."""
        self.stores.append(self.open())
        return Attempts(self.stores[-1], self.clock, limits=replace(DEFAULT_LIMITS, **limits))

    def address(self) -> str:
        """An address in a network nobody has come from yet."""
        self._next_network += 1 << 64
        return str(IPv6Address((0x2001 << 112) | (self._next_network % (1 << 112)) | 1))


@pytest.fixture(params=["memory", "file", "sqlite", *SERVERS])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Every server-side store in turn."""
    clock = ManualClock(utc_now())  # Redis and MongoDB expire records by their own clocks
    if request.param == "memory":
        memory = MemoryStore(clock=clock)
        made = Place(lambda: memory, clock)
    elif request.param == "file":
        made = Place(lambda: FileStore(tmp_path / "data", clock=clock), clock)
    else:
        sqlite = f"sqlite:///{tmp_path}/s.db"
        url = sqlite if request.param == "sqlite" else request.getfixturevalue(request.param).url
        made = Place(lambda: open_store(Settings(url=url, store_timeout=PATIENCE), clock), clock)
    yield made
    for store in made.stores:
        await store.close()


@pytest.fixture
def in_memory() -> Place:
    """For what cannot differ between stores."""
    clock = ManualClock()
    memory = MemoryStore(clock=clock)
    return Place(lambda: memory, clock)


async def allowed(attempts: Attempts, account: str, address: str | None) -> bool:
    """Make one attempt; whether it may go on to the password."""
    try:
        await attempts.hit(account, address)
    except TooManyAttemptsError:
        return False
    return True


async def refusal(attempts: Attempts, account: str, address: str | None) -> TooManyAttemptsError:
    """Make one attempt that is refused."""
    with pytest.raises(TooManyAttemptsError) as caught:
        await attempts.hit(account, address)
    return caught.value


async def use_up(attempts: Attempts, account: str, addresses: Iterable[str]) -> int:
    """Guess from each address in turn; how many guesses went through."""
    return sum([await allowed(attempts, account, address) for address in addresses])


# Exact, under load, over processes


async def test_fifty_parallel_guesses_are_five(place: Place) -> None:
    """A counter that is read and then written lets a burst through."""
    attempts, address = place.process(), place.address()
    passed = await asyncio.gather(*(allowed(attempts, place.account, address) for _ in range(50)))
    assert Counter(passed) == {True: 5, False: 45}


async def test_fifty_parallel_guesses_on_two_processes_are_five(place: Place) -> None:
    """Counting in each process multiplies the limit by the number of processes."""
    processes, address = (place.process(), place.process()), place.address()
    guesses = (allowed(processes[number % 2], place.account, address) for number in range(50))
    assert Counter(await asyncio.gather(*guesses)) == {True: 5, False: 45}


async def test_parallel_guesses_from_many_addresses_keep_to_the_accounts_limit(place: Place) -> None:
    """A botnet is one guesser: each of its addresses has a budget, and together they have one."""
    processes = [place.process(account=Limit(10, ACCOUNT.window)) for _ in range(2)]
    addresses = [place.address() for _ in range(40)]
    guesses = (allowed(processes[n % 2], place.account, address) for n, address in enumerate(addresses))
    assert sum(await asyncio.gather(*guesses)) == 10


async def test_one_address_cannot_try_one_password_on_all_names(place: Place) -> None:
    """Password spraying: each account sees a single attempt, so no limit per account notices."""
    attempts, address = place.process(address=Limit(8, ADDRESS.window)), place.address()
    passed = await asyncio.gather(*(allowed(attempts, f"{n}-{place.account}", address) for n in range(20)))
    assert sum(passed) == 8
    assert (await refusal(attempts, "somebody else", address)).limit == "address"


async def test_the_window_passes(place: Place) -> None:
    """A limit that never ends is a lock."""
    attempts, address = place.process(), place.address()
    assert await use_up(attempts, place.account, [address] * 6) == 5
    error = await refusal(attempts, place.account, address)
    assert (error.limit, error.retry_after) == ("pair", PAIR.window)
    place.clock.advance(error.retry_after - timedelta(seconds=1))
    assert not await allowed(attempts, place.account, address)
    place.clock.advance(1)
    assert await use_up(attempts, place.account, [address] * 6) == 5


async def test_success_gives_the_attempts_back(place: Place) -> None:
    """Who mistyped four times in the morning would be locked out by one mistake more."""
    attempts, address = place.process(), place.address()
    for _ in range(3):
        assert await use_up(attempts, place.account, [address] * 4) == 4
        await attempts.succeeded(place.account, address)
    assert await use_up(attempts, place.account, [address] * 6) == 5


async def test_refused_attempts_write_nothing(place: Place) -> None:
    """A flood that is refused must not become a flood of the store."""
    counting = Counting(place.open())
    place.stores.append(counting)
    limits = Limits(address=Limit(7, ADDRESS.window), account=Limit(10, ACCOUNT.window))
    attempts = Attempts(counting, place.clock, limits=limits)
    address = place.address()
    await use_up(attempts, place.account, [address] * 5)
    await use_up(attempts, place.account, [place.address() for _ in range(5)])
    await use_up(attempts, f"other-{place.account}", [address] * 2)
    before = counting.writes
    assert (await refusal(attempts, f"third-{place.account}", address)).limit == "address"
    assert (await refusal(attempts, place.account, place.address())).limit == "account"
    await asyncio.gather(*(allowed(attempts, f"{n}-{place.account}", address) for n in range(50)))
    await asyncio.gather(*(allowed(attempts, place.account, place.address()) for _ in range(50)))
    assert counting.writes == before


# No lever against the victim


async def test_the_victim_signs_in_from_a_known_address_under_attack(place: Place) -> None:
    """Malicious lockout: whoever knows a name keeps its owner out."""
    attempts, home = place.process(account=Limit(20, ACCOUNT.window)), place.address()
    await attempts.hit(place.account, home)
    await attempts.succeeded(place.account, home)
    strangers = [place.address() for _ in range(40)]
    assert await use_up(attempts, place.account, strangers) == 20
    assert await use_up(attempts, place.account, [home] * 6) == 5, (
        "the pair's own budget, no less and no more"
    )


async def test_three_hundred_addresses_get_a_hundred_guesses_and_lock_nobody_out(in_memory: Place) -> None:
    """The default limits, with an attacker who has many addresses and patience."""
    attempts, home = in_memory.process(), in_memory.address()
    await attempts.succeeded(in_memory.account, home)
    strangers = [in_memory.address() for _ in range(300)]
    passed = await asyncio.gather(*(allowed(attempts, in_memory.account, each) for each in strangers * 2))
    assert sum(passed) == ACCOUNT.attempts
    for _ in range(3):
        assert await use_up(attempts, in_memory.account, [home] * 2) == 2
        await attempts.succeeded(in_memory.account, home)
        await use_up(attempts, in_memory.account, strangers)


async def test_a_neighbour_is_not_refused(in_memory: Place) -> None:
    """One household's guesses must not count for another's, nor one account's for another."""
    attempts, address = in_memory.process(), in_memory.address()
    await use_up(attempts, in_memory.account, [address] * 9)
    assert await allowed(attempts, in_memory.account, in_memory.address())
    assert await allowed(attempts, "somebody else", address)


async def test_successes_do_not_use_up_the_address_of_an_office(in_memory: Place) -> None:
    """Monday morning: a hundred people sign in from behind one address."""
    attempts, office = in_memory.process(), in_memory.address()
    for number in range(ADDRESS.attempts * 2):
        await attempts.hit(f"colleague {number}", office)
        await attempts.succeeded(f"colleague {number}", office)


async def test_ones_own_account_buys_no_guesses_on_another(in_memory: Place) -> None:
    """A guesser signs in to an account of his own in between, and his count starts anew."""
    attempts, address = in_memory.process(), in_memory.address()
    passed = 0
    for _ in range(20):
        passed += await allowed(attempts, in_memory.account, address)
        await attempts.hit("mallory", address)
        await attempts.succeeded("mallory", address)
    assert passed == PAIR.attempts


async def test_guesses_from_a_known_address_end_too(in_memory: Place) -> None:
    """Who shares the victim's network would guess for ever, five at a time."""
    attempts, home = in_memory.process(pair=NO_LIMIT, address=NO_LIMIT), in_memory.address()
    await attempts.succeeded(in_memory.account, home)
    guesses = await use_up(attempts, in_memory.account, [home] * 500)
    assert guesses == ACCOUNT.attempts * 2, "once as a known address, once as any other"
    assert (await refusal(attempts, in_memory.account, home)).limit == "account"


async def test_an_address_is_known_for_a_time_only(in_memory: Place) -> None:
    """An address given up years ago belongs to somebody else by now."""
    attempts, old = in_memory.process(), in_memory.address()
    await attempts.succeeded(in_memory.account, old)
    in_memory.clock.advance(DEFAULT_LIMITS.known_for)
    await use_up(attempts, in_memory.account, [in_memory.address() for _ in range(ACCOUNT.attempts)])
    assert (await refusal(attempts, in_memory.account, old)).limit == "account"


async def test_a_reset_password_opens_the_account_again(in_memory: Place) -> None:
    """An attack would keep out the owner who is travelling, for as long as it goes on."""
    attempts = in_memory.process()
    await use_up(attempts, in_memory.account, [in_memory.address() for _ in range(ACCOUNT.attempts)])
    error = await refusal(attempts, in_memory.account, in_memory.address())
    assert (error.limit, error.retry_after) == ("account", ACCOUNT.window)
    await attempts.forgive(in_memory.account)
    assert await allowed(attempts, in_memory.account, in_memory.address())


# What strangers send


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("192.0.2.7", " 192.0.2.7 "),
        ("192.0.2.7", "::ffff:192.0.2.7"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("fe80::1%eth0", "fe80::2%eth1"),
        ("", None),
        ("nobody", "999.999.999.999"),
        ("1" * 100_000, "\ud800\0\n"),
    ],
)
async def test_addresses_one_stranger_can_choose_from_share_a_budget(
    in_memory: Place, first: str, second: str | None
) -> None:
    """A stranger who may choose his address chooses a new one for each guess."""
    attempts = in_memory.process()
    await use_up(attempts, in_memory.account, [first] * 5)
    assert not await allowed(attempts, in_memory.account, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [("192.0.2.7", "192.0.2.8"), ("2001:db8:1:2::1", "2001:db8:1:3::1"), ("192.0.2.7", "::c000:207")],
)
async def test_addresses_of_different_places_have_their_own_budget(
    in_memory: Place, first: str, second: str
) -> None:
    """One guesser would lock out strangers."""
    attempts = in_memory.process()
    await use_up(attempts, in_memory.account, [first] * 5)
    assert await allowed(attempts, in_memory.account, second)


async def test_an_unreadable_address_never_becomes_known(in_memory: Place) -> None:
    """All whose address cannot be read would be taken for the account's owner."""
    attempts = in_memory.process()
    await attempts.succeeded(in_memory.account, "nobody knows")
    await use_up(attempts, in_memory.account, [in_memory.address() for _ in range(ACCOUNT.attempts)])
    assert not await allowed(attempts, in_memory.account, "nobody knows either")


@pytest.mark.parametrize("spelling", ["ANN", " ann ", "ann", "ａｎｎ"])  # noqa: RUF001 - the look-alike is meant
async def test_other_spellings_of_a_name_buy_no_guesses(in_memory: Place, spelling: str) -> None:
    """Most look-ups ignore case: a name of ten letters would have a thousand budgets."""
    attempts, address = in_memory.process(), in_memory.address()
    await use_up(attempts, "Ann", [address] * 5)
    assert not await allowed(attempts, spelling, address)


@pytest.mark.parametrize("name", ["", "\0", "\ud800", "x" * 10_000_000, "'; DROP TABLE x"])
async def test_any_name_is_counted(in_memory: Place, name: str) -> None:
    """A name that ends in an error is a name that is not counted, or a 500."""
    assert await use_up(in_memory.process(), name, [in_memory.address()] * 9) == 5


async def test_a_million_names_cannot_fill_the_store(in_memory: Place) -> None:
    """One stranger, one record for each name he thinks of."""
    attempts, address = in_memory.process(), in_memory.address()
    await asyncio.gather(*(allowed(attempts, f"name {number}", address) for number in range(2_000)))
    (store,) = in_memory.stores
    assert isinstance(store, MemoryStore)
    records = [record async for record in store.scan()]
    assert len(records) == ADDRESS.attempts + 1
    assert max(len(record.payload) for record in records) < 4_096


async def test_names_and_addresses_are_not_kept_or_told(in_memory: Place) -> None:
    """People type their password into the field of the name."""
    attempts = in_memory.process()
    await use_up(attempts, "hunter2", ["192.0.2.7"] * 5)
    await attempts.succeeded("hunter2", "192.0.2.8")
    (store,) = in_memory.stores
    assert isinstance(store, MemoryStore)
    kept = repr([record async for record in store.scan()])
    assert "hunter2" not in kept
    assert "192.0.2" not in kept
    error = await refusal(attempts, "hunter2", "192.0.2.7")
    assert "hunter2" not in str(error)


async def test_counts_vanish_by_the_sweep(in_memory: Place) -> None:
    """Counts of last year's strangers stay in the store for ever."""
    attempts = in_memory.process()
    await use_up(attempts, in_memory.account, [in_memory.address() for _ in range(10)])
    (store,) = in_memory.stores
    assert await store.sweep(in_memory.clock(), 100) == 0
    assert await store.sweep(in_memory.clock.advance(ACCOUNT.window * 2), 100) == 11


# Damage


def counters_of(attempts: Attempts, account: str, address: str) -> list[bytes]:
    """The digests of the two records that an attempt counts in."""
    network = address.rpartition(":")[0] + ":/64"
    return [attempts._accounts.digest(account), attempts._networks.digest(network)]


async def test_a_damaged_count_is_no_error_and_counts_anew(place: Place) -> None:
    """One flipped bit locks an account with a 500, or opens it without a limit."""
    attempts, address = place.process(), "2001:db8:a:b::1"
    for digest in counters_of(attempts, place.account, address):
        junk = new_record(place.clock, digest=digest, payload=b"junk", successor=digest)
        await place.stores[0].delete(digest)
        assert await place.stores[0].create(junk)
    assert await use_up(attempts, place.account, [address] * 9) == 5


async def test_a_count_no_store_can_read_is_no_error(tmp_path: Path) -> None:
    """As above, where the record itself is damaged."""
    clock, address = ManualClock(), "2001:db8:a:b::1"
    store = FileStore(tmp_path / "data", clock=clock)
    attempts = Attempts(store, clock)
    for digest in counters_of(attempts, "ann", address):
        (tmp_path / "data" / "records").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "records" / digest.hex()).write_bytes(b"junk")
        with pytest.raises(DamagedRecordError):
            await store.load(digest)
    assert await use_up(attempts, "ann", [address] * 9) == 5
    await store.close()


async def test_a_clock_that_is_ahead_elsewhere_makes_nobody_wait_longer(in_memory: Place) -> None:
    """One process with a wrong clock would lock people out for as long as it is wrong."""
    attempts, address = in_memory.process(), in_memory.address()
    in_memory.clock.advance(timedelta(hours=1))
    await use_up(attempts, in_memory.account, [address] * 5)
    in_memory.clock.advance(timedelta(hours=-1))
    assert (await refusal(attempts, in_memory.account, address)).retry_after == PAIR.window


@pytest.mark.parametrize(("attempts", "seconds"), [(0, 1), (-1, 1), (1001, 1), (5, 0), (5, -1)])
def test_a_limit_that_makes_no_sense_is_refused_at_start(attempts: int, seconds: int) -> None:
    """No attempt at all, or attempts without a limit, found out by the first visitor."""
    with pytest.raises(ConfigurationError, match="attempts must be 1 to 1000"):
        Limit(attempts, timedelta(seconds=seconds))
