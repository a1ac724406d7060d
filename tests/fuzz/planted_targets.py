"""Records with the right checksum that somebody has planted, met by whole requests."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from typing import Any, Final

import msgspec

from eyewall.core.record import Record, decode_record
from eyewall.core.side_records import SideRecords
from eyewall.errors import DamagedRecordError, EyewallError, TooManyAttemptsError
from eyewall.settings import Settings
from eyewall.signin.attempt_rules import AccountHistory, Attempt, network_of
from eyewall.signin.attempts import Attempts
from eyewall.signin.service import SignInManager
from eyewall.stores.memory import MemoryStore
from tests.fuzz.kit import CLOCK, COOKIE, RING, SECRET, SESSION_DIGEST, USER

SETTINGS: Final = Settings(backend="memory", cookie_secret=SECRET, store_timeout=timedelta(hours=1))
ADDRESS: Final = "192.0.2.7"


def planted_session(data: bytes) -> bool:
    """A record under the user's digest, with a right checksum: the page comes, and nobody is mixed up."""
    try:
        found = decode_record(data)
    except DamagedRecordError:
        return False
    checksum = hashlib.blake2b(found.payload, digest_size=8, key=SESSION_DIGEST).digest()
    planted = msgspec.structs.replace(found, digest=SESSION_DIGEST, payload=checksum + found.payload)
    return asyncio.run(_visit(planted))


async def _visit(planted: Record) -> bool:
    store = MemoryStore(clock=CLOCK)
    manager = SignInManager(SETTINGS, store, CLOCK)
    manager.use_keyring(RING)
    await store.create(planted)
    session = manager.open([f"session={COOKIE}"], https=False)
    await manager.load(session)
    assert session.failure is None, session.failure
    assert session.principal == planted.principal or session.principal is None
    found = session.all()
    session.flash.messages()
    session["seen"] = True
    try:
        await manager.commit(session)
    except EyewallError as error:
        assert "nests deeper" in str(error) or "bytes" in str(error), error  # noqa: PT017 - most are stored
    manager.set_cookie_lines(session, https=False)
    for device in await manager.devices.of(USER):
        assert device.label.isprintable()
    await manager.devices.revoke_all(USER)
    await manager.aclose()
    return bool(found)


def planted_attempts(data: bytes) -> bool:
    """Counters that somebody has planted let a sign-in happen, or refuse it for a while that has an end."""
    try:
        tried, history = msgspec.msgpack.decode(data, type=tuple[tuple[Attempt, ...], AccountHistory])
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    asyncio.run(_attempt(tried, history))
    return True


async def _attempt(tried: tuple[Attempt, ...], history: AccountHistory) -> None:
    store = MemoryStore(clock=CLOCK)
    attempts = Attempts(store, CLOCK)
    await _plant(store, "attempts from a network", network_of(ADDRESS), tried)
    await _plant(store, "attempts on an account", USER, history)
    try:
        await attempts.hit(USER, ADDRESS)
    except TooManyAttemptsError as refused:
        assert timedelta(0) <= refused.retry_after <= timedelta(days=1)  # noqa: PT017 - most are not refused
    await attempts.succeeded(USER, ADDRESS)
    await attempts.hit(USER, ADDRESS)


async def _plant(store: MemoryStore, kind: str, name: str, value: Any) -> None:
    records: SideRecords[Any] = SideRecords(store, CLOCK, kind, type(value))
    digest = records.digest(name)
    await store.create(
        Record(
            digest=digest,
            version=1,
            payload=records._encoded(value, digest),
            created_at=CLOCK(),
            seen_at=CLOCK(),
            expires_at=CLOCK() + timedelta(days=1),
            successor=digest,
        )
    )


TARGETS: Final = (planted_session, planted_attempts)
