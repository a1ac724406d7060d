"""A session ends at the worst moment: before the 101, within a message, while the store is down."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from eyewall.errors import SessionClosedError, StoreUnavailable
from eyewall.tornado.websocket import SessionWebSocketMixin, authenticated_socket
from tests.signin.kit import Deployment, Process, me, user
from tests.tornado.sockets.kit import Told, connect, deafen, is_empty, refused, until


class Held(Told):
    """Waits where the test wants, until it is let go."""

    where = "on_message"
    here: asyncio.Event
    go: asyncio.Event
    seen: list[Any]

    @classmethod
    def at(cls, where: str) -> type[Held]:
        """A class of its own, that waits in ``where``."""
        names = {"where": where, "here": asyncio.Event(), "go": asyncio.Event(), "seen": []}
        return type("HeldNow", (cls,), names)

    async def _wait_in(self, where: str) -> None:
        if self.where == where:
            self.here.set()
            await self.go.wait()

    async def prepare(self) -> None:
        await self._wait_in("prepare")

    async def open(self, *args: str, **kwargs: str) -> None:
        await self._wait_in("open")

    async def on_message(self, message: str | bytes) -> None:
        await self._wait_in("on_message")
        try:
            await super().on_message(message)
        except (SessionClosedError, WebSocketClosedError) as error:
            self.seen.append(type(error))


def held(process: Process, where: str) -> type[Held]:
    """Route ``/held`` to a handler that waits in ``where``."""
    made = Held.at(where)
    process.application.add_handlers(".*", [("/held", made)])
    return made


@pytest.mark.parametrize("where", ["prepare", "open"])
async def test_an_end_during_the_handshake_closes_the_socket_at_once(
    here: Deployment, process: Process, other: Process, where: str
) -> None:
    """It was announced before the socket was there to hear it: a session that has ended would be served."""
    handler = held(process, where)
    browser = await here.signed_in(process, here.ann)
    neighbour = await connect(here, process, await here.signed_in(process, here.bob))  # so that it listens
    connecting = asyncio.create_task(connect(here, process, browser, "/held"))
    await handler.here.wait()
    await other.sessions.revoke_all(here.ann)
    await asyncio.sleep(0.02)
    handler.go.set()
    socket = await connecting
    assert (await socket.ended())[0] == 4401
    assert await neighbour.is_open()


async def test_a_sign_out_while_the_handshake_loads_closes_the_socket(
    here: Deployment, process: Process, other: Process
) -> None:
    """The record was read, then deleted, then the socket opened."""
    browser = await here.signed_in(process, here.ann)
    await connect(here, process, await here.signed_in(process, here.bob))
    read, go_on = asyncio.Event(), asyncio.Event()
    inner_load = process.store.inner.load

    async def load_slowly(digest: bytes) -> Any:
        found = await inner_load(digest)
        if not read.is_set():
            read.set()
            await go_on.wait()
        return found

    process.store.inner.load = load_slowly
    connecting = asyncio.create_task(connect(here, process, browser))
    await read.wait()
    process.store.inner.load = inner_load
    await other.sessions.revoke_all(here.ann)
    await asyncio.sleep(0.02)
    go_on.set()
    assert (await (await connecting).ended())[0] == 4401


async def test_what_a_message_writes_after_the_end_is_dropped(
    here: Deployment, process: Process, other: Process
) -> None:
    """The message was served when the session ended: it must neither bring it back nor be answered."""
    handler = held(process, "on_message")
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/held")
    await socket.connection.write_message("set k late")
    await handler.here.wait()
    await other.sessions.revoke_all(here.ann)
    await until(lambda: is_empty(process.sessions), "the end is noticed")
    handler.go.set()
    assert (await socket.ended())[0] == 4401
    assert handler.seen == [SessionClosedError]
    assert await process.store.inner.find_principal(here.ann) == []
    assert await user(browser) is None


@pytest.mark.parametrize("ask", ["set k late", "save k late", "add n"])
async def test_what_a_message_writes_after_a_new_id_is_kept(
    here: Deployment, process: Process, ask: str
) -> None:
    """A step-up in another tab while a message is served: nothing is lost, nobody is thrown out."""
    handler = held(process, "on_message")
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/held")
    answer = asyncio.create_task(socket.ask(ask))
    await handler.here.wait()
    await browser.post("/change/regenerate")
    handler.go.set()
    await answer
    assert await socket.is_open()
    assert (await me(browser))["data"] in ({"k": "late"}, {"n": 1})


async def test_a_change_waits_for_the_store_to_come_back(here: Deployment, process: Process) -> None:
    """An outage of some seconds must not cost the socket, nor what was said meanwhile."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    process.store.fail("replace", OSError("gone"))
    assert await socket.ask("set k v") == "done"
    assert await socket.ask("get k") == "v"
    await process.sessions.watch.check_all()
    process.store.meddle = None
    assert await socket.ask("who") == here.ann
    await socket.ask("get k")
    assert (await me(browser))["data"] == {"k": "v"}


async def test_an_outage_of_thirty_seconds_closes_no_socket(
    here: Deployment, process: Process, other: Process
) -> None:
    """An outage signs nobody out; what ended meanwhile is found afterwards."""
    browsers = [await here.signed_in(process, name) for name in (here.ann, here.bob)]
    ann, bob = [await connect(here, process, browser) for browser in browsers]
    deafen(process)
    process.store.fail("load", StoreUnavailable("gone"))
    await other.sessions.revoke_all(here.bob)
    for _ in range(6):
        here.clock.advance(timedelta(seconds=5))
        await process.sessions.watch.check_all()
        assert await ann.is_open()
    process.store.meddle = None
    await process.sessions.watch.check_all()
    assert await ann.is_open()
    assert (await bob.ended())[0] == 4401


async def test_a_socket_opened_in_an_outage_has_its_session_afterwards_or_was_refused(
    here: Deployment, process: Process
) -> None:
    """Otherwise it stays open for ever without one, fails at every message, and no end reaches it."""
    browser = await here.signed_in(process, here.ann)
    process.store.fail("load", OSError("gone"))
    try:
        socket = await connect(here, process, browser)
    except HTTPClientError as error:
        refusal = error.code
    else:
        process.store.meddle = None
        assert await socket.ask("who") == here.ann
        return
    assert refusal == 503


async def test_nothing_is_sent_after_the_end(here: Deployment, process: Process) -> None:
    """A broadcast that still holds the handler must be told, and must not reach the client."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    (handler,) = process.sessions.sockets(here.ann)
    assert isinstance(handler, WebSocketHandler)
    await browser.post("/out")
    assert (await socket.ended())[0] == 4401
    with pytest.raises(WebSocketClosedError):
        handler.write_message("secret")
    assert process.sessions.sockets(here.ann) == []
    await process.sessions.send(here.ann, "secret")


async def test_two_sockets_of_one_session_write_at_once(
    here: Deployment, process: Process, other: Process
) -> None:
    """The same key and others, from two processes, in one turn."""
    browser = await here.signed_in(process, here.ann)
    sockets = [await connect(here, one, browser) for one in (process, other)]
    for round_ in range(20):
        await asyncio.gather(
            *(one.ask(f"set k{number}-{round_} v") for number, one in enumerate(sockets)),
        )
        await asyncio.gather(*(one.ask("add n") for one in sockets))
    for one in sockets:
        await one.ask("who")
    data = (await me(browser))["data"]
    assert data.pop("n") == 40
    assert len(data) == 40


# authenticated_socket where there is no mixin


async def test_authenticated_socket_protects_handlers_under_install_or_refuses_them(
    here: Deployment, process: Process
) -> None:
    """A decorator that does nothing, without a word, leaves the door open."""
    try:

        @authenticated_socket
        class Plain(WebSocketHandler):
            def on_message(self, message: str | bytes) -> None:
                """Nothing."""

    except TypeError:
        return
    process.application.add_handlers(".*", [("/plain", Plain)])
    process.sessions.install(process.application)
    assert await refused(here, process, path="/plain") == 401


async def test_under_install_a_plain_handler_ends_with_its_session(
    here: Deployment, process: Process
) -> None:
    """Handlers that one does not own have the same need."""
    reasons: list[str] = []

    class Plain(WebSocketHandler):
        async def prepare(self) -> None:
            self.request.session["k"] = "prepared"  # type: ignore[attr-defined]

        def on_message(self, message: str | bytes) -> None:
            session = self.request.session  # type: ignore[attr-defined]
            session["said"] = message
            self.write_message(f'"{session.principal} {session["k"]}"')

        def on_session_end(self, reason: str) -> None:
            reasons.append(reason)

    process.application.add_handlers(".*", [("/plain", Plain)])
    process.sessions.install(process.application)
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/plain", headers={"Origin": process.url})
    assert await socket.ask("hi") == f"{here.ann} prepared"
    await socket.ask("hi")
    assert (await me(browser))["data"] == {"k": "prepared", "said": "hi"}
    headers = {"Origin": "http://evil.example"}
    assert await refused(here, process, browser, "/plain", headers=headers) == 403
    await browser.post("/out")
    assert await socket.ended() == (4401, "signed out")
    assert reasons == ["signed out"]


async def test_an_unsaved_change_in_a_late_hook_of_the_handshake_is_refused_aloud(
    here: Deployment, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Within the 101 nothing can wait: better a 500 in development than a change that is lost."""

    class Late(SessionWebSocketMixin, WebSocketHandler):
        def select_subprotocol(self, subprotocols: list[str]) -> str | None:
            self.session["k"] = "lost"
            return None

    process.application.add_handlers(".*", [("/late", Late)])
    browser = await here.signed_in(process, here.ann)
    assert await refused(here, process, browser, "/late") == 500
    assert "await self.session.save()" in caplog.text
