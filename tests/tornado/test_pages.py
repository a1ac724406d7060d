"""The page "Your devices": one sees one's own devices, and ends them; nobody else can, and no other site."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tornado.httpclient import HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from eyewall import SessionMixin, Sessions, Settings
from eyewall.core.opening import open_store
from eyewall.core.record import Record
from eyewall.core.store import Scan
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.testing.client import Browser
from eyewall.testing.clock import ManualClock
from eyewall.tornado.pages import DevicePage, device_pages
from tests.tornado.site import SECRET, WatchedStore

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"
LATER = timedelta(minutes=11)
"""More than a proof of identity is good for."""


class Base(SessionMixin, RequestHandler):
    async def load_user(self, principal: str) -> Any:
        return None if principal == "disabled" else {"id": principal}


class Home(Base):
    def get(self) -> None:
        self.write(self.current_user["id"] if self.current_user else "nobody")


class SignIn(Base):
    """Also where one proves again who one is."""

    def get(self) -> None:
        self.write("who are you?")

    def post(self) -> None:
        self.sign_in(self.get_body_argument("name"), remember=self.get_body_argument("remember", "") == "yes")
        self.redirect(self.next_url(), status=303)


class TokenUser(DevicePage):
    """Knows a user without a session."""

    def get_current_user(self) -> Any:
        return super().get_current_user() or "robot"


class Careless(Base):
    """Exempts itself from everything, as a base class for a JSON API does."""

    cross_origin_protection = False

    def check_xsrf_cookie(self) -> None:
        pass


class Forms(HTMLParser):
    """The forms of a page: where each goes, and its fields."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            assert given["method"] == "post"
            self.found.append((given["action"], {}))
        elif tag == "input":
            self.found[-1][1][given["name"]] = given["value"]


@dataclass
class Server:
    """The application on a real socket."""

    url: str
    sessions: Sessions
    clock: ManualClock

    def browser(self) -> Browser:
        """One more device."""
        return Browser(self.url, clock=self.clock)

    async def records(self) -> list[Record]:
        """All that the store holds."""
        store = self.sessions.store
        assert isinstance(store, Scan)
        return [record async for record in store.scan()]


class Serve:
    """Starts servers that end with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[HTTPServer, Sessions]] = []

    def __call__(
        self,
        kind: str = "memory",
        *,
        base: type[RequestHandler] = Base,
        strict: bool = False,
        prefix: str = "/devices",
        **options: Any,
    ) -> Server:
        clock = ManualClock()
        settings = Settings(backend="memory", cookie_secret=SECRET, strict=strict)
        in_sqlite = Settings(url=f"sqlite:///{self._folder}/sessions.db", cookie_secret=SECRET)
        store = WatchedStore(clock=clock) if kind == "memory" else open_store(in_sqlite, clock)
        sessions = Sessions(settings, store=store, clock=clock)
        routes: list[Any] = [("/", Home), ("/sign-in", SignIn), *device_pages(prefix, base=base)]
        application = Application(routes, **{"login_url": "/sign-in", "sessions": sessions, **options})
        server = HTTPServer(application)
        socket, port = bind_unused_port()
        server.add_socket(socket)
        self._running.append((server, sessions))
        return Server(f"http://127.0.0.1:{port}", sessions, clock)

    async def stop(self) -> None:
        """End all of them."""
        for server, sessions in self._running:
            server.stop()
            await server.close_all_connections()
            await sessions.aclose()


@pytest_asyncio.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Start servers that end with the test."""
    started = Serve(tmp_path)
    yield started
    await started.stop()


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def server(request: pytest.FixtureRequest, serve: Serve) -> Server:
    """One server, over each of two stores."""
    return serve(request.param)


@pytest.fixture
def here(server: Server) -> Iterator[Browser]:
    """The device one sits at."""
    with closing(server.browser()) as browser:
        yield browser


@pytest.fixture
def there(server: Server) -> Iterator[Browser]:
    """Another device."""
    with closing(server.browser()) as browser:
        yield browser


async def sign_in(browser: Browser, name: str = "alice", *, agent: str = FIREFOX, **more: str) -> None:
    """Sign in, as a form does. With ``strict`` the page of the form has the token."""
    answer = await browser.post_form("/sign-in", {"name": name, **more}, headers={"User-Agent": agent})
    assert answer.code == 303, answer.code


async def who(browser: Browser) -> str:
    """Who the site says it is talking to."""
    return (await browser.get("/")).body.decode()


async def page(browser: Browser, url: str = "/devices") -> str:
    """The page as it is shown."""
    answer = await browser.get(url)
    assert answer.code == 200, answer.code
    return answer.body.decode()


async def form(browser: Browser, ending: str = "/revoke", number: int = -1) -> tuple[str, dict[str, str]]:
    """One of the page's forms; by default the one of the device that is listed last."""
    forms = [one for one in Forms(await page(browser)).found if one[0].endswith(ending)]
    return forms[number]


async def press(browser: Browser, ending: str = "/revoke", number: int = -1, **how: Any) -> HTTPResponse:
    """Open the page and press one of its buttons."""
    action, fields = await form(browser, ending, number)
    return await browser.post_form(action, fields, **how)


# The list


async def test_the_page_shows_ones_own_devices_and_marks_this_one_first(
    server: Server, here: Browser, there: Browser
) -> None:
    """Harm: one ends the wrong device, or sees where somebody else is."""
    with closing(server.browser()) as stranger:
        await sign_in(stranger, "mallory", agent="Stranger/1")
    await sign_in(here, agent="Here/1")
    server.clock.advance(timedelta(minutes=20))
    await sign_in(there, agent="There/1", remember="yes")
    shown = await page(here)
    assert re.findall(r"<h2>(.*?)</h2>", shown) == ["Here/1", "There/1"]
    assert shown.index("Here/1") < shown.index("This device") < shown.index("There/1")
    assert shown.count("This device</p>") == shown.count("Stays signed in") == 1
    assert "127.0.0.1" in shown
    assert ", by password" in shown
    assert '<time datetime="2026-01-01T12:20:00+00:00">2026-01-01 12:20 UTC</time>' in shown
    assert "Stranger" not in shown


async def test_nothing_on_the_page_opens_a_session_or_names_a_record(
    server: Server, here: Browser, there: Browser
) -> None:
    """Harm: a screenshot, or a page kept by a browser, is a key."""
    await sign_in(here, remember="yes")
    await sign_in(there, remember="yes")
    answer = await here.get("/devices")
    shown = answer.body.decode()
    assert answer.headers["Cache-Control"] == "private, no-store"
    for jar in (here.jar, there.jar):
        sent = jar.header_for(f"{server.url}/devices", server.clock())
        assert sent is not None
        assert not any(secret in shown for secret in re.findall(r"[\w-]{40,}", sent))
    for record in await server.records():
        assert record.digest.hex() not in shown
        assert record.digest.hex()[:12] not in shown


@pytest.mark.parametrize("path", ["/devices", "/devices/confirm"])
async def test_who_is_not_signed_in_is_sent_to_the_sign_in_page(here: Browser, path: str) -> None:
    """Harm: a stranger sees somebody's devices, or an honest visitor a bare error."""
    answer = await here.get(path)
    assert (answer.code, answer.headers["Location"]) == (302, f"/sign-in?next={path.replace('/', '%2F')}")
    await sign_in(here, "disabled")
    assert (await here.get(path)).code == 302


async def test_text_of_strangers_stays_text(serve: Serve) -> None:
    """Harm: whoever signs in with a stolen password plants a script on the page where it would be noticed."""
    server = serve()
    with closing(server.browser()) as thief, closing(server.browser()) as owner:
        await sign_in(thief, agent="""<script>x()</script>"><b onfocus='x()'>{{ 1 }}""")
        await sign_in(owner)
        shown = await page(owner)
        assert "&lt;script&gt;x()&lt;/script&gt;&quot;&gt;&lt;b" in shown
        assert "<script" not in shown
        assert "<b " not in shown
        done = await press(owner, follow=True)  # the message repeats it
        assert "Signed out: &lt;script&gt;" in done.body.decode()
        assert b"<script" not in done.body


async def test_the_page_has_nothing_that_a_strict_policy_would_refuse(serve: Serve) -> None:
    """Harm: the page is blank where a Content-Security-Policy forbids what is inside it, or can be framed."""
    with closing(serve().browser()) as browser:
        await sign_in(browser)
        answer = await browser.get("/devices")
        style = await browser.get("/devices/devices.css")
    shown = answer.body.decode()
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|javascript:", shown)
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert 'href="/devices/devices.css"' in shown
    assert (style.code, style.headers["Content-Type"]) == (200, "text/css")
    assert "Set-Cookie" not in style.headers


# Ending one


async def test_a_device_that_is_ended_is_out_at_its_next_request_and_stays_out(
    here: Browser, there: Browser
) -> None:
    """Harm: the thief goes on, or the remember token brings them back."""
    await sign_in(there, remember="yes", agent="There/1")
    await sign_in(here)
    answer = await press(here)
    assert (answer.code, answer.headers["Location"]) == (303, "/devices")
    assert await who(there) == "nobody"
    assert await who(there) == "nobody"
    assert await who(here) == "alice"
    shown = await page(here)
    assert "Signed out: There/1" in shown
    assert "Signed out: There/1" not in await page(here)
    assert len(re.findall("<h2>", shown)) == 1


async def test_ending_this_device_signs_out(server: Server, here: Browser, there: Browser) -> None:
    """Harm: one presses the button at a library's computer, and is still signed in there."""
    await sign_in(there)
    await sign_in(here, remember="yes")
    answer = await press(here, number=0, follow=True)
    assert answer.effective_url == f"{server.url}/sign-in?next=%2Fdevices"
    assert here.jar.header_for(f"{server.url}/", server.clock()) is None
    assert await who(here) == "nobody"
    assert await who(there) == "alice"


async def test_all_other_devices_end_at_once(server: Server, here: Browser, there: Browser) -> None:
    """Harm: one of many is overlooked."""
    with closing(server.browser()) as third:
        await sign_in(third, remember="yes")
        await sign_in(there)
        await sign_in(here, remember="yes")
        answer = await press(here, "/revoke-others", follow=True)
        assert "Other devices signed out: 2" in answer.body.decode()
        assert "/revoke-others" not in answer.body.decode()
        assert [await who(browser) for browser in (here, there, third)] == ["alice", "nobody", "nobody"]


@pytest.mark.parametrize("handle", ["theirs", "", "nonsense", "a" * 100_000, "\x00é"])
async def test_a_handle_of_somebody_else_is_not_found(here: Browser, there: Browser, handle: str) -> None:
    """Harm: who learns a handle ends other people's sessions (ASVS 8.2.2), or learns that it is one."""
    await sign_in(there, "bob")
    await sign_in(here)
    (_, theirs), (action, mine) = await form(there), await form(here)
    sent = theirs["handle"] if handle == "theirs" else handle
    answer = await here.post_form(action, {**mine, "handle": sent})
    assert answer.code == 404
    assert (await who(there), await who(here)) == ("bob", "alice")


async def test_a_device_that_has_ended_meanwhile_is_not_found(here: Browser, there: Browser) -> None:
    """Harm: pressing the button of an old page is answered as a success, or as an error of the server."""
    await sign_in(there)
    await sign_in(here)
    action, fields = await form(here)
    assert (await here.post_form(action, fields)).code == 303
    assert (await here.post_form(action, fields)).code == 404


# Who may end


@pytest.mark.parametrize("ending", ["revoke", "revoke-others"])
async def test_a_link_ends_nothing(here: Browser, there: Browser, ending: str) -> None:
    """Harm: an image or a link elsewhere signs people out (ASVS 3.5.3)."""
    await sign_in(there)
    await sign_in(here)
    _, fields = await form(here)
    for method in ("GET", "HEAD"):
        answer = await here.request(method, f"/devices/{ending}?handle={fields['handle']}")
        assert answer.code == 405
    assert await who(there) == "alice"


@pytest.mark.parametrize("ending", ["/revoke", "/revoke-others"])
@pytest.mark.parametrize("token", [None, "", "x" * 104, "foreign", "in the query"])
async def test_without_a_token_of_this_session_nothing_ends(
    here: Browser, there: Browser, token: str | None, ending: str
) -> None:
    """Harm: a hostile sibling subdomain, or an old browser, posts what the visitor never pressed."""
    await sign_in(there)
    await sign_in(here)
    _, foreign = await form(there, ending)
    action, fields = await form(here, ending)
    mine = fields.pop("_xsrf")
    if token == "in the query":
        action += f"?_xsrf={mine}"
    elif token is not None:
        fields["_xsrf"] = foreign["_xsrf"] if token == "foreign" else token
    assert (await here.post_form(action, fields)).code == 403
    assert (await who(here), await who(there)) == ("alice", "alice")


async def test_a_token_is_asked_for_even_where_the_base_class_exempts_itself(serve: Serve) -> None:
    """Harm: a base class made for an API takes the page's protection away."""
    server = serve(base=Careless)
    with closing(server.browser()) as there, closing(server.browser()) as here:
        await sign_in(there)
        await sign_in(here)
        action, fields = await form(here)
        assert (await here.post_form(action, {"handle": fields["handle"]})).code == 403
        assert await who(there) == "alice"
        assert (await here.post_form(action, fields)).code == 303


async def test_another_site_ends_nothing(serve: Serve) -> None:
    """Harm: a page elsewhere with a token it got hold of signs people out."""
    server = serve()
    with closing(server.browser()) as there, closing(server.browser()) as here:
        await sign_in(there)
        await sign_in(here)
        cookie = here.jar.header_for(f"{server.url}/", server.clock()) or ""
        action, fields = await form(here)
        answer = await here.post_form(
            action, fields, from_origin="https://evil.example", headers={"Cookie": cookie}
        )
        assert answer.code == 403
        assert await who(there) == "alice"


@pytest.mark.parametrize(
    "options", [{"strict": True}, {"xsrf_cookies": True}], ids=["strict", "xsrf_cookies"]
)
async def test_the_page_works_where_tokens_are_asked_for_everywhere(
    serve: Serve, options: dict[str, Any]
) -> None:
    """Harm: the stricter site is the one whose devices cannot be ended."""
    server = serve(**options)
    with closing(server.browser()) as browser:
        session = server.sessions.open([], https=False)
        session.sign_in("alice")
        await server.sessions.save(session)
        lines = server.sessions.set_cookie_lines(session, https=False)
        browser.jar.receive(server.url, lines, server.clock())
        assert (await press(browser)).code == 303
        assert await who(browser) == "nobody"


@pytest.mark.parametrize("ending", ["/revoke", "/revoke-others"])
async def test_who_signed_in_long_ago_proves_first_who_they_are(
    server: Server, here: Browser, there: Browser, ending: str
) -> None:
    """Harm: whoever finds an unlocked computer shuts the owner out everywhere (ASVS 7.5.1)."""
    await sign_in(there)
    await sign_in(here)
    server.clock.advance(LATER)
    answer = await press(here, ending, follow=True)
    assert answer.effective_url == f"{server.url}/sign-in?next=%2Fdevices%2Fconfirm"
    assert await who(there) == "alice"
    proven = await here.post_form(answer.effective_url, {"name": "alice"}, follow=True)
    assert proven.effective_url == f"{server.url}/devices/confirm"
    assert "Now choose once more" in proven.body.decode()
    action, fields = next(
        one for one in reversed(Forms(proven.body.decode()).found) if one[0].endswith(ending)
    )
    assert (await here.post_form(action, fields)).code == 303
    assert (await who(here), await who(there)) == ("alice", "nobody")


async def test_a_remembered_session_is_asked_however_new_it_is(
    server: Server, here: Browser, there: Browser
) -> None:
    """Harm: a stolen remember token, which asks for no password, ends the owner's devices."""
    await sign_in(there)
    await sign_in(here, remember="yes")
    server.clock.advance(timedelta(minutes=1))
    here.jar.receive(server.url, ["session=; Max-Age=0; Path=/; HttpOnly"], server.clock())
    assert await who(here) == "alice"
    assert "by remember token" in await page(here)
    answer = await press(here, follow=True)
    assert "/sign-in?next=" in answer.effective_url
    assert await who(there) == "alice"


async def test_where_no_page_can_ask_it_is_401(serve: Serve) -> None:
    """Harm: a script takes a page for its answer and believes that the device has ended."""
    server = serve()
    with closing(server.browser()) as there, closing(server.browser()) as here:
        await sign_in(there)
        await sign_in(here)
        server.clock.advance(LATER)
        assert (await press(here, navigate=False, follow=True)).code == 401
        assert await who(there) == "alice"


async def test_the_address_for_proving_it_is_the_applications(serve: Serve) -> None:
    """Harm: who is signed in is sent to a page that asks for a name and a password as if they were not."""
    server = serve(reauthenticate_url="/prove")
    with closing(server.browser()) as browser:
        await sign_in(browser)
        server.clock.advance(LATER)
        _, fields = await form(browser)
        first = await browser.post_form("/devices/revoke", fields)
        second = await browser.get(first.headers["Location"])
        assert second.headers["Location"] == "/prove?next=%2Fdevices%2Fconfirm"


async def test_the_form_of_somebody_who_was_signed_out_is_refused(here: Browser, there: Browser) -> None:
    """Harm: the device that was ended ends the others in return."""
    await sign_in(there)
    await sign_in(here)
    action, fields = await form(there)
    assert (await press(here)).code == 303
    assert (await there.post_form(action, fields)).code == 403
    assert await who(here) == "alice"


async def test_who_is_known_without_a_session_is_told_so(serve: Serve) -> None:
    """Harm: a user of an API token causes an error of the server, or sees devices that are not theirs."""
    with closing(serve(base=TokenUser).browser()) as browser:
        assert (await browser.get("/devices")).code == 403
        assert (await browser.post("/devices/revoke-others")).code == 403


# When things fail


@pytest.mark.parametrize("verb", ["load", "find_principal", "delete"])
async def test_an_outage_is_a_503_that_says_when_to_come_back(serve: Serve, verb: str) -> None:
    """Harm: an outage reads as "you have no other devices", or as "it has ended"."""
    server = serve()
    store = server.sessions.store
    assert isinstance(store, WatchedStore)
    with closing(server.browser()) as there, closing(server.browser()) as here:
        await sign_in(there)
        await sign_in(here)
        action, fields = await form(here)
        with pytest.MonkeyPatch.context() as down:
            for each in ("delete", "replace") if verb == "delete" else (verb,):  # either of the two ends it
                down.setattr(store, each, _failing)
            answers = [await here.post_form(action, fields), await here.post_form(f"{action}-others", fields)]
            answers += [] if verb == "delete" else [await here.get("/devices")]
        for answer in answers:
            assert (answer.code, int(answer.headers["Retry-After"]) > 0) == (503, True)
            assert "Set-Cookie" not in answer.headers
        assert await who(here) == "alice"
        assert (await here.post_form(action, fields)).code == 303
        assert await who(there) == "nobody"


async def _failing(*arguments: Any, **options: Any) -> Any:
    raise StoreUnavailable("connection refused")


# The application's own looks


async def test_the_applications_template_and_base_class_are_used(serve: Serve, tmp_path: Path) -> None:
    """Harm: the one page that looks foreign is the one where people are asked to trust it."""

    class Look(DevicePage, Base):
        devices_template = "where.html"

        def set_default_headers(self) -> None:
            self.set_header("X-Look", "ours")

    (tmp_path / "where.html").write_text(
        "{% extends 'frame.html' %}{% block main %}{{ devices_url }} {{ current_user['id'] }} {{ messages }}"
        "{% for device in devices %}<i>{{ device.label }}</i>{% module xsrf_form_html() %}{% end %}{% end %}"
    )
    (tmp_path / "frame.html").write_text("<main>{% block main %}{% end %}</main>")
    server = serve(base=Look, prefix="/account/devices", template_path=str(tmp_path))
    with closing(server.browser()) as browser:
        await sign_in(browser, agent="<b>")
        answer = await browser.get("/account/devices")
    assert answer.headers["X-Look"] == "ours"
    assert answer.body.startswith(b"<main>/account/devices alice []<i>&lt;b&gt;</i><input type")


async def test_a_handler_may_answer_with_something_else(serve: Serve) -> None:
    """Harm: who needs a list for a script has to write the page, and its checks, once more."""

    class AsJson(DevicePage, Base):
        def render_devices(self, devices: list[Any], messages: list[Any]) -> None:
            self.write({"devices": [device.label for device in devices]})

    with closing(serve(base=AsJson).browser()) as browser:
        await sign_in(browser, agent="Here/1")
        assert (await browser.get("/devices")).body == b'{"devices": ["Here/1"]}'


async def test_a_template_folder_of_the_application_hides_nothing_of_ours(
    serve: Serve, tmp_path: Path
) -> None:
    """Harm: a site about machines has a devices.html of its own, and it is shown instead of the list."""
    (tmp_path / "devices.html").write_text("{{ pumps }}")
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "devices.html").write_text("{{ pumps }}")
    with closing(serve(template_path=str(tmp_path)).browser()) as browser:
        await sign_in(browser)
        assert "<h1>Your devices</h1>" in await page(browser)


async def test_the_page_is_the_same_with_install(serve: Serve) -> None:
    """Harm: who cannot change their handlers cannot have the page."""
    server = serve(base=RequestHandler)
    with closing(server.browser()) as browser:
        await sign_in(browser)
        assert "This device" in await page(browser)


async def test_a_policy_of_the_application_stays(serve: Serve) -> None:
    """Harm: the page weakens what the site has decided."""

    class Policed(Base):
        def set_default_headers(self) -> None:
            self.set_header("Content-Security-Policy", "default-src 'self'")

    with closing(serve(base=Policed).browser()) as browser:
        await sign_in(browser)
        answer = await browser.get("/devices")
        assert answer.headers.get_list("Content-Security-Policy") == ["default-src 'self'"]


@pytest.mark.parametrize(
    "prefix", ["", "/", "devices", "/devices/", "//devices", "/de vices", "/d?x", "/d#x"]
)
def test_a_path_that_is_none_is_refused_at_start(prefix: str) -> None:
    """Harm: the page answers 404 in production and nobody knows why."""
    with pytest.raises(ConfigurationError, match="path of the devices page"):
        device_pages(prefix)


async def test_dots_in_the_path_are_only_dots(serve: Serve) -> None:
    """Harm: a pattern that was meant as text answers for other addresses too."""
    server = serve(prefix="/my.devices")
    with closing(server.browser()) as browser:
        assert (await browser.get("/my.devices")).code == 302
        assert (await browser.get("/myxdevices")).code == 404
        assert (await browser.get("/my.devices/devices.html")).code == 404
