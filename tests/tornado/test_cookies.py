"""``self.jar`` on real requests: what is sent when, and what never is."""

from __future__ import annotations

import ssl
from contextlib import closing
from typing import Any

import pytest
import trustme
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, Finish, HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler, websocket_connect

from eyewall import SessionMixin, Sessions, Settings
from eyewall.errors import CookieError, StoreUnavailable
from eyewall.testing.client import Browser
from eyewall.testing.cookie_jar import StrictCookieJar
from eyewall.tornado.cookies import CookieMixin, jar_of
from tests.tornado.site import SECRET, Handler, ServeSite, Site, serving

THEME = "theme=dark; Path=/; HttpOnly; SameSite=Lax"


class Preferences(Handler):
    """Reads, sets, deletes."""

    def get(self) -> None:
        jar = jar_of(self)
        self.write({"theme": jar.get("theme", "light"), "visits": jar.signed.get("visits", 0)})

    def post(self) -> None:
        jar_of(self).set("theme", "dark").signed.set("visits", 3)
        self.write("saved")

    def delete(self) -> None:
        jar_of(self).delete("theme").delete("visits")
        self.finish("cleared")


def cookies_of(response: Any) -> list[str]:
    """The Set-Cookie lines of an answer."""
    lines: list[str] = response.headers.get_list("Set-Cookie")
    return lines


def through(site: Site) -> Browser:
    """A browser as strict as browsers are."""
    return Browser(f"http://127.0.0.1:{site.port}")


# -- the way of a cookie ----------------------------------------------------------------------------------


async def test_cookies_are_set_read_and_cleared_without_a_session(serve: ServeSite) -> None:
    """Harm: preferences need a session, a record for each visitor, or do not come back."""
    site = await serve([("/", Preferences)])
    with closing(through(site)) as browser:
        assert (await browser.get("/")).body == b'{"theme": "light", "visits": 0}'
        assert len(cookies_of(await browser.post("/"))) == 2
        assert (await browser.get("/")).body == b'{"theme": "dark", "visits": 3}'
        await browser.request("DELETE", "/")
        assert browser.jar.cookies == []
        assert browser.jar.rejected == []
    assert site.store.calls == []


async def test_a_handler_without_a_session_has_a_jar(serve: ServeSite) -> None:
    """Harm: opting out of sessions takes the cookies away too."""

    class Light(Preferences):
        uses_session = False

    site = await serve([("/", Light)])
    assert cookies_of(await site.fetch("/", "POST"))[0] == THEME


async def test_the_mixin_alone_gives_a_jar() -> None:
    """Harm: an application that wants no session cannot have the cookies."""

    class Alone(CookieMixin, RequestHandler):
        def get(self) -> None:
            self.write(self.jar.set("theme", "dark").signed.get("n", "none"))

    async with serving("mixin", [("/", Alone)]) as site:
        answer = await site.fetch("/")
        assert (answer.body, cookies_of(answer)) == (b"none", [THEME])


async def test_two_cookies_of_one_name_are_never_sent_beside_the_session(serve: ServeSite) -> None:
    """Harm: sign-in, flash and two preferences in one handler, and browsers disagree on what was set."""

    class Busy(Handler):
        def post(self) -> None:
            self.s["cart"] = [1]
            self.s.sign_in("ann")
            self.s.regenerate()
            self.s.flash("message", "hello")
            jar_of(self).set("theme", "light").signed.set("n", 1).set("theme", "dark")
            self.set_cookie("tornados", "own")

    site = await serve([("/", Busy)])
    names = sorted(line.partition("=")[0] for line in cookies_of(await site.fetch("/", "POST")))
    assert names == ["n", "session", "theme", "tornados"]


async def test_several_cookie_lines_of_a_request_are_read(serve: ServeSite) -> None:
    """Harm: HTTP/2 proxies split the header, and a cookie is lost."""
    site = await serve([("/", Preferences)])
    answer = await site.raw(
        b"GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1\r\nCookie: theme=dark\r\nConnection: close\r\n\r\n"
    )
    assert b'"theme": "dark"' in answer


class Ways(Handler):
    """One way to end an answer per path."""

    def prepare(self) -> None:
        jar_of(self).set("theme", "dark")
        if self.request.path == "/prepare":
            self.redirect("/elsewhere")

    async def get(self, way: str) -> None:
        if way.isdigit():
            self.set_status(int(way))
        else:
            await getattr(self, f"by_{way}")()

    async def by_redirect(self) -> None:
        self.redirect("/elsewhere")

    async def by_finish(self) -> None:
        self.finish("done")

    async def by_finish_exception(self) -> None:
        raise Finish

    async def by_http_error(self) -> None:
        raise HTTPError(404)

    async def by_flush(self) -> None:
        self.write("a")
        await self.flush()
        self.write("b")


@pytest.mark.parametrize(
    "way_out", ["redirect", "finish", "finish_exception", "http_error", "flush", "304", "204", "prepare"]
)
async def test_every_way_to_end_an_answer_sends_the_cookies(serve: ServeSite, way_out: str) -> None:
    """Harm: a redirect, an early finish or a stream loses what was set before."""
    site = await serve([("/(.*)", Ways)])
    assert cookies_of(await site.fetch(f"/{way_out}")) == [THEME]


async def test_a_websocket_handshake_carries_the_cookies(serve: ServeSite) -> None:
    """Harm: the 101 leaves by another door, without them."""

    class Socket(SessionMixin, WebSocketHandler):
        def prepare(self) -> None:
            jar_of(self).set("theme", "dark")

        def on_message(self, message: str | bytes) -> None:
            self.write_message(message)

    site = await serve([("/ws", Socket)])
    connection = await websocket_connect(f"ws://127.0.0.1:{site.port}/ws")
    assert connection.headers is not None
    assert connection.headers.get_list("Set-Cookie") == [THEME]
    await connection.write_message("hi")
    assert await connection.read_message() == "hi"
    connection.close()


# -- what fails sets nothing ------------------------------------------------------------------------------


async def test_an_uncaught_error_sends_no_cookie_and_a_refusal_below_500_does(serve: ServeSite) -> None:
    """Harm: "saved" in a cookie beside an error page; or a failed form forgets the language just chosen."""

    class Failing(Handler):
        def get(self, status: str) -> None:
            jar_of(self).set("theme", "dark")
            if status == "boom":
                raise RuntimeError("a bug")
            raise HTTPError(int(status))

    site = await serve([("/(.*)", Failing)])
    assert cookies_of(await site.fetch("/403")) == [THEME]
    assert cookies_of(await site.fetch("/503")) == []
    answer = await site.fetch("/boom")
    assert (answer.code, cookies_of(answer)) == (500, [])


async def test_a_misuse_is_a_500_that_sets_nothing_and_says_how_to_mend_it(
    serve: ServeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """Harm: half of the cookies arrive."""

    class Wrong(Handler):
        def get(self) -> None:
            jar_of(self).set("theme", "dark").set("other", "v", samesite="None")

    site = await serve([("/", Wrong)])
    answer = await site.fetch("/")
    assert (answer.code, cookies_of(answer)) == (500, [])
    assert "samesite='None' needs secure; give secure=True" in caplog.text


@pytest.mark.parametrize("how", ["set_cookie", "add_header"])
async def test_a_cookie_set_by_tornado_and_by_the_jar_is_refused(
    serve: ServeSite, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Harm: two lines of one name, one of them open to scripts; which one wins is the browser's taste."""

    class Both(Handler):
        def get(self) -> None:
            jar_of(self).set("theme", "dark")
            self.set_cookie("theme", "light") if how == "set_cookie" else self.add_header(
                "Set-Cookie", "theme=x"
            )
            self.write("never seen")

    site = await serve([("/", Both)])
    for connection in ("keep-alive", "close"):
        answer = await site.fetch("/", headers={"Connection": connection})
        assert (answer.code, cookies_of(answer), answer.body) == (500, [], b"")
    assert "use the jar alone" in caplog.text
    request = b"GET / HTTP/1.1\r\nHost: a\r\n"
    both = await site.raw(request + b"\r\n" + request + b"Connection: close\r\n\r\n")
    assert both.count(b"HTTP/1.1 500") == 2  # and the connection goes on


async def test_nothing_follows_a_refused_head(serve: ServeSite) -> None:
    """Harm: a stream that goes on after the refusal breaks the connection, or is read as the next answer."""

    class Stream(Handler):
        async def get(self) -> None:
            jar_of(self).set("theme", "dark")
            self.set_cookie("theme", "light")
            with pytest.raises(CookieError):
                await self.flush()
            self.write("more")
            await self.flush()

    site = await serve([("/", Stream)])
    request = b"GET / HTTP/1.1\r\nHost: a\r\n"
    both = await site.raw(request + b"\r\n" + request + b"Connection: close\r\n\r\n")
    assert both.count(b"HTTP/1.1 500") == 2
    assert b"more" not in both


async def test_the_sessions_own_cookie_is_not_the_jars(serve: ServeSite) -> None:
    """Harm: a handler overwrites the session, or deletes its cookie and leaves the record alive."""

    class Meddling(Handler):
        def get(self, name: str) -> None:
            with pytest.raises(CookieError, match=r"self\.session"):
                jar_of(self).set(name, "x", secure=name.startswith("__"))
            self.write("refused")

    site = await serve([("/(.*)", Meddling)])
    for name in ("session", "__Host-session", "session.1", "__Host-session.2"):
        assert await site.text(f"/{name}") == "refused"


async def test_a_cookie_after_the_headers_is_refused_loudly(serve: ServeSite) -> None:
    """Harm: it is lost in silence."""
    refused: list[str] = []

    class Late(Handler):
        async def get(self, when: str) -> None:
            if when == "known":
                jar_of(self)
            self.write("a")
            await self.flush()
            with pytest.raises(CookieError, match="headers have left"):
                jar_of(self).set("theme", "dark")
            refused.append(when)

        def on_finish(self) -> None:
            with pytest.raises(CookieError, match="headers have left"):
                jar_of(self).delete("theme")
            refused.append("finished")

    site = await serve([("/(.*)", Late)])
    assert cookies_of(await site.fetch("/known")) == []
    assert cookies_of(await site.fetch("/new")) == []
    assert refused == ["known", "finished", "new", "finished"]


async def test_a_failed_save_takes_the_cookies_with_it(serve: ServeSite) -> None:
    """Harm: "your order is placed" in a cookie, and a 503."""

    class Order(Handler):
        def post(self) -> None:
            self.s["order"] = 1
            jar_of(self).set("last-order", "1")

    site = await serve([("/", Order)])
    site.store.failures["create"] = StoreUnavailable("down")
    answer = await site.fetch("/", "POST")
    assert (answer.code, cookies_of(answer)) == (503, [])


async def test_what_was_read_from_cookies_is_kept_out_of_shared_caches(serve: ServeSite) -> None:
    """Harm: a proxy hands one visitor's page, or cookie, to another."""
    site = await serve([("/", Preferences)])
    for method in ("GET", "POST"):
        headers = (await site.fetch("/", method)).headers
        assert headers["Vary"] == "Cookie"
        assert "private" in headers["Cache-Control"]


# -- Secure -----------------------------------------------------------------------------------------------


async def test_secure_follows_tls_and_a_trusted_proxy_only() -> None:
    """Harm: whoever sends X-Forwarded-Proto decides; or http://localhost never gets its cookie back."""

    class Show(CookieMixin, RequestHandler):
        def get(self) -> None:
            self.jar.set("theme", "dark")

    for trusted, forwarded, secure in ((False, "https", False), (True, "https", True), (True, "http", False)):
        application = Application([("/", Show)], sessions=Sessions(backend="memory"))
        server = HTTPServer(application, xheaders=trusted)
        socket, port = bind_unused_port()
        server.add_socket(socket)
        with closing(Browser(f"http://127.0.0.1:{port}")) as browser:
            answer = await browser.get("/", headers={"X-Forwarded-Proto": forwarded})
        server.stop()
        await server.close_all_connections()
        assert ("; Secure" in cookies_of(answer)[0]) is secure, (trusted, forwarded)


@pytest.fixture
def tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's side of real TLS."""
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_over_tls_prefixed_and_partitioned_cookies_are_kept_and_deleted(
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """Harm: the strongest cookies there are work on some Pythons only, or cannot be deleted."""

    class Strong(CookieMixin, RequestHandler):
        def get(self) -> None:
            self.jar.set("__Host-a", "1").encrypted.set("b", 2, samesite="None", partitioned=True)

        def delete(self) -> None:
            self.jar.delete("__Host-a").delete("b", samesite="None", partitioned=True)

    server = HTTPServer(Application([("/", Strong)], sessions=Sessions(backend="memory")), ssl_options=tls[0])
    socket, port = bind_unused_port()
    server.add_socket(socket)
    jar = StrictCookieJar()
    with closing(Browser(f"https://localhost:{port}", ssl_options=tls[1], jar=jar)) as browser:
        await browser.get("/")
        assert sorted(cookie.name for cookie in jar.cookies) == ["__Host-a", "b"]
        assert all(cookie.secure for cookie in jar.cookies)
        await browser.request("DELETE", "/")
    server.stop()
    await server.close_all_connections()
    assert (jar.cookies, jar.rejected, jar.ignored) == ([], [], [])


# -- keys -------------------------------------------------------------------------------------------------


async def test_the_key_is_tornados_cookie_secret_or_our_own_setting() -> None:
    """Harm: after a restart, or on the second server, every signed cookie is void."""

    class Count(CookieMixin, RequestHandler):
        def get(self) -> None:
            self.jar.signed.set("n", self.jar.signed.get("n", 0) + 1)
            self.write(str(self.jar.signed.get("n", 0)))

    rotated = {1: SECRET, 2: SECRET[::-1]}
    sent: dict[str, str] = {}
    for step, (ours, theirs, expected) in enumerate(
        [
            (SECRET, None, "0"),
            (None, SECRET, "1"),
            (rotated, SECRET[::-1], "2"),
            (SECRET[::-1], SECRET, "3"),
            (SECRET, None, "0"),
        ]
    ):
        settings = Settings(backend="memory", cookie_secret=ours)
        more: dict[str, Any] = {"cookie_secret": theirs} if theirs else {}
        async with serving("mixin", [("/", Count)], settings=settings, **more) as site:
            answer = await site.fetch("/", headers=sent)
            assert answer.body.decode() == expected, step
            sent = {"Cookie": cookies_of(answer)[0].partition(";")[0]}


async def test_reading_an_old_keys_value_sends_it_again_under_the_new_one(serve: ServeSite) -> None:
    """Harm: the old key can never go, because its values live on."""
    old = await serve([("/", Preferences)])
    token = cookies_of(await old.fetch("/", "POST"))[1].partition(";")[0]
    new = await serve(
        [("/", Preferences)], settings=Settings(backend="memory", cookie_secret={1: SECRET, 2: SECRET[::-1]})
    )
    answer = await new.fetch("/", headers={"Cookie": token})
    (renewed,) = cookies_of(answer)
    assert answer.body == b'{"theme": "light", "visits": 3}'
    assert renewed.startswith("visits=ew1s.")
    assert renewed.split(".")[1] != token.split(".")[1]
    assert cookies_of(await new.fetch("/", headers={"Cookie": renewed.partition(";")[0]})) == []
