"""A server that became a replica while its clients stayed connected: they must look for the master anew."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eyewall.core.store import utc_now
from eyewall.errors import StoreUnavailable
from eyewall.stores.resp import RespStore
from eyewall.testing.check_kit import new_record
from tests.servers.proxy import Proxy


@pytest.mark.parametrize("kind", ["redis6", "redis7", "valkey9"])
async def test_a_demoted_server_is_left(fresh_server: Any, kind: str) -> None:
    """Behind an address that follows the master, every write failed until a restart, and reads were stale."""
    old, new = fresh_server(kind), fresh_server(kind)
    async with Proxy(old.port) as address:
        store = RespStore(address.url_for(old.url), timeout=5)
        record = new_record(utc_now)
        # Two at once, so that both connections of the store are open.
        await asyncio.gather(store.create(record), _next_turn(store.load(record.digest)))
        old.ask("REPLICAOF", "127.0.0.1", str(new.port))
        address._target = new.port
        other = RespStore(new.url, timeout=5)
        await other.create(record)
        await other.close()
        with pytest.raises(StoreUnavailable):
            await store.touch(record.digest, utc_now(), record.expires_at)
        assert await store.delete(record.digest)
        await asyncio.gather(*(_none_left(store, record.digest) for _ in range(5)))
        await store.close()


async def _next_turn(call: Any) -> None:
    await asyncio.sleep(0.001)
    await call


async def _none_left(store: RespStore, digest: bytes) -> None:
    assert await store.load(digest) is None
