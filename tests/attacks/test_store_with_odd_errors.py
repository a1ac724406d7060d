"""A store, or a handler's own check, fails in a way nobody foresaw: every client still gets an answer."""

from __future__ import annotations

import asyncio

import pytest

from eyewall.tornado import SessionMixin
from tests.tornado.site import Handler, Site, serving

ODD = [RuntimeError("bug"), TimeoutError(), OSError("disk"), asyncio.CancelledError()]


class Public(Handler):
    def get(self) -> None:
        self.write("public")


class Read(Handler):
    def get(self) -> None:
        self.write(str(self.s.get("k")))


class Write(Handler):
    def get(self) -> None:
        self.s["k"] = "v"
        self.write("told")


ROUTES = [("/public", Public), ("/read", Read), ("/write", Write)]


async def _status(site: Site, path: str) -> int:
    async with asyncio.timeout(12):
        return (await site.fetch(path, request_timeout=10)).code


@pytest.mark.parametrize("error", ODD, ids=lambda error: type(error).__name__)
async def test_an_odd_error_while_loading_hangs_nobody(error: BaseException) -> None:
    """The mixin raises it outside of Tornado's own handling: the connection stays open without an answer."""
    async with serving("mixin", ROUTES) as site:
        await site.sign_on(k="v")
        site.store.failures["load"] = error  # type: ignore[assignment]
        assert await _status(site, "/public") == 200
        assert await _status(site, "/read") in (500, 503)


async def test_an_odd_error_while_loading_is_answered_under_install() -> None:
    """The connection is closed without an answer, also for pages that need no session."""
    async with serving("install", ROUTES) as site:
        await site.sign_on(k="v")
        site.store.failures["load"] = RuntimeError("bug")
        assert await _status(site, "/public") == 200
        assert await _status(site, "/read") in (500, 503)


@pytest.mark.parametrize("verb", ["create", "replace", "delete"])
async def test_a_driver_that_cancels_its_own_call_hangs_nobody(verb: str) -> None:
    """Pools cancel what waits in them when they close: the held answer was never released."""

    class Destroy(Handler):
        def get(self) -> None:
            self.s.destroy()
            self.write("told")

    async with serving("mixin", [*ROUTES, ("/destroy", Destroy)]) as site:
        if verb != "create":
            await site.sign_on(k="old")
        site.store.failures[verb] = asyncio.CancelledError()  # type: ignore[assignment]
        assert await _status(site, "/destroy" if verb == "delete" else "/write") in (500, 503)


async def test_a_trust_check_that_raises_hangs_nobody() -> None:
    """The handler's own check_trusted_origin() is the application's code: it may fail."""

    class Picky(SessionMixin, Handler):
        def check_trusted_origin(self, origin: str) -> bool:
            raise RuntimeError(origin)

        def post(self) -> None:
            self.write("posted")

    async with serving("mixin", [("/", Picky)]) as site:
        answer = await site.fetch("/", "POST", headers={"Origin": "https://evil.example"}, request_timeout=10)
        assert answer.code in (403, 500)


async def test_a_sessions_setting_of_a_wrong_type_hangs_nobody() -> None:
    """``sessions=Settings(...)`` instead of ``Sessions(...)`` is easily written."""
    async with serving("mixin", ROUTES) as site:
        site.application.settings["sessions"] = site.sessions.settings
        assert await _status(site, "/read") == 500
