"""Over TLS, with a jar as strict as a browser's: Secure and __Host- are really exercised."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
import trustme
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from eyewall import SessionMixin, Sessions, Settings
from eyewall.stores.memory import MemoryStore
from eyewall.testing.client import Browser
from tests.tornado.site import SECRET


class Page(SessionMixin, RequestHandler):
    def get(self) -> None:
        self.write(str(self.session.principal))

    def post(self) -> None:
        verb = self.get_argument("do")
        if verb == "sign_in":
            self.session.sign_in("alice")
        elif verb == "many":
            self.session["a"] = 1
            self.session.regenerate()
            self.session.flash("m", "x")
            self.session["b"] = 2
        else:
            self.session.sign_out()
        self.redirect("/")


class App:
    """The page over TLS and over plain http, and a certificate to trust."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        self.settings = Settings(backend="memory", cookie_secret=SECRET)
        app = Application([("/", Page)], sessions=Sessions(self.settings, store=MemoryStore()))
        self.tls, self.plain, self.proxied = (
            HTTPServer(app, ssl_options=context),
            HTTPServer(app),
            HTTPServer(app, xheaders=True),
        )
        self.urls = {}
        for name, server in (("tls", self.tls), ("plain", self.plain), ("proxied", self.proxied)):
            socket, port = bind_unused_port()
            server.add_socket(socket)
            self.urls[name] = f"{'https' if name == 'tls' else 'http'}://127.0.0.1:{port}"


@pytest_asyncio.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """Three servers over one application."""
    running = App(tmp_path)
    yield running
    for server in (running.tls, running.plain, running.proxied):
        server.stop()
        await server.close_all_connections()


async def test_a_browser_accepts_keeps_and_loses_the_cookie_as_told(app: App) -> None:
    """Sign in, be recognised, sign out: the strict jar rejects nothing and ends empty."""
    browser = Browser(app.urls["tls"], ssl_options=app.trust)
    assert (await browser.get("/")).body == b"None"
    assert list(browser.jar.cookies) == []
    signed_in = await browser.post_form("/", {"do": "sign_in"}, follow=True)
    assert signed_in.body == b"alice"
    (cookie,) = browser.jar.cookies
    assert cookie.name == "__Host-session"
    assert cookie.http_only
    assert cookie.secure
    assert (await browser.post_form("/", {"do": "sign_out"}, follow=True)).body == b"None"
    assert list(browser.jar.cookies) == []
    assert list(browser.jar.rejected) == []
    browser.close()


async def test_one_response_never_sets_our_cookie_twice(app: App) -> None:
    """RFC 6265bis 4.1.1; a second one wins in some browsers and loses in others."""
    browser = Browser(app.urls["tls"], ssl_options=app.trust)
    response = await browser.post_form("/", {"do": "many"})
    assert len(response.headers.get_list("Set-Cookie")) == 1
    browser.close()


async def test_another_site_cannot_post_with_the_visitors_cookie(app: App) -> None:
    """SameSite keeps the cookie away, and the headers give the caller away."""
    browser = Browser(app.urls["tls"], ssl_options=app.trust)
    await browser.post_form("/", {"do": "sign_in"})
    attack = await browser.post_form(
        "/", {"do": "sign_out"}, from_origin="https://evil.example", navigate=True
    )
    assert attack.code == 403
    assert (await browser.get("/")).body == b"alice"
    browser.close()


async def test_plain_http_gets_a_cookie_that_browsers_keep_there(app: App) -> None:
    """The chapter's gotcha 6: a Secure cookie on http://localhost never comes back."""
    browser = Browser(app.urls["plain"])
    assert (await browser.post_form("/", {"do": "sign_in"}, follow=True)).body == b"alice"
    assert [cookie.name for cookie in browser.jar.cookies] == ["session"]
    assert list(browser.jar.rejected) == []
    browser.close()


async def test_secure_is_decided_by_tls_or_a_trusted_proxy_only(app: App) -> None:
    """A client that claims https gets nothing for it unless the server was told to trust its proxy."""
    claim = {"X-Forwarded-Proto": "https", "X-Scheme": "https"}
    for name, expected in (("plain", "session"), ("proxied", "__Host-session")):
        browser = Browser(app.urls[name])
        response = await browser.post_form("/", {"do": "sign_in"}, headers=claim)
        assert response.headers["Set-Cookie"].startswith(f"{expected}=ew1.")
        assert ("; Secure" in response.headers["Set-Cookie"]) == (name == "proxied")
        browser.close()
