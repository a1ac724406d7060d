"""Coming back by a remember token over HTTP, on every server-side store; and what it does not allow."""

from __future__ import annotations

import asyncio
import json
import ssl
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from tornado.httpclient import HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.websocket import WebSocketHandler, websocket_connect

from eyewall import SessionMixin
from eyewall.core.events import EventKind
from eyewall.errors import StoreUnavailable
from eyewall.signin.remember import GRACE
from eyewall.testing.client import Browser
from tests.signin.kit import (
    REMEMBER,
    SESSION,
    Deployment,
    cookies,
    copied,
    drop,
    me,
    replayed,
    sign_in,
    user,
)

DOWN = StoreUnavailable("connection refused")
AFTER_GRACE = GRACE + timedelta(seconds=1)
PAGE = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
TLS_SESSION, TLS_REMEMBER = "__Host-session", "__Host-session-remember"


async def sessions_of(site: Deployment, process: Any) -> int:
    """How many sessions of ann there are."""
    return sum(one.successor is None for one in await process.store.inner.find_principal(site.ann))


# Coming back (U07)


async def test_twenty_tabs_come_back_into_one_session(site: Deployment) -> None:
    """A browser that opens all its tabs must neither be taken for thieves nor get twenty sessions."""
    processes = [await site.process() for _ in range(2)]
    browser = await site.signed_in(processes[0], site.ann, remember="1")
    before = cookies(browser)[REMEMBER]
    drop(browser, SESSION)
    tabs = [site.browser(processes[number % 2], browser) for number in range(20)]
    assert [one["user"] for one in await asyncio.gather(*(me(tab) for tab in tabs))] == [site.ann] * 20
    assert await sessions_of(site, processes[0]) == 2, "that of the sign-in, and one more"
    assert sum(process.count(EventKind.REMEMBERED) for process in processes) == 1
    assert sum(process.count(EventKind.THEFT) for process in processes) == 0
    assert cookies(browser)[REMEMBER] != before
    site.clock.advance(timedelta(hours=2))
    assert await me(browser) == {"user": site.ann, "fresh": False, "data": {}}


async def test_a_copy_used_later_ends_thief_and_family_with_one_alarm(site: Deployment) -> None:
    """The thief came first: the owner's next visit must throw both out, and tell (Miller and Jaspan)."""
    here, there = await site.process(), await site.process()
    owner = await site.signed_in(here, site.ann, remember="1")
    elsewhere = await site.signed_in(here, site.ann)
    drop(owner, SESSION)
    thief = site.browser(there)
    assert await replayed(thief, copied(owner)) == site.ann
    taken = copied(thief)
    site.clock.advance(AFTER_GRACE)
    assert await user(owner) is None
    assert cookies(owner) == {}
    assert await user(thief) is None
    for process in (here, there):
        assert await replayed(site.browser(process), taken) is None
    assert await user(elsewhere) == site.ann, "another device of hers has nothing to do with it"
    (alarm,) = [one for p in (here, there) for one in p.events if one.kind is EventKind.THEFT]
    assert alarm.principal == site.ann


async def test_a_thief_who_comes_second_ends_the_owners_session_too(site: Deployment) -> None:
    """Nobody knows which of two is the thief, so both must prove who they are."""
    here, there = await site.process(), await site.process()
    owner = await site.signed_in(here, site.ann, remember="1")
    drop(owner, SESSION)
    stolen = copied(owner)
    assert await user(owner) == site.ann
    site.clock.advance(AFTER_GRACE)
    assert await replayed(site.browser(there), stolen) is None
    assert await user(owner) is None
    assert (here.count(EventKind.THEFT), there.count(EventKind.THEFT)) == (0, 1)


async def test_a_forged_token_asks_no_store_and_raises_no_alarm(here: Deployment) -> None:
    """Made-up cookies must cost nothing, and frighten nobody."""
    process = await here.process()
    browser = await here.signed_in(process, here.ann, remember="1")
    process.store.calls.clear()
    genuine = cookies(browser)[REMEMBER]
    for value in (
        genuine[:-1] + ("A" if genuine[-1] != "A" else "B"),
        "ewr1.x",
        "",
        "a" * 5_000,
        genuine[5:],
    ):
        assert await replayed(here.browser(process), f"{REMEMBER}={value}") is None
    assert process.store.calls == []
    assert process.count(EventKind.THEFT) == 0


@pytest.mark.parametrize("verb", ["load", "create", "replace"])
@pytest.mark.parametrize("after", range(4))
async def test_a_restore_that_fails_half_way_makes_no_thief_of_its_owner(
    here: Deployment, verb: str, after: int
) -> None:
    """A short outage in the middle of coming back: the next visit must work, and the one after that."""
    process = await here.process()
    browser = await here.signed_in(process, here.ann, remember="1")
    drop(browser, SESSION)
    process.store.fail(verb, DOWN, after=after)
    answer = await browser.get("/")
    process.store.meddle = None
    assert answer.code == 200 or (answer.code, bool(answer.headers["Retry-After"])) == (503, True)
    here.clock.advance(5)
    assert await user(browser) == here.ann
    here.clock.advance(timedelta(hours=2))
    assert await user(browser) == here.ann
    assert process.count(EventKind.THEFT) == 0


async def test_a_public_page_in_an_outage_keeps_the_token(here: Deployment) -> None:
    """A page that needs no session must work, and must not clear what it could not check."""
    process = await here.process()
    browser = await here.signed_in(process, here.ann, remember="1")
    drop(browser, SESSION)
    process.store.fail("load", DOWN)
    answer = await browser.get("/public")
    assert (answer.code, answer.headers.get_list("Set-Cookie")) == (200, [])
    process.store.meddle = None
    assert await user(browser) == here.ann


async def test_a_page_that_fails_tells_the_browser_all_the_same(here: Deployment) -> None:
    """The token is used up by then: a 500 without the next one would sign the visitor out as a thief."""

    class Broken(SessionMixin, WebSocketHandler):
        def get(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("a bug")

    process = await here.process([("/broken", Broken)])
    browser = await here.signed_in(process, here.ann, remember="1")
    before = cookies(browser)[REMEMBER]
    drop(browser, SESSION)
    assert (await browser.get("/broken")).code == 500
    assert cookies(browser)[REMEMBER] != before
    here.clock.advance(timedelta(hours=2))
    assert await user(browser) == here.ann
    assert process.count(EventKind.THEFT) == 0


async def test_a_web_socket_may_be_what_comes_back_first(here: Deployment) -> None:
    """A page left open reconnects by itself; its handshake uses the token and must bring the next."""

    class Socket(SessionMixin, WebSocketHandler):
        def open(self, *args: str, **kwargs: str) -> None:
            self.write_message(str(self.current_user))

    process = await here.process([("/socket", Socket)])
    browser = await here.signed_in(process, here.ann, remember="1")
    drop(browser, SESSION)
    before = cookies(browser)[REMEMBER]
    url = f"ws{process.url.removeprefix('http')}/socket"
    socket = await websocket_connect(HTTPRequest(url, headers={"Cookie": copied(browser)}))
    assert await socket.read_message() == here.ann
    assert socket.headers is not None
    browser.jar.receive(process.url, socket.headers.get_list("Set-Cookie"), here.clock())
    socket.close()
    await socket.read_message()
    assert cookies(browser)[REMEMBER] != before
    here.clock.advance(AFTER_GRACE)
    assert await user(browser) == here.ann
    assert process.count(EventKind.THEFT) == 0


# The cookie over TLS


async def test_over_tls_a_strict_jar_keeps_and_loses_the_token_as_told(here: Deployment) -> None:
    """A token that scripts read, that plain http carries or that survives a sign-out gets stolen."""
    process = await here.process()
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    server = HTTPServer(process.application, ssl_options=context)
    socket, port = bind_unused_port()
    server.add_socket(socket)
    browser = Browser(f"https://127.0.0.1:{port}", ssl_options=trust, clock=here.clock)
    answer = await sign_in(browser, here.ann, remember="1")
    lines = {line.partition("=")[0]: line for line in answer.headers.get_list("Set-Cookie")}
    assert set(lines) == {TLS_SESSION, TLS_REMEMBER}
    attributes = lines[TLS_REMEMBER].split("; ")[1:]
    assert set(attributes) == {"HttpOnly", "Secure", "SameSite=Lax", "Path=/", f"Max-Age={30 * 24 * 3600}"}
    assert "Max-Age" not in lines[TLS_SESSION]
    drop(browser, TLS_SESSION)
    here.clock.advance(timedelta(days=10))
    restored = await browser.get("/")
    assert json.loads(restored.body)["user"] == here.ann
    (line,) = [each for each in restored.headers.get_list("Set-Cookie") if each.startswith(TLS_REMEMBER)]
    assert f"Max-Age={20 * 24 * 3600}" in line, "it ends when it would have ended"
    await browser.post("/out")
    assert list(browser.jar.cookies) == []
    assert browser.jar.rejected == []
    browser.close()
    server.stop()
    await server.close_all_connections()


async def test_without_being_asked_no_token_is_given_and_a_zero_switches_it_off(here: Deployment) -> None:
    """On a shared computer the box is left empty for a reason."""
    process, without = await here.process(), await here.process(remember_ttl=timedelta(0))
    assert set(cookies(await here.signed_in(process, here.ann))) == {SESSION}
    assert set(cookies(await here.signed_in(without, here.ann, remember="1"))) == {SESSION}


async def test_the_next_user_of_a_browser_is_not_brought_back_as_the_last(site: Deployment) -> None:
    """Ann's token beside bob's session would make bob ann, an hour later."""
    process = await site.process()
    browser = await site.signed_in(process, site.ann, remember="1")
    token = f"{REMEMBER}={cookies(browser)[REMEMBER]}"
    await sign_in(browser, site.bob)
    site.clock.advance(timedelta(hours=2))
    assert await user(browser) is None
    assert await replayed(site.browser(process), token) is None


# Fresh or not: U08


async def test_who_was_brought_back_must_prove_it_before_anything_important(site: Deployment) -> None:
    """A laptop left open for weeks must not be able to delete the account (ASVS 7.5.1, NIST 5.1)."""
    process = await site.process(settings={"login_url": "/login"})
    browser = await site.signed_in(process, site.ann, remember="1")
    assert (await browser.get("/important", headers=PAGE)).body == b"done"
    drop(browser, SESSION)
    assert await me(browser) == {"user": site.ann, "fresh": False, "data": {}}
    answer = await browser.get("/important?step=2&to=%2F%2Fevil", headers=PAGE)
    assert answer.code == 303
    where = urlsplit(answer.headers["Location"])
    assert (where.netloc, where.path) == ("", "/login")
    assert parse_qs(where.query) == {"next": ["/important?step=2&to=%2F%2Fevil"]}
    await sign_in(browser, site.ann)
    assert (await browser.get("/important", headers=PAGE)).body == b"done"
    site.clock.advance(timedelta(minutes=10))
    assert (await browser.get("/important", headers=PAGE)).code == 303
    assert await user(browser) == site.ann


async def test_a_script_is_told_401_and_not_redirected(here: Deployment) -> None:
    """fetch() follows a redirect and takes the sign-in page for the answer."""
    process = await here.process(settings={"login_url": "/login", "reauthenticate_url": "/again?why=x"})
    browser = await here.signed_in(process, here.ann)
    here.clock.advance(timedelta(minutes=11))
    for headers in ({"Accept": "application/json"}, {"Sec-Fetch-Mode": "cors", "Accept": "text/html"}, {}):
        answer = await browser.post("/important", headers={"Sec-Fetch-Mode": "", **headers})
        assert (answer.code, answer.headers.get("Location")) == (401, None)
    form = await browser.post_form("/important?a=b", {"secret": "s"}, headers=PAGE)
    assert (form.code, form.headers["Location"]) == (303, "/again?why=x&next=%2Fimportant")
    assert (await here.browser(process).get("/important", headers=PAGE)).code == 303


async def test_a_session_from_the_future_is_not_fresh(here: Deployment) -> None:
    """A clock that was set back must not make an old proof good for another hour."""
    process = await here.process()
    browser = await here.signed_in(process, here.ann)
    here.clock.advance(timedelta(minutes=-1))
    assert (await browser.get("/important")).code == 401
