"""W04: a WebSocket has its session, and what it changes is stored."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tornado import gen
from tornado.web import authenticated
from tornado.websocket import WebSocketHandler

from eyewall.errors import HeadersSentError
from eyewall.tornado.websocket import SessionWebSocketMixin
from tests.signin.kit import Deployment, Process, cookies, me, user
from tests.tornado.sockets.kit import Told, connect, is_empty, refused, until

# What was changed before the 101


async def test_what_prepare_changes_is_stored_before_the_101(here: Deployment, process: Process) -> None:
    """A client that is connected has been told; a 101 cannot wait for a save."""

    class Counting(Told):
        def prepare(self) -> None:
            self.session["opened"] = self.session.get("opened", 0) + 1

    process.application.add_handlers(".*", [("/counting", Counting)])
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/counting")
    assert (await me(browser))["data"] == {"opened": 1}
    assert await socket.ask("get opened") == 1


async def test_what_prepare_begins_reaches_the_browser_with_the_101(
    here: Deployment, process: Process
) -> None:
    """Without the cookie the session would be lost with the socket."""

    class Beginning(Told):
        def prepare(self) -> None:
            self.session["k"] = "begun"

    process.application.add_handlers(".*", [("/beginning", Beginning)])
    socket = await connect(here, process, path="/beginning")
    assert socket.connection.headers is not None
    (line,) = socket.connection.headers.get_list("Set-Cookie")
    assert line.startswith("session=")
    assert await socket.ask("set k more") == "done"


async def test_a_handshake_that_cannot_be_stored_is_refused(here: Deployment, process: Process) -> None:
    """A socket over a change that was lost would build on sand."""

    class Changing(Told):
        def prepare(self) -> None:
            self.session["k"] = "v"

    process.application.add_handlers(".*", [("/changing", Changing)])
    browser = await here.signed_in(process, here.ann)
    process.store.fail("replace", OSError("gone"))
    assert await refused(here, process, browser, "/changing") == 503
    assert is_empty(process.sessions)


# W04: what messages change


async def test_a_message_is_stored_when_it_is_done_and_sets_no_cookie(
    here: Deployment, process: Process
) -> None:
    """A reread over HTTP shows it; the cookie is the one of before."""
    browser = await here.signed_in(process, here.ann)
    before = cookies(browser)
    socket = await connect(here, process, browser)
    assert "Set-Cookie" not in (socket.connection.headers or {})
    for message in ("set a 1", "save b 2", "add c"):
        await socket.ask(message)
    await socket.ask("get a")  # served after the one before it is stored
    assert (await me(browser))["data"] == {"a": "1", "b": "2", "c": 1}
    assert cookies(browser) == before


async def test_two_sockets_lose_nothing(here: Deployment, process: Process, other: Process) -> None:
    """Counters under load: two sockets of one session in two processes."""
    browser = await here.signed_in(process, here.ann)
    first, second = await connect(here, process, browser), await connect(here, other, browser)

    async def fifty(socket: Any, name: str) -> None:
        for number in range(50):
            await socket.ask("add n")
            await socket.ask(f"set {name}{number} x")

    await asyncio.gather(fifty(first, "a"), fifty(second, "b"))
    for socket in (first, second):
        await socket.ask("add n")
    data = (await me(browser))["data"]
    assert data["n"] == 102
    assert len(data) == 101


async def test_a_socket_reads_what_others_have_stored_also_after_its_own_write(
    here: Deployment, process: Process
) -> None:
    """A socket lives for hours: what it once read must not stay as it was then, and be written back."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    await socket.ask("set n 1")
    await browser.post_form("/", {"key": "n", "value": "5"})
    await process.sessions.watch.check_all()
    assert await socket.ask("get n") == "5", "by the re-check"
    await browser.post_form("/", {"key": "n", "value": "6"})
    await socket.ask("set other x")  # meets the newer record, and merges
    await process.sessions.watch.check_all()
    assert await socket.ask("get n") == "6", "by its own write"


async def test_what_open_changes_is_stored(here: Deployment, process: Process) -> None:
    """No message may ever follow: then it would be lost without a word."""

    class Opening(Told):
        def open(self, *args: str, **kwargs: str) -> None:
            self.session["open"] = "yes"

    process.application.add_handlers(".*", [("/opening", Opening)])
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/opening")
    await asyncio.sleep(0.05)
    socket.vanish()
    await until(lambda: is_empty(process.sessions), "the socket is gone")
    assert (await me(browser))["data"] == {"open": "yes"}


@pytest.mark.parametrize("verb", ["regenerate", "sign_in", "clear", "new"])
async def test_what_needs_a_cookie_is_refused_with_words(
    here: Deployment, process: Process, verb: str
) -> None:
    """A new ID that nobody is told would lock its owner out."""
    told: list[str] = []

    class Refused(SessionWebSocketMixin, WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            try:
                match verb:
                    case "regenerate":
                        self.session.regenerate()
                    case "sign_in":
                        self.sign_in("bob")
                    case "clear":
                        self.session.clear()
                    case "new":
                        self.session["k"] = "v"
            except HeadersSentError as error:
                told.append(str(error))
            self.write_message("done")

    process.application.add_handlers(".*", [("/refused", Refused)])
    browser = None if verb == "new" else await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/refused")
    await socket.connection.write_message("x")
    assert await socket.read() == "done"
    (words,) = told
    assert "WebSocket" in words
    assert "HTTP request" in words
    if browser is not None:
        assert await user(browser) == here.ann


async def test_signing_out_by_a_message_ends_the_session_and_its_sockets(
    here: Deployment, process: Process
) -> None:
    """Whoever says "sign out" in an application of one page says it over its socket."""
    browser = await here.signed_in(process, here.ann)
    one, two = await connect(here, process, browser), await connect(here, process, browser)
    await one.ask("out")
    assert await one.ended() == (4401, "signed out")
    assert await two.ended() == (4401, "signed out")
    assert await user(browser) is None


async def test_the_handlers_own_sign_out_works_in_a_message(here: Deployment, process: Process) -> None:
    """``self.sign_out()`` is what the pages call; on a socket it must not be refused as a GET."""

    class Leaving(SessionWebSocketMixin, WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            self.sign_out()

    process.application.add_handlers(".*", [("/leaving", Leaving)])
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/leaving")
    await socket.connection.write_message("x")
    assert await socket.ended() == (4401, "signed out")
    assert await user(browser) is None


async def test_a_sign_out_takes_effect_although_its_message_fails(here: Deployment, process: Process) -> None:
    """The farewell cannot be written because the tab is closed already: still, they said "sign out"."""

    class Failing(SessionWebSocketMixin, WebSocketHandler):
        async def on_message(self, message: str | bytes) -> None:
            self.session.sign_out()
            raise ValueError("a bug after it")

        def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
            """Expected."""

    process.application.add_handlers(".*", [("/failing", Failing)])
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/failing")
    await socket.connection.write_message("x")
    await socket.ended()
    assert await user(browser) is None


# Ways to write a handler


async def test_handlers_of_every_style_work(here: Deployment, process: Process) -> None:
    """Generator coroutines, sync and async methods, and overridden hooks are all Tornado."""
    closed: list[str] = []

    class Old(SessionWebSocketMixin, WebSocketHandler):
        @authenticated
        @gen.coroutine
        def get(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # a coroutine of old
            yield super().get(*args, **kwargs)

        @gen.coroutine
        def prepare(self) -> Any:
            yield gen.sleep(0)
            self.session["prepared"] = True

        def check_origin(self, origin: str) -> bool:
            return super().check_origin(origin)

        def open(self, *args: str, **kwargs: str) -> None:
            self.write_message(json.dumps(self.session["prepared"]))

        @gen.coroutine
        def on_message(self, message: str | bytes) -> Any:
            yield gen.sleep(0)
            self.session["said"] = message
            self.write_message(json.dumps(self.current_user))

        def on_close(self) -> None:
            closed.append(self.session["said"])

    process.application.add_handlers(".*", [("/old", Old)])
    process.application.settings["login_url"] = "/in"
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/old", headers={"Origin": process.url})
    assert await socket.read() == "true"
    assert await socket.ask("hello") == here.ann
    socket.connection.close()
    await until(lambda: closed, "on_close")
    assert closed == ["hello"]
    assert (await me(browser))["data"] == {"prepared": True, "said": "hello"}
    assert await refused(here, process, path="/old") in (302, 403, 599)
