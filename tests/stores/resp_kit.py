"""What the tests of the Redis and Valkey store share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from eyewall.stores.resp import RespStore
from tests.servers.patience import PATIENCE

EVERY_KIND = ("redis6", "redis7", "redis7_tls", "valkey8", "valkey9", "cluster", "sentinel")

Factory = Callable[..., RespStore]


@pytest.fixture
async def stores() -> AsyncIterator[Factory]:
    """Return a function that opens a store and remembers to close it; its deadline is a long one."""
    opened: list[RespStore] = []

    def open_store(url: str, **options: Any) -> RespStore:
        opened.append(RespStore(url, **{"timeout": PATIENCE, **options}))
        return opened[-1]

    yield open_store
    for store in opened:
        await store.close()


def links_of(store: RespStore) -> list[Any]:
    """What ``store`` has to each of its servers in this event loop."""
    carrier: Any = store._links.here()
    return list(carrier._links.values()) if hasattr(carrier, "_links") else [carrier]


@contextmanager
def short_deadline(store: RespStore) -> Iterator[None]:
    """Calls that are made meanwhile, and get no answer, are soon given up; all others have time."""
    _give(store, 0.2)
    yield
    _give(store, PATIENCE)


def _give(store: RespStore, seconds: float) -> None:
    for link in links_of(store):
        link._timeout = seconds
        if link._timer is not None:  # it is set for the deadline of an earlier call
            link._timer.cancel()
            link._timer = None
