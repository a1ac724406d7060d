"""Moving an application's signed sign-in cookie to sessions: nobody is signed out, the old cookie goes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, create_signed_value

from eyewall import ConfigurationError, SessionMixin, Settings
from eyewall.errors import StoreUnavailable
from eyewall.testing.client import Browser
from eyewall.testing.clock import ManualClock
from eyewall.tornado.upgrade import OldSignIn, UpgradingSessions
from tests.tornado.site import SECRET, Handler, WatchedStore, Way

OWN_SECRET = SECRET[::-1]


class Who(Handler):
    """Who is signed in, and the anonymous cart."""

    def get(self) -> None:
        if self.get_query_argument("cart", None):
            self.s["cart"] = 1
        self.write(f"{self.s.principal} {self.s.get('cart')}")
        if self.get_query_argument("fail", None):
            self.set_status(500)

    def delete(self) -> None:
        self.s.sign_out()


class Moving:
    """The application on the day it moves, and one of its browsers."""

    def __init__(self, way: Way, **old: Any) -> None:
        self.clock = ManualClock()
        self.store = WatchedStore(clock=self.clock)
        self.sessions = UpgradingSessions(
            Settings(backend="memory", cookie_secret=OWN_SECRET),
            store=self.store,
            clock=self.clock,
            old_sign_in=OldSignIn("user", **old),
        )
        handler = Who if way == "install" else type("Who", (SessionMixin, Who), {})
        self.application = Application([("/", handler)], cookie_secret=SECRET, sessions=self.sessions)
        if way == "install":
            self.sessions.install(self.application)
        self.browser = Browser()

    def bring_old_cookie(self, value: str | bytes = "bob", name: str = "user") -> None:
        """Give the browser what the application used to set."""
        token = create_signed_value(SECRET, name, value, clock=lambda: self.clock().timestamp()).decode()
        self.browser.jar.receive(self.browser._base, [f'user="{token}"; Path=/'], self.clock())

    async def who(self, query: str = "") -> str:
        """Ask the application."""
        return (await self.browser.get(f"/?{query}")).body.decode()

    @property
    def cookies(self) -> list[str]:
        """Names of the browser's cookies."""
        return sorted(cookie.name for cookie in self.browser.jar.cookies)


@asynccontextmanager
async def moving(way: Way, **old: Any) -> AsyncIterator[Moving]:
    """Serve the application."""
    app = Moving(way, **old)
    server = HTTPServer(app.application)
    socket, port = bind_unused_port()
    server.add_socket(socket)
    app.browser = Browser(f"http://127.0.0.1:{port}", clock=app.clock)
    with closing(app.browser):
        yield app
    server.stop()
    await server.close_all_connections()
    await app.sessions.aclose()


async def test_nobody_is_signed_out_and_the_old_cookie_goes(way: Way) -> None:
    """Harm: on the day of the move every user has to sign in again, or the old cookie works on for ever."""
    async with moving(way) as app:
        app.bring_old_cookie()
        assert await app.who() == "bob None"
        assert app.cookies == ["session"]
        assert await app.who() == "bob None"
        assert len(await app.store.live()) == 1


async def test_a_stranger_stays_a_stranger_and_costs_nothing(way: Way) -> None:
    """Harm: a forged, moved or expired old cookie signs in, or fills the store."""
    async with moving(way) as app:
        app.bring_old_cookie(name="newsletter")  # signed by us, for another cookie
        assert await app.who() == "None None"
        app.bring_old_cookie()
        app.clock.advance(timedelta(days=32))
        assert await app.who() == "None None"
        app.browser.jar.receive(app.browser._base, ["user=bob; Path=/"], app.clock())
        assert await app.who() == "None None"
        assert app.store.calls == []


async def test_signing_out_ends_both(way: Way) -> None:
    """Harm: the old cookie signs in again behind the user's back."""
    async with moving(way) as app:
        app.bring_old_cookie()
        await app.who()
        app.bring_old_cookie("mallory")  # once more, by a tab that had it
        await app.browser.request("DELETE", "/")
        assert app.cookies == []
        assert await app.who() == "None None"


async def test_who_is_signed_in_already_stays_so(way: Way) -> None:
    """Harm: an old cookie planted by a subdomain changes who somebody is."""
    async with moving(way) as app:
        app.bring_old_cookie()
        await app.who()
        app.bring_old_cookie("mallory")
        assert await app.who() == "bob None"


async def test_an_anonymous_session_is_signed_in_too_and_keeps_its_cart(way: Way) -> None:
    """Harm: whoever got a cart before the sign-in moved is signed out by it."""
    async with moving(way) as app:
        assert await app.who("cart=1") == "None 1"
        app.bring_old_cookie()
        assert await app.who() == "bob 1"
        assert app.cookies == ["session"]


async def test_an_expired_session_beside_an_old_cookie_is_signed_in(way: Way) -> None:
    """Harm: a dead session cookie keeps its owner out although the old cookie is good."""
    async with moving(way) as app:
        assert await app.who("cart=1") == "None 1"
        app.clock.advance(timedelta(days=2))
        app.bring_old_cookie()
        assert await app.who() == "bob None"


async def test_the_old_cookie_stays_until_the_session_is_stored(way: Way) -> None:
    """Harm: a failing page or an outage on the day of the move signs users out after all."""
    async with moving(way) as app:
        app.bring_old_cookie()
        await app.who("fail=1")
        assert app.cookies == ["user"]
        app.store.failures["create"] = StoreUnavailable("down")
        assert (await app.browser.get("/")).code == 503
        assert app.cookies == ["user"]
        app.store.failures.clear()
        assert await app.who() == "bob None"


async def test_the_principal_is_made_of_the_old_value(way: Way) -> None:
    """Harm: applications that keep JSON in the cookie cannot move."""
    async with moving(way, principal=lambda value: json.loads(value)["id"]) as app:
        app.bring_old_cookie('{"id": "7"}')
        assert await app.who() == "7 None"


@pytest.mark.parametrize("value", ["no json", '{"id": 7}', '{"id": ""}', '{"id": "\\ud800"}', "{}"])
async def test_a_value_the_application_cannot_read_is_logged_and_nobody(
    way: Way, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Harm: one odd cookie hangs or breaks every page for its owner."""
    async with moving(way, principal=lambda text: json.loads(text)["id"]) as app:
        app.bring_old_cookie(value)
        assert await app.who() == "None None"
    assert "old_sign_in.principal failed" in caplog.text


async def test_bytes_that_are_no_text_are_nobody(way: Way) -> None:
    """Harm: the default reading raises."""
    async with moving(way) as app:
        app.bring_old_cookie(b"\xff")
        assert await app.who() == "None None"


def test_an_old_cookie_of_the_sessions_name_is_refused_at_start() -> None:
    """Harm: every answer sets and deletes the same cookie."""
    with pytest.raises(ConfigurationError, match="setting 'name'"):
        UpgradingSessions(Settings(backend="memory", name="user"), old_sign_in=OldSignIn("user"))
