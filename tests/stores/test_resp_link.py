"""When calls to Redis and Valkey leave: those of one turn of the event loop together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eyewall.stores.resp_wire import Wire
from tests.servers.resp import RespServer
from tests.stores.resp_kit import Factory, stores

__all__ = ["stores"]


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_calls_of_one_turn_leave_together(
    count: int, valkey9: RespServer, stores: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write for each call would be most of what a busy site pays for its sessions."""
    store = stores(valkey9.url)
    await store.load(bytes(32))  # from here on, there is a connection
    writes, send = list[int](), Wire.send

    def counting(self: Wire, calls: Any) -> None:
        writes.append(len(calls))
        send(self, calls)

    monkeypatch.setattr(Wire, "send", counting)
    for _ in range(20):
        await asyncio.gather(*(store.load(bytes([number]) * 32) for number in range(count)))
    assert writes == [count] * 20
