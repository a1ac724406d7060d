"""An answer that makes no sense must end as an outage, and its connection must serve nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from eyewall.core.store import utc_now
from eyewall.errors import DamagedRecordError, StoreUnavailable
from eyewall.testing.check_kit import new_record
from tests.servers.proxy import Flow, Proxy
from tests.stores.sql_places import Place


class _Garbling(Flow):
    """Turns over the bits of one byte of the next piece; which one, ``at`` says."""

    at: int | None = None

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := bytearray(await source.read(65536)):
            if self.at is not None:
                data[self.at % len(data)] ^= 0xFF
                self.at = None
            sink.write(bytes(data))
            await sink.drain()


@pytest.mark.timeout(120)
async def test_what_follows_a_garbled_answer_is_right(mariadb: Any) -> None:
    """The driver's parsing error was a 500, and the rest of the answer met the next user."""
    async with Proxy(mariadb.port) as proxy:
        proxy.replies = garbling = _Garbling()
        store = Place(proxy.url_for(mariadb.url)).store(utc_now, timeout=0.5, connections=1)
        record = new_record(utc_now)
        await store.create(record)
        for at in range(60, 120, 3):  # the names of columns: errors amid the answer
            garbling.at = at
            with contextlib.suppress(StoreUnavailable, DamagedRecordError):
                await store.load(record.digest)
            garbling.at = None
            assert await store.load(record.digest) == record
        await store.close()
