"""When calls to Redis and Valkey leave: those of one turn of the event loop together, a lone one at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from eyewall.stores import resp_link
from eyewall.stores.resp_wire import Wire
from tests.servers.resp import RespServer
from tests.stores.resp_kit import Factory, stores

__all__ = ["stores"]


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each write held, in order."""
    seen: list[int] = []
    send = Wire.send

    def counting(self: Wire, calls: Any) -> None:
        seen.append(len(calls))
        send(self, calls)

    monkeypatch.setattr(Wire, "send", counting)
    monkeypatch.setattr(resp_link, "LATELY", 60.0)  # however slow the machine
    return seen


async def test_a_call_that_comes_alone_leaves_at_once(
    valkey9: RespServer, stores: Factory, writes: list[int]
) -> None:
    """A turn of the event loop, spent waiting for others, costs a lone visitor as much as the call."""
    store = stores(valkey9.url)
    await _load(store, times=2)
    writes.clear()
    asked = store._links.here().send(("GET", b"k"))
    assert writes == [1]
    assert await asked == [None]


async def test_a_lone_call_after_a_pause_waits_until_the_loop_has_heard_of_lost_connections(
    valkey9: RespServer, stores: Factory, writes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves on a connection that died meanwhile is a 503 after each restart of the server."""
    store = stores(valkey9.url)
    await _load(store, times=2)
    writes.clear()
    monkeypatch.setattr(resp_link, "LATELY", 0.0)
    await _load(store, times=1)
    asked = store._links.here().send(("GET", b"k"))
    assert writes == [1]
    await asked
    assert writes == [1, 1]


@pytest.mark.parametrize("count", [2, 5])
async def test_calls_of_one_turn_leave_together(
    count: int, valkey9: RespServer, stores: Factory, writes: list[int]
) -> None:
    """A write for each call would be most of what a busy site pays for its sessions."""
    store = stores(valkey9.url)
    await _load(store, times=2)
    writes.clear()
    for _ in range(20):
        await asyncio.gather(*_loads(store, count))
    assert writes == [1, count - 1, *[count] * 19]


async def test_a_lone_call_after_many_leaves_at_once_again(
    valkey9: RespServer, stores: Factory, writes: list[int]
) -> None:
    """One busy moment would make every later call dear, for ever."""
    store = stores(valkey9.url)
    await asyncio.gather(*_loads(store, 5))
    await _load(store, times=1)
    writes.clear()
    asked = store._links.here().send(("GET", b"k"))
    assert writes == [1]
    await asked


async def test_a_call_beside_one_under_way_waits_for_the_others_of_its_turn(
    valkey9: RespServer, stores: Factory, writes: list[int]
) -> None:
    """Two users at a time would cost two writes each turn: nearly twice the price."""
    store = stores(valkey9.url)
    await _load(store, times=2)
    writes.clear()
    link: Any = store._links.here()
    asked = [link.send(("GET", b"k")) for _ in range(3)]
    assert writes == [1]
    await asyncio.gather(*asked)
    assert writes == [1, 2]


async def _load(store: Any, times: int) -> None:
    for _ in range(times):
        await store.load(bytes(32))


def _loads(store: Any, count: int) -> Iterable[Any]:
    return (store.load(bytes([number]) * 32) for number in range(count))
