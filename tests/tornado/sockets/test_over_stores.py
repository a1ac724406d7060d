"""Sockets over every store that is shared: at once where it announces, by the re-check everywhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
import pytest_asyncio
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from eyewall.core.announcing import announcer_of
from eyewall.core.session import Session
from eyewall.core.store import utc_now
from eyewall.core.watched import Watched
from eyewall.testing.client import Browser
from eyewall.testing.clock import ManualClock
from tests.examples.pair import SECRET
from tests.examples.program import Program
from tests.signin.kit import STORES, Deployment, Process, copied, deployed, me, opener, user
from tests.stores.sql_places import Place, statements_of
from tests.tornado.sockets.kit import NEVER, Socket, connect, is_empty, start, until

PROMISED = 5.0
"""Seconds within which an end closes all sockets (row W02)."""

RE_CHECK = 0.3
"""Seconds, where nothing is announced; by default it is the promise itself."""


@pytest_asyncio.fixture(params=STORES)
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployment]:
    """Every server-side store in turn."""
    clock = ManualClock(utc_now())  # Redis and MongoDB expire records by their own clocks
    async with deployed(opener(request, tmp_path, clock), clock) as made:
        yield made


async def two(site: Deployment, *, re_check: bool = False) -> tuple[Process, Process]:
    """Two processes that hear each other, or look now and then."""
    one = await start(site)
    await user(site.browser(one))
    await one.sessions.check()
    announces = announcer_of(one.sessions.store) is not None and not re_check
    one.sessions.watch.interval *= 1 if announces else RE_CHECK / NEVER
    return one, await start(site, interval=NEVER if announces else RE_CHECK)


async def listening(*sockets: Socket) -> None:
    """Wait until what is announced is heard: an announcer connects when the first socket opens."""
    for socket in sockets:
        assert await socket.is_open()
    await asyncio.sleep(0.3)


async def test_an_end_closes_the_sockets_of_all_processes(site: Deployment) -> None:
    """The thief's socket hangs on another process than the sign-out (W02)."""
    here, there = await two(site)
    browser, stranger = await site.signed_in(here, site.ann), await site.signed_in(here, site.bob)
    sockets = [await connect(site, one, browser, "/members") for one in (here, there, there)]
    strangers = await connect(site, there, stranger, "/members")
    await listening(*sockets, strangers)
    began = monotonic()
    await browser.post("/out")
    for socket in sockets:
        assert (await socket.ended())[0] == 4401
    assert monotonic() - began < PROMISED
    assert await strangers.is_open()
    strangers.connection.close()
    for one in (here, there):
        await until(partial(is_empty, one.sessions), "nothing is watched any more")


async def test_what_an_operator_deletes_closes_by_the_re_check(site: Deployment) -> None:
    """Nobody announces it, on any store."""
    here, there = await two(site, re_check=True)
    browser = await site.signed_in(here, site.ann)
    sockets = [await connect(site, one, browser) for one in (here, there)]
    await here.store.inner.delete_principal(site.ann)
    for socket in sockets:
        assert await socket.ended() == (4401, "ended")


async def test_a_new_id_takes_the_sockets_along_and_their_writes_are_kept(site: Deployment) -> None:
    """A step-up must not throw anybody out (and W04)."""
    here, there = await two(site)
    browser = await site.signed_in(here, site.ann)
    sockets = [await connect(site, one, browser) for one in (here, there)]
    await listening(*sockets)
    await browser.post("/change/regenerate")
    for number, socket in enumerate(sockets):
        await socket.ask(f"save k{number} v")
        await socket.ask("add n")
    assert (await me(browser))["data"] == {"k0": "v", "k1": "v", "n": 2}
    await browser.post("/out")
    for socket in sockets:
        assert (await socket.ended())[0] == 4401


async def test_a_flash_message_is_given_to_exactly_one_socket(site: Deployment) -> None:
    """A message that comes twice is a support call; one that never comes, another."""
    here, there = await two(site)
    browser = await site.signed_in(here, site.ann)
    sockets = [await connect(site, one, browser) for one in (here, here, there, there)]
    for number in range(5):
        await browser.post_form("/flash", {"text": f"message {number}"})
        taken = await asyncio.gather(*(socket.ask("take message") for socket in sockets))
        assert [text for texts in taken for text in texts] == [f"message {number}"]


async def test_what_is_sent_reaches_all_sockets_of_a_principal(site: Deployment) -> None:
    """In all processes where the store announces, in this one everywhere; and nobody else's."""
    here, there = await two(site)
    phone, laptop = [await site.signed_in(here, site.ann) for _ in range(2)]
    stranger = await site.signed_in(here, site.bob)
    near, far = await connect(site, here, phone), await connect(site, there, laptop)
    strangers = await connect(site, here, stranger)
    await listening(near, far, strangers)
    assert len(here.sessions.sockets(site.ann)) == 1
    for content in ("hello", {"unread": 3}):
        await here.sessions.send(site.ann, content)
        for socket in (near, far) if announcer_of(here.sessions.store) is not None else (near,):
            assert await socket.read() in ("hello", '{"unread": 3}')
    assert await strangers.is_open()


async def test_a_script_that_revokes_and_exits_is_heard(site: Deployment) -> None:
    """An operator's command lives for a moment; the servers must hear of it all the same."""
    here, script = await two(site)
    browser = await site.signed_in(here, site.ann)
    socket = await connect(site, here, browser)
    await listening(socket)
    await script.sessions.revoke_all(site.ann)
    if script.store.inner is not here.store.inner:  # closing the store in memory would close it for both
        await script.sessions.aclose()
    assert (await socket.ended())[0] == 4401


# The price of a look, where it can be counted


async def test_a_re_check_of_many_sessions_is_few_statements(tmp_path: Path) -> None:
    """One statement for each socket every five seconds would be the database's whole work."""
    clock = ManualClock(utc_now())
    store = Place(f"sqlite:///{tmp_path}/s.db").store(clock)
    async with deployed(lambda: store, clock) as site:
        process = await start(site)
        for number in range(1_000):
            session = process.sessions.open([], https=True)
            session["n"] = number
            await process.sessions.save(session)
            _watch(process, session)
        with statements_of(store) as sent:
            await process.sessions.watch.check_all()
        assert len([one for one, _ in sent if "SELECT" in one.upper()]) <= 1_000 / 60 + 4


def _watch(process: Process, session: Session) -> None:
    process.sessions.watch.add(Watched(session, lambda _reason: None, None, None))


# Two real processes


PROGRAM = str(Path(__file__).with_name("served.py"))


@pytest.fixture(params=["file", pytest.param("redis7", marks=pytest.mark.server)])
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Program, Program]]:
    """Two programs on one store: one that cannot announce, and one that can."""
    variables = {"EYEWALL_COOKIE_SECRET": SECRET}
    if request.param == "file":
        variables["EYEWALL_PATH"] = str(tmp_path / "data")
    else:
        variables["EYEWALL_URL"] = request.getfixturevalue("redis7").url
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        Program(PROGRAM, folder=tmp_path / "one", **variables) as one,
        Program(PROGRAM, folder=tmp_path / "two", **variables) as two,
    ):
        yield one, two


async def opened(program: Program, browser: Browser) -> Socket:
    """Connect with the browser's cookies."""
    address = program.url.replace("http", "ws") + "/ws"
    return Socket(await websocket_connect(HTTPRequest(address, headers={"Cookie": copied(browser)})))


async def test_two_real_processes_close_the_sockets_of_a_session(
    programs: tuple[Program, Program],
) -> None:
    """Within five seconds, by default settings; a process that is killed takes nothing with it (W02)."""
    one, two = programs
    ann, bob = Browser(one.url), Browser(one.url)
    for browser, name in ((ann, "ann"), (bob, "bob")):
        await browser.post_form("/in", {"name": name})
    near, far, bobs = await opened(one, ann), await opened(two, ann), await opened(two, bob)
    for socket, name in ((near, "ann"), (far, "ann"), (bobs, "bob")):
        await socket.connection.write_message("hi")
        assert await socket.read() == f"{name}: 'hi'"
    began = monotonic()
    await ann.post("/out")
    # A re-check may come between the end and its being told, and knows no better reason.
    assert await near.ended() in ((4401, "signed out"), (4401, "ended"))
    while await asyncio.wait_for(far.connection.read_message(), PROMISED + 2) is not None:
        pass
    assert far.connection.close_code == 4401
    assert monotonic() - began < PROMISED + 1.5  # the machine may be busy
    one.kill()
    await bobs.connection.write_message("still there")
    assert await bobs.read() == "bob: 'still there'"
    for socket in (near, far, bobs):
        socket.connection.close()
    for browser in (ann, bob):
        browser.close()
    assert (one.errors, two.errors) == ("", "")
