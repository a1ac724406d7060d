"""A server that is up and refuses: full, read-only, loading, locked, short of connections, short of nodes.

F8, F10, F12 (Redis and Valkey), F15 (PostgreSQL), F30 (MongoDB), with what goes on working meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.examples.pair import SECRET
from tests.examples.program import LAB, Program
from tests.faults.kit import User, check_log, running, users
from tests.servers.group import wait_for
from tests.servers.process import free_port
from tests.servers.resp import Redis7, RespServer
from tests.stores.mongodb_proxy import Answer, proxied

pytestmark = pytest.mark.server

FreshServer = Callable[[str], Any]
QUIET = 12


@asynccontextmanager
async def lab_over(url: str, folder: Path) -> AsyncIterator[Program]:
    """Run the lab on the store at ``url``; its log stays short."""
    lab = Program(*LAB, folder=folder, EYEWALL_URL=url, EYEWALL_COOKIE_SECRET=SECRET)
    async with running(lab):
        yield lab
        check_log(lab, most=QUIET)


# Redis and Valkey


def all_at_once(server: RespServer, *lines: str) -> None:
    """Send commands on one connection, which must sign in first."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(4096):  # until it has answered everything
            pass


def break_snapshots(server: RespServer) -> None:
    """Let the server fail to write its snapshot, so that it refuses to take what it could lose."""
    (server.folder / "dump.rdb").mkdir()
    server.ask("CONFIG", "SET", "save", "3600 1")
    server.ask("BGSAVE")
    wait_for("failing to save", lambda: "rdb_last_bgsave_status:err" in server.ask("INFO", "persistence"))


def demand_password(server: RespServer) -> None:
    """Set a password that the application does not know."""
    server.ask("CONFIG", "SET", "requirepass", "changed")
    all_at_once(server, "AUTH changed", "CLIENT KILL TYPE normal SKIPME yes")


@dataclass(frozen=True)
class Refusal:
    """A state in which the server refuses something.

    Args:
        begin: brings the server into it.
        end: and out of it.
        reads: whether sessions can be read meanwhile.
        ends: whether they can be ended.
    """

    name: str
    begin: Callable[[RespServer], object]
    end: Callable[[RespServer], object]
    reads: bool = True
    ends: bool = False

    def __str__(self) -> str:
        return self.name


REFUSALS = (
    Refusal(
        "full",
        lambda server: server.ask("CONFIG", "SET", "maxmemory", "1"),
        lambda server: server.ask("CONFIG", "SET", "maxmemory", "0"),
        ends=True,
    ),
    Refusal("MISCONF", break_snapshots, lambda server: server.ask("CONFIG", "SET", "save", "")),
    Refusal(
        "READONLY",
        lambda server: server.ask("REPLICAOF", "127.0.0.1", str(free_port())),
        lambda server: server.ask("REPLICAOF", "NO", "ONE"),
    ),
    Refusal(
        "NOREPLICAS",
        lambda server: server.ask("CONFIG", "SET", "min-replicas-to-write", "3"),
        lambda server: server.ask("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    Refusal(
        "NOAUTH",
        demand_password,
        lambda server: all_at_once(server, "AUTH changed", 'CONFIG SET requirepass ""'),
        reads=False,
    ),
)


@pytest.mark.parametrize("refusal", REFUSALS, ids=str)
async def test_what_the_server_refuses_is_503_and_the_rest_goes_on(
    refusal: Refusal, fresh_server: FreshServer, tmp_path: Path
) -> None:
    """F8, F10, F12. Harm: a full or demoted server is a 500, a false success, or the end of all sessions."""
    server = fresh_server("redis7")
    async with lab_over(server.url, tmp_path) as lab, users([lab], "alice", "bob", "carol") as people:
        alice, bob, carol = people
        refusal.begin(server)
        assert await alice.put("first") == 503
        assert await alice.sign_in() == 503
        assert await alice.read("first") == (200 if refusal.reads else 503)
        assert await bob.sign_out() == (204 if refusal.ends else 503), "claims no success that is not one"
        refusal.end(server)
        await carol.recovered()
        if refusal.ends:
            assert await bob.sign_in() == 200
        for user in people:
            await user.recovered()


async def test_a_server_that_still_loads_is_503(tmp_path: Path) -> None:
    """F12. Harm: after a restart everybody is signed out while the server reads its snapshot."""
    slow = ("--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024")
    with Redis7() as server:
        async with lab_over(server.url, tmp_path) as lab, users([lab], "alice", "bob") as people:
            server.ask("EVAL", "for i = 1, 2000 do redis.call('SET', 'k' .. i, 'v') end", "0")
            assert server.ask("SAVE") == "+OK\r\n"
            server.kill()
            server.options = slow
            starting = asyncio.ensure_future(asyncio.to_thread(server.start))
            while not _is_loading(server):  # noqa: ASYNC110 - a server in another process tells no event
                await asyncio.sleep(0.01)
            codes = [await user.read("first") for user in people]
            assert _is_loading(server), "it was too fast to tell"
            assert codes == [503, 503]
            await starting
            for user in people:
                await user.recovered()


def _is_loading(server: RespServer) -> bool:
    try:
        return server.ask("PING").startswith("-LOADING")
    except OSError:
        return False


async def test_a_cluster_that_misses_a_master_is_503_until_it_is_back(
    fresh_server: FreshServer, tmp_path: Path
) -> None:
    """F12. Harm: CLUSTERDOWN as a 500, or an application that never finds the cluster again."""
    cluster = fresh_server("cluster")
    first, *others = cluster.members
    async with lab_over(cluster.url, tmp_path) as lab:
        alice = User([lab], "alice")
        assert await alice.sign_in() == 200
        first.kill()
        await asyncio.to_thread(wait_for, "seeing it gone", lambda: all(map(_is_down, others)))
        for _ in range(5):  # whichever of the masters has the key
            assert await User([lab], "somebody").sign_in() == 503
        await asyncio.to_thread(first.start)
        assert await _signs_in_again(alice) == 200
        await alice.recovered()
        alice.close()


def _is_down(member: RespServer) -> bool:
    return "cluster_state:fail" in member.ask("CLUSTER", "INFO")


async def _signs_in_again(user: User) -> int:
    """Sign in as soon as the cluster serves. What the killed member had in memory is gone."""
    code = 503
    while code == 503:
        code = await user.sign_in()
    return code


# PostgreSQL


async def test_a_postgresql_without_free_connections_is_503_until_there_are_some(
    fresh_server: FreshServer, tmp_path: Path
) -> None:
    """F15. Harm: a neighbour that takes all connections makes errors, or a loop that asks without end."""
    server = fresh_server("postgres")
    await _execute(server, "ALTER SYSTEM SET max_connections = 12")
    server.halt()
    server.start()
    async with lab_over(server.url, tmp_path) as lab, users([lab], "alice", "bob") as people:
        hogs = [await asyncpg.connect(server.url)]
        await hogs[0].execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
        while len(hogs) < 12:
            try:
                hogs.append(await asyncpg.connect(server.url))
            except asyncpg.TooManyConnectionsError:
                break
        assert {await user.read("first") for user in people} == {503}
        assert {await user.put("lost") for user in people} == {503}
        for hog in hogs:
            await hog.close()
        for user in people:
            await user.recovered()


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
async def test_a_statement_that_postgresql_gives_up_is_503(
    setting: str, fresh_server: FreshServer, tmp_path: Path
) -> None:
    """F15. Harm: a backup that holds a lock makes a 500 of every page."""
    server = fresh_server("postgres")
    await _execute(server, f"ALTER SYSTEM SET {setting} = '200ms'")
    await _execute(server, "SELECT pg_reload_conf()")
    async with lab_over(server.url, tmp_path) as lab, users([lab], "alice", "bob") as people:
        backup = await asyncpg.connect(server.url)
        (table,) = await backup.fetchrow(
            "SELECT relname FROM pg_class WHERE relname LIKE 'eyewall%' AND relkind = 'r'"
        )
        transaction = backup.transaction()
        await transaction.start()
        await backup.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")  # others may read
        assert {await user.read("first") for user in people} == {200}
        assert {await user.put("lost") for user in people} == {503}
        await transaction.rollback()
        await backup.close()
        for user in people:
            await user.recovered()


async def test_serializable_transactions_lose_nothing(fresh_server: FreshServer, tmp_path: Path) -> None:
    """F15. Harm: a stricter database turns every parallel request into an error."""
    server = fresh_server("postgres")
    await _execute(server, "ALTER SYSTEM SET default_transaction_isolation = 'serializable'")
    await _execute(server, "SELECT pg_reload_conf()")
    async with lab_over(server.url, tmp_path) as lab, users([lab], "alice", "bob") as people:
        asked = [user.ask("/incr?k=n", "POST") for _ in range(60) for user in people]
        answers = await asyncio.gather(*asked)
        counted = sum(answer.code == 200 for answer in answers)
        values = [json.loads((await user.ask("/kv?k=n")).body)["value"] for user in people]
        assert sum(values) == counted
        assert counted > 60


async def _execute(server: Any, statement: str) -> None:
    connection = await asyncpg.connect(server.url)
    await connection.execute(statement)
    await connection.close()


# MongoDB: the server here has no replica set, so a proxy says what a primary says that steps down


class SteppingDown:
    """Answers as a primary does that has stepped down, while ``is_down``."""

    is_down = False
    asked = 0

    def __call__(self, body: dict[str, Any]) -> dict[str, Any] | None:
        if not self.is_down or next(iter(body)) not in (
            "find",
            "insert",
            "update",
            "delete",
            "findAndModify",
        ):
            return None
        self.asked += 1
        return {"ok": 0.0, "code": 10107, "codeName": "NotWritablePrimary", "errmsg": "not primary"}


async def test_a_primary_that_steps_down_is_503_until_there_is_another(mongodb: Any, tmp_path: Path) -> None:
    """F30. Harm: an election in the replica set signs everybody out."""
    primary = SteppingDown()
    answer: Answer = primary
    async with (
        proxied(mongodb.url, answer) as place,
        lab_over(f"mongodb://{place}/down", tmp_path) as lab,
        users([lab], "alice", "bob") as people,
    ):
        primary.is_down = True
        assert {await user.read("first") for user in people} == {503}
        assert {await user.put("lost") for user in people} == {503}
        assert {await user.sign_out() for user in people} == {503}
        assert primary.asked > 0
        primary.is_down = False
        for user in people:
            await user.recovered()
