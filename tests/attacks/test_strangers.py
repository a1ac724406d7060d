"""A request without a cookie gets its session at the first use; what was done before that must count."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tornado.httputil import HTTPConnection, HTTPHeaders

from tests.tornado.site import Handler, Way, serving

WAYS: tuple[Way, ...] = ("mixin", "install")


class Counting(HTTPConnection):
    """An application's own connection around Tornado's, made of nothing but the documented interface."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.sent = 0

    def write_headers(self, start_line: Any, headers: HTTPHeaders, chunk: bytes | None = None) -> Any:
        self.sent += len(chunk or b"")
        return self.inner.write_headers(start_line, headers, chunk)

    def write(self, chunk: bytes) -> Any:
        self.sent += len(chunk)
        return self.inner.write(chunk)

    def finish(self) -> None:
        self.inner.finish()

    def set_close_callback(self, callback: Any) -> None:
        self.inner.set_close_callback(callback)


class Metered(Handler):
    def prepare(self) -> None:
        self.request.connection = Counting(self.request.connection)

    def get(self) -> None:
        self.s["n"] = self.s.get("n", 0) + 1
        self.write(str(self.s["n"]))


@pytest.mark.parametrize("way", WAYS)
async def test_a_stranger_behind_a_connection_of_the_applications_own_is_answered_500(way: Way) -> None:
    """Who has a cookie is served and every newcomer gets an error, so nobody can ever begin."""
    async with serving(way, [("/", Metered)]) as site:
        await site.sign_on()
        assert (await site.fetch("/")).code == 200
        site.cookie = None
        assert (await site.fetch("/")).code == 200


class Silent(Counting):
    """One whose author did not know that others wait for what it returns."""

    def write_headers(self, *words: Any) -> Any:
        super().write_headers(*words)

    def write(self, chunk: bytes) -> Any:
        super().write(chunk)


class Quiet(Handler):
    def initialize(self) -> None:
        self.request.connection = Silent(self.request.connection)

    def get(self) -> None:
        self.s["n"] = self.s.get("n", 0) + 1
        self.write(str(self.s["n"]))


async def test_a_connection_that_returns_nothing_loses_the_answers_that_were_held(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was saved is answered by a connection that hangs from then on."""
    async with serving("mixin", [("/", Quiet)]) as site:
        await site.sign_on()
        assert [await site.text("/") for _ in range(2)] == ["1", "2"]
    assert "could not be sent" not in caplog.text


class Legacy(Handler):
    def get(self) -> None:
        self.request.session = {"mine": "a framework's own"}  # type: ignore[attr-defined]
        self.write("shown")


@pytest.mark.parametrize("way", WAYS)
async def test_an_application_with_a_request_session_of_its_own_answers_strangers_500(way: Way) -> None:
    """Handlers stay unchanged under install(); one that sets its own attribute fails for newcomers only."""
    async with serving(way, [("/", Legacy)]) as site:
        await site.sign_on()
        assert (await site.fetch("/")).code == 200
        site.cookie = None
        assert (await site.fetch("/")).code == 200


class Copying(Handler):
    def get(self) -> None:
        seen_by_a_plugin = copy.copy(self.request)
        seen_by_a_plugin.session["cart"] = ["book"]  # type: ignore[attr-defined]
        self.write(str(self.s.get("cart")))


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_stored_through_a_copy_of_the_request_is_lost_for_strangers(way: Way) -> None:
    """A copied request had the same session; a newcomer's copy has another one, which nobody saves."""
    async with serving(way, [("/", Copying)]) as site:
        await site.sign_on()
        assert await site.text("/") == "['book']"
        site.cookie = None
        assert await site.text("/") == "['book']"


class Named(Handler):
    def prepare(self) -> None:
        self.request.sessions = ["conference room"]  # type: ignore[attr-defined]  # the word has other meanings

    def get(self) -> None:
        self.write(str(self.s.get("k")))


@pytest.mark.parametrize("way", WAYS)
async def test_an_application_that_calls_something_else_sessions_answers_strangers_500(way: Way) -> None:
    """What keeps the manager on the request has a name that applications use themselves."""
    async with serving(way, [("/", Named)]) as site:
        assert (await site.fetch("/")).code == 200
