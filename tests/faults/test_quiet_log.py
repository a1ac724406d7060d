"""I8: an outage of which half is over at every request must not write a line for each of them."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from eyewall.errors import StoreUnavailable
from tests.core.world import World

REQUESTS = 30


async def test_a_store_that_reads_but_does_not_write_floods_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Harm: the disk is full, and the log fills what is left of it: two lines at each request."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")

    async def full(*_arguments: Any, **_options: Any) -> bool:
        raise StoreUnavailable("No space left on device")

    monkeypatch.setattr(world.store, "replace", full)
    caplog.set_level(logging.INFO, "eyewall")
    for number in range(REQUESTS):
        with pytest.raises(StoreUnavailable):
            await browser.put(k=number)
    assert len(caplog.records) <= 10, f"{len(caplog.records)} lines for {REQUESTS} requests"
