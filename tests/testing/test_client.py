"""The browser for tests behaves like one: cookies per hop, TLS, and honest ``Sec-Fetch`` headers."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from tornado.httpclient import HTTPClientError
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from eyewall.testing.client import MAX_REDIRECTS, Browser, origin_of

EVIL = "https://evil.example"


class Echo(RequestHandler):
    """Answers with what it was sent."""

    def get(self) -> None:
        self.write({"method": self.request.method, "headers": dict(self.request.headers.get_all())})

    def post(self) -> None:
        self.write(
            {
                "method": self.request.method,
                "headers": dict(self.request.headers.get_all()),
                "body": self.request.body.decode(),
            }
        )


class Set(RequestHandler):
    """Sends the ``Set-Cookie`` lines it was asked for, then redirects if asked to."""

    def get(self) -> None:
        for line in self.get_arguments("line"):
            self.add_header("Set-Cookie", line)
        if target := self.get_argument("to", ""):
            self.set_header("Location", target)
        self.set_status(int(self.get_argument("status", "200")))

    post = get


class Loop(RequestHandler):
    def get(self) -> None:
        self.redirect("/loop")


class Site:
    """A running server, over TLS, and browsers to visit it."""

    def __init__(self, port: int, trust: ssl.SSLContext) -> None:
        self.port = port
        self.trust = trust
        self.browsers: list[Browser] = []

    def browser(self, **given: Any) -> Browser:
        hosts = dict.fromkeys(("www.shop.example", "blog.shop.example", "other.example"), "127.0.0.1")
        base = f"https://www.shop.example:{self.port}"
        browser = Browser(base, ssl_options=self.trust, hosts=hosts, **given)
        self.browsers.append(browser)
        return browser


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Serve the handlers above under three names of this machine."""
    authority = trustme.CA()
    certificate = authority.issue_cert("www.shop.example", "blog.shop.example", "other.example")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(serving)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    server = HTTPServer(Application([("/echo", Echo), ("/set", Set), ("/loop", Loop)]), ssl_options=serving)
    socket, port = bind_unused_port()
    server.add_socket(socket)
    running = Site(port, ssl.create_default_context(cafile=tmp_path / "ca.pem"))
    yield running
    for browser in running.browsers:
        browser.close()
    server.stop()
    await server.close_all_connections()


def seen(body: bytes) -> HTTPHeaders:
    """Return the headers that ``Echo`` says it got."""
    return HTTPHeaders(json.loads(body)["headers"])


async def test_host_cookie_over_real_tls_comes_back(site: Site) -> None:
    """Harm: ``__Host-`` and ``Secure`` are only ever tested where they cannot work."""
    browser = site.browser()
    await browser.get("/set?line=__Host-n%3Dv;Secure;Path=/")
    assert browser.jar.rejected == []
    assert seen((await browser.get("/echo")).body)["Cookie"] == "__Host-n=v"
    assert "Cookie" not in seen((await site.browser().get("/echo")).body)


async def test_refused_cookie_is_reported_and_not_sent(site: Site) -> None:
    """Harm: a cookie bug hides behind a lenient client."""
    browser = site.browser()
    await browser.get("/set?line=__Host-n%3Dv;Path=/")
    assert [rejection.reason for rejection in browser.jar.rejected] == ["its prefix needs Secure"]
    assert "Cookie" not in seen((await browser.get("/echo")).body)


async def test_sibling_subdomain_can_toss_a_cookie(site: Site) -> None:
    """Harm: cookie tossing cannot be tested."""
    browser = site.browser()
    blog = f"https://blog.shop.example:{site.port}"
    await browser.get(f"{blog}/set?line=sid%3Dtossed;Domain=shop.example;Path=/")
    assert seen((await browser.get("/echo")).body)["Cookie"] == "sid=tossed"


async def test_redirect_is_followed_only_on_request_with_cookies_of_each_hop(site: Site) -> None:
    """Harm: the cookie set by a redirect is lost, or sent to a stranger (Tornado's CVE-2026-49853)."""
    browser = site.browser()
    there = f"https://other.example:{site.port}/echo"
    hop = "/set?status=302&line=a%3D1;Path=/"
    assert (await browser.get(f"{hop}&to=/echo")).code == 302
    assert seen((await browser.get(f"{hop}&to=/echo", follow=True)).body)["Cookie"] == "a=1"
    assert "Cookie" not in seen((await browser.get(f"{hop}&to={there}", follow=True)).body)


@pytest.mark.parametrize(
    ("status", "method", "body"), [(302, "GET", None), (303, "GET", None), (307, "POST", "x")]
)
async def test_redirect_keeps_or_changes_the_method_as_browsers_do(
    site: Site, status: int, method: str, body: str | None
) -> None:
    """Harm: a form is sent twice, or not at all."""
    answer = json.loads((await site.browser().post(f"/set?status={status}&to=/echo", "x", follow=True)).body)
    assert (answer["method"], answer.get("body")) == (method, body)


async def test_endless_redirect_is_given_up(site: Site) -> None:
    """Harm: a redirect loop hangs the tests."""
    with pytest.raises(RuntimeError, match=f"more than {MAX_REDIRECTS} redirects"):
        await site.browser().get("/loop", follow=True)


async def test_fetch_metadata_names_the_page_that_caused_the_request(site: Site) -> None:
    """Harm: CSRF protection is tested with headers no browser sends."""
    browser = site.browser()
    own = f"https://www.shop.example:{site.port}"
    blog = f"https://blog.shop.example:{site.port}"

    async def facts(response: Any) -> tuple[str | None, ...]:
        headers = seen((await response).body)
        return tuple(headers.get(name) for name in ("Sec-Fetch-Site", "Sec-Fetch-Mode", "Origin"))

    assert await facts(browser.get("/echo")) == ("none", "navigate", None)
    assert await facts(browser.get("/echo", navigate=False)) == ("same-origin", "cors", None)
    assert await facts(browser.get("/echo", from_origin=EVIL)) == ("cross-site", "navigate", None)
    assert await facts(browser.get("/echo", from_origin=EVIL, navigate=False)) == ("cross-site", "cors", EVIL)
    assert await facts(browser.post_form("/echo", {})) == ("same-origin", "navigate", own)
    assert await facts(browser.post_form("/echo", {}, from_origin=blog)) == ("same-site", "navigate", blog)
    assert await facts(browser.post_json("/echo", {}, from_origin=EVIL)) == ("cross-site", "cors", EVIL)


async def test_old_browser_sends_origin_alone(site: Site) -> None:
    """Harm: the fallback for old browsers goes untested."""
    headers = seen((await site.browser(fetch_metadata=False).post("/echo", from_origin=EVIL)).body)
    assert (headers["Origin"], headers.get("Sec-Fetch-Site")) == (EVIL, None)


@pytest.mark.parametrize(
    ("via", "reached"), [("other.example", "cross-site"), ("blog.shop.example", "same-site")]
)
async def test_redirect_through_others_does_not_come_back_as_ours(site: Site, via: str, reached: str) -> None:
    """Harm: an attacker launders a request through a redirect and it arrives as ours."""
    own = f"https://www.shop.example:{site.port}"
    detour = f"https://{via}:{site.port}/set?status=307&to={own}/echo"
    headers = seen((await site.browser().post(detour, "x", from_origin=own, follow=True)).body)
    assert (headers["Sec-Fetch-Site"], headers["Origin"]) == (reached, "null")


async def test_lax_cookie_stays_home_when_a_stranger_posts(site: Site) -> None:
    """Harm: a CSRF test fails to see that the browser itself already kept the cookie back."""
    browser = site.browser()
    await browser.get("/set?line=lax%3D1;Path=/&line=none%3D1;Path=/;SameSite=None;Secure")
    posted = seen((await browser.post_form("/echo", {}, from_origin=EVIL)).body)
    linked = seen((await browser.get("/echo", from_origin=EVIL)).body)
    assert (posted["Cookie"], linked["Cookie"]) == ("none=1", "lax=1; none=1")


async def test_forms_and_json_arrive_as_such_and_given_headers_win(site: Site) -> None:
    """Harm: a handler is tested with a body it never gets."""
    browser = site.browser()
    form = json.loads((await browser.post_form("/echo", {"a": "ö&"})).body)
    assert (form["body"], form["headers"]["Content-Type"]) == (
        "a=%C3%B6%26",
        "application/x-www-form-urlencoded",
    )
    sent = json.loads(
        (await browser.post_json("/echo", {"a": 1}, headers={"Content-Type": "text/plain"})).body
    )
    assert (sent["body"], sent["headers"]["Content-Type"]) == ('{"a": 1}', "text/plain")


async def test_error_status_is_an_answer_and_silence_an_error(site: Site) -> None:
    """Harm: a test goes on after a connection that failed."""
    browser = site.browser()
    assert (await browser.get("/set?status=503")).code == 503
    assert (await browser.request("DELETE", "/echo")).code == 405
    with pytest.raises((HTTPClientError, OSError)):
        await browser.get("https://www.shop.example:1/")


async def test_unknown_authority_is_refused(site: Site) -> None:
    """Harm: TLS in tests that checks nothing."""
    stranger = Browser(hosts={"www.shop.example": "127.0.0.1"})
    with pytest.raises(ssl.SSLCertVerificationError):
        await stranger.get(f"https://www.shop.example:{site.port}/echo")
    stranger.close()


def test_origin_is_spelt_as_browsers_do() -> None:
    """Harm: a default port or an IPv6 address makes the browser a stranger to itself."""
    assert origin_of("HTTPS://Shop.Example:443/a?b") == "https://shop.example"
    assert origin_of("http://[::1]:8888/") == "http://[::1]:8888"
