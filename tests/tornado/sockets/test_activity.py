"""What keeps the session of an open socket from idling away: a choice of the handler."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from tests.signin.kit import Deployment, Process
from tests.tornado.sockets.kit import Told, connect, until


class AnyFrame(Told):
    session_activity = "any"


class NoFrame(Told):
    session_activity = "none"


ROUTES = [("/any", AnyFrame), ("/none", NoFrame)]


async def seen_at(site: Deployment, process: Process) -> datetime:
    """When the session was last used, as the store has it."""
    (record,) = await process.store.inner.find_principal(site.ann)
    seen: datetime = record.seen_at
    return seen


@pytest.mark.parametrize(
    ("path", "counts"), [("/ws", True), ("/any", True), ("/none", False)], ids=["messages", "any", "none"]
)
async def test_messages_count_as_the_handler_says(
    here: Deployment, process: Process, path: str, counts: bool
) -> None:
    """A tab that polls in the background must not keep a forgotten session alive for ever."""
    process.application.add_handlers(".*", ROUTES)
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, path)
    began = await seen_at(here, process)
    here.clock.advance(process.sessions.settings.ttl / 2)
    for message in ("get k", "who", "get k"):
        await socket.ask(message)
    assert (await seen_at(here, process) > began) is counts
    here.clock.advance(process.sessions.settings.ttl * 0.6)
    await process.sessions.watch.check_all()
    if counts:
        assert await socket.is_open()
    else:
        assert await socket.ended() == (4401, "expired")


@pytest.mark.parametrize(("path", "counts"), [("/ws", False), ("/any", True), ("/none", False)])
async def test_what_is_sent_counts_only_where_any_frame_does(
    here: Deployment, process: Process, path: str, counts: bool
) -> None:
    """A ticker that nobody looks at would count as a user."""
    process.application.add_handlers(".*", ROUTES)
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, path)
    began = await seen_at(here, process)
    here.clock.advance(process.sessions.settings.ttl / 2)
    for _ in range(20):
        await process.sessions.send(here.ann, "tick")
    for _ in range(20):
        assert await socket.read() == "tick"
    if counts:
        await until(lambda: "touch" in process.store.calls, "a touch")
    assert (await seen_at(here, process) > began) is counts
    assert process.store.calls.count("touch") == int(counts), "throttled like every touch"


@pytest.mark.parametrize("path", ["/ws", "/any", "/none"])
async def test_pings_never_count(here: Deployment, process: Process, path: str) -> None:
    """Browsers answer pings by themselves; nobody has to sit there."""
    process.application.add_handlers(".*", ROUTES)
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, path)
    (handler,) = process.sessions.sockets(here.ann)
    here.clock.advance(process.sessions.settings.ttl / 2)
    socket.connection.ping(b"x")
    handler.ping(b"y")  # type: ignore[attr-defined]  # a WebSocketHandler
    here.clock.advance(process.sessions.settings.ttl * 0.6)
    await process.sessions.watch.check_all()
    assert await socket.ended() == (4401, "expired")
    assert "touch" not in process.store.calls


async def test_touches_are_throttled(here: Deployment, process: Process) -> None:
    """A chatty socket must not write to the store at every message."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    process.store.calls.clear()
    for _ in range(60):
        here.clock.advance(timedelta(seconds=1))
        await socket.ask("get k")
    touches = process.store.calls.count("touch")
    assert touches <= 60 / min(process.sessions.settings.ttl.total_seconds() / 10, 300)
    assert set(process.store.calls) <= {"touch"}, "and a message that changes nothing asks the store nothing"
