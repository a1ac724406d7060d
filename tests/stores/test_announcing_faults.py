"""Announcements when things go wrong: who is deaf must know it, and must hear again without help."""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from typing import Any

import pytest

from eyewall.core.announcing import MAX_MESSAGE, Announcer
from eyewall.errors import StoreUnavailable
from eyewall.stores import listening
from eyewall.stores.local_announcer import LocalAnnouncer
from eyewall.stores.mongodb import MongoStore
from eyewall.stores.resp_announcer import AT_ONCE
from eyewall.testing.announcer_checks import Hearer, hearing
from tests.servers.patience import until
from tests.servers.process import free_port
from tests.servers.proxy import Proxy
from tests.stores.test_announcing import POSTGRES, administer, announcer_at

CUT = ("valkey9", "redis6", "redis7_tls", *POSTGRES)
AGAIN = ("connected", "lost", "connected")


async def announced(announcer: Announcer, message: bytes) -> None:
    """Announce as soon as it can be."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await announcer.announce(message)
            except StoreUnavailable:
                await asyncio.sleep(0.05)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed within a second."""
    monkeypatch.setattr(listening, "ASK_SECONDS", 0.1)
    monkeypatch.setattr(listening, "SILENCE_SECONDS", 0.9)


# A connection that is lost


@pytest.mark.parametrize("kind", CUT)
async def test_a_cut_connection_is_told_and_mended(kind: str, request: pytest.FixtureRequest) -> None:
    """Deaf without knowing it: sockets of those who signed out meanwhile stay open."""
    server = request.getfixturevalue(kind)
    async with (
        Proxy(server.port) as proxy,
        announcer_at(server.url) as speaker,
        announcer_at(proxy.url_for(server.url)) as hears,
        hearing(hears) as hearer,
    ):
        await speaker.announce(b"before")
        await hearer.until_heard(b"before")
        proxy.cut()
        await hearer.until_states(*AGAIN)
        await speaker.announce(b"after")
        await hearer.until_heard(b"after")
        assert hearer.messages == [b"before", b"after"]


@pytest.mark.parametrize("kind", ["valkey9", "redis7_tls", "cluster", "postgres"])
async def test_a_killed_server_is_told_and_found_again(kind: str, fresh_server: Any) -> None:
    """After an outage nobody restarts the application; and one outage is one event, not one per attempt."""
    server = fresh_server(kind)
    async with announcer_at(server.url, timeout=1.0) as announcer, hearing(announcer) as hearer:
        server.kill()
        await hearer.until_states("connected", "lost")
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await announcer.announce(b"meanwhile")
        await asyncio.sleep(0.3)  # some attempts fail
        assert hearer.states == ["connected", "lost"]
        start_again(server)
        await hearer.until_states(*AGAIN)
        await announced(announcer, b"after")
        await hearer.until_heard(b"after")


def start_again(server: Any) -> None:
    """Start a killed server, or every member of a killed cluster."""
    for one in getattr(server, "members", [server]):
        one.start()


@pytest.mark.parametrize("kind", ["valkey9", "redis7_tls", "cluster", "postgres"])
@pytest.mark.usefixtures("impatient")
async def test_a_frozen_server_is_noticed(kind: str, fresh_server: Any) -> None:
    """A connection that is open and dead says nothing; without asking one would wait for ever."""
    server = fresh_server(kind)
    async with announcer_at(server.url, timeout=0.5) as announcer, hearing(announcer) as hearer:
        server.pause()
        await hearer.until_states("connected", "lost")
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(StoreUnavailable):
            await announcer.announce(b"meanwhile")
        assert loop.time() - start < 5  # the machine may be busy
        server.resume()
        await hearer.until_states(*AGAIN)
        await announced(announcer, b"after")
        await hearer.until_heard(b"after")


@pytest.mark.parametrize("kind", ["valkey9", "postgres"])
@pytest.mark.usefixtures("impatient")
async def test_a_half_open_connection_is_noticed(kind: str, request: pytest.FixtureRequest) -> None:
    """A firewall that forgets a quiet connection tells neither side."""
    server = request.getfixturevalue(kind)
    async with (
        Proxy(server.port) as proxy,
        announcer_at(proxy.url_for(server.url), timeout=0.5) as announcer,
        hearing(announcer) as hearer,
    ):
        proxy.replies.freeze()
        await hearer.until_states("connected", "lost")
        proxy.replies.thaw()
        await hearer.until_states(*AGAIN)


@pytest.mark.parametrize("kind", ["valkey9", "redis7_tls", "sentinel", "cluster", "postgres"])
@pytest.mark.usefixtures("impatient")
async def test_a_quiet_connection_is_kept(kind: str, request: pytest.FixtureRequest) -> None:
    """A night without sign-outs is no outage."""
    async with announcer_at(request.getfixturevalue(kind).url) as announcer, hearing(announcer) as hearer:
        await asyncio.sleep(1.2)  # longer than silence may last
        await announcer.announce(b"morning")
        await hearer.until_heard(b"morning")
        assert hearer.states == ["connected"]


async def test_a_failover_is_followed(fresh_server: Any) -> None:
    """When the master dies, who listens moves to the promoted replica."""
    group = fresh_server("sentinel")
    async with announcer_at(group.url, timeout=1.0) as announcer, hearing(announcer) as hearer:
        old = group.master_port
        group.kill_master()
        await hearer.until_states(*AGAIN)
        assert group.master_port != old
        await announced(announcer, b"after")
        await hearer.until_heard(b"after")


async def test_a_dead_node_of_a_cluster_is_passed_over(fresh_server: Any) -> None:
    """Any node hears everything; the loss of the one we listened to must not make us deaf."""
    group = fresh_server("cluster")
    async with announcer_at(group.url, timeout=1.0) as announcer, hearing(announcer) as hearer:
        group.members[0].kill()
        await hearer.until_states(*AGAIN)
        group.members[1].ask("PUBLISH", "eyewall:a:0", "after")  # our own client waits for a new master
        await hearer.until_heard(b"after")


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel", "postgresql"])
async def test_a_server_that_is_not_there_yet(scheme: str) -> None:
    """An application may start before its store; closing does not wait for what will not come."""
    path = {"redis+sentinel": "/service", "postgresql": "/postgres"}.get(scheme, "")
    url = f"{scheme}://127.0.0.1:{free_port()}{path}"
    hearer = Hearer()
    async with announcer_at(url, timeout=30.0) as announcer:
        handle = announcer.listen(hearer)
        await hearer.until_states("lost")
        with pytest.raises(StoreUnavailable):
            await announcer.announce(b"nobody")
        async with asyncio.timeout(5):
            await handle.aclose()
    assert hearer.states == ["lost"]


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster", "redis+sentinel", "postgresql"])
async def test_closing_does_not_wait_for_a_server_that_hangs(scheme: str) -> None:
    """A process that will not end is killed, and loses what it had in hand."""
    path = {"redis+sentinel": "/service", "postgresql": "/postgres"}.get(scheme, "")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"{scheme}://127.0.0.1:{mute.getsockname()[1]}{path}"
        async with announcer_at(url, timeout=30.0) as announcer:
            handle = announcer.listen(Hearer())
            await asyncio.sleep(0.05)  # it connects, and waits for the first answer
            async with asyncio.timeout(5):
                await handle.aclose()


@pytest.mark.parametrize("kind", ["valkey9", "redis7_tls", "sentinel", "cluster", *POSTGRES])
async def test_closing_leaves_nothing_behind(kind: str, request: pytest.FixtureRequest) -> None:
    """A task or socket left each time is a process that fills up."""
    server = request.getfixturevalue(kind)
    async with announcer_at(server.url) as announcer:
        await announcer.announce(b"the store's own connections are there")
        tasks, files = asyncio.all_tasks(), open_sockets()
        for _ in range(5):
            async with hearing(announcer):
                assert asyncio.all_tasks() > tasks
        # Sockets close in one of the loop's next turns.
        await until(lambda: asyncio.all_tasks() == tasks and open_sockets() <= files)
        assert asyncio.all_tasks() == tasks
        assert open_sockets() <= files


def open_sockets() -> set[int]:
    """The file descriptors of this process's sockets."""
    gc.collect()
    found = (one for one in gc.get_objects() if isinstance(one, socket.socket))
    return {one.fileno() for one in found if one.fileno() >= 0}


@pytest.mark.usefixtures("impatient")
async def test_a_lost_change_stream_is_told_and_mended(fresh_server: Any) -> None:
    """MongoDB's driver mends much by itself; what it cannot mend must be told."""
    server = fresh_server("mongodb")
    store = MongoStore(server.url, timeout=0.5)
    await store.check()
    announcer = store.announcer()
    assert announcer is not None
    async with hearing(announcer) as hearer:
        for harm, remedy in ((server.kill, server.start), (server.pause, server.resume)):
            hearer.states[:] = ["connected"]
            harm()
            await hearer.until_states("connected", "lost")
            with pytest.raises(StoreUnavailable):
                await announcer.announce(b"meanwhile")
            remedy()
            await hearer.until_states(*AGAIN)
            await announced(announcer, b"after")
            await hearer.until_heard(b"after")
            hearer.messages.clear()
    await store.close()


# What strangers and careless listeners can do


async def test_a_flood_does_not_grow_the_memory(valkey9: Any, postgres: Any) -> None:
    """Who signs out often, or may write to the server, must not be able to fill the process."""
    for url in (valkey9.url, postgres.url):
        async with announcer_at(url) as speaker, announcer_at(url) as hears:
            counter = Counter(1500)
            handle = hears.listen(counter)
            await counter.ready.wait()
            tracemalloc.start()
            for start in range(0, 1500, 50):
                messages = (b"%d" % number + bytes(5000) for number in range(start, start + 50))
                await asyncio.gather(*map(speaker.announce, messages))
            await counter.all_heard.wait()
            kept, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 3_000_000  # all of them together are more than seven
            assert kept < 700_000, "nothing stays of a message, not even 500 bytes"
            await handle.aclose()


class Counter:
    """Counts, and keeps nothing."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.ready, self.all_heard = asyncio.Event(), asyncio.Event()

    def heard(self, message: bytes) -> None:
        self.left -= 1
        if not self.left:
            self.all_heard.set()

    def connected(self) -> None:
        self.ready.set()

    def lost(self, reason: str) -> None:
        raise AssertionError(reason)


class Bursts(Counter):
    """Counts how many come in one turn of the event loop."""

    most = now = 0

    def heard(self, message: bytes) -> None:
        super().heard(message)
        self.now += 1
        self.most = max(self.most, self.now)

    async def each_turn(self) -> None:
        while True:
            self.now = 0
            await asyncio.sleep(0)


async def test_a_flood_leaves_other_tasks_their_turn(valkey9: Any) -> None:
    """Announcements that come faster than they are handed on must not stop the requests."""
    async with (
        Proxy(valkey9.port) as proxy,
        announcer_at(valkey9.url) as speaker,
        announcer_at(proxy.url_for(valkey9.url)) as hears,
    ):
        bursts = Bursts(10_000)
        handle = hears.listen(bursts)
        await bursts.ready.wait()
        proxy.replies.freeze()
        await asyncio.gather(*(speaker.announce(b"%d" % number) for number in range(10_000)))
        turns = asyncio.ensure_future(bursts.each_turn())
        proxy.replies.thaw()
        await bursts.all_heard.wait()
        await handle.aclose()
        await listening.ended_with(turns)
        assert bursts.most <= AT_ONCE


async def test_messages_of_strangers_are_passed_over(valkey9: Any, postgres: Any) -> None:
    """Who shares the server may write what they like to our channel; it must not end the listening."""
    async with announcer_at(valkey9.url) as announcer, hearing(announcer) as hearer:
        valkey9.ask("PUBLISH", "eyewall:a:0", "x" * (MAX_MESSAGE + 1))
        await announcer.announce(b"ours")
        await hearer.until_heard(b"ours")
        assert hearer.messages == [b"ours"]
    async with announcer_at(postgres.url) as announcer, hearing(announcer) as hearer:
        channel = announcer._channel  # type: ignore[attr-defined]
        await administer(postgres.url, *(f"SELECT pg_notify({channel}, '{text}')" for text in ("", "?", "é")))
        await announcer.announce(b"ours")
        await hearer.until_heard(b"ours")
        assert hearer.messages[-1:] == [b"ours"]
        assert set(hearer.messages) <= {b"ours", b""}  # nothing at all is a message, too


class Failing(Hearer):
    """Raises whatever it is told."""

    def heard(self, message: bytes) -> None:
        super().heard(message)
        raise ZeroDivisionError

    def connected(self) -> None:
        super().connected()
        raise ZeroDivisionError


async def test_a_listener_that_fails_ends_nothing(valkey9: Any, caplog: pytest.LogCaptureFixture) -> None:
    """One bug in whoever listens must not make the process deaf."""
    async with announcer_at(valkey9.url) as wired:
        for announcer in (wired, LocalAnnouncer()):
            hearer = Failing()
            handle = announcer.listen(hearer)
            await hearer.until_states("connected")
            for message in (b"first", b"second"):
                await announcer.announce(message)
                await hearer.until_heard(message)
            await handle.aclose()
            assert "a listener of announcements failed" in caplog.text
            caplog.clear()


async def test_a_server_that_hangs_up_at_once_is_not_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each time somebody is connected they look at everything; twenty times a second would be an attack."""
    pauses: list[float] = []
    real_sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await real_sleep(0)

    async def connects_and_is_lost(ear: listening.Ear) -> None:
        ear.connected()
        raise ConnectionError("hung up")

    monkeypatch.setattr(asyncio, "sleep", noted)
    hearer = Hearer()
    handle = listening.KeptListening(hearer, connects_and_is_lost)
    while len(pauses) < 12:
        await real_sleep(0)
    await handle.aclose()
    longest = listening.LONGEST_PAUSE
    assert pauses[0] <= listening.FIRST_PAUSE * 1.5
    assert all(longest * 0.5 <= pause <= longest * 1.5 for pause in pauses[7:])


async def test_a_driver_that_cancels_itself_ends_nothing() -> None:
    """CancelledError out of a driver's own doing is a loss, not the end of listening."""
    attempts = 0

    async def cancelled_once(ear: listening.Ear) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise asyncio.CancelledError
        ear.connected()
        await asyncio.Event().wait()

    hearer = Hearer()
    handle = listening.KeptListening(hearer, cancelled_once)
    await hearer.until_states("lost", "connected")
    await handle.aclose()
