"""Checks of the capabilities a store may add: ``PrincipalIndex`` and ``Scan``."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Iterable

from eyewall.core.record import Record
from eyewall.testing.check_kit import (
    LIFETIME,
    IndexedStore,
    MakeStore,
    ScannedStore,
    after_turns,
    clock_of_today,
    created,
    new_record,
    next_version,
    opened,
    opened_index,
    opened_scan,
    require,
)

# The index of principals


async def check_find_returns_all_records_of_a_principal(make: MakeStore) -> None:
    """Every live session of one principal, exactly as load gives it, and nobody else's."""
    clock = clock_of_today()
    alice, bob = _principals("alice", "bob")
    async with opened_index(make, clock) as store, opened_index(make, clock) as other:
        hers = [new_record(clock, principal=alice) for _ in range(5)]
        await created(store, *hers, new_record(clock, principal=bob), new_record(clock))
        await _require_found(other, alice, hers)
        await _require_found(store, _principals("nobody")[0], [])


async def check_find_tells_look_alikes_apart(make: MakeStore) -> None:
    """Prefix, case, accents, spaces, wildcards: a careless comparison lists a stranger's sessions."""
    clock = clock_of_today()
    names = _look_alikes(secrets.token_hex(8))
    async with opened_index(make, clock) as store:
        owned = {name: new_record(clock, principal=name) for name in names}
        await created(store, *owned.values())
        for name, record in owned.items():
            await _require_found(store, name, [record])
        for name, record in owned.items():
            require(await store.delete_principal(name) == 1, f"delete_principal({name!r}) ends one session")
            require(await store.load(record.digest) is None, f"delete_principal({name!r}) ends its own")
            rest = [other for other in owned.values() if await store.load(other.digest)]
            require(len(rest) == len(owned) - 1, f"delete_principal({name!r}) ends nobody else's session")
            await created(store, record)


async def check_the_empty_principal_is_not_nobody(make: MakeStore) -> None:
    """``""`` and None are different; asking for ``""`` must not list the anonymous sessions."""
    clock = clock_of_today()
    async with opened_index(make, clock) as store:
        empty, nobody = new_record(clock, principal=""), new_record(clock, principal=None)
        await created(store, empty, nobody)
        found = await store.find_principal("")
        require(empty in found, "find_principal('') returns records whose principal is ''")
        require(nobody not in found, "find_principal('') returns no record without a principal")
        require(await store.load(nobody.digest) == nobody, "a record without a principal keeps None")
        await store.delete(empty.digest)


async def check_index_follows_the_principal(make: MakeStore) -> None:
    """Sign-in, change of person and sign-out move the record between principals."""
    clock = clock_of_today()
    alice, bob = _principals("alice", "bob")
    async with opened_index(make, clock) as store:
        record = new_record(clock)
        await created(store, record)
        for principal in (alice, bob, alice, None):
            record = next_version(record, principal=principal)
            require(await store.replace(record, version=record.version - 1), "replace may change principal")
            for name in (alice, bob):
                await _require_found(store, name, [record] if name == principal else [])


async def check_index_follows_a_refused_replace_nowhere(make: MakeStore) -> None:
    """A replace that lost its race leaves no trace in the index."""
    clock = clock_of_today()
    alice, bob = _principals("alice", "bob")
    async with opened_index(make, clock) as store:
        record = new_record(clock, principal=alice)
        await created(store, record)
        require(
            not await store.replace(next_version(record, principal=bob), version=9), "9 is another version"
        )
        await _require_found(store, bob, [])
        await _require_found(store, alice, [record])
        require(await store.delete_principal(bob) == 0, "a refused replace leaves no trace in the index")


async def check_find_leaves_out_the_dead_and_the_deleted(make: MakeStore) -> None:
    """A device page that lists ended sessions frightens people."""
    clock = clock_of_today()
    (alice,) = _principals("alice")
    async with opened_index(make, clock) as store:
        live, short, deleted = (new_record(clock, principal=alice) for _ in range(3))
        await created(store, live, short, deleted)
        await store.touch(live.digest, clock(), clock() + 2 * LIFETIME)
        await store.delete(deleted.digest)
        clock.advance(LIFETIME)
        found = await store.find_principal(alice)
        require([record.digest for record in found] == [live.digest], "find_principal returns the live ones")


async def check_find_sees_records_that_were_extended(make: MakeStore) -> None:
    """An index that expires earlier than its records hides sessions from revocation."""
    clock = clock_of_today()
    (alice,) = _principals("alice")
    async with opened_index(make, clock) as store:
        touched, replaced = (new_record(clock, principal=alice) for _ in range(2))
        await created(store, touched, replaced)
        await store.touch(touched.digest, clock(), clock() + 5 * LIFETIME)
        await store.replace(next_version(replaced, expires_at=clock() + 5 * LIFETIME), version=1)
        clock.advance(3 * LIFETIME)
        await store.sweep(clock() - 2 * LIFETIME, 100)
        digests = {record.digest for record in await store.find_principal(alice)}
        require(digests == {touched.digest, replaced.digest}, "the index lives as long as its records")
        require(await store.delete_principal(alice) == 2, "delete_principal reaches extended records")


async def check_delete_principal_ends_them_all(make: MakeStore) -> None:
    """Revoking one principal ends each of its sessions and no other."""
    clock = clock_of_today()
    alice, bob = _principals("alice", "bob")
    async with opened_index(make, clock) as store, opened_index(make, clock) as other:
        hers = [new_record(clock, principal=alice) for _ in range(5)]
        his, anonymous = new_record(clock, principal=bob), new_record(clock)
        await created(store, *hers, his, anonymous)
        require(await other.delete_principal(alice) == 5, "delete_principal says how many there were")
        for record in hers:
            require(await store.load(record.digest) is None, "delete_principal deletes every record")
            require(not await store.replace(next_version(record), version=1), "revoked means deleted")
        for record in (his, anonymous):
            require(await store.load(record.digest) == record, "delete_principal spares all others")
        require(await store.delete_principal(alice) == 0, "nothing is left to delete")


async def check_delete_principal_wins_over_replace_in_flight(make: MakeStore) -> None:
    """A request under way while an account is locked must not bring its session back."""
    clock = clock_of_today()
    (alice,) = _principals("alice")
    async with opened_index(make, clock) as store, opened_index(make, clock) as other:
        for turns in range(15):
            record = new_record(clock, principal=alice)
            await created(store, record)
            await asyncio.gather(
                after_turns(turns % 4, store.replace(next_version(record), version=1)),
                after_turns(turns % 3, other.delete_principal(alice)),
                after_turns(turns % 5, other.touch(record.digest, clock(), clock() + LIFETIME)),
            )
            require(await store.load(record.digest) is None, "delete_principal wins over calls in flight")
            await _require_found(other, alice, [])


def _principals(*names: str) -> list[str]:
    """Principals that no other check and no earlier run has used."""
    unique = secrets.token_hex(8)
    return [f"{name}-{unique}" for name in names]


def _look_alikes(unique: str) -> list[str]:
    base = f"{unique}-jos\u00e9-stra\u00dfe"
    return [
        base,
        base.upper(),
        base.title(),
        base.replace("\u00e9", "e"),
        base.replace("\u00e9", "e\u0301"),
        base.replace("\u00df", "ss"),
        base + " ",
        " " + base,
        base + "\0",
        base + "\n",
        base + "2",
        base[:-1],
        base[:-1] + "_",
        base[:-1] + "%",
        base[:-1] + "*",
        base[:-1] + "?",
        base + "\u200b",
        base + "\U0001f600",
        base + "\U0001f601",
        base.replace("-", ":"),
        base.replace("-", "/"),
        base.replace("-", "\uff0d"),
    ]


async def _require_found(store: IndexedStore, principal: str, expected: Iterable[Record]) -> None:
    found = sorted(await store.find_principal(principal), key=lambda record: record.digest)
    wanted = sorted(expected, key=lambda record: record.digest)
    require(
        found == wanted,
        f"find_principal({principal!r}) returns its live records, no more and no fewer "
        f"(here {len(found)} instead of {len(wanted)}, or not as written)",
    )


# Scanning


async def check_scan_yields_every_live_record(make: MakeStore) -> None:
    """A migration that misses a record signs somebody out."""
    clock = clock_of_today()
    async with opened_scan(make, clock) as store:
        records = [new_record(clock, principal=random.choice((None, "alice"))) for _ in range(60)]
        dead, deleted = new_record(clock, expires_at=clock() + LIFETIME / 2), new_record(clock)
        await created(store, *records, dead, deleted)
        await store.delete(deleted.digest)
        clock.advance(LIFETIME / 2)
        seen = await _scanned(store)
        for record in records:
            require(seen.get(record.digest) == record, "scan yields every live record, as it was written")
        require(dead.digest not in seen, "scan yields no dead record")
        require(deleted.digest not in seen, "scan yields no deleted record")


async def check_scan_misses_nothing_while_others_come_and_go(make: MakeStore) -> None:
    """Records there during the whole walk come, though the store changes under the walker's feet."""
    clock = clock_of_today()
    async with opened_scan(make, clock) as store, opened(make, clock) as other:
        staying = {record.digest for record in (new_record(clock) for _ in range(40))}
        leaving = [new_record(clock) for _ in range(40)]
        await created(store, *(new_record(clock, digest=digest) for digest in staying), *leaving)
        seen: set[bytes] = set()
        async for record in store.scan():
            seen.add(record.digest)
            if leaving:
                await other.delete(leaving.pop().digest)
                await created(other, new_record(clock, expires_at=clock() + LIFETIME / 2))
        require(staying <= seen, "scan yields what is there during the whole walk")


async def check_scan_may_be_left_early(make: MakeStore) -> None:
    """A walk that stops after one record holds nothing open."""
    clock = clock_of_today()
    async with opened_scan(make, clock) as store:
        records = [new_record(clock) for _ in range(5)]
        await created(store, *records)
        for _ in range(3):
            async for _record in store.scan():
                break
        require(await store.load(records[0].digest) == records[0], "a walk left early leaves no damage")
        require({record.digest for record in records} <= (await _scanned(store)).keys(), "scan starts afresh")


async def _scanned(store: ScannedStore) -> dict[bytes, Record]:
    return {record.digest: record async for record in store.scan()}
