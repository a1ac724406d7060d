"""A principal sees the devices they are signed in on, and ends them."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.changes import Changes, Identity
from eyewall.core.payload import decode_payload, empty_payload, encode_payload
from eyewall.core.record import Device, Record
from eyewall.core.side_records import Kept, SideRecords
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.signin.devices import MOST_PASSES, Devices, handle_of
from eyewall.signin.remember import token_in
from eyewall.stores.memory import MemoryStore
from eyewall.testing.check_kit import new_record
from eyewall.testing.clock import ManualClock
from tests.signin.one_process import OneProcess

LAPTOP = Device("Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0", "2001:db8::1")


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still."""
    return ManualClock()


@pytest.fixture
def process(clock: ManualClock) -> OneProcess:
    """One process on an empty store."""
    return OneProcess(MemoryStore(clock=clock), clock)


async def handles(process: OneProcess, principal: str = "alice") -> list[str]:
    """What the list shows, in its order."""
    return [device.handle for device in await process.devices.of(principal)]


# The list


async def test_the_list_tells_what_one_needs_to_recognise_a_device(
    process: OneProcess, clock: ManualClock
) -> None:
    """Who asks "was that me?" needs place, times and method."""
    began = clock()
    record = await process.sign_in("alice", device=LAPTOP, method="passkey")
    clock.advance(timedelta(minutes=7))
    await process.store.touch(record.digest, clock(), record.expires_at)
    (device,) = await process.devices.of("alice")
    assert (device.label, device.user_agent, device.address) == (
        "Firefox 142 on Linux",
        LAPTOP.user_agent,
        LAPTOP.address,
    )
    assert (device.signed_in_at, device.seen_at) == (began, clock())
    assert (device.method, device.current, device.active, device.remembered) == (
        "passkey",
        False,
        True,
        False,
    )


async def test_the_list_has_only_ones_own_devices_the_last_used_first(
    process: OneProcess, clock: ManualClock
) -> None:
    """A list with somebody else's device on it tells where they are."""
    mine, other = secrets.token_bytes(16), secrets.token_bytes(16)
    await process.sign_in("alice", device_id=mine)
    clock.advance(60)
    await process.sign_in("alice", device_id=other)
    await process.sign_in("bob")
    listed = await process.devices.of("alice", current=mine)
    assert [(device.handle, device.current) for device in listed] == [
        (handle_of(other), False),
        (handle_of(mine), True),
    ]


async def test_nothing_in_the_list_finds_or_opens_a_session(process: OneProcess) -> None:
    """A list that shows session IDs or digests hands out sessions to whoever reads the page."""
    record = await process.sign_in("alice", device=LAPTOP)
    old = msgspec.structs.replace(record, digest=secrets.token_bytes(32), payload=b"")
    await process.store.create(old)
    shown = repr(await process.devices.of("alice")).lower()
    for digest in (record.digest, old.digest):
        assert digest.hex() not in shown
        assert handle_of(digest) not in shown
        assert handle_of(digest[:16]) not in shown


async def test_a_session_and_its_token_are_one_device(process: OneProcess, clock: ManualClock) -> None:
    """Two lines for one browser: ending the wrong one lets the other bring it back."""
    began, device_id = clock(), secrets.token_bytes(16)
    await process.remember("alice", device_id)
    clock.advance(60)
    await process.sign_in("alice", device_id=device_id)
    (device,) = await process.devices.of("alice")
    assert (device.active, device.remembered, device.signed_in_at) == (True, True, began)


async def test_a_device_whose_session_has_ended_is_still_listed_while_it_is_remembered(
    process: OneProcess, clock: ManualClock
) -> None:
    """It can come back at any moment, so its owner must be able to end it."""
    device_id = secrets.token_bytes(16)
    record = await process.sign_in("alice", device_id=device_id, device=LAPTOP)
    await process.remember("alice", device_id)
    await process.writer.end(record.digest)
    (device,) = await process.devices.of("alice")
    assert (device.active, device.remembered, device.method) == (False, True, None)


async def test_a_device_keeps_its_handle_when_its_session_gets_a_new_id(process: OneProcess) -> None:
    """A button on a page opened before would end nothing."""
    record = await process.sign_in("alice")
    before = await handles(process)
    await process.regenerate(record)
    assert await handles(process) == before


async def test_markers_and_other_side_records_are_no_devices(process: OneProcess, clock: ManualClock) -> None:
    """A counter of attempts shown as a device frightens people."""
    counters = SideRecords(process.store, clock, "counter", int)
    await counters.update("alice", lambda _: Kept(1, clock() + timedelta(hours=1), principal="alice"))
    await process.store.create(new_record(clock, principal="alice", successor=secrets.token_bytes(32)))
    assert await process.devices.of("alice") == []
    assert await process.devices.revoke_all("alice", keep=secrets.token_bytes(32)) == 0
    assert await counters.load("alice") == 1


def damaged(record: Record) -> Record:
    """Bytes that are no payload."""
    return msgspec.structs.replace(record, payload=b"damaged")


def of_another_principal(record: Record) -> Record:
    """Somebody has put another name on the record; the payload tells."""
    payload = decode_payload(record.payload, record.digest)
    payload.principal = "mallory"
    return msgspec.structs.replace(record, payload=encode_payload(payload, record.digest))


def of_an_older_version(record: Record) -> Record:
    """Signed in before there were device IDs."""
    payload = empty_payload()
    payload.principal = record.principal
    return msgspec.structs.replace(record, payload=encode_payload(payload, record.digest))


@pytest.mark.parametrize("changed", [damaged, of_another_principal, of_an_older_version])
async def test_a_session_without_a_readable_device_id_is_listed_and_can_be_ended(
    process: OneProcess, changed: object
) -> None:
    """What cannot be listed cannot be ended; an attacker would love to have such a session."""
    assert callable(changed)
    record = await process.sign_in("alice", device=LAPTOP)
    odd = changed(record)
    assert await process.store.replace(
        msgspec.structs.replace(odd, version=record.version + 1), version=record.version
    )
    (device,) = await process.devices.of("alice")
    assert (device.address, device.active, device.method) == (LAPTOP.address, True, None)
    assert await process.devices.revoke("alice", device.handle)
    assert await process.store.load(record.digest) is None


# Ending one


async def test_ending_a_device_ends_its_sessions_and_its_token_and_no_other(process: OneProcess) -> None:
    """A remember token left behind brings the thief back at the next request."""
    lost, kept = secrets.token_bytes(16), secrets.token_bytes(16)
    ended = [await process.sign_in("alice", device_id=lost) for _ in range(2)]
    ended.append(await process.remember("alice", lost))
    stay = [await process.sign_in("alice", device_id=kept), await process.remember("alice", kept)]
    assert await process.devices.revoke("alice", handle_of(lost))
    assert [await process.store.load(record.digest) for record in ended] == [None] * 3
    assert [await process.store.load(record.digest) for record in stay] == stay
    assert process.kinds() == ["REVOKED", "REVOKED"]
    assert {event.principal for event in process.heard} == {"alice"}


async def test_somebody_elses_device_and_none_at_all_are_answered_alike(process: OneProcess) -> None:
    """A difference tells an attacker which handles exist; an effect ends strangers' sessions."""
    record = await process.sign_in("bob")
    (his,) = await handles(process, "bob")
    await process.sign_in("alice")
    assert await process.devices.revoke("alice", his) is False
    assert await process.devices.revoke("alice", handle_of(secrets.token_bytes(16))) is False
    assert await process.store.load(record.digest) == record
    assert process.kinds() == []


@given(st.text())
def test_a_handle_may_be_any_text(handle: str) -> None:
    """It comes from a form that a stranger fills in; an error would be a 500."""

    async def revoke() -> None:
        process = OneProcess(MemoryStore(clock=ManualClock()), ManualClock())
        await process.sign_in("alice")
        assert await process.devices.revoke("alice", handle) is False

    asyncio.run(revoke())


class RegeneratingBeside(MemoryStore):
    """While a session is being ended, a request gives it a new ID: at the worst of moments."""

    process: OneProcess | None = None

    async def replace(self, record: Record, *, version: int) -> bool:
        process, self.process = self.process, None
        if process is not None:
            before = await self.load(record.digest)
            assert before is not None
            await process.regenerate(before)
        return await super().replace(record, version=version)


async def test_a_session_that_gets_a_new_id_meanwhile_ends_too(clock: ManualClock) -> None:
    """The request of a stolen session that runs at that moment would keep it alive for the thief."""
    store = RegeneratingBeside(clock=clock)
    process = OneProcess(store, clock)
    await process.sign_in("alice")
    (handle,) = await handles(process)
    store.process = process
    assert await process.devices.revoke("alice", handle)
    assert await process.sessions("alice") == []


class RedeemingBeside(MemoryStore):
    """Whenever a token is ended, it has just been redeemed: one more session is there."""

    process: OneProcess | None = None
    times = 1

    async def delete(self, digest: bytes) -> bool:
        record = await self.load(digest)
        token = None if record is None else token_in(record)
        gone = await super().delete(digest)
        if self.process is not None and token is not None and self.times:
            self.times -= 1
            await self.process.sign_in("alice", device_id=token.device_id)
            if self.times:
                await self.process.remember("alice", token.device_id)
        return gone


async def test_a_session_that_a_token_starts_meanwhile_ends_too(clock: ManualClock) -> None:
    """Ending sessions first, or looking once only, lets the remembered browser slip through."""
    store = RedeemingBeside(clock=clock)
    process = store.process = OneProcess(store, clock)
    device_id = secrets.token_bytes(16)
    await process.sign_in("alice", device_id=device_id)
    await process.remember("alice", device_id)
    assert await process.devices.revoke_all("alice") == 1
    assert await process.devices.of("alice") == []


async def test_ending_gives_up_aloud_when_sessions_keep_coming(clock: ManualClock) -> None:
    """Saying that all have ended while one lives is worse than an error; and it must not go on for ever."""
    store = RedeemingBeside(clock=clock)
    store.times = MOST_PASSES + 1
    process = store.process = OneProcess(store, clock)
    await process.remember("alice", secrets.token_bytes(16))
    with pytest.raises(StoreUnavailable, match="new sessions still"):
        await process.devices.revoke_all("alice")


# Ending all


async def test_ending_all_ends_all_of_one_principal_only(process: OneProcess) -> None:
    """A disabled account must be out everywhere, and nobody else."""
    for _ in range(3):
        await process.sign_in("alice")
    await process.remember("alice", secrets.token_bytes(16))
    his = await process.sign_in("bob")
    assert await process.devices.revoke_all("alice") == 4
    assert await process.devices.of("alice") == []
    assert await process.store.load(his.digest) == his


@pytest.mark.parametrize("tokens_of_kept", [False, True])
async def test_the_device_that_is_kept_stays_and_its_token_as_asked(
    process: OneProcess, tokens_of_kept: bool
) -> None:
    """After a change of password no token issued before may bring anybody back."""
    mine = secrets.token_bytes(16)
    session, token = await process.sign_in("alice", device_id=mine), await process.remember("alice", mine)
    await process.sign_in("alice")
    ended = await process.devices.revoke_all("alice", keep=session.digest, tokens_of_kept=tokens_of_kept)
    assert ended == 1
    assert await process.store.load(session.digest) == session
    assert await process.store.load(token.digest) == (None if tokens_of_kept else token)


async def test_a_store_that_cannot_find_principals_says_what_to_do() -> None:
    """An empty list would say that nobody is signed in anywhere."""

    class Bare:
        """Has no index."""

    clock = ManualClock()
    process = OneProcess(MemoryStore(clock=clock), clock)
    writer = process.writer
    devices = Devices(
        Bare(),  # type: ignore[arg-type]  # that is the point
        end=writer.end_record,
        lineage=writer.lineage,
        token_in=token_in,
        events=process.events,
    )
    for asked in (devices.of("alice"), devices.revoke("alice", "x"), devices.revoke_all("alice")):
        with pytest.raises(ConfigurationError, match="PrincipalIndex"):
            await asked


async def test_signing_in_again_on_a_device_keeps_its_place(process: OneProcess) -> None:
    """Whoever proves again who they are is no second device."""
    record = await process.sign_in("alice")
    payload = decode_payload(record.payload, record.digest)
    again = Identity("alice", process.clock(), payload.device_id, "passkey")
    await process.writer.move((record, payload), Changes(identity=again).apply_to, restart=True)
    (device,) = await process.devices.of("alice")
    assert (device.handle, device.method) == (handle_of(payload.device_id or b""), "passkey")
