"""U06: processes are killed at any moment; then the lists of their principals' sessions are audited.

"Sign out everywhere" ends what a list names. A session that is live and not on it is a thief's for good; an
entry without a session must do no harm, and must not stay for ever.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pytest

from eyewall import Settings
from eyewall.core.opening import open_store
from eyewall.core.store import Clock, utc_now
from eyewall.stores.file import FileStore
from eyewall.stores.resp import RespStore
from eyewall.stores.resp_layout import LISTED_LATE, mark_of
from tests.examples.pair import SECRET
from tests.examples.program import environment
from tests.faults.kit import report

pytestmark = pytest.mark.server

KILLS: Final = {"redis7": 10, "file": 10, "postgres": 5, "sqlite": 5}
"""How many processes are killed in each of the stores."""

TIMES: Final = 50 if os.environ.get("EYEWALL_TEST_SOAK") else 1

MOST_DONE: Final = 40
"""How much has been done at most when a process is killed, and has been acknowledged."""

AT_REST: Final = 0.3
"""Seconds in which a server has done what it was asked by a process that is no more."""


class Breeder:
    """Makes the processes that are killed: one after another, each with principals of its own.

    Args:
        url: of the store.
    """

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.index_worker", url, SECRET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
            env=environment(),
        )

    def kill_one(self, principals: Sequence[str], chance: random.Random) -> list[bytes]:
        """Let a process live for a while; return the digests whose end was acknowledged in it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(principals) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        lines = iter(self._process.stdout.readline, "dead\n")
        said = list(islice(lines, chance.randint(1, MOST_DONE)))
        time.sleep(chance.uniform(0, 0.005))
        os.kill(pid, signal.SIGKILL)
        said += lines
        return [bytes.fromhex(line.split()[1]) for line in said if line.startswith("ended")]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process as process:
            process.kill()


@pytest.fixture(params=KILLS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, int]:
    """The address of each store in turn, and how many are killed there."""
    kills = KILLS[request.param] * TIMES
    match request.param:
        case "sqlite":
            return f"sqlite:///{tmp_path}/sessions.db", kills
        case "file":
            return f"file://{tmp_path}/sessions", kills
        case name:
            server: Any = request.getfixturevalue(name)
            return str(server.url), kills


async def test_killed_processes_leave_no_session_that_its_list_does_not_name(place: tuple[str, int]) -> None:
    """Harm: a server is killed, and from then on "sign out everywhere" leaves a thief signed in."""
    url, kills = place
    async with _opened(url) as store:
        await store.load(bytes(32))  # whatever it makes at first use is there
        everybody, ended = await asyncio.to_thread(_killed, url, kills)
        await asyncio.sleep(AT_REST)
        for digest in ended:
            assert await store.load(digest) is None, "what was told to have ended goes on"
        found = [record async for record in store.scan() if record.principal in everybody]
        assert found, "nothing was under way when they were killed: this test shows nothing"
        for principal in everybody:
            live = {record.digest for record in found if record.principal == principal}
            assert {record.digest for record in await store.find_principal(principal)} == live
            assert await _entries(store, principal) >= live
            assert await store.delete_principal(principal) >= len(live)
        assert [record async for record in store.scan() if record.principal in everybody] == []
    orphans = await _lapsed(url, everybody)
    report(
        f"{url.partition(':')[0]}: {kills} killed, {len(ended)} ended, {len(found)} left, {orphans} orphans"
    )
    assert ended, "nobody has come as far as to sign out"


def _killed(url: str, kills: int) -> tuple[list[str], list[bytes]]:
    """Return everybody who lived in a process that was killed, and what was acknowledged to have ended."""
    chance, run = random.Random(6), os.urandom(4).hex()
    everybody: list[str] = []
    ended: list[bytes] = []
    with Breeder(url) as breeder:
        for number in range(kills):
            principals = [f"{run}-{number}-{letter}" for letter in "ab"]
            ended += breeder.kill_one(principals, chance)
            everybody += principals
    return everybody, ended


async def _lapsed(url: str, everybody: Sequence[str]) -> int:
    """Have all lists looked at once more, much later; nothing may be left of them. Return what was."""
    left = 0
    async with _opened(url, lambda: utc_now() + timedelta(days=2) + LISTED_LATE) as later:
        for principal in everybody:
            left += len(await _entries(later, principal))
            assert await later.find_principal(principal) == []
            assert not await _entries(later, principal), "an entry that leads nowhere stays for ever"
    return left


@asynccontextmanager
async def _opened(url: str, clock: Clock = utc_now) -> AsyncIterator[Any]:
    store = open_store(Settings(url=url, store_timeout=timedelta(seconds=10)), clock)
    yield store
    await store.close()


async def _entries(store: Any, principal: str) -> set[bytes]:
    """What the list of ``principal`` names, where there is a list apart from the records."""
    if isinstance(store, RespStore):
        return set(await store._ask(("ZRANGE", store._principal_key(mark_of(principal)), 0, -1)))
    if isinstance(store, FileStore):
        return set(store._files._markers.digests(principal))
    return {record.digest for record in await store.find_principal(principal)}
