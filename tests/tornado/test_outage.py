"""A store that does not answer: who needs no session notices nothing, who needs one gets a clean 503."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest
from tornado.httpclient import HTTPResponse
from tornado.web import RequestHandler

from eyewall import SessionMixin, Settings
from eyewall.errors import StoreUnavailable
from tests.tornado.site import SECRET, Handler, ServeSite, serving

DOWN = StoreUnavailable("connection refused")


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


class Incr(Handler):
    async def post(self) -> None:
        self.write(str(await self.s.modify("n", lambda n: n + 1, default=0)))


ROUTES = [("/public", Public), ("/read", Read), ("/write", Write), ("/incr", Incr)]


def is_clean_503(answer: HTTPResponse) -> bool:
    """503, when to retry, and a cookie neither cleared nor replaced."""
    return (
        answer.code == 503
        and int(answer.headers["Retry-After"]) > 0
        and "Set-Cookie" not in answer.headers
        and b"Traceback" not in answer.body
    )


async def test_a_failing_load_matters_only_where_the_session_is_used(serve: ServeSite) -> None:
    """An outage of the store is no outage of the site (alkem-io/server 6332)."""
    site = await serve(ROUTES)
    await site.sign_on(k="v")
    site.store.failures["load"] = DOWN
    assert (await site.fetch("/public")).code == 200
    assert is_clean_503(await site.fetch("/read"))
    assert is_clean_503(await site.fetch("/incr", "POST"))
    site.store.failures.clear()
    assert await site.text("/read") == "v", "recovery needs no restart and no new sign-in"


async def test_without_a_cookie_an_outage_is_not_noticed(serve: ServeSite) -> None:
    """A visitor without a session asks nothing of the store."""
    site = await serve(ROUTES)
    site.store.failures["load"] = DOWN
    assert await site.text("/read") == "None"
    assert site.store.calls == []


async def test_a_failing_save_takes_the_answer_back(serve: ServeSite) -> None:
    """The handler's 200 would be a lie."""
    site = await serve(ROUTES)
    site.store.failures["create"] = DOWN
    answer = await site.fetch("/write")
    assert is_clean_503(answer)
    assert b"told" not in answer.body
    site.store.failures.clear()
    await site.sign_on(k="old")
    site.store.failures["replace"] = DOWN
    assert is_clean_503(await site.fetch("/write"))
    assert is_clean_503(await site.fetch("/incr", "POST"))
    site.store.failures.clear()
    assert await site.text("/read") == "old"


async def test_a_failing_save_while_streaming_cuts_the_connection(serve: ServeSite) -> None:
    """With the headers out there is no other way to say that something went wrong."""

    class Stream(Handler):
        async def get(self) -> None:
            self.set_header("Content-Length", "6")
            self.write("one")
            await self.flush()
            self.s["k"] = "v"
            self.write("two")

    site = await serve([("/", Stream)])
    await site.sign_on()
    site.store.failures["replace"] = DOWN
    request = f"GET / HTTP/1.1\r\nHost: x\r\nCookie: {site.cookie}\r\n\r\n"
    assert (await site.raw(request.encode())).endswith(b"\r\n\r\none")


async def test_a_hung_store_holds_nobody_for_longer_than_agreed(serve: ServeSite) -> None:
    """Drivers' own timeouts stall for 11 to 59 seconds; ours bounds the whole request."""
    settings = Settings(backend="memory", cookie_secret=SECRET, store_timeout=timedelta(seconds=0.05))
    site = await serve(ROUTES, settings=settings)
    await site.sign_on(k="old")
    site.store.gate("load")
    async with asyncio.timeout(5):
        assert is_clean_503(await site.fetch("/read"))
        assert (await site.fetch("/public")).code == 200
    site.store.gates.clear()
    site.store.gate("replace")
    async with asyncio.timeout(5):
        assert is_clean_503(await site.fetch("/write"))
        assert is_clean_503(await site.fetch("/incr", "POST"))


async def test_an_outage_is_one_log_line_per_change_of_state(
    serve: ServeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """Thousands of requests must not become thousands of lines."""
    site = await serve(ROUTES)
    await site.sign_on(k="v")
    site.store.failures["load"] = DOWN
    for _ in range(20):
        await site.fetch("/public")
    site.store.failures.clear()
    site.sessions._health.left_alone = 0.0  # the moment for which it is left alone has passed
    site.sessions._health._ask_at = 0.0
    for _ in range(5):
        await site.fetch("/read")
    lines = [record.message for record in caplog.records if record.name == "eyewall"]
    assert [line.split(" [")[0] for line in lines] == ["store does not answer", "store answers again"]


async def test_a_dead_store_is_left_alone_for_a_moment_and_then_asked_by_one(serve: ServeSite) -> None:
    """Thousands of requests that each wait for the same dead server hold it under when it comes up."""
    site = await serve(ROUTES)
    await site.sign_on(k="v")
    site.store.failures["load"] = DOWN
    for _ in range(5):
        assert (await site.fetch("/read")).code == 503
    site.store.calls.clear()
    for _ in range(20):
        assert is_clean_503(await site.fetch("/read"))
    assert site.store.calls == []
    site.store.failures.clear()
    site.sessions._health._ask_at = 0.0
    assert await site.text("/read") == "v"
    assert await site.text("/read") == "v"


async def test_a_store_that_only_reads_goes_on_being_read(serve: ServeSite) -> None:
    """A full disk refuses what is new; it must not make strangers of those who only look."""
    site = await serve(ROUTES)
    await site.sign_on(k="v")
    site.store.failures["replace"] = DOWN
    for _ in range(10):
        assert (await site.fetch("/incr", "POST")).code == 503
    assert await site.text("/read") == "v"


async def test_a_store_with_a_bug_answers_500_not_silence(
    serve: ServeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """A client must get an answer whatever happens behind the barrier."""
    site = await serve(ROUTES)
    site.store.failures["create"] = RuntimeError("bug")
    answer = await site.fetch("/write")
    assert answer.code == 500
    assert "Set-Cookie" not in answer.headers
    assert "bug" in caplog.text
    assert b"bug" not in answer.body


async def test_an_unstorable_value_put_inside_a_stored_list_is_an_error_not_a_loss(
    serve: ServeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """It is found when the answer is sent; the answer must not claim success."""

    class Append(Handler):
        def get(self) -> None:
            self.s["k"].append(object())
            self.write("told")

    site = await serve([("/", Append), ("/read", Read)])
    await site.sign_on(k=[1])
    answer = await site.fetch("/")
    assert answer.code == 500
    assert b"told" not in answer.body
    assert "session['k'] cannot be stored" in caplog.text
    assert await site.text("/read") == "[1]"


async def test_a_failing_touch_fails_no_page(serve: ServeSite) -> None:
    """Reading needs nothing from the store but the read."""
    from eyewall.testing.clock import ManualClock

    clock = ManualClock()
    site = await serve(ROUTES, clock=clock)
    await site.sign_on(k="v")
    clock.advance(timedelta(minutes=30))
    site.store.failures["touch"] = DOWN
    assert await site.text("/read") == "v"
    assert "touch" in site.store.calls


class Anonymous(Handler):
    when_store_fails = "anonymous"

    def get(self) -> None:
        self.write(f"{self.s.principal} {self.s.get('k')}")

    def post(self) -> None:
        self.s["k"] = "new"


class Required(SessionMixin, RequestHandler):
    when_store_fails = "required"

    def get(self) -> None:
        self.write("nothing of the session")


async def test_a_page_may_go_without_the_session_in_an_outage(serve: ServeSite) -> None:
    """A news page must not go down with the store; and its readers must not be signed out by it."""
    site = await serve([*ROUTES, ("/news", Anonymous)])
    await site.sign_on(k="v")
    site.store.failures["load"] = DOWN
    answer = await site.fetch("/news")
    assert (answer.code, answer.body, "Set-Cookie" in answer.headers) == (200, b"None None", False)
    assert answer.headers["Cache-Control"].startswith("private")
    assert is_clean_503(await site.fetch("/news", "POST"))
    site.store.failures.clear()
    assert await site.text("/news") == "None v"
    assert await site.text("/read") == "v"


async def test_a_page_may_require_the_session_whether_it_uses_it_or_not() -> None:
    """What looks at the session in the middle of its work should not begin without it."""
    async with serving("mixin", [*ROUTES, ("/task", Required)]) as site:
        await site.sign_on(k="v")
        site.store.failures["load"] = DOWN
        assert is_clean_503(await site.fetch("/task"))
        site.store.failures.clear()
        assert await site.text("/task") == "nothing of the session"


async def test_a_failed_save_is_answered_although_nobody_awaits_the_flush_any_more(serve: ServeSite) -> None:
    """A handler that was tired of waiting for ``flush()`` must not make its visitor wait for ever."""
    tired = asyncio.Event()

    class Impatient(Handler):
        async def get(self) -> None:
            self.s["k"] = "w"
            with suppress(TimeoutError):
                await asyncio.wait_for(self.flush(), 0.01)
            tired.set()

    site = await serve([("/", Impatient)])
    await site.sign_on(k="v")
    _, opened = site.store.gate("replace")
    site.store.failures["replace"] = DOWN
    answer = asyncio.create_task(site.fetch("/", request_timeout=5))
    await tired.wait()
    opened.set()
    assert is_clean_503(await answer)
