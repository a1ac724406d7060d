"""Events: each kind is told when it happens, none can write into the log what it likes, none can flood it."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from tornado.web import RequestHandler

from eyewall import SessionMixin
from eyewall.core.events import EventKind, EventStream
from eyewall.core.ids import digest_of
from eyewall.errors import StoreUnavailable
from eyewall.testing.client import Browser
from eyewall.testing.clock import ManualClock
from tests.signin.kit import REMEMBER, SESSION, Deployment, Process, cookies, copied, drop, replayed, sign_in

DOWN = StoreUnavailable("connection refused")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Scene:
    """One process with a limit of two sessions, a browser signed in to it, and what to do there."""

    def __init__(self, site: Deployment, process: Process, browser: Browser) -> None:
        self.site, self.process, self.browser = site, process, browser

    async def stranger(self, path: str = "/", cookie: str | None = None, **more: Any) -> None:
        """A request of somebody else, with this cookie."""
        headers = {} if cookie is None else {"Cookie": cookie}
        await self.site.browser(self.process).get(path, headers={**headers, **more})

    async def tamper(self, **changes: Any) -> None:
        """Change the stored record behind the store's back."""
        store = self.process.store.inner
        digest = digest_of(cookies(self.browser)[SESSION].split(".")[2])
        record = await store.load(digest)
        changed = msgspec.structs.replace(record, version=record.version + 1, **changes)
        assert await store.replace(changed, version=record.version)

    # What happens, by the names of the kinds of event

    async def created(self) -> None:
        await self.site.browser(self.process).post_form("/", {"key": "k", "value": "v"})

    async def regenerated(self) -> None:
        await self.browser.post("/change/regenerate")

    async def destroyed(self) -> None:
        visitor = self.site.browser(self.process)
        await visitor.post_form("/", {"key": "k", "value": "v"})
        await visitor.post("/change/destroy")

    async def signed_in(self) -> None:
        await sign_in(self.browser, self.site.ann)

    async def signed_out(self) -> None:
        await self.browser.post("/out")

    async def remembered(self) -> None:
        drop(self.browser, SESSION)
        await self.browser.get("/")

    async def expired(self) -> None:
        for _ in range(10):  # a memory store clears a few away by itself whenever something is stored
            await self.created()
        self.site.clock.advance(timedelta(days=40))
        await self.process.sessions._sweeper.sweep_once()

    async def revoked(self) -> None:
        await self.process.sessions.revoke_all(self.site.ann)

    async def theft(self) -> None:
        token = f"{REMEMBER}={cookies(self.browser)[REMEMBER]}"
        await self.stranger(cookie=token)
        self.site.clock.advance(31)
        await self.stranger(cookie=token)

    async def csrf_refused(self) -> None:
        await self.browser.post("/strict", headers={**FORM, "X-XSRFToken": "x"})

    async def attempts_limited(self) -> None:
        for _ in range(6):
            await self.browser.post_form("/attempt", {"name": self.site.ann, "password": "wrong"})

    async def sessions_limited(self) -> None:
        for _ in range(2):
            await self.site.signed_in(self.process, self.site.ann)

    async def forged_id(self) -> None:
        await self.stranger(cookie=f"{SESSION}={cookies(self.browser)[SESSION][:-2]}xx")

    async def unknown_id(self) -> None:
        old = f"{SESSION}={cookies(self.browser)[SESSION]}"
        await self.process.sessions.revoke_all(self.site.ann)
        await self.stranger(cookie=old)

    async def ambiguous_cookie(self) -> None:
        other = await self.site.signed_in(self.process, self.site.bob)
        await self.stranger(cookie=f"{copied(self.browser)}; {copied(other)}")

    async def damaged_record(self) -> None:
        await self.tamper(payload=b"not what we wrote")
        await self.browser.get("/")

    async def not_saved(self) -> None:
        self.process.store.fail("replace", DOWN)
        await self.browser.post_form("/", {"key": "k", "value": "v"})

    async def write_dropped(self) -> None:
        request = asyncio.create_task(self.browser.post("/slow"))
        is_here, may_go = self.process.slow
        await is_here.wait()
        await self.process.sessions.revoke_all(self.site.ann)
        may_go.set()
        await request

    async def cross_origin_refused(self) -> None:
        await self.browser.post("/out", from_origin="https://evil.example")

    async def store_down(self) -> None:
        self.process.store.fail("load", DOWN)
        await self.browser.get("/")

    async def store_back(self) -> None:
        await self.store_down()
        self.process.store.meddle = None
        await self.browser.get("/")


class Strict(SessionMixin, RequestHandler):
    """Asks for the token, as an application with ``xsrf_cookies`` does."""

    def post(self) -> None:
        self.check_xsrf_cookie()


async def _scene(here: Deployment) -> Scene:
    process = await here.process([("/strict", Strict)], max_sessions=2)
    browser = await here.signed_in(process, here.ann, remember="1")
    process.events.clear()
    return Scene(here, process, browser)


@pytest.mark.parametrize("kind", EventKind, ids=lambda kind: kind.name.lower())
async def test_each_kind_of_event_is_told_when_it_happens(here: Deployment, kind: EventKind) -> None:
    """An alarm that is listed and never rings is worse than none (OWASP logging vocabulary)."""
    scene = await _scene(here)
    await getattr(scene, kind.name.lower())()
    told = [event for event in scene.process.events if event.kind is kind]
    assert told
    assert all(event.at.tzinfo is not None for event in told)
    if kind in (EventKind.SIGNED_IN, EventKind.SIGNED_OUT, EventKind.THEFT, EventKind.REVOKED):
        assert {event.principal for event in told} == {here.ann}


async def test_a_restful_visit_tells_nothing(here: Deployment) -> None:
    """Alarms that ring at every page are switched off."""
    scene = await _scene(here)
    for path in ("/", "/public", "/devices", "/flash"):
        await scene.browser.get(path)
    assert scene.process.events == []


# Nobody writes into the log but us

EVIL = "ann\r\nERROR eyewall: signed in as root\x1b[2J\x00\x07\u2028\u0085\u202e\ud83d\ude00".encode(
    "utf-16", "surrogatepass"
).decode("utf-16")


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What our logger has written."""
    return [record.getMessage() for record in caplog.records if record.name == "eyewall"]


@pytest.mark.parametrize("where", ["principal", "detail"])
def test_no_text_in_an_event_begins_a_line_of_its_own(caplog: pytest.LogCaptureFixture, where: str) -> None:
    """A forged line in the log frames an innocent or hides an attack (CWE-117)."""
    caplog.set_level(logging.DEBUG, logger="eyewall")
    texts: dict[str, Any] = {where: EVIL}
    EventStream(ManualClock()).emit(EventKind.DAMAGED_RECORD, digest=b"d" * 32, **texts)
    (line,) = lines_of(caplog)
    assert line.isprintable()


async def test_an_outage_of_many_lines_is_one_line(
    here: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """Drivers quote what the server says, in several lines; with a principal in it, a stranger's text."""
    scene = await _scene(here)
    scene.process.store.fail("load", StoreUnavailable("no\r\nERROR eyewall: signed in as root"))
    await scene.browser.get("/")
    (line,) = lines_of(caplog)
    assert line.isprintable()


async def test_a_name_and_an_agent_of_control_characters_stay_on_their_line(
    here: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """Strangers choose both when they register and sign in."""
    caplog.set_level(logging.DEBUG)
    process = await here.process()
    browser = here.browser(process)
    agent = {"User-Agent": "a\tb\xa0\xff"}  # Tornado refuses other control characters in a header by itself
    assert (await browser.post_form("/in", {"name": EVIL, "remember": "1"}, headers=agent)).code == 200
    for path in ("/out", "/attempt"):
        await browser.post_form(path, {"name": EVIL, "password": EVIL, "everywhere": "1"}, headers=agent)
    signed = [event for event in process.events if event.kind is EventKind.SIGNED_IN]
    assert len(signed) == 1
    assert lines_of(caplog)
    assert all(line.isprintable() for line in lines_of(caplog))


# Nobody fills the log


def test_a_million_forged_cookies_are_one_line_a_minute_and_no_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A log that fills the disk ends the service; one that hides the next attack ends the watch."""
    clock = ManualClock()
    events = EventStream(clock)
    events.emit(EventKind.FORGED_ID)
    before = sys.getallocatedblocks()
    for number in range(1_000_000):
        events.emit(EventKind.FORGED_ID, principal=None if number % 2 else str(number))
    assert sys.getallocatedblocks() - before < 1_000
    events.emit(EventKind.THEFT)
    clock.advance(60)
    events.emit(EventKind.FORGED_ID)
    first, theft, last = lines_of(caplog)
    assert (first.startswith("cookie refused"), "stolen" in theft) == (True, True)
    assert "(and 1000000 more like it)" in last


async def test_a_listener_that_fails_fails_no_request(
    here: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """A mail server that is down must not keep anybody from signing in."""
    process = await here.process()

    def fail(_: object) -> None:
        raise RuntimeError("no mail today")

    process.sessions.events.subscribe(fail)
    browser = await here.signed_in(process, here.ann)
    assert await replayed(browser, copied(browser)) == here.ann
    assert "no mail today" in caplog.text
