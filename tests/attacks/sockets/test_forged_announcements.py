"""Somebody may publish to the store's server: they close nothing, and fill neither log nor memory."""

from __future__ import annotations

import asyncio
import logging
import secrets
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.websocket import WebSocketHandler

from eyewall.core.announcements import decode
from eyewall.core.announcing import MAX_MESSAGE, announcer_of
from tests.signin.kit import Deployment, Process
from tests.tornado.sockets.kit import connect, is_empty, until

pack = msgspec.msgpack.encode


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_bytes_of_any_kind_are_nothing_of_ours_or_are_read(message: bytes) -> None:
    """An exception for each message is a log flood."""
    decode(message)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.binary(), inner, max_size=3),
    max_leaves=12,
)


@given(anything, st.sampled_from(["e", "m", "x", b"e", 0]))
@settings(deadline=None)
def test_values_of_any_kind_are_nothing_of_ours_or_are_read(value: Any, tag: Any) -> None:
    """As above, for bytes that look like ours."""
    for message in (value, [tag, value], [tag, value, value], {"type": tag, "digests": value}):
        decode(pack(message))


def test_deep_nesting_is_nothing_of_ours() -> None:
    """A decoder without a limit ends the process."""
    assert decode(b"\x93\xa1m\xa1a" + b"\x91" * (MAX_MESSAGE - 10) + b"\xc0") is None
    assert decode(b"\x93\xa1m\xa1a" + b"\x81\xa1a" * 1_500 + b"\xc0") is None


FORGED = [
    b"",
    b"\xff" * 50,
    b"{}",
    b"\x00" * MAX_MESSAGE,
    pack(["e", [], "x"]),
    pack(["e", [b""], ""]),
    pack(["e", [b"x" * 32], 5]),
    pack(["e", [secrets.token_bytes(32) for _ in range(140)], "\x1b[2Jx\r\n"]),
    pack(["m", "nobody", {"a": 1}]),
    pack(["m", 5, "x"]),
    pack(["q", 5, "x"]),
]


@pytest.mark.filterwarnings("error")
async def test_forged_ends_close_nothing(
    here: Deployment, process: Process, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever may publish to Redis must not be able to throw everybody out."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    (digest,) = process.sessions.watch._by_digest
    announcer = announcer_of(process.sessions.store)
    assert announcer is not None
    with caplog.at_level(logging.INFO):
        for message in (*FORGED, pack(["e", [digest], "forged"]), pack(["e", [digest] * 120, "forged"])):
            for _ in range(3):
                await announcer.announce(message)
        assert await socket.is_open()
    assert caplog.records == []
    assert set(process.store.calls) <= {"load", "create", "replace"}, "nothing was written for them"


CONTENTS = [
    None,
    1,
    1.5,
    True,
    [],
    ["x"],
    {"a": b"bytes"},
    {b"a": 1},
    {1: {2: 3}},
    {"at": datetime(2026, 1, 1, tzinfo=UTC)},
    msgspec.msgpack.Ext(5, b"x"),
    float("nan"),
]


@pytest.mark.parametrize("own", [True, False], ids=["mixin", "install"])
async def test_forged_messages_that_no_socket_can_send_fill_no_log(
    here: Deployment, process: Process, caplog: pytest.LogCaptureFixture, own: bool
) -> None:
    """One publisher, and every process writes a traceback for every socket and every message."""

    class Plain(WebSocketHandler):
        def on_message(self, message: str | bytes) -> None:
            self.write_message('"done"')

    if not own:
        process.application.add_handlers(".*", [("/plain", Plain)])
        process.sessions.install(process.application)
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/ws" if own else "/plain")
    announcer = announcer_of(process.sessions.store)
    assert announcer is not None
    with caplog.at_level(logging.INFO):
        for content in CONTENTS:
            for _ in range(3):
                await announcer.announce(pack(["m", here.ann, content]))
        await announcer.announce(pack(["m", here.ann, "last"]))
        while await socket.read() != "last":
            pass
    assert len(caplog.records) <= 1
    assert await socket.is_open()


async def test_a_storm_of_forged_ends_does_not_multiply_in_the_store(
    here: Deployment, process: Process
) -> None:
    """Publishing is cheap; if each message cost a look into the store, it would be an amplifier."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    (digest,) = process.sessions.watch._by_digest
    message = pack(["e", [digest], "forged"])
    arrived, go_on = process.store.hold("load")
    process.store.calls.clear()
    for _ in range(5_000):
        process.sessions.watch.heard(message)
        if process.sessions.watch._by_digest and arrived.is_set():
            await asyncio.sleep(0)
    tasks = len(process.sessions._background.under_way())
    go_on.set()
    await until(lambda: not process.sessions._background.under_way(), "all looks are done")
    assert tasks <= 2
    assert process.store.calls.count("load") <= 3
    assert await socket.is_open()
    socket.connection.close()
    await until(lambda: is_empty(process.sessions), "nothing is watched any more")
