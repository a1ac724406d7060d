"""Two server processes on one folder: what was acknowledged is there, whoever is killed when.

What two processes promise while both live is tested on every store, in ``test_every_store``.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tornado.httpclient import HTTPError

from eyewall.stores.file import FileStore
from tests.examples.pair import Visitor, two_labs


@pytest_asyncio.fixture
async def visitor(tmp_path: Path) -> AsyncIterator[Visitor]:
    """Two running labs on one file store, and somebody who has a session already."""
    with two_labs(tmp_path, EYEWALL_PATH=str(tmp_path / "data")) as labs:
        visitor = Visitor(labs)
        assert (await visitor.post(0, "/kv", k="start", v=1)).code == 204
        yield visitor
        visitor.close()


async def test_killing_a_writer_loses_nothing_acknowledged_and_damages_nothing(
    visitor: Visitor, tmp_path: Path
) -> None:
    """Kill -9 in the middle of writes, ten times over, while the other process goes on."""
    acknowledged: list[int] = []

    async def write(number: int) -> None:
        try:
            answer = await visitor.post(number % 2, "/kv", k=f"k{number}", v=number)
        except (OSError, HTTPError):  # the process that was asked is dead
            return
        if answer.code == 204:
            acknowledged.append(number)

    number = 0
    for _ in range(10):
        burst = [asyncio.ensure_future(write(number + n)) for n in range(30)]
        number += 30
        await asyncio.wait(burst, return_when=asyncio.FIRST_COMPLETED)
        visitor.labs[0].end(signal.SIGKILL)
        await asyncio.gather(*burst)
        visitor.labs[0].start()
    assert len(acknowledged) >= 150, "the survivor must have gone on serving"
    for done in acknowledged:
        assert await visitor.value(f"k{done}", lab=done % 2) == done
    store = FileStore(tmp_path / "data")
    records = [record async for record in store.scan()]
    assert len(records) == 1
    await store.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_told_to_stop_finishes_what_it_began(visitor: Visitor, number: signal.Signals) -> None:
    """A deployment is no outage."""
    slow = asyncio.ensure_future(visitor.fetch(0, "/slow?ms=300&write=late"))
    await asyncio.sleep(0.1)
    code = await asyncio.to_thread(visitor.labs[0].end, number)
    assert code == 0
    answer = await slow
    assert answer.code == 200
    assert await visitor.value("late", lab=1) is not None
