"""What the tests of the Redis and Valkey store share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from eyewall.stores.resp import RespStore

EVERY_KIND = ("redis6", "redis7", "redis7_tls", "valkey8", "valkey9", "cluster", "sentinel")

Factory = Callable[..., RespStore]


@pytest.fixture
async def stores() -> AsyncIterator[Factory]:
    """Return a function that opens a store and remembers to close it."""
    opened: list[RespStore] = []

    def open_store(url: str, **options: Any) -> RespStore:
        opened.append(RespStore(url, **options))
        return opened[-1]

    yield open_store
    for store in opened:
        await store.close()
