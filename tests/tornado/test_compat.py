"""Moving from tornado-auth-sessions: its three handlers as printed, its bugs gone, nobody signed out."""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
import trustme
from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler, authenticated, create_signed_value
from tornado.websocket import WebSocketHandler, websocket_connect

from eyewall import ConfigurationError, SessionMixin, Sessions
from eyewall.core.store import utc_now
from eyewall.errors import UnstorableValueError
from eyewall.testing.client import Browser
from eyewall.tornado.compat import AuthSessions, TornadoAuthSessionMixin
from tests.servers.proxy import Proxy
from tests.servers.resp import RespServer
from tests.tornado.site import SECRET

user = SimpleNamespace(id=42)


class BaseHandler(TornadoAuthSessionMixin, RequestHandler):
    pass


class LoginHandler(BaseHandler):
    def post(self) -> None:
        # validate user: whoever posts here has been found to be user 42
        self.set_session(user.id)
        self.redirect("/dashboard")


class DashboardHandler(BaseHandler):
    def get(self) -> None:
        user_id = self.get_session()
        if not user_id:
            self.redirect("/login")
            return
        self.write(f"Welcome user {user_id}")  # type: ignore[str-bytes-safe]  # as printed


class LogoutHandler(BaseHandler):
    def post(self) -> None:
        self.remove_session(user.id)
        self.redirect("/")


class Guarded(BaseHandler):
    """What Tornado itself asks; and both sides of a sign-out in one request."""

    @authenticated
    def get(self) -> None:
        self.write(f"{self.current_user!r} {self.session.is_fresh()} {self.session.get('cart')}")

    def delete(self) -> None:
        before = self.current_user
        self.remove_session()
        self.write(f"{before!r} {self.current_user!r}")

    def put(self) -> None:
        self.session["cart"] = 1


class Ping(RequestHandler):
    def get(self) -> None:
        self.write("pong")


class Socket(TornadoAuthSessionMixin, WebSocketHandler):
    def open(self) -> None:
        self.write_message(f"Welcome user {self.get_session()!r}")


HANDLERS: list[Any] = [
    ("/socket", Socket),
    ("/login", LoginHandler),
    ("/dashboard", DashboardHandler),
    ("/logout", LogoutHandler),
    ("/guarded", Guarded),
    ("/ping", Ping),
]


class Site:
    """The application over TLS, and the Redis it used to have."""

    def __init__(self, base: str, trust: ssl.SSLContext, application: Application, redis: RespServer) -> None:
        self.base, self.trust, self.application, self.redis = base, trust, application, redis
        self.browsers: list[Browser] = []

    @property
    def sessions(self) -> AuthSessions:
        found: AuthSessions = self.application.settings["sessions"]
        return found

    def browser(self) -> Browser:
        """Return a new browser."""
        self.browsers.append(Browser(self.base, ssl_options=self.trust))
        return self.browsers[-1]

    def close(self) -> None:
        """Close the browsers."""
        for browser in self.browsers:
            browser.close()

    def old_sign_in(self, user_id: str = "42", *, secret: str = SECRET) -> tuple[str, str]:
        """Sign in as the old library did: return the key in Redis and the cookie."""
        old_id = secrets.token_urlsafe(32)
        self.redis.ask("SETEX", f"session:{old_id}", "604800", user_id)
        return (
            f"session:{old_id}",
            f'session_id="{create_signed_value(secret, "session_id", old_id).decode()}"',
        )

    def returning(self, cookie: str) -> Browser:
        """Return a browser that holds the old library's cookie."""
        browser = self.browser()
        browser.jar.receive(self.base, [f"{cookie}; HttpOnly; Max-Age=604800; Path=/; Secure"], utc_now())
        return browser

    async def with_cart(self, cookie: str) -> Browser:
        """Return a browser that holds the old library's cookie, and a session with a cart in it."""
        browser = self.browser()
        await browser.request("PUT", "/guarded")
        browser.jar.receive(self.base, [f"{cookie}; Path=/; Secure"], utc_now())
        return browser

    async def replay(self, cookie: str, path: str = "/dashboard") -> HTTPResponse:
        """Send ``cookie`` as somebody would who has a copy of it."""
        return await self.browser().get(path, headers={"Cookie": cookie})

    def has(self, key: str) -> bool:
        """Whether Redis holds ``key``."""
        return self.redis.ask("EXISTS", key) == ":1\r\n"


Serve = Callable[..., Any]


@pytest.fixture(params=["redis7", "valkey9"])
def redis(request: pytest.FixtureRequest) -> RespServer:
    """The Redis that the old library used."""
    server: RespServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="module")
def certificate() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What the server shows, and what browsers trust."""
    authority = trustme.CA()
    server, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trust)
    return server, trust


@asynccontextmanager
async def listening(application: Application, **options: Any) -> AsyncIterator[int]:
    """Serve ``application`` on a free port."""
    server = HTTPServer(application, **options)
    socket, port = bind_unused_port()
    server.add_socket(socket)
    try:
        yield port
    finally:
        server.stop()
        await server.close_all_connections()
        if "sessions" in application.settings:
            await application.settings["sessions"].aclose()


@pytest_asyncio.fixture
async def serve(
    redis: RespServer, certificate: tuple[ssl.SSLContext, ssl.SSLContext]
) -> AsyncIterator[Serve]:
    """Start the application; its settings are the printed ones unless a test gives others."""
    server, trust = certificate
    async with AsyncExitStack() as stack:

        async def start(port: int | None = None, **settings: Any) -> Site:
            redis_host = {"host": "127.0.0.1", "port": port or redis.port, "db": 0, "decode_responses": True}
            settings = {"cookie_secret": SECRET, "redis_host": redis_host, "login_url": "/login"} | settings
            application = Application(HANDLERS, **settings)
            port = await stack.enter_async_context(listening(application, ssl_options=server))
            site = Site(f"https://127.0.0.1:{port}", trust, application, redis)
            stack.callback(site.close)
            return site

        yield start


# The three handlers, and the three bugs


async def test_the_printed_handlers_work_and_logging_out_really_does(serve: Serve) -> None:
    """Harm: after "logout" the cookie goes on opening the dashboard, as it did with the old library."""
    site = await serve()
    browser = site.browser()
    assert (await browser.get("/dashboard")).headers["Location"] == "/login"
    welcome = await browser.post("/login", follow=True, navigate=True)
    assert welcome.body == b"Welcome user 42"
    assert (await browser.get("/guarded")).body == b"'42' True None"
    (cookie,) = browser.jar.cookies
    copied = f"{cookie.name}={cookie.value}"
    assert (await site.replay(copied)).body == b"Welcome user 42"
    assert (await browser.post("/logout")).headers["Location"] == "/"
    assert list(browser.jar.cookies) == []
    assert (await site.replay(copied)).headers["Location"] == "/login"


async def test_it_works_on_plain_http_on_this_machine(redis: RespServer) -> None:
    """Harm: every cookie was Secure, so a developer on http://localhost could never sign in."""
    redis_host = {"host": "127.0.0.1", "port": redis.port, "password": None, "decode_responses": True}
    application = Application(HANDLERS, cookie_secret=SECRET, redis_host=redis_host)
    async with listening(application) as port:
        with closing(Browser(f"http://127.0.0.1:{port}")) as browser:
            answer = await browser.post("/login", follow=True, navigate=True)
            assert answer.body == b"Welcome user 42"


async def test_signing_out_first_thing_is_no_error(serve: Serve) -> None:
    """Harm: remove_session before any get_session raised AttributeError: a 500 instead of a sign-out."""
    site = await serve()
    assert (await site.browser().post("/logout")).code == 302
    key, cookie = site.old_sign_in()
    browser = site.returning(cookie)
    assert (await browser.post("/logout")).code == 302
    assert not site.has(key)
    assert list(browser.jar.cookies) == []
    assert (await site.replay(cookie)).headers["Location"] == "/login"


async def test_a_frozen_redis_does_not_stop_the_process(serve: Serve, redis: RespServer) -> None:
    """Harm: the old client blocked the event loop; one slow Redis, and nobody was answered."""
    async with Proxy(redis.port) as proxy:
        site = await serve(proxy.port)
        key, cookie = site.old_sign_in()
        proxy.replies.freeze()
        waiting = asyncio.ensure_future(site.replay(cookie))
        await proxy.requests.first_piece()
        assert (await site.browser().get("/ping")).body == b"pong"
        assert not waiting.done()
        assert (await waiting).code == 503
        assert (await waiting).headers.get_list("Set-Cookie") == []
        assert site.has(key)
        proxy.replies.thaw()
        proxy.cut()
        assert (await site.replay(cookie)).body == b"Welcome user 42"


# Taking over


async def test_who_was_signed_in_stays_so_and_key_and_cookie_go(serve: Serve) -> None:
    """Harm: on the day of the move everybody has to sign in again, or the old cookie works for ever."""
    site = await serve()
    key, cookie = site.old_sign_in("7")
    browser = site.returning(cookie)
    assert (await browser.get("/dashboard")).body == b"Welcome user 7"
    assert not site.has(key)
    assert [cookie.name for cookie in browser.jar.cookies] == ["__Host-session"]
    assert (await browser.get("/guarded")).body == b"'7' False None"  # they have proved nothing now


async def test_a_web_socket_may_be_what_arrives_first(serve: Serve) -> None:
    """Harm: a page that was open during the move loses its live connection's user."""
    site = await serve()
    key, cookie = site.old_sign_in("7")
    url = site.base.replace("https", "wss") + "/socket"
    socket = await websocket_connect(HTTPRequest(url, headers={"Cookie": cookie}, ssl_options=site.trust))
    assert await socket.read_message() == "Welcome user '7'"
    socket.close()
    assert not site.has(key)
    assert (await site.replay(cookie)).body == b"Welcome user 7"  # its page arrives at the same session


async def test_the_old_cookie_opens_nothing_after_a_sign_out(serve: Serve) -> None:
    """Harm: a copy of the old cookie brings back what its owner has ended."""
    site = await serve()
    _, cookie = site.old_sign_in("7")
    browser = site.returning(cookie)
    await browser.get("/dashboard")
    assert (await browser.request("DELETE", "/guarded")).body == b"'7' None"
    answer = await site.replay(cookie)
    assert answer.headers["Location"] == "/login"
    (line,) = answer.headers.get_list("Set-Cookie")
    assert line.startswith("session_id=;")
    assert "Max-Age=0" in line


async def test_requests_sent_at_once_all_arrive_at_one_session(serve: Serve) -> None:
    """Harm: a browser that restores its tabs is signed in by the first and sent to the login by the rest."""
    site = await serve()
    principal = secrets.token_hex(8)
    key, cookie = site.old_sign_in(principal)
    answers = await asyncio.gather(*(site.replay(cookie) for _ in range(8)))
    late = await site.replay(cookie)  # sent before the first answer came, read after the key had gone
    assert {answer.body.decode() for answer in (*answers, late)} == {f"Welcome user {principal}"}
    assert len(await site.sessions.store.find_principal(principal)) == 1
    assert not site.has(key)


async def test_who_looks_for_the_old_key_too_late_joins_those_who_did_not(serve: Serve) -> None:
    """Harm: on a busy server, some of the tabs that a browser restores are sent to the login all the same."""
    site = await serve()
    principal = secrets.token_hex(8)
    _, cookie = site.old_sign_in(principal)
    await site.replay("", "/dashboard")  # the first request makes the sessions
    keys = site.sessions._keys
    assert keys is not None
    find, about_to, go_on = keys.find, asyncio.Event(), asyncio.Event()

    async def late_find(old_id: str) -> bytes | None:
        about_to.set()
        await go_on.wait()
        value: bytes | None = await find(old_id)
        return value

    keys.find = late_find
    late = asyncio.ensure_future(site.replay(cookie))
    await about_to.wait()
    keys.find = find
    assert (await site.replay(cookie)).body == f"Welcome user {principal}".encode()
    go_on.set()
    assert (await late).body == f"Welcome user {principal}".encode()
    assert len(await site.sessions.store.find_principal(principal)) == 1


async def test_a_sign_out_wins_over_a_take_over_on_its_way(serve: Serve) -> None:
    """Harm: a slow request that had read the old key brings the session back after the sign-out."""
    site = await serve()
    principal = secrets.token_hex(8)
    _, cookie = site.old_sign_in(principal)
    await site.replay("", "/dashboard")  # the first request makes the sessions
    keys = site.sessions._keys
    assert keys is not None
    find, found, go_on = keys.find, asyncio.Event(), asyncio.Event()

    async def slow_find(old_id: str) -> bytes | None:
        value: bytes | None = await find(old_id)
        found.set()
        await go_on.wait()
        return value

    keys.find = slow_find
    slow = asyncio.ensure_future(site.replay(cookie))
    await found.wait()
    keys.find = find
    browser = site.returning(cookie)
    assert (await browser.get("/dashboard")).body == f"Welcome user {principal}".encode()
    await browser.post("/logout")
    go_on.set()
    assert (await slow).headers["Location"] == "/login"
    assert await site.sessions.store.find_principal(principal) == []


async def test_a_sign_out_wins_over_the_take_over_of_a_visitor_with_a_cart(serve: Serve) -> None:
    """Harm: as above; the slow request starts a session of its own, because the visitor's has ended."""
    site = await serve()
    principal = secrets.token_hex(8)
    _, cookie = site.old_sign_in(principal)
    browser = await site.with_cart(cookie)
    keys = site.sessions._keys
    assert keys is not None
    find, found, go_on = keys.find, asyncio.Event(), asyncio.Event()

    async def slow_find(old_id: str) -> bytes | None:
        value: bytes | None = await find(old_id)
        found.set()
        await go_on.wait()
        return value

    keys.find = slow_find
    both = "; ".join(f"{one.name}={one.value}" for one in browser.jar.cookies)
    slow = asyncio.ensure_future(site.replay(both))
    await found.wait()
    keys.find = find
    assert (await browser.get("/dashboard")).body == f"Welcome user {principal}".encode()
    await browser.post("/logout")
    go_on.set()
    assert (await slow).headers["Location"] == "/login"
    assert await site.sessions.store.find_principal(principal) == []


async def test_a_cookie_the_old_library_did_not_sign_costs_no_question(
    serve: Serve, redis: RespServer
) -> None:
    """Harm: a stranger guesses IDs, or keeps Redis busy."""
    async with Proxy(redis.port) as proxy:
        site = await serve(proxy.port)
        _, forged = site.old_sign_in(secret=SECRET[::-1])
        key, _ = site.old_sign_in()
        other = create_signed_value(SECRET, "session_id", "not an ID").decode()
        elsewhere = create_signed_value(SECRET, "newsletter", key.removeprefix("session:")).decode()
        for cookie in (forged, f'session_id="{other}"', f'session_id="{elsewhere}"', "session_id=x"):
            assert (await site.replay(cookie)).headers["Location"] == "/login"
        assert proxy.requests.pieces == []


async def test_an_old_session_that_is_over_is_nobody(serve: Serve) -> None:
    """Harm: a cookie outlives the session it was for."""
    site = await serve()
    key, cookie = site.old_sign_in("7")
    site.redis.ask("DEL", key)
    assert (await site.replay(cookie)).headers["Location"] == "/login"


@pytest.mark.parametrize("value", ["", "\udcff", "x" * 1025, None])
async def test_a_key_that_names_nobody_is_nobody(serve: Serve, value: str | None) -> None:
    """Harm: another program's key of the same name breaks the page, or signs in as it."""
    site = await serve()
    key, cookie = site.old_sign_in("")
    if value is None:
        site.redis.ask("DEL", key)
        site.redis.ask("HSET", key, "user", "7")
    elif value == "\udcff":
        site.redis.ask("SETBIT", key, "0", "1")  # one byte, 0x80, that is no UTF-8
    else:
        site.redis.ask("SET", key, value)
    assert (await site.replay(cookie)).headers["Location"] == "/login"


async def test_the_key_of_one_never_opens_another(serve: Serve) -> None:
    """Harm: two who arrive at once are exchanged."""
    site = await serve()
    users = [f"user-{number}" for number in range(6)]
    cookies = [site.old_sign_in(user_id)[1] for user_id in users]
    answers = await asyncio.gather(*(site.replay(cookie) for cookie in cookies))
    assert [answer.body.decode() for answer in answers] == [f"Welcome user {each}" for each in users]
    both = await site.replay(f"{cookies[0]}; {cookies[1]}")  # one of them was planted: neither counts
    assert both.headers["Location"] == "/login"


async def test_an_old_cookie_does_not_change_who_is_signed_in(serve: Serve) -> None:
    """Harm: an old cookie planted by a subdomain signs the victim in as the attacker."""
    site = await serve()
    browser = site.browser()
    await browser.post("/login")
    key, planted = site.old_sign_in("mallory")
    browser.jar.receive(site.base, [f"{planted}; Path=/; Secure"], utc_now())
    assert (await browser.get("/dashboard")).body == b"Welcome user 42"
    assert [cookie.name for cookie in browser.jar.cookies] == ["__Host-session"]
    assert not site.has(key)


async def test_a_visitor_with_a_cart_keeps_it(serve: Serve) -> None:
    """Harm: who got a session before an old server signed them in loses it by the take-over."""
    site = await serve()
    _, cookie = site.old_sign_in("7")
    browser = await site.with_cart(cookie)
    assert (await browser.get("/guarded")).body == b"'7' False 1"


async def test_a_visitor_with_a_cart_waits_as_others_do_until_there_is_room(serve: Serve) -> None:
    """Harm: "the store failed" on every page, for as long as their other devices stay signed in."""
    site = await serve(sessions=AuthSessions(backend="memory", max_sessions=1, when_full="refuse"))
    await site.replay(site.old_sign_in("7")[1])  # the only session there may be
    key, cookie = site.old_sign_in("7")
    browser = await site.with_cart(cookie)
    assert (await browser.get("/dashboard")).headers["Location"] == "/login"
    await browser.request("PUT", "/guarded")
    assert site.has(key)
    assert await site.sessions.store.delete_principal("7")
    assert (await browser.get("/guarded")).body == b"'7' False 1"


async def test_a_store_of_ones_own_takes_over_from_the_old_redis(serve: Serve) -> None:
    """Harm: the old users are lost when the application moves to another store on the same day."""
    site = await serve(sessions=AuthSessions(backend="memory"))
    key, cookie = site.old_sign_in("7")
    assert (await site.replay(cookie)).body == b"Welcome user 7"
    assert not site.has(key)


# Types and settings


async def test_the_types_are_those_of_the_old_library(serve: Serve, redis: RespServer) -> None:
    """Harm: code that decodes the user id, as it had to, breaks."""
    site = await serve(redis_host={"host": "127.0.0.1", "port": redis.port})
    browser = site.browser()
    await browser.post("/login")
    assert (await browser.get("/guarded")).body == b"b'42' True None"


@pytest.mark.parametrize("user_id", [None, True, 4.2, b"\xff", "", object()])
def test_what_is_no_user_id_is_refused(user_id: object) -> None:
    """Harm: everybody whose id was missing is signed in as the same "None"."""
    signed_in: list[str] = []

    def sign_in(principal: str) -> None:
        session.sign_in(principal)
        signed_in.append(principal)

    session = Sessions(backend="memory", cookie_secret=SECRET).open([], https=True)
    handler = SimpleNamespace(session=SimpleNamespace(sign_in=sign_in))
    with pytest.raises(UnstorableValueError):
        TornadoAuthSessionMixin.set_session(handler, user_id)  # type: ignore[arg-type]
    assert signed_in == []


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"redis_host": None}, "redis_host="),
        ({"redis_host": {"host": "x", "ssl": True}}, "'ssl'"),
        ({"sessions": Sessions(backend="memory")}, "AuthSessions"),
    ],
)
def test_settings_that_would_sign_everybody_out_are_refused(settings: dict[str, Any], names: str) -> None:
    """Harm: a wrong setting is found out by the users."""
    application = Application(**({"redis_host": {"host": "x"}, "cookie_secret": SECRET} | settings))
    with pytest.raises(ConfigurationError, match=names):
        AuthSessions.prepare(application)


async def test_a_wrong_setting_is_answered_and_no_session_is_made_elsewhere(serve: Serve) -> None:
    """Harm: the request hangs, or sessions land in a folder nobody meant."""
    site = await serve(redis_host={"hostname": "x"})
    for _ in range(2):
        assert (await site.browser().get("/dashboard")).code == 500
    assert "sessions" not in site.application.settings


@pytest.mark.parametrize(
    ("backend", "settings"), [("cookie", {"cookie_secret": SECRET}), ("memory", {"cookie_secret": None})]
)
def test_sessions_that_cannot_take_over_are_refused_each_time(backend: str, settings: dict[str, Any]) -> None:
    """Harm: the first request fails and the second is served by half-made sessions."""
    sessions = AuthSessions(backend=backend, cookie_secret=SECRET)
    application = Application(redis_host={"host": "x"}, **settings)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="cookie"):
            sessions.bind(application)
        assert not sessions.is_bound


def test_a_session_cookie_of_the_old_name_is_refused() -> None:
    """Harm: every answer sets and deletes the same cookie."""
    with pytest.raises(ConfigurationError, match="'name'"):
        AuthSessions(backend="memory", name="session_id")


async def test_when_the_move_is_over_the_mixin_works_with_any_sessions(serve: Serve) -> None:
    """Harm: the handlers have to be rewritten on the day the old Redis is switched off."""
    assert SessionMixin in TornadoAuthSessionMixin.__mro__
    site = await serve(redis_host=None, sessions=Sessions(backend="memory"))
    browser = site.browser()
    await browser.post("/login")
    assert (await browser.get("/dashboard")).body == b"Welcome user 42"
