"""The application's own process: clients that vanish (F24), signals (F25), forks (F26), a bad start (F29)."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.examples.pair import SECRET, Visitor
from tests.examples.program import LAB, Program, environment
from tests.faults.kit import NOISE, User, check_log, running, users
from tests.servers.proxy import Flow, Proxy
from tests.servers.resp import Redis7, Redis7TLS

pytestmark = pytest.mark.server

NETWORKED = ("redis7", "postgres", "mariadb", "mongodb")


def lab_on(url: str, folder: Path, name: str = "lab", **more: str) -> Program:
    """A lab on the store at ``url``, in a folder of its own."""
    (folder / name).mkdir()
    return Program(*LAB, folder=folder / name, EYEWALL_URL=url, EYEWALL_COOKIE_SECRET=SECRET, **more)


async def begun(kind: str, requests: Flow) -> None:
    """Wait until the application has read a request, and asks its store for the session."""
    word = b"find" if kind == "mongodb" else b""  # MongoDB's driver also looks how its servers do
    while not any(word in piece for piece in requests.pieces):  # noqa: ASYNC110 - a proxy tells only of the first
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", NETWORKED)
async def test_a_client_that_vanishes_in_the_middle_of_a_save_saves_once(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """F24. Harm: half a change, a change made twice, or a log full of somebody's closed tabs."""
    server: Any = request.getfixturevalue(kind)
    async with (
        Proxy(server.port) as proxy,
        running(lab_on(proxy.url_for(server.url), tmp_path)) as lab,
        users([lab], "alice", "bob") as people,
    ):
        alice, _ = people
        for _ in range(5):
            proxy.requests.forget()
            _, writer = await asyncio.open_connection("127.0.0.1", lab.port)
            writer.write(_increment(alice))
            await begun(kind, proxy.requests)
            writer.transport.abort()
            await alice.recovered()
        async with asyncio.timeout(10):
            while await _count(alice) < 5:  # nobody waits for them
                await alice.recovered()
        assert await _count(alice) == 5, "each was under way, so each is stored, and once"
        check_log(lab, most=3)


async def _count(user: User) -> int:
    return int(json.loads((await user.ask("/kv?k=n")).body)["value"] or 0)


def _increment(user: User) -> bytes:
    cookies = _cookies_of(user)
    head = f"POST /incr?k=n HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\nContent-Length: 2\r\n\r\n"
    return head.encode() + b"{}"


def _cookies_of(user: User) -> str:
    return "; ".join(f"{name}={value}" for name, value in user.cookies.items())


@pytest.mark.parametrize("kind", NETWORKED)
async def test_a_server_told_to_stop_stores_what_it_holds_back(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """F25. Harm: a deployment loses what was being saved, or cuts the answers it holds back."""
    server: Any = request.getfixturevalue(kind)
    async with Proxy(server.port) as proxy:
        one = lab_on(proxy.url_for(server.url), tmp_path, "one", EYEWALL_STORE_TIMEOUT="5")
        other = lab_on(server.url, tmp_path, "two")
        async with running(one), running(other), users([other, one], "alice") as (alice,):
            proxy.requests.latency = 0.3  # the save is under way when the signal comes
            proxy.requests.forget()
            saving = asyncio.ensure_future(alice.put("late", lab=1))
            await begun(kind, proxy.requests)
            assert await asyncio.to_thread(one.end, signal.SIGTERM) == 0
            assert await saving == 204
            alice.labs = [other]
            assert await alice.read("late") == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_told_to_stop_waits_for_no_open_socket_or_stream(
    number: signal.Signals, redis7: Any, tmp_path: Path
) -> None:
    """F25. Harm: each deployment takes ten seconds, and cuts whoever listens without a word."""
    lab = lab_on(redis7.url, tmp_path)
    async with running(lab), users([lab], "alice") as (alice,), listening(lab, alice) as ends:
        began = time.monotonic()
        assert await asyncio.to_thread(lab.end, number) == 0
        took = time.monotonic() - began
        assert took < 1 + NOISE, f"it took {took:.2f} s"
        assert await asyncio.gather(*ends) == [ORDERLY] * 4
        check_log(lab, most=0)
        await asyncio.to_thread(lab.start)


async def test_a_server_told_to_stop_answers_a_slow_request_beside_open_sockets(
    redis7: Any, tmp_path: Path
) -> None:
    """F25. Harm: what makes room for a deployment takes the answer from who was nearly through."""
    lab = lab_on(redis7.url, tmp_path)
    async with running(lab), users([lab], "alice") as (alice,), listening(lab, alice) as ends:
        visitor = Visitor([lab])
        slow = asyncio.ensure_future(visitor.fetch(0, "/slow?ms=800&write=slow"))
        await asyncio.sleep(0.2)
        ending = asyncio.ensure_future(asyncio.to_thread(lab.end, signal.SIGTERM))
        assert await asyncio.gather(*ends) == [ORDERLY] * 4
        assert not slow.done(), "nobody who only listens waits for it"
        answer = await slow
        assert answer.code == 200
        assert await ending == 0
        await asyncio.to_thread(lab.start)
        assert await visitor.value("slow") == json.loads(answer.body)["value"]
        visitor.close()


ORDERLY = "ended in an orderly way"


@asynccontextmanager
async def listening(lab: Program, user: User) -> AsyncIterator[list[asyncio.Future[str]]]:
    """Two WebSockets and two streams, of ``user`` and of a stranger; gives how each ends."""
    with ExitStack() as closing:
        ends: list[asyncio.Future[str]] = []
        for who in ({"Cookie": _cookies_of(user)}, {}):
            socket = await websocket_connect(HTTPRequest(f"ws://127.0.0.1:{lab.port}/ws", headers=who))
            closing.callback(socket.close)
            assert await socket.read_message() is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
            closing.callback(writer.close)
            head = [f"{name}: {value}" for name, value in {"Host": "x", **who}.items()]
            writer.write("\r\n".join(["GET /events HTTP/1.1", *head, "", ""]).encode())
            await reader.readuntil(b": still here\n\n\r\n")
            ends += [asyncio.ensure_future(_socket_end(socket)), asyncio.ensure_future(_stream_end(reader))]
        yield ends


async def _socket_end(socket: WebSocketClientConnection) -> str:
    while await socket.read_message() is not None:
        pass
    return ORDERLY if socket.close_code == 1001 else f"closed with {socket.close_code}"


async def _stream_end(reader: asyncio.StreamReader) -> str:
    rest = await reader.readline()
    return ORDERLY if rest == b"0\r\n" else f"told {rest!r}"  # the last of an answer in chunks


@pytest.mark.parametrize("kind", ["redis7", "postgres"])
async def test_a_server_killed_in_the_middle_leaves_the_store_whole(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """F25. Harm: a crashed process leaves a lock behind, half a session, or one that nobody can end."""
    server: Any = request.getfixturevalue(kind)
    one, other = lab_on(server.url, tmp_path, "one"), lab_on(server.url, tmp_path, "two")
    async with running(one), running(other), users([other, one], "alice", "bob") as people:
        for turn in range(2):
            asked = [
                asyncio.ensure_future(user.put(f"k{turn}{number}", lab=1))
                for number in range(20)
                for user in people
            ]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.to_thread(one.kill)
            for outcome in await asyncio.gather(*asked, return_exceptions=True):
                assert outcome == 204 or isinstance(outcome, Exception)
                assert not isinstance(outcome, AssertionError), outcome
            await asyncio.to_thread(one.start)


FORKING = """
import asyncio, os, sys
from tornado.process import fork_processes
from eyewall.core.store import utc_now
from eyewall.core.ids import new_session_id
from eyewall.core.manager import Manager
from eyewall.core.opening import open_store
from eyewall.crypto.keyring import KeyRing
from eyewall.settings import Settings

settings = Settings(url=sys.argv[1], cookie_secret=sys.argv[2], store_timeout=10)
manager = Manager(settings, open_store(settings, utc_now))
manager.use_keyring(KeyRing.from_secret(sys.argv[2]))
seed = new_session_id()   # whatever the parent's randomness was, it is spent before the fork
number = fork_processes(4, max_restarts=0)

async def serve():
    for turn in range(50):
        session = manager.open([], https=True)
        session["from"] = number
        await manager.commit(session)
        (line,) = manager.set_cookie_lines(session, https=True)
        cookie = line.partition(";")[0]
        again = manager.open([cookie], https=True)
        await manager.load(again)
        assert again["from"] == number, "another process's session"
        os.write(1, f"id {session.draft.session_id}\\n".encode())
    for link in os.scandir("/proc/self/fd"):
        target = os.readlink(link.path) if os.path.islink(link.path) else ""
        if target.startswith("socket:"):
            os.write(1, f"socket {target} {os.getpid()}\\n".encode())
    await manager.aclose()

asyncio.run(serve())
os._exit(0)
"""


@pytest.mark.parametrize("kind", ["sqlite", "file", *NETWORKED])
def test_four_forked_processes_share_no_id_and_no_connection(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """F26. Harm: two workers give out the same ID, or read each other's answers on one socket."""
    own = {"sqlite": f"sqlite:///{tmp_path}/s.db", "file": f"file://{tmp_path}/data"}
    url = own.get(kind) or request.getfixturevalue(kind).url
    command = [sys.executable, "-W", "ignore", "-c", FORKING, url, SECRET]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    words = [line.split() for line in done.stdout.splitlines()]
    ids = [word for kind_, word, *_ in words if kind_ == "id"]
    assert len(ids) == 200, done.stderr
    assert len(set(ids)) == 200, "two visitors have the same ID"
    owners: dict[str, set[str]] = {}
    for kind_, name, *rest in words:
        if kind_ == "socket":
            owners.setdefault(name, set()).update(rest)
    assert all(len(pids) == 1 for pids in owners.values()), "two processes on one socket"


# A bad start


class ExpiredRedis(Redis7TLS):
    """Its certificate ran out yesterday."""

    def prepare(self) -> None:
        super().prepare()
        import trustme

        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "authority.pem"))
        yesterday = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
        certificate = authority.issue_cert("127.0.0.1", not_after=yesterday)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self.folder / "server.pem"))


def test_an_expired_certificate_is_told_at_the_start_in_one_line(tmp_path: Path) -> None:
    """F29. Harm: an application that starts, and answers 503 until somebody reads a traceback."""
    pytest.importorskip("trustme")
    with ExpiredRedis() as server:
        code, said = _start(server.url, tmp_path)
    assert code == 2
    assert "CERTIFICATE_VERIFY_FAILED" in said
    assert "expired" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("scheme", ["redis", "postgresql", "mysql", "mongodb"])
def test_a_host_that_does_not_exist_is_told_at_the_start_in_one_line(scheme: str, tmp_path: Path) -> None:
    """F29. Harm: a mistyped host name is a slow site, and the reason is in no log."""
    database = "0" if scheme == "redis" else "shop"
    code, said = _start(f"{scheme}://shop:hunter2@no-such-host.invalid/{database}", tmp_path)
    assert code == 2
    assert "no-such-host.invalid" in said
    assert "hunter2" not in said
    assert said.count("\n") == 1, said


def _start(url: str, folder: Path) -> tuple[int, str]:
    """Start the lab where it must fail; return its exit code and what it said."""
    variables = environment(EYEWALL_URL=url, EYEWALL_COOKIE_SECRET=SECRET)
    command = [sys.executable, *LAB, "--port", "0"]
    done = subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stderr


async def test_a_store_that_comes_up_later_needs_no_restart(tmp_path: Path) -> None:
    """F29. Harm: whichever starts first after a power failure decides whether the site works."""
    server = Redis7()
    try:
        async with running(lab_on(server.url, tmp_path)) as lab:
            alice = User([lab], "alice")
            assert await alice.sign_in() == 503
            await asyncio.to_thread(server.start)
            assert await alice.sign_in() == 200
            await alice.check()
            alice.close()
    finally:
        server.stop()
