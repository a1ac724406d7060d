"""What a store says at the application's start: what a person must mend, and what may pass by itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from eyewall.core.opening import open_store
from eyewall.core.store import SelfCheck, utc_now
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores.file import FileStore
from eyewall.stores.memory import MemoryStore
from tests.servers.process import free_port

SERVERS = ("postgres", "mariadb", "redis7", "valkey9", "cluster", "sentinel", "mongodb")
NO_HOST = "no-such-host.invalid"
ADDRESSES = {
    "postgres": "postgresql://shop:hunter2@{}/shop",
    "mariadb": "mysql://shop:hunter2@{}/shop",
    "redis": "redis://:hunter2@{}/0",
    "cluster": "redis+cluster://:hunter2@{}",
    "sentinel": "redis+sentinel://:hunter2@{}/main/0",
    "mongodb": "mongodb://shop:hunter2@{}/shop",
}
Check = Callable[[str], Any]


@pytest.fixture
async def check() -> Check:
    """Return a function that opens the store of a URL, checks it, and closes it."""

    async def checked(url: str) -> None:
        # MongoDB's driver looks for a server until the deadline; the others say at once what is wrong.
        patience = timedelta(seconds=1 if url.startswith("mongodb") else 10)
        store = open_store(Settings(url=url, store_timeout=patience), utc_now)
        assert isinstance(store, SelfCheck)
        try:
            await store.check()
        finally:
            await store.close()

    return checked


@pytest.mark.parametrize("name", SERVERS)
async def test_a_good_server_passes(name: str, request: pytest.FixtureRequest, check: Check) -> None:
    """Harm: a check that complains about a good server keeps the application down."""
    await check(request.getfixturevalue(name).url)


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES.keys())
async def test_an_unknown_host_is_said_in_one_line(address: str, check: Check) -> None:
    """Harm: a typing mistake in a host's name looks like an outage, and somebody waits for it to pass."""
    with pytest.raises(ConfigurationError, match=r"check (its|the host's) name") as caught:
        await check(address.format(NO_HOST))
    assert NO_HOST in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES.keys())
async def test_nobody_there_may_pass(address: str, check: Check) -> None:
    """Harm: an application that starts before its database, as after a power cut, stays down."""
    with pytest.raises(StoreUnavailable) as caught:
        await check(address.format(f"127.0.0.1:{free_port()}"))
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 250, "a driver's insides are no message"


async def test_memory_passes() -> None:
    """Harm: a store that cannot fail stops the application."""
    store = MemoryStore()
    assert isinstance(store, SelfCheck)
    await store.check()


async def test_a_folder_passes_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    """Harm: every start leaves a file behind."""
    store = FileStore(tmp_path / "data")
    assert isinstance(store, SelfCheck)
    await store.check()
    await store.close()
    assert list((tmp_path / "data" / "records").iterdir()) == []


async def test_a_folder_that_vanished_is_said_in_one_line(tmp_path: Path) -> None:
    """Harm: a volume that is not mounted shows at the first visitor's first save."""
    store = FileStore(tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "records")
    with pytest.raises(ConfigurationError, match="let this process write there") as caught:
        await store.check()
    await store.close()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_folder_that_may_not_be_written_to_is_said_in_one_line(tmp_path: Path) -> None:
    """Harm: it shows at the first visitor's first save."""
    store = FileStore(tmp_path / "data")
    (tmp_path / "data" / "records").chmod(0o500)
    with pytest.raises(ConfigurationError, match="let this process write there"):
        await store.check()
    await store.close()
