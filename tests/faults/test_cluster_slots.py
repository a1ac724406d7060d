"""F13: slots of a cluster move to another master while people use their sessions.

A slot on its way belongs to two masters at once: the old one answers for the keys it still has, and sends on
by ASK what is about others, also those that are only now being made. Once the slot has moved, it says MOVED.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import pytest

from tests.examples.pair import SECRET
from tests.examples.program import LAB, Program
from tests.faults.kit import User, check_log, report, running, users
from tests.servers.group import MASTERS, SLOTS, Cluster, ClusterMember, wait_for
from tests.servers.resp import RespServer

pytestmark = pytest.mark.server

SETTINGS: Final = {"EYEWALL_COOKIE_SECRET": SECRET, "EYEWALL_STORE_TIMEOUT": "10"}
"""Patient, for on a busy machine an answer may take a second without any slot's doing."""

MOVING: Final = 1500
"""How many slots move, beside those of the keys that are there: every eleventh new key is in one of them."""

MIXED: Final = 0.5
"""Seconds for which they belong to both masters, before and after their keys have been carried over."""


class Person:
    """Somebody who uses a session in every way there is, request after request, and checks every answer."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.requests = 0
        self._counted = 0
        self._lab = cycle(range(len(user.labs)))

    async def live(self, enough: asyncio.Event) -> None:
        """Do it until told to stop."""
        while not enough.is_set():
            assert await self.user.put("k", lab=next(self._lab)) == 204
            assert await self.user.read("k", lab=next(self._lab)) == 200
            await self._count_in_parallel()
            for path in ("/regenerate", "/reauthenticate", "/password"):
                await self._does("POST", path)
            await self._ends_another_device(everywhere=True)
            await self._ends_another_device(everywhere=False)
            self.requests += 2

    async def _does(self, method: str, path: str, **data: Any) -> Any:
        self.requests += 1
        answer = await self.user.ask(path, method, lab=next(self._lab), **data)
        assert answer.code in (200, 204), f"{path}: {answer.code} {answer.body!r}"
        return json.loads(answer.body or b"null")

    async def _count_in_parallel(self) -> None:
        told = await asyncio.gather(*(self._does("POST", "/incr?k=n") for _ in range(5)))
        assert sorted(one["value"] for one in told) == list(range(self._counted + 1, self._counted + 6))
        self._counted += 5

    async def _ends_another_device(self, *, everywhere: bool) -> None:
        """A session that the list of the principal does not name could not be ended."""
        other = User(self.user.labs, "elsewhere")
        other.name = self.user.name
        assert await other.sign_in(lab=next(self._lab)) == 200
        devices = (await self._does("GET", "/devices"))["devices"]
        assert sorted(one["current"] for one in devices) == [False, True]
        if everywhere:
            assert (await self._does("POST", "/logout-others"))["ended"] == 1
        else:
            (handle,) = (one["id"] for one in devices if not one["current"])
            await self._does("POST", "/devices/revoke", id=handle)
        assert await other.principal(lab=next(self._lab)) is None, "revoked, and still signed in"
        other.close()


class Move:
    """Slots of the fullest member on their way to ``target``, as an operator's tool carries them over."""

    def __init__(self, members: Sequence[RespServer], target: RespServer) -> None:
        self._members, self._target = members, target
        self._source = max(members, key=lambda one: len(_keys_of(one)))
        first = SLOTS * members.index(self._source) // MASTERS
        self._slots = {*map(self._slot_of, _keys_of(self._source)), *range(first, first + MOVING)}

    def _slot_of(self, key: str) -> int:
        return int(self._source.ask("CLUSTER", "KEYSLOT", key)[1:])

    def begin(self) -> None:
        """From now on the source answers for what it has, and the target gets what is new."""
        here, there = _name_of(self._source), _name_of(self._target)
        _tell(self._target, (f"CLUSTER SETSLOT {slot} IMPORTING {here}" for slot in self._slots))
        _tell(self._source, (f"CLUSTER SETSLOT {slot} MIGRATING {there}" for slot in self._slots))

    def carry_over(self) -> int:
        """Carry over what is there, key by key; return how many keys that were."""
        moving = [key for key in _keys_of(self._source) if self._slot_of(key) in self._slots]
        for key in moving:
            told = self._source.ask("MIGRATE", "127.0.0.1", str(self._target.port), key, "0", "1000")
            assert told.startswith(("+OK", "+NOKEY")), told
        return len(moving)

    def finish(self) -> None:
        """From now on they are the target's alone."""
        there = _name_of(self._target)
        for member in (self._target, *self._members):
            _tell(member, (f"CLUSTER SETSLOT {slot} NODE {there}" for slot in self._slots))


def _keys_of(member: RespServer) -> list[str]:
    return [word for word in member.ask("KEYS", "*").split("\r\n") if word.startswith("eyewall:")]


def _name_of(member: RespServer) -> str:
    return member.ask("CLUSTER", "MYID").split("\r\n")[1]


def _tell(member: RespServer, commands: Iterable[str]) -> None:
    lines = list(commands)
    with socket.create_connection(("127.0.0.1", member.port), timeout=20) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        answers = connection.makefile("rb")
        assert {answers.readline() for _ in lines} == {b"+OK\r\n"}


@asynccontextmanager
async def two_labs(url: str, folder: Path) -> AsyncIterator[list[Program]]:
    """Two processes of one application. Nobody restarts them, and they log nothing."""
    async with AsyncExitStack() as stack:
        labs = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            lab = Program(*LAB, folder=folder / name, EYEWALL_URL=url, **SETTINGS)
            labs.append(await stack.enter_async_context(running(lab)))
        yield labs
        for lab in labs:
            check_log(lab, most=0)


async def test_slots_that_move_are_noticed_by_nobody(fresh_server: Any, tmp_path: Path) -> None:
    """Harm: whoever adds a server to the cluster signs people out, or shows them errors for minutes."""
    cluster = fresh_server("cluster")
    names = [f"person {number}" for number in range(6)]
    async with two_labs(cluster.url, tmp_path) as labs, users(labs, *names) as everybody:
        people, enough = [Person(user) for user in everybody], asyncio.Event()
        lives = asyncio.gather(*(person.live(enough) for person in people))
        target = await asyncio.to_thread(_joined, cluster)
        carried = await _moved(await asyncio.to_thread(Move, cluster.members[:MASTERS], target))
        enough.set()
        await lives
    asked, moved = (_said(cluster.members, word) for word in ("ASK", "MOVED"))
    report(f"{sum(one.requests for one in people)} requests, {carried} keys, {asked} ASK, {moved} MOVED")
    assert min(carried, asked, moved) > 0, "nobody met a slot on its way: this test shows nothing"


def _joined(cluster: Cluster) -> ClusterMember:
    """Return one more member, which has no slot yet."""
    new = ClusterMember()
    cluster.members.append(new)
    new.start()
    cluster.members[0].ask("CLUSTER", "MEET", "127.0.0.1", str(new.port), str(new.bus_port))
    wait_for("joining", lambda: all(map(_sees_all, cluster.members)))
    return new


def _sees_all(member: RespServer) -> bool:
    info = member.ask("CLUSTER", "INFO")
    return "cluster_state:ok" in info and f"cluster_known_nodes:{MASTERS + 1}" in info


async def _moved(move: Move) -> int:
    await asyncio.to_thread(move.begin)
    await asyncio.sleep(MIXED)
    carried = await asyncio.to_thread(move.carry_over)
    await asyncio.sleep(MIXED)
    carried += await asyncio.to_thread(move.carry_over)  # a lock or a marker may have been left meanwhile
    await asyncio.to_thread(move.finish)
    await asyncio.sleep(MIXED)
    return carried


def _said(members: Sequence[RespServer], word: str) -> int:
    """How often the members have answered with this error."""
    lines = [line for member in members for line in member.ask("INFO", "errorstats").split("\r\n")]
    return sum(int(line.partition("count=")[2]) for line in lines if line.startswith(f"errorstat_{word}:"))
