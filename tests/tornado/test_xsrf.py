"""The session-bound token behind Tornado's names, with every combination of Tornado's switches and ours."""

from __future__ import annotations

import asyncio
import html
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing
from datetime import timedelta
from itertools import product
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from tornado.httpclient import HTTPResponse
from tornado.template import DictLoader
from tornado.web import HTTPError, RequestHandler, stream_request_body

from eyewall import SessionMixin, Settings
from eyewall.core.csrf_token import PRE_SESSION_LIFE
from eyewall.core.events import Event, EventKind
from eyewall.errors import HeadersSentError, StoreUnavailable
from eyewall.testing.client import Browser
from eyewall.testing.clock import ManualClock
from eyewall.tornado.xsrf import XsrfMixin
from tests.tornado.site import SECRET, Site, serving

PAGE = "<form>{% module xsrf_form_html() %}</form>"
MULTIPART = '--b\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n--b--\r\n'
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


class Switches(NamedTuple):
    """Our setting ``strict``, and the application's ``xsrf_cookies`` and ``cross_origin_protection``."""

    strict: bool
    xsrf_cookies: bool
    cross_origin_protection: bool

    @property
    def demand(self) -> bool:
        """Whether anybody asks for the token."""
        return self.strict or self.xsrf_cookies


ALL = [Switches(*each) for each in product([True, False], repeat=3)]
DEMANDING = [switches for switches in ALL if switches.demand and not switches.cross_origin_protection]


class Form(SessionMixin, RequestHandler):
    """A page with a form, and what it can ask for."""

    checks = 0
    did: list[str] = []  # noqa: RUF012 - emptied before each test

    def check_xsrf_cookie(self) -> None:
        """Count, and do as always."""
        Form.checks += 1
        super().check_xsrf_cookie()

    def get(self) -> None:
        """Show the form."""
        self.render("page.html")

    def post(self) -> None:
        """Do what the form says."""
        verb = self.get_argument("do", "nothing")
        self.did.append(verb)
        if verb in ("alice", "mallory"):
            self.session.sign_in(verb)
        elif verb == "sign_out":
            self.session.sign_out()
        elif verb == "cart":
            self.session["cart"] = 1
        self.write(str(self.session.principal))

    put = patch = delete = post


class Webhook(Form):
    cross_origin_protection = False


class Exempt(Form):
    """Opts out in the manner of Tornado's documentation."""

    def check_xsrf_cookie(self) -> None:
        pass


class Sessionless(Form):
    uses_session = False

    def post(self) -> None:
        self.write("no session")


@stream_request_body
class Upload(Form):
    def data_received(self, chunk: bytes) -> None:
        self.did.append("received")


class Api(SessionMixin, RequestHandler):
    """Gives the token to a script."""

    def get(self) -> None:
        self.write(self.xsrf_token)


class Cached(Form):
    def get(self) -> None:
        self.set_header("Cache-Control", "public, max-age=60")
        super().get()


class SigningIn(SessionMixin, RequestHandler):
    """Renders the token, signs in, and renders it again."""

    def get(self) -> None:
        before = [self.xsrf_token, self.xsrf_token]
        self.session.sign_in("alice")
        after = [self.xsrf_token, self.xsrf_token]
        self.write({"before": [t.decode() for t in before], "after": [t.decode() for t in after]})


class Late(SessionMixin, RequestHandler):
    async def get(self) -> None:
        self.write("<form>")
        await self.flush()
        with pytest.raises(HeadersSentError, match="before the first flush"):
            _ = self.xsrf_token
        self.write("told")


HANDLERS = [
    ("/", Form),
    ("/webhook", Webhook),
    ("/exempt", Exempt),
    ("/sessionless", Sessionless),
    ("/upload", Upload),
    ("/api", Api),
    ("/cached", Cached),
    ("/signing-in", SigningIn),
    ("/late", Late),
]


class App:
    """A served application, its clock and its events."""

    def __init__(self, site: Site, clock: ManualClock) -> None:
        self.site = site
        self.clock = clock
        self.base = f"http://127.0.0.1:{site.port}"
        self.events: list[Event] = []
        site.sessions.events.subscribe(self.events.append)

    def refusals(self) -> list[str]:
        """Why tokens were refused."""
        return [event.detail for event in self.events if event.kind is EventKind.CSRF_REFUSED]


class User:
    """Somebody with a browser."""

    def __init__(self, app: App) -> None:
        self.browser = Browser(app.base, clock=app.clock)

    async def token(self, path: str = "/") -> str:
        """The token in the form of a page."""
        return token_in(await self.browser.get(path))

    async def send(self, verb: str = "nothing", *, token: str | None, path: str = "/") -> HTTPResponse:
        """Send the form."""
        fields = {"do": verb} | ({} if token is None else {"_xsrf": token})
        return await self.browser.post_form(path, fields)

    async def sign_in(self, principal: str) -> None:
        """By the form, as people do."""
        answer = await self.send(principal, token=await self.token())
        assert answer.body.decode() == principal


def token_in(page: HTTPResponse) -> str:
    """The token in the hidden field."""
    found = re.search(r'<input type="hidden" name="_xsrf" value="([^"]*)"/>', page.body.decode())
    assert found is not None
    return html.unescape(found[1])


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    """Forget what other tests did."""
    Form.did.clear()
    Form.checks = 0


async def start(stack: AsyncExitStack, switches: Switches, **options: Any) -> App:
    """Serve the handlers with ``switches``."""
    settings = Settings(backend="memory", cookie_secret=SECRET, strict=switches.strict, **options)
    clock = ManualClock()
    site = await stack.enter_async_context(
        serving(
            "mixin",
            HANDLERS,
            settings=settings,
            clock=clock,
            xsrf_cookies=switches.xsrf_cookies,
            cross_origin_protection=switches.cross_origin_protection,
            template_loader=DictLoader({"page.html": PAGE}),
        )
    )
    return App(site, clock)


@pytest_asyncio.fixture(params=DEMANDING, ids=str)
async def app(request: pytest.FixtureRequest) -> AsyncIterator[App]:
    """An application that demands the token, in each way of demanding it; our header check is off.

    So the token alone has to stop the attacks.
    """
    async with AsyncExitStack() as stack:
        yield await start(stack, request.param, cross_origin_protection=False)


@pytest.fixture
def user(app: App) -> Iterator[User]:
    """A visitor."""
    somebody = User(app)
    with closing(somebody.browser):
        yield somebody


@pytest.fixture
def attacker(app: App) -> Iterator[User]:
    """Somebody else with a browser of their own."""
    somebody = User(app)
    with closing(somebody.browser):
        yield somebody


# -- what must work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("switches", ALL, ids=str)
async def test_the_form_works_with_every_combination_of_switches(switches: Switches) -> None:
    """S09: an upgrade of Tornado, or a switch, refuses every form."""
    async with AsyncExitStack() as stack:
        app = await start(stack, switches)
        user = User(app)
        stack.enter_context(closing(user.browser))
        assert (await user.send(token=None)).code == (403 if switches.demand else 200)
        await user.sign_in("alice")
        assert (await user.send(token=await user.token())).body == b"alice"
        assert (await user.send("sign_out", token="x")).code == (403 if switches.demand else 200)
        assert app.refusals() == [] if not switches.demand else len(app.refusals()) == 2


@pytest.mark.parametrize("switches", ALL, ids=str)
async def test_the_token_is_checked_exactly_once(switches: Switches) -> None:
    """Twice, one forgery is counted as two, and one of the two places is forgotten one day."""
    async with AsyncExitStack() as stack:
        user = User(await start(stack, switches))
        stack.enter_context(closing(user.browser))
        token = await user.token()
        assert Form.checks == 0
        await user.send(token=token)
        assert Form.checks == (1 if switches.demand else 0)


@pytest.mark.parametrize("header", ["X-XSRFToken", "X-CSRFToken", "x-xsrftoken"])
async def test_a_script_sends_the_token_in_a_header_beside_json(user: User, header: str) -> None:
    """Frontends post JSON, which has no hidden field."""
    token = (await user.browser.get("/api")).body.decode()
    answer = await user.browser.post_json("/", {}, headers={header: token})
    assert answer.code == 200
    assert (await user.browser.post_json("/", {"_xsrf": token})).code == 403


async def test_the_token_is_found_in_a_multipart_form(user: User) -> None:
    """Forms with files are sent this way."""
    token = await user.token()
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    sent = await user.browser.post("/", MULTIPART.format("_xsrf", token), headers=headers)
    assert sent.code == 200
    sent = await user.browser.post("/", MULTIPART.format("other", token), headers=headers)
    assert sent.code == 403


@pytest.mark.parametrize("method", UNSAFE)
async def test_every_unsafe_method_needs_it(user: User, method: str) -> None:
    """The handler for DELETE is the one that was forgotten."""
    token = await user.token()
    assert (await user.browser.request(method, "/", b"")).code == 403
    assert Form.did == []
    with_token = await user.browser.request(method, "/", b"", headers={"X-XSRFToken": token})
    assert with_token.code == 200


async def test_a_streamed_body_is_not_taken_in_without_the_header(user: User) -> None:
    """A gigabyte is received first, and refused afterwards; or its token is not looked at."""
    token = await user.token()
    assert (await user.send(token=token, path="/upload")).code == 403
    assert Form.did == []
    answer = await user.browser.post("/upload", b"data", headers={"X-CSRFToken": token})
    assert answer.code == 200
    assert Form.did == ["received", "nothing"]


async def test_forms_in_other_tabs_outlive_a_cart_but_not_a_sign_in(user: User) -> None:
    """The first write of an anonymous visitor must not refuse the form they are looking at."""
    form = await user.token()
    assert (await user.send("cart", token=form)).code == 200
    assert (await user.send("cart", token=form)).code == 200
    assert (await user.send("alice", token=form)).code == 200
    assert (await user.send("cart", token=form)).code == 403


async def test_a_page_has_one_token_and_another_one_after_signing_in(user: User) -> None:
    """A page of fifty forms has fifty tokens; or what was read before the sign-in is shown after it."""
    tokens = json.loads((await user.browser.get("/signing-in")).body)
    assert len(set(tokens["before"])) == len(set(tokens["after"])) == 1
    assert (await user.send("cart", token=tokens["before"][0])).code == 403
    assert (await user.send("cart", token=tokens["after"][0])).body == b"alice"


# -- attacks ------------------------------------------------------------------------------------------------


async def test_the_attackers_own_token_is_refused(user: User, attacker: User) -> None:
    """S04: a token is good, but in another session."""
    await user.sign_in("alice")
    await attacker.sign_in("mallory")
    assert (await user.send("sign_out", token=await attacker.token())).code == 403
    assert "sign_out" not in Form.did


async def test_the_old_sessions_token_is_refused(user: User) -> None:
    """S04: read before the sign-out, used after the next sign-in."""
    await user.sign_in("alice")
    old = await user.token()
    assert (await user.send("sign_out", token=old)).code == 200
    assert (await user.send("cart", token=old)).code == 403
    await user.sign_in("alice")
    assert (await user.send("cart", token=old)).code == 403


async def test_a_tossed_pair_of_tornados_cookie_and_argument_is_refused(user: User) -> None:
    """S04: double submit falls to whoever can set a cookie, a sibling subdomain for one."""
    await user.sign_in("alice")
    pair = "2|01234567|0123456789abcdef0123456789abcdef|1760000000"
    (session,) = [cookie for cookie in user.browser.jar.cookies if cookie.name == "session"]
    headers = {"Cookie": f"_xsrf={pair}; session={session.value}"}
    answer = await user.browser.post_form("/", {"do": "sign_out", "_xsrf": pair}, headers=headers)
    assert answer.code == 403


async def test_a_tossed_pre_session_does_not_open_a_signed_in_session(user: User, attacker: User) -> None:
    """S04: the attacker's pre-session and its token, planted on plain http where names have no prefix."""
    await user.sign_in("alice")
    token = await attacker.token()
    (planted,) = attacker.browser.jar.cookies
    (session,) = user.browser.jar.cookies
    headers = {"Cookie": f"session-pre={planted.value}; session={session.value}"}
    answer = await user.browser.post_form("/", {"do": "sign_out", "_xsrf": token}, headers=headers)
    assert answer.code == 403


async def test_a_token_in_the_query_is_refused_and_the_reason_is_told(app: App, user: User) -> None:
    """S05: a query is in the history, in logs, and in the Referer of the next site."""
    token = await user.token()
    answer = await user.browser.post_form(f"/?_xsrf={token}", {"do": "cart"})
    assert answer.code == 403
    assert Form.did == []
    assert app.refusals()[0].startswith("CSRF token in the query")


async def test_a_forged_sign_in_is_refused(user: User, attacker: User) -> None:
    """S06: the victim is signed in to the attacker's account by a page of another site."""
    token = await attacker.token()
    for sent in (None, "", token):
        forged = {"do": "mallory"} | ({} if sent is None else {"_xsrf": sent})
        answer = await user.browser.post_form("/", forged, from_origin="https://evil.example")
        assert answer.code == 403
    assert Form.did == []
    assert list(user.browser.jar.cookies) == []


async def test_a_sign_in_form_is_good_for_fifteen_minutes(app: App, user: User) -> None:
    """L15: an open sign-in page in a library waits for its next user."""
    token = await user.token()
    app.clock.advance(PRE_SESSION_LIFE - timedelta(seconds=1))
    assert (await user.send(token=token)).code == 200
    app.clock.advance(timedelta(seconds=1))
    assert (await user.send("alice", token=token)).code == 403


async def test_the_pre_session_is_gone_at_sign_in_and_its_replay_is_refused(user: User) -> None:
    """L15: the pair from before the sign-in is used after it."""
    token = await user.token()
    (pre_session,) = user.browser.jar.cookies
    await user.send("alice", token=token)
    (session,) = user.browser.jar.cookies
    assert session.name == "session"
    headers = {"Cookie": f"session-pre={pre_session.value}; session={session.value}"}
    replayed = await user.browser.post_form("/", {"do": "cart", "_xsrf": token}, headers=headers)
    assert replayed.code == 403
    assert list(user.browser.jar.rejected) == []


@pytest.mark.parametrize("sent", ["x", "A" * 104, "\u2028", "2|a|b|c", "=" * 104, "a" * 5000])
async def test_what_is_no_token_is_refused_with_403(user: User, sent: str) -> None:
    """A stranger's bytes become a 500 and a stack trace in the log."""
    await user.sign_in("alice")
    assert (await user.send("cart", token=sent)).code == 403
    bytes_sent = await user.browser.post(
        "/", b"_xsrf=%ff%fe", headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert bytes_sent.code == 400
    assert (await user.browser.post("/", b"", headers={"X-XSRFToken": "\xff\xfe"})).code == 403


# -- what must not leak -------------------------------------------------------------------------------------


async def test_a_page_with_a_token_is_kept_by_no_shared_cache(user: User) -> None:
    """A proxy hands one visitor's token to another, who cannot send the form; or worse, can."""
    for _ in range(2):  # the second page needs no new cookie
        page = await user.browser.get("/")
        assert page.headers["Cache-Control"] == "private, no-store"
        assert page.headers["Vary"] == "Cookie"
    await user.sign_in("alice")
    assert (await user.browser.get("/")).headers["Cache-Control"] == "private, no-store"


async def test_a_handler_cannot_make_the_page_public_by_mistake(user: User) -> None:
    """A base class allows every page to be cached, this one among them."""
    page = await user.browser.get("/cached")
    assert sorted(page.headers["Cache-Control"].split(", ")) == ["max-age=60", "private"]


async def test_a_token_after_the_first_flush_is_an_error_and_no_leak(user: User) -> None:
    """The head said that the page may be cached by anybody."""
    assert (await user.browser.get("/late")).body == b"<form>told"


async def test_tornados_cookie_is_never_set(user: User) -> None:
    """Its 30 days and its attributes are nobody's decision (and leak from one visitor to the next)."""
    await user.sign_in("alice")
    await user.token()
    names = {cookie.name for cookie in user.browser.jar.cookies}
    assert "_xsrf" not in names


async def test_each_page_has_another_text(user: User) -> None:
    """BREACH: what a compressed page repeats can be guessed."""
    await user.sign_in("alice")
    assert len({await user.token() for _ in range(5)}) == 5


async def test_strangers_on_the_form_page_reach_no_store(app: App, user: User) -> None:
    """Crawlers fill the store by reading the sign-in page."""
    for _ in range(3):
        await user.send(token=await user.token())
    assert app.site.store.calls == []


async def test_neither_token_nor_pre_session_is_in_a_log(
    user: User, caplog: pytest.LogCaptureFixture
) -> None:
    """H03: whoever reads logs can send forms."""
    caplog.set_level(logging.DEBUG)
    token = await user.token()
    (pre_session,) = user.browser.jar.cookies
    await user.sign_in("alice")
    signed_in = await user.token()
    assert (await user.send("cart", token=token)).code == 403
    assert (await user.send("cart", token=signed_in[:-1])).code == 403
    assert "CSRF token refused" in caplog.text
    for secret in (token, signed_in[:-1], pre_session.value):
        assert secret not in caplog.text


# -- faults, and ways out -----------------------------------------------------------------------------------


async def test_an_outage_answers_503_and_not_403(app: App, user: User) -> None:
    """A store that is down for a second tells every user that their form was forged."""
    await user.sign_in("alice")
    token = await user.token()
    app.site.store.failures["load"] = StoreUnavailable("down")
    assert (await user.send("cart", token=token)).code == 503
    assert app.refusals() == []


async def test_an_override_of_tornados_method_exempts_a_handler(user: User) -> None:
    """The way of Tornado's documentation, for handlers that take no cookies."""
    assert (await user.send(token=None, path="/exempt")).code == 200


@pytest.mark.parametrize("switches", DEMANDING, ids=str)
async def test_a_webhook_is_exempt_from_strict_but_not_from_tornados_switch(switches: Switches) -> None:
    """A payment provider has no token; and what xsrf_cookies protected before stays protected."""
    async with AsyncExitStack() as stack:
        user = User(await start(stack, switches))
        stack.enter_context(closing(user.browser))
        answer = await user.send(token=None, path="/webhook")
        assert answer.code == (403 if switches.xsrf_cookies else 200)


async def test_a_handler_without_a_session_keeps_tornados_own_token() -> None:
    """It opted out of us, and must neither fail nor be left unprotected by that."""
    async with AsyncExitStack() as stack:
        user = User(await start(stack, Switches(True, True, False)))
        stack.enter_context(closing(user.browser))
        assert (await user.send(token=None, path="/sessionless")).code == 403
        token = await user.token("/sessionless")
        assert [cookie.name for cookie in user.browser.jar.cookies] == ["_xsrf"]
        assert (await user.send(token=token, path="/sessionless")).body == b"no session"


class Installed(XsrfMixin, RequestHandler):
    def get(self) -> None:
        self.write(self.xsrf_token)

    def post(self) -> None:
        self.write("sent")


async def test_the_mixin_alone_works_where_sessions_are_installed() -> None:
    """Applications whose handlers have no SessionMixin want the token too."""
    async with serving("install", [("/", Installed)], xsrf_cookies=True) as site:
        with closing(Browser(f"http://127.0.0.1:{site.port}")) as browser:
            token = (await browser.get("/")).body.decode()
            assert (await browser.post_form("/", {"_xsrf": token})).body == b"sent"
            assert (await browser.post_form("/", {})).code == 403


async def test_the_mixin_without_any_session_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """It is silently unprotected instead."""
    async with serving("mixin", [("/", Installed)], xsrf_cookies=True) as site:
        answer = await site.fetch("/", "POST")
        assert answer.code == 500
    assert "Installed has no session to bind a CSRF token to: use SessionMixin" in caplog.text


async def test_the_token_is_demanded_before_prepare() -> None:
    """``prepare()`` counts, charges or redirects on behalf of a forged request; or is forgotten otherwise."""

    class Prepared(Api):
        async def prepare(self) -> None:
            await asyncio.sleep(0)
            Form.did.append("prepared")
            if self.request.method == "POST":
                raise HTTPError(418)

    for switches in DEMANDING:
        Form.did.clear()
        settings = Settings(backend="memory", cookie_secret=SECRET, strict=switches.strict)
        async with serving(
            "mixin", [("/", Prepared)], settings=settings, xsrf_cookies=switches.xsrf_cookies
        ) as site:
            assert (await site.fetch("/", "POST")).code == 403
            assert Form.did == []
            with closing(Browser(f"http://127.0.0.1:{site.port}")) as browser:
                token = (await browser.get("/")).body.decode()
                assert (await browser.post("/", headers={"X-XSRFToken": token})).code == 418
            assert Form.did == ["prepared", "prepared"]
