"""Two server processes on one folder: what was acknowledged is there, whoever is killed when."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPResponse

from eyewall.stores.file import FileStore
from tests.examples.program import LAB, Program


class Pair:
    """Two labs on one file store, and a client whose cookie both accept."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.folder = folder
        self.labs = []
        for name in ("one", "two"):
            home = folder / name
            home.mkdir()
            settings = {"EYEWALL_PATH": str(folder / "data")}
            self.labs.append(stack.enter_context(Program(*LAB, folder=home, **settings)))
        self.client = AsyncHTTPClient(force_instance=True, max_clients=200)
        self.cookie = ""

    async def fetch(self, lab: int, path: str, method: str = "GET", data: Any = None) -> HTTPResponse:
        """One request to one of the two; a connection that breaks counts as 599."""
        body = None if method == "GET" else json.dumps(data if data is not None else {})
        response = await self.client.fetch(
            self.labs[lab].url + path,
            method=method,
            body=body,
            headers={"Cookie": self.cookie} if self.cookie else {},
            raise_error=False,
            request_timeout=20,
        )
        for line in response.headers.get_list("Set-Cookie"):
            self.cookie = line.partition(";")[0]
        return response

    async def value(self, key: str, lab: int = 0) -> Any:
        """What one of the two answers for ``key``."""
        return json.loads((await self.fetch(lab, f"/kv?k={key}")).body)["value"]


@pytest_asyncio.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Two running labs; the visitor has a session already."""
    with ExitStack() as stack:
        running = Pair(stack, tmp_path)
        assert (await running.fetch(0, "/kv", "POST", {"k": "start", "v": 1})).code == 204
        yield running
        running.client.close()


async def test_a_hundred_parallel_writers_in_two_processes_lose_no_key(pair: Pair) -> None:
    """A load balancer spreads the requests of one page load."""
    answers = await asyncio.gather(
        *(pair.fetch(n % 2, "/kv", "POST", {"k": f"k{n}", "v": n}) for n in range(100))
    )
    assert [answer.code for answer in answers] == [204] * 100
    for number in range(100):
        assert await pair.value(f"k{number}", lab=number % 2) == number


async def test_two_hundred_increments_in_two_processes_are_two_hundred(pair: Pair) -> None:
    """Compare-and-swap across processes."""
    answers = await asyncio.gather(*(pair.fetch(n % 2, "/incr?k=n", "POST") for n in range(200)))
    assert [answer.code for answer in answers] == [200] * 200
    assert sorted(json.loads(answer.body)["value"] for answer in answers) == list(range(1, 201))
    assert await pair.value("n") == 200


async def test_signing_out_at_one_process_ends_a_slow_request_at_the_other(pair: Pair) -> None:
    """The slow one must not bring the session back."""
    cookie = pair.cookie
    slow = asyncio.ensure_future(pair.fetch(0, "/slow?ms=400&write=late"))
    await asyncio.sleep(0.1)
    assert (await pair.fetch(1, "/logout", "POST")).code == 204
    await slow
    pair.cookie = cookie
    assert await pair.value("start") is None
    assert await pair.value("late") is None


async def test_killing_a_writer_loses_nothing_acknowledged_and_damages_nothing(pair: Pair) -> None:
    """Kill -9 in the middle of writes, ten times over, while the other process goes on."""
    acknowledged: list[int] = []

    async def write(number: int) -> None:
        try:
            answer = await pair.fetch(number % 2, "/kv", "POST", {"k": f"k{number}", "v": number})
        except (OSError, HTTPError):  # the process that was asked is dead
            return
        if answer.code == 204:
            acknowledged.append(number)

    number = 0
    for _ in range(10):
        burst = [asyncio.ensure_future(write(number + n)) for n in range(30)]
        number += 30
        await asyncio.wait(burst, return_when=asyncio.FIRST_COMPLETED)
        pair.labs[0].end(signal.SIGKILL)
        await asyncio.gather(*burst)
        pair.labs[0].start()
    assert len(acknowledged) >= 150, "the survivor must have gone on serving"
    for done in acknowledged:
        assert await pair.value(f"k{done}", lab=done % 2) == done
    store = FileStore(pair.folder / "data")
    records = [record async for record in store.scan()]
    assert len(records) == 1
    await store.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_told_to_stop_finishes_what_it_began(pair: Pair, number: signal.Signals) -> None:
    """A deployment is no outage."""
    slow = asyncio.ensure_future(pair.fetch(0, "/slow?ms=300&write=late"))
    await asyncio.sleep(0.1)
    code = await asyncio.to_thread(pair.labs[0].end, number)
    assert code == 0
    answer = await slow
    assert answer.code == 200
    assert await pair.value("late", lab=1) is not None
