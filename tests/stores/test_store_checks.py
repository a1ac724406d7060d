"""The shipped checks over the stores that need no server, and proof that the checks can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyewall.core.record import Record
from eyewall.core.store import Clock, PrincipalIndex, Scan, Store
from eyewall.stores.file import FileStore
from eyewall.stores.memory import MemoryStore
from eyewall.testing import (
    DAMAGE_CHECKS,
    PRINCIPAL_CHECKS,
    SCAN_CHECKS,
    STORE_CHECKS,
    SWEEP_CHECKS,
    capability_checks,
    change_checks,
    checks_for,
    create_load_checks,
    damage_checks,
    upkeep_checks,
)
from eyewall.testing.check_kit import Check, DamageCheck, MakeStore


def name_of(check: Callable[..., Any]) -> str:
    """The part of a check's name that says what is promised."""
    return check.__name__.removeprefix("check_")


def in_memory(store_type: type[MemoryStore] = MemoryStore) -> MakeStore:
    """Handles to one place in memory: the same object each time."""
    opened: list[MemoryStore] = []

    async def make(clock: Clock) -> Store:
        if not opened:
            opened.append(store_type(clock=clock))
        return opened[0]

    return make


def in_folder(folder: Path) -> MakeStore:
    """Handles to one folder: a new store each time, as other processes would have."""

    async def make(clock: Clock) -> Store:
        return FileStore(folder / "sessions", clock=clock)

    return make


@pytest.mark.parametrize("check", checks_for(MemoryStore), ids=name_of)
async def test_memory_store_keeps(check: Check) -> None:
    """A promise broken by the store of the first steps would be learnt as normal."""
    await check(in_memory())


@pytest.mark.parametrize("check", checks_for(FileStore), ids=name_of)
async def test_file_store_keeps(check: Check, tmp_path: Path) -> None:
    """A promise broken here breaks it for every service on one machine."""
    await check(in_folder(tmp_path))


@pytest.mark.parametrize("check", DAMAGE_CHECKS, ids=name_of)
async def test_file_store_survives(check: DamageCheck, tmp_path: Path) -> None:
    """Bytes written by somebody else must never be served, run, or turned into a 500."""

    async def plant(digest: bytes, blob: bytes) -> None:
        (tmp_path / "sessions" / "records" / digest.hex()).write_bytes(blob)

    await check(in_folder(tmp_path), plant)


class Upserting(MemoryStore):
    """Its create overwrites."""

    async def create(self, record: Record) -> bool:
        await self.delete(record.digest)
        return await super().create(record)


class Resurrecting(MemoryStore):
    """Its replace brings back what somebody deleted."""

    async def replace(self, record: Record, *, version: int) -> bool:
        if self._there(record.digest) is None:
            return await self.create(record)
        return await super().replace(record, version=version)


class Reviving(MemoryStore):
    """Its replace takes a dead record for a live one."""

    async def replace(self, record: Record, *, version: int) -> bool:
        old = self._there(record.digest)
        if old is None or old.version != version:
            return False
        await self.delete(record.digest)
        return await self.create(record)


class ServingTheDead(MemoryStore):
    """Leaves expiry to a server that is late."""

    async def load(self, digest: bytes) -> Record | None:
        return self._there(digest)


class NotAtomic(MemoryStore):
    """Compares, waits, then swaps."""

    async def replace(self, record: Record, *, version: int) -> bool:
        old = await self.load(record.digest)
        if old is None or old.version != version:
            return False
        await asyncio.sleep(0)
        await self.delete(record.digest)
        return await self.create(record)


class TouchingFromMemory(MemoryStore):
    """Its touch writes back the record it has read before."""

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        old = await self.load(digest)
        if old is None:
            return False
        await asyncio.sleep(0)
        await self.delete(digest)
        return await self.create(msgspec.structs.replace(old, seen_at=seen_at, expires_at=expires_at))


class ForgettingMicroseconds(MemoryStore):
    """Keeps milliseconds only, as some databases do."""

    async def create(self, record: Record) -> bool:
        end = record.expires_at.replace(microsecond=record.expires_at.microsecond // 1000 * 1000)
        return await super().create(msgspec.structs.replace(record, expires_at=end))


class CaseBlind(MemoryStore):
    """Compares principals as some database collations do."""

    async def find_principal(self, principal: str) -> list[Record]:
        alike = [name for name in self._by_principal if name.casefold() == principal.casefold()]
        return [record for name in alike for record in await super(CaseBlind, self).find_principal(name)]


class SweepingTheLiving(MemoryStore):
    """Sweeps without looking at the time."""

    async def sweep(self, now: datetime, limit: int) -> int:
        for digest in [digest for _, digest in self._by_end][:limit]:
            await self.delete(digest)
        return 0


class NeverSweeping(MemoryStore):
    """Leaves expired records for ever."""

    async def sweep(self, now: datetime, limit: int) -> int:
        return 0


class SwappingAnswers(MemoryStore):
    """After a cancelled load hands its answer to the next one, as a shared connection would."""

    left_over: list[Record | None]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.left_over = []

    async def load(self, digest: bytes) -> Record | None:
        self.left_over.append(await super().load(digest))
        await asyncio.sleep(0)
        return self.left_over.pop(0)


BROKEN = {
    "create_never_overwrites": Upserting,
    "create_has_one_winner": Upserting,
    "replace_never_brings_a_deleted_record_back": Resurrecting,
    "delete_wins_over_everything_in_flight": Resurrecting,
    "delete_principal_wins_over_replace_in_flight": Resurrecting,
    "replace_never_revives_a_dead_record": Reviving,
    "expired_record_is_never_served": ServingTheDead,
    "replace_into_the_past_makes_it_dead": ServingTheDead,
    "replace_has_one_winner": NotAtomic,
    "touch_undoes_no_replace": TouchingFromMemory,
    "load_returns_microseconds": ForgettingMicroseconds,
    "find_tells_look_alikes_apart": CaseBlind,
    "sweep_never_touches_live_records": SweepingTheLiving,
    "sweep_removes_all_that_is_due": NeverSweeping,
    "cancelled_loads_swap_no_answers": SwappingAnswers,
}


@pytest.mark.parametrize(("promise", "store_type"), BROKEN.items())
async def test_a_store_that_breaks_a_promise_is_caught(promise: str, store_type: type[MemoryStore]) -> None:
    """A check that cannot fail would certify a store that loses sessions."""
    (check,) = [check for check in checks_for(MemoryStore) if name_of(check) == promise]
    with pytest.raises(AssertionError, match="broken promise: "):
        await check(in_memory(store_type))


def test_checks_follow_the_capabilities_of_a_class() -> None:
    """A check that is left out in silence protects nobody."""

    class Bare:
        pass

    assert checks_for(Bare) == STORE_CHECKS + SWEEP_CHECKS
    assert checks_for(Bare, server_expires=True) == STORE_CHECKS
    assert checks_for(FileStore) == STORE_CHECKS + SWEEP_CHECKS + PRINCIPAL_CHECKS + SCAN_CHECKS
    assert issubclass(MemoryStore, PrincipalIndex)
    assert issubclass(MemoryStore, Scan)


async def test_a_capability_check_says_that_the_capability_is_missing() -> None:
    """Running a check on a store without the capability must not look like a success."""

    class WithoutIndex:
        async def close(self) -> None:
            """Nothing to do."""

    async def make(clock: Clock) -> Any:  # lacks even the verbs: only the capability is asked for
        return WithoutIndex()

    for check in (*PRINCIPAL_CHECKS, *SCAN_CHECKS):
        with pytest.raises(AssertionError, match="WithoutIndex should be a "):
            await check(make)


def test_every_check_written_is_in_a_tuple() -> None:
    """A check that nobody runs is a promise nobody keeps."""
    modules = (capability_checks, change_checks, create_load_checks, damage_checks, upkeep_checks)
    written = {name for module in modules for name in vars(module) if name.startswith("check_")}
    listed = {check.__name__ for check in (*checks_for(MemoryStore), *DAMAGE_CHECKS)}
    assert written == listed
