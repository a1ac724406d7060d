"""A request without a cookie gets its session at its first use, however late that is."""

from __future__ import annotations

import asyncio
import gc
from copy import copy
from datetime import timedelta
from typing import Any
from weakref import WeakSet

import pytest
from tornado.httputil import HTTPConnection, HTTPHeaders, ResponseStartLine
from tornado.web import RequestHandler

from eyewall.errors import HeadersSentError, SessionClosedError, SessionError, TooManyAttemptsError
from eyewall.tornado import SessionMixin, session_of
from tests.servers.patience import until
from tests.tornado.site import Handler, Way, serving

WAYS: tuple[Way, ...] = ("mixin", "install")


@pytest.mark.parametrize("way", WAYS)
async def test_a_first_use_after_the_head_has_left_is_refused(way: Way) -> None:
    """The cookie could not be sent any more: a session that nobody can ever come back to."""
    refused: list[Exception] = []

    class Late(Handler):
        async def get(self) -> None:
            self.write("begun, ")
            await self.flush()
            try:
                self.s["n"] = 1
            except HeadersSentError as error:
                refused.append(error)
            self.finish("ended")

    async with serving(way, [("/", Late)]) as site:
        answer = await site.fetch("/")
        assert (answer.code, answer.body) == (200, b"begun, ended")
        assert site.store.calls == []
    assert len(refused) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_first_use_after_the_answer_is_finished_is_refused(way: Way) -> None:
    """A change that was never saved, and nobody is told."""
    refused: list[Exception] = []

    class TooLate(Handler):
        def get(self) -> None:
            self.write("ended")

        def on_finish(self) -> None:
            try:
                self.s["n"] = 1
            except SessionClosedError as error:
                refused.append(error)

    async with serving(way, [("/", TooLate)]) as site:
        assert (await site.fetch("/")).body == b"ended"
        assert site.store.calls == []
    assert len(refused) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_first_use_in_time_is_stored_and_told(way: Way) -> None:
    """Whoever comes for the first time would never get a session."""

    class Visit(Handler):
        async def get(self) -> None:
            self.s["n"] = self.s.get("n", 0) + 1
            self.write(str(self.s["n"]))

    async with serving(way, [("/", Visit)]) as site:
        assert [(await site.fetch("/")).body for _ in range(3)] == [b"1", b"2", b"3"]


@pytest.mark.parametrize("way", WAYS)
async def test_whoever_has_kept_the_connection_answers_behind_the_barrier_all_the_same(way: Way) -> None:
    """An answer leaves without the cookie, and before anything is stored."""

    class Keeps(Handler):
        def get(self) -> None:
            connection = self.request.connection
            assert connection is not None
            self.s["n"] = 1
            _answer_over(connection, b"kept")
            self._finished = True

    async with serving(way, [("/", Keeps)]) as site:
        answer = await site.fetch("/")
        assert (answer.body, len(site.store.calls)) == (b"kept", 1)
        assert answer.headers.get_list("Set-Cookie")


@pytest.mark.parametrize("way", WAYS)
async def test_a_copy_of_the_request_answers_behind_the_barrier_all_the_same(way: Way) -> None:
    """A copy made before the first use has a session of its own, or a way round the barrier."""

    class Copies(Handler):
        def get(self) -> None:
            self.request, original = copy(self.request), self.request
            self.s["n"] = 1
            assert session_of(self) is original.session  # type: ignore[attr-defined]  # the adapter sets it
            self.write("copied")

    async with serving(way, [("/", Copies)]) as site:
        answer = await site.fetch("/")
        assert (answer.body, len(site.store.calls)) == (b"copied", 1)
        assert answer.headers.get_list("Set-Cookie")


@pytest.mark.parametrize("way", WAYS)
async def test_a_stranger_is_told_when_to_try_again(way: Way) -> None:
    """A refused stranger comes back at once, and again."""

    class Limited(Handler):
        def get(self) -> None:
            raise TooManyAttemptsError("address", timedelta(seconds=7))

    async with serving(way, [("/", Limited)]) as site:
        answer = await site.fetch("/")
        expected = (429, "7") if way == "mixin" else (500, None)  # install() leaves error pages alone
        assert (answer.code, answer.headers.get("Retry-After")) == expected
        assert site.store.calls == []


def _answer_over(connection: HTTPConnection, body: bytes) -> None:
    headers = HTTPHeaders({"Content-Length": str(len(body))})
    connection.write_headers(ResponseStartLine("", 200, "OK"), headers, body)
    connection.finish()


@pytest.mark.parametrize("way", WAYS)
async def test_a_stranger_s_stream_can_be_handed_over(way: Way) -> None:
    """A handler with a protocol of its own never gets the stream, because somebody looked at the session."""

    class Takes(Handler):
        async def get(self) -> None:
            assert self.s.get("n") is None
            connection = self.request.connection
            assert connection is not None
            stream = connection.detach()  # type: ignore[attr-defined]  # HTTP/1.1 has it
            self._finished = True
            await stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
            stream.close()

    async with serving(way, [("/", Takes)]) as site:
        assert (await site.fetch("/")).body == b"mine"


@pytest.mark.parametrize("way", WAYS)
async def test_a_stranger_s_stream_is_not_handed_over_with_what_nobody_saved(way: Way) -> None:
    """A change that is lost without a word."""

    class Loses(Handler):
        async def get(self) -> None:
            self.s["n"] = 1
            connection = self.request.connection
            assert connection is not None
            with pytest.raises(SessionError, match="session was changed before detach"):
                connection.detach()  # type: ignore[attr-defined]
            self._finished = True

    async with serving(way, [("/", Loses)]) as site:
        assert (await site.fetch("/")).code == 500


async def test_a_stranger_s_stream_learns_that_its_answer_is_over() -> None:
    """A page of events, open to all, cannot be asked for without a cookie; or waits for an end for ever."""
    ends: list[asyncio.Future[str | None]] = []

    class Events(SessionMixin, RequestHandler):
        async def get(self) -> None:
            ends.append(self.session_ended)
            assert not ends[0].done()
            self.write("event")
            await self.flush()

    async with serving("mixin", [("/", Events)]) as site:
        answer = await site.fetch("/")
        assert (answer.code, answer.body) == (200, b"event")
    assert ends[0].done()
    assert ends[0].result() is None


@pytest.mark.parametrize("way", WAYS)
async def test_a_stranger_s_connection_leaves_nothing_to_the_collector_of_cycles(way: Way) -> None:
    """Sessions of strangers, with all that is in them, pile up until the collector stops the world."""
    connections: WeakSet[Any] = WeakSet()

    class Visit(Handler):
        def get(self) -> None:
            self.s["n"] = 1
            connections.add(self.request.connection)

    async with serving(way, [("/", Visit)]) as site:
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                site.cookie = None
                assert (await site.fetch("/")).code == 200
            await until(lambda: len(connections) <= 1)
            assert len(connections) <= 1
        finally:
            gc.enable()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("failing", [False, True])
async def test_a_stranger_who_leaves_during_the_save_harms_nobody(
    way: Way, failing: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever hangs up fills the log with our tracebacks."""

    class Visit(Handler):
        def get(self) -> None:
            self.s["n"] = 1
            self.write("never read")

    async with serving(way, [("/", Visit)]) as site:
        entered, opened = site.store.gate("create")
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await entered.wait()
        writer.close()
        await asyncio.sleep(0.05)
        gc.collect()
        if failing:
            site.store.failures["create"] = OSError("down")
        opened.set()
        await site.sessions.drain()
        assert len(await site.store.live()) == (0 if failing else 1)
    del site
    gc.collect()  # a task that failed tells when nobody has it any more
    assert [record for record in caplog.records if record.exc_info] == []
