"""Two ways in which a session could slip out of its owner's hands between two writes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from io import StringIO
from typing import Any, NoReturn, cast

import pytest

from eyewall.cli.copying import Mover, ScannedStore
from eyewall.core.store import utc_now
from eyewall.crypto.keyring import Key, KeyRing
from eyewall.errors import ConfigurationError
from eyewall.stores.encrypted import encrypted
from eyewall.stores.memory import MemoryStore
from eyewall.stores.resp import RespStore
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record

HOUR = timedelta(hours=1)


async def test_moving_sealed_sessions_by_hand_keeps_them() -> None:
    """``eyewall migrate --live`` of an encrypted site: each session moved was damaged, everybody out."""
    keyring = KeyRing([Key(b"k" * 32)])
    clock = ManualClock()
    old, new = MemoryStore(clock=clock), MemoryStore(clock=clock)
    record = new_record(clock, payload=b"cart")
    sealed_old, sealed_new = encrypted(old, keyring), encrypted(new, keyring)
    await sealed_old.create(record)
    with pytest.raises(ConfigurationError, match="sealed"):
        await Mover(old, new).move_all(StringIO())
    assert await sealed_old.load(record.digest) == record, "refusing must leave everything where it was"
    assert await Mover(cast(ScannedStore, sealed_old), sealed_new).move_all(StringIO()) == 1
    moved = await sealed_new.load(record.digest)
    assert moved is not None
    assert moved.payload == b"cart"


async def test_a_touch_cut_short_hides_no_session_from_revocation(
    valkey9: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut between its two writes, a touch leaves a session that "sign out everywhere" misses."""
    clock = ManualClock(utc_now())
    store = RespStore(valkey9.url, clock=clock, prefix="gap:")
    record = new_record(clock, principal="alice", expires_at=clock() + HOUR)
    await store.create(record)

    def killed(*_arguments: object) -> NoReturn:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(store, "_enlist", killed)
        with pytest.raises(asyncio.CancelledError):
            await store.touch(record.digest, clock(), clock() + 2 * HOUR)
    clock.advance(HOUR + timedelta(minutes=2))
    await store.create(new_record(clock, principal="alice"))
    await store.delete_principal("alice")
    left = await store.load(record.digest)
    await store.close()
    assert left is None
