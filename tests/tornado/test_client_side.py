"""Sessions sealed into their own cookie: the same handlers, no store, and honest limits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest_asyncio
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from eyewall import SessionMixin, Sessions, Settings
from eyewall.testing.client import Browser
from eyewall.testing.clock import ManualClock
from tests.tornado.site import SECRET


class Page(SessionMixin, RequestHandler):
    def get(self) -> None:
        self.write({"data": self.session.all(), "principal": self.session.principal})

    async def post(self) -> None:
        verb, size = self.get_argument("do"), int(self.get_argument("size", "1"))
        if verb == "set":
            self.session["k"] = "x" * size
        elif verb == "modify":
            await self.session.modify("n", lambda n: n + 1, default=0)
        elif verb == "sign_in":
            self.session.sign_in("alice")
        elif verb == "sign_out":
            self.session.sign_out()
        elif verb == "clear":
            self.session.clear()
        elif verb == "late":
            self.write("one ")
            await self.flush()
            self.session["k"] = "late"


class Site:
    """An application with client-side sessions and a strict browser."""

    def __init__(self, secret: object = SECRET) -> None:
        self.clock = ManualClock()
        settings = Settings(backend="cookie", cookie_secret=secret)  # type: ignore[arg-type]
        self.cut_off: dict[str, datetime] = {}
        sessions = Sessions(settings, clock=self.clock, cut_off=self.cut_off.get)
        app = Application([("/", Page)], sessions=sessions)
        self.server = HTTPServer(app)
        socket, port = bind_unused_port()
        self.server.add_socket(socket)
        self.url = f"http://127.0.0.1:{port}"
        self.browser = self.another_browser()

    def another_browser(self) -> Browser:
        """A second device."""
        return Browser(self.url, clock=self.clock)

    async def do(self, verb: str, **more: str) -> int:
        """One post; returns the status."""
        return (await self.browser.post_form("/", {"do": verb, **more})).code

    async def seen(self) -> str:
        """What the page shows."""
        return (await self.browser.get("/")).body.decode()


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    """One site."""
    running = Site()
    yield running
    running.browser.close()
    running.server.stop()
    await running.server.close_all_connections()


async def test_the_same_handlers_work_without_a_store(site: Site) -> None:
    """Setting, changing, signing in and out; the strict jar rejects nothing."""
    assert await site.do("set") == 200
    assert await site.do("modify") == 200
    assert await site.do("modify") == 200
    assert await site.do("sign_in") == 200
    assert await site.seen() == '{"data": {"k": "x", "n": 2}, "principal": "alice"}'
    assert await site.do("clear") == 200
    assert await site.seen() == '{"data": {}, "principal": null}'
    assert await site.do("set") == 200
    assert await site.do("sign_out") == 200
    assert await site.seen() == '{"data": {}, "principal": null}'
    assert list(site.browser.jar.cookies) == []
    assert list(site.browser.jar.rejected) == []


async def test_reading_sets_no_cookie(site: Site) -> None:
    """A read-only answer must not overwrite a newer cookie (starlette 3166)."""
    await site.do("set")
    answer = await site.browser.get("/")
    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Vary"] == "Cookie"


async def test_a_large_session_takes_three_cookies_and_gives_them_back(site: Site) -> None:
    """Chunks that are no longer needed are deleted, or old data would come back."""
    assert await site.do("set", size="7500") == 200
    assert len(list(site.browser.jar.cookies)) == 3
    assert '"k": "xxx' in await site.seen()
    assert await site.do("set", size="10") == 200
    assert len(list(site.browser.jar.cookies)) == 1
    assert await site.seen() == '{"data": {"k": "xxxxxxxxxx"}, "principal": null}'


async def test_a_session_beyond_three_cookies_is_an_error_and_the_old_one_stays(site: Site) -> None:
    """Browsers drop what is too large without a word (rails 54838)."""
    assert await site.do("set", size="3") == 200
    assert await site.do("set", size="20000") == 413
    assert await site.seen() == '{"data": {"k": "xxx"}, "principal": null}'


async def test_a_tampered_cookie_is_a_stranger(site: Site) -> None:
    """Sealed: neither read nor altered."""
    await site.do("set")
    (cookie,) = site.browser.jar.cookies
    for position in range(0, len(cookie.value), 7):
        other = "A" if cookie.value[position] != "A" else "B"
        bent = f"{cookie.name}={cookie.value[:position]}{other}{cookie.value[position + 1 :]}"
        stranger = site.another_browser()
        answer = await stranger.get("/", headers={"Cookie": bent})
        assert answer.code == 200
        assert b'"data": {}' in answer.body
        stranger.close()


async def test_both_timeouts_hold_inside_the_cookie(site: Site) -> None:
    """A copied cookie is good for that long and no longer (CVE-2018-1000519, CVE-2024-31999)."""
    await site.do("set")
    (copied,) = site.browser.jar.cookies
    for _ in range(47):
        site.clock.advance(timedelta(minutes=30))
        assert '"k"' in await site.seen()
    site.clock.advance(timedelta(minutes=31))
    assert '"k"' not in await site.seen()
    thief = site.another_browser()
    assert b'"k"' not in (await thief.get("/", headers={"Cookie": f"{copied.name}={copied.value}"})).body
    thief.close()


async def test_a_change_after_the_headers_is_refused(site: Site) -> None:
    """It could not travel any more."""
    await site.do("set")
    await site.do("late")
    assert '"k": "x"' in await site.seen()


async def test_a_principals_cut_off_ends_copied_cookies_and_nobody_elses(site: Site) -> None:
    """Signing out everywhere, for cookies that no server can take back (ASVS 7.4.1)."""
    await site.do("sign_in")
    (copied,) = site.browser.jar.cookies
    thief = site.another_browser()
    stolen = {"Cookie": f"{copied.name}={copied.value}"}
    site.cut_off["bob"] = site.clock() + timedelta(days=1)
    assert b"alice" in (await thief.get("/", headers=stolen)).body
    site.clock.advance(timedelta(minutes=1))
    site.cut_off["alice"] = site.clock()
    assert b"alice" not in (await thief.get("/", headers=stolen)).body
    assert "alice" not in await site.seen()
    assert await site.do("sign_in") == 200
    assert "alice" in await site.seen(), "a session that began after the cut-off counts"
    thief.close()
