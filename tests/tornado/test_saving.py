"""What a client has been told is stored: the answer waits for the save, whatever the handler does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tornado.web import Finish, HTTPError

from eyewall.errors import HeadersSentError, SessionClosedError, StoreUnavailable
from tests.tornado.site import Handler, ServeSite


class Write(Handler):
    def get(self) -> None:
        self.s["k"] = self.get_argument("v", "v")
        self.write("done")


class AsyncWrite(Handler):
    async def get(self) -> None:
        await asyncio.sleep(0)
        self.s["k"] = "v"
        await asyncio.sleep(0)
        self.write("done")


class Read(Handler):
    def get(self) -> None:
        self.write(str(self.s.get("k")))


class WriteThenRedirect(Handler):
    def post(self) -> None:
        self.s["k"] = "v"
        self.redirect("/read")


@pytest.mark.parametrize("handler", [Write, AsyncWrite])
async def test_a_change_is_there_at_the_next_request(serve: ServeSite, handler: type[Handler]) -> None:
    """A session that forgets is none."""
    site = await serve([("/", handler), ("/read", Read)])
    assert await site.text("/") == "done"
    assert await site.text("/read") == "v"
    assert site.store.calls == ["create", "load"]


async def test_a_redirect_never_overtakes_the_save(serve: ServeSite) -> None:
    """The next page would show a visitor as not signed in (express-session 360, 704)."""
    site = await serve([("/", WriteThenRedirect), ("/read", Read)])
    arrived, release = site.store.gate("create")
    answer = asyncio.ensure_future(site.fetch("/", "POST"))
    await arrived.wait()
    await asyncio.sleep(0.05)
    assert not answer.done(), "the redirect left before the store acknowledged"
    release.set()
    assert (await answer).code == 302
    assert await site.text("/read") == "v"


async def test_render_waits_for_the_save(serve: ServeSite, tmp_path: Any) -> None:
    """Templates end in finish() like everything else, and see the session."""

    class Page(Handler):
        def get(self) -> None:
            self.s["k"] = "shown & stored"
            self.render("page.html", session=self.s)

    (tmp_path / "page.html").write_text("<p>{{ session['k'] }}</p>")
    site = await serve([("/", Page), ("/read", Read)], template_path=str(tmp_path))
    assert await site.text("/") == "<p>shown &amp; stored</p>"
    assert await site.text("/read") == "shown & stored"


@pytest.mark.parametrize("how", ["finish", "Finish", "return"])
async def test_an_early_end_saves_what_came_before(serve: ServeSite, how: str) -> None:
    """Handlers end in several ways; none of them may lose data."""

    class Early(Handler):
        def get(self) -> None:
            self.s["k"] = how
            if how == "finish":
                self.finish("early")
            elif how == "Finish":
                raise Finish

    site = await serve([("/", Early), ("/read", Read)])
    assert (await site.fetch("/")).code == 200
    assert await site.text("/read") == how


async def test_a_change_after_finish_is_refused_loudly(
    serve: ServeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """It could not be saved before the answer, and silence would lose it."""
    errors = []

    class Late(Handler):
        def get(self) -> None:
            self.s["k"] = "before"
            self.finish("done")
            try:
                self.s["k"] = "after"
            except SessionClosedError as error:
                errors.append(error)
            assert self.s["k"] == "before"

    site = await serve([("/", Late), ("/read", Read)])
    assert await site.text("/") == "done"
    assert await site.text("/read") == "before"
    assert "before finish()" in str(errors[0])


async def test_a_session_kept_by_a_background_task_is_refused(serve: ServeSite) -> None:
    """A session that outlives its request could be written for the wrong user (GitHub, March 2021)."""
    outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    finished = asyncio.Event()

    class Background(Handler):
        def get(self) -> None:
            session = self.s

            async def later() -> None:
                await finished.wait()
                try:
                    session["k"] = "late"
                except SessionClosedError:
                    outcome.set_result("refused")
                else:
                    outcome.set_result("accepted")

            self.task = asyncio.ensure_future(later())
            self.write("done")

        def on_finish(self) -> None:
            finished.set()

    site = await serve([("/", Background)])
    await site.text("/")
    assert await outcome == "refused"


async def test_writing_after_finish_reaches_nobody(
    serve: ServeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """While the answer is held back, nothing may slip into it."""

    class Leaky(Handler):
        def get(self) -> None:
            self.s["k"] = "v"
            self.finish("a")
            self.write("LEAK")

    site = await serve([("/", Leaky)])
    assert await site.text("/") == "a"
    assert "Cannot write() after finish()" in caplog.text


async def test_streaming_saves_before_the_first_byte(serve: ServeSite) -> None:
    """The first flush sends headers, and with them the cookie of a session that must exist by then."""

    class Stream(Handler):
        async def get(self) -> None:
            self.s["k"] = "v"
            for chunk in ("one ", "two ", "three"):
                self.write(chunk)
                await self.flush()

    site = await serve([("/", Stream), ("/read", Read)])
    arrived, release = site.store.gate("create")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    first = asyncio.ensure_future(reader.read(1))
    await arrived.wait()
    await asyncio.sleep(0.05)
    assert not first.done(), "a byte left before the save"
    release.set()
    rest = await first + await reader.read(-1)
    writer.close()
    assert rest.count(b"Set-Cookie: session=") == 1
    assert b"one " in rest
    assert b"three" in rest


async def test_a_change_while_streaming_is_stored_before_the_next_byte(serve: ServeSite) -> None:
    """An existing session needs no new cookie, so it may still change after the headers."""

    class Stream(Handler):
        async def get(self) -> None:
            self.write("one ")
            await self.flush()
            self.s["k"] = "later"
            self.write("two")
            await self.flush()

    site = await serve([("/", Stream), ("/read", Read)])
    await site.sign_on()
    arrived, release = site.store.gate("replace")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    request = f"GET / HTTP/1.1\r\nHost: x\r\nCookie: {site.cookie}\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    seen = await reader.readuntil(b"one ")
    await arrived.wait()
    assert b"two" not in seen
    release.set()
    assert b"two" in await reader.read(-1)
    writer.close()
    assert await site.text("/read") == "later"


async def test_a_nested_change_while_streaming_is_stored_at_the_end(serve: ServeSite) -> None:
    """An append to a list leaves no trace but the list itself."""

    class Stream(Handler):
        async def get(self) -> None:
            self.write("one ")
            await self.flush()
            self.s["k"].append(2)
            self.write("two")

    site = await serve([("/", Stream), ("/read", Read)])
    await site.sign_on(k=[1])
    await site.fetch("/")
    assert await site.text("/read") == "[1, 2]"


async def test_a_new_session_after_the_headers_is_refused(serve: ServeSite) -> None:
    """Its cookie could no longer be sent: the data would be lost in silence."""
    errors = []

    class Stream(Handler):
        async def get(self) -> None:
            self.write("one ")
            await self.flush()
            for act in (
                lambda: self.s.set("k", "v"),
                lambda: self.s.flash("k", "v"),
                self.s.regenerate,
                lambda: self.s.sign_in("alice"),
            ):
                try:
                    act()
                except HeadersSentError as error:
                    errors.append(type(error).__name__)

    site = await serve([("/", Stream)])
    assert await site.text("/") == "one "
    assert errors == ["HeadersSentError"] * 4
    assert site.store.calls == []


async def test_signing_out_works_even_after_the_headers(serve: ServeSite) -> None:
    """Ending a session needs no cookie to be effective."""

    class Stream(Handler):
        async def get(self) -> None:
            self.write("bye")
            await self.flush()
            self.s.destroy()

    site = await serve([("/", Stream), ("/read", Read)])
    await site.sign_on(k="secret")
    await site.fetch("/")
    assert await site.text("/read") == "None"
    assert await site.store.live() == []


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_an_http_error_below_500_saves(serve: ServeSite, status: int) -> None:
    """A form with a mistake still remembers what was typed."""

    class Refuse(Handler):
        def get(self) -> None:
            self.s["k"] = status
            raise HTTPError(status)

    site = await serve([("/", Refuse), ("/read", Read)])
    assert (await site.fetch("/")).code == status
    assert await site.text("/read") == str(status)


async def test_a_custom_error_page_can_use_the_session(serve: ServeSite) -> None:
    """send_error() drops headers; our cookie is not among them."""

    class Refuse(Handler):
        def get(self) -> None:
            self.s["k"] = "v"
            raise HTTPError(403)

        def write_error(self, status_code: int, **kwargs: Any) -> None:
            self.s["seen"] = status_code
            self.finish(f"custom {status_code} {self.s['k']}")

    site = await serve([("/", Refuse), ("/read", Read)])
    assert await site.text("/") == "custom 403 v"
    assert await site.stored() == {"k": "v", "seen": 403}


async def test_an_uncaught_exception_saves_nothing_and_sends_no_cookie(serve: ServeSite) -> None:
    """Half-done work must not stay."""

    class Boom(Handler):
        def get(self) -> None:
            self.s["k"] = "half"
            raise RuntimeError("boom")

    site = await serve([("/", Boom), ("/read", Read)])
    answer = await site.fetch("/")
    assert answer.code == 500
    assert "Set-Cookie" not in answer.headers
    assert site.store.calls == []
    await site.sign_on(k="whole")
    await site.fetch("/")
    assert await site.text("/read") == "whole"


async def test_ending_a_session_takes_effect_even_with_a_500(serve: ServeSite) -> None:
    """A sign-out must never depend on what the handler does afterwards."""

    class Boom(Handler):
        def post(self) -> None:
            getattr(self.s, self.get_argument("verb"))()
            self.s["k"] = "half"
            raise RuntimeError("boom")

    site = await serve([("/", Boom), ("/read", Read)])
    await site.sign_on(k="secret")
    old = site.cookie
    assert (await site.fetch("/?verb=destroy", "POST")).code == 500
    assert await site.text("/read", headers={"Cookie": old}) == "None"
    await site.sign_on(k="kept")
    old = site.cookie
    assert (await site.fetch("/?verb=regenerate", "POST")).code == 500
    assert site.cookie != old
    assert await site.text("/read", headers={"Cookie": old}) == "None"
    assert await site.text("/read") == "kept"


async def test_a_redirect_in_prepare_never_runs_the_method(serve: ServeSite) -> None:
    """Overriding finish() to wait for a save let the method run on: an authentication bypass."""
    ran = []

    class Guarded(Handler):
        def prepare(self) -> None:
            self.s["k"] = "asked"
            self.redirect("/login")

        def get(self) -> None:
            ran.append(True)
            self.write("SECRET")

    site = await serve([("/", Guarded), ("/read", Read)])
    answer = await site.fetch("/")
    assert (answer.code, answer.body, ran) == (302, b"", [])
    assert await site.text("/read") == "asked"


async def test_a_prepare_without_super_loses_no_session(serve: ServeSite) -> None:
    """Mixins that load in prepare() make a signed-in visitor a stranger there."""

    class Prepared(Handler):
        async def prepare(self) -> None:
            await asyncio.sleep(0)

        def get(self) -> None:
            self.write(str(self.s.get("k")))

    site = await serve([("/", Prepared)])
    await site.sign_on(k="here")
    assert await site.text("/") == "here"


async def test_auto_finish_off_works(serve: ServeSite) -> None:
    """Some handlers answer from a callback."""

    class Callback(Handler):
        def get(self) -> None:
            self._auto_finish = False
            self.s["k"] = "v"
            asyncio.get_running_loop().call_soon(self.finish, "called back")

    site = await serve([("/", Callback), ("/read", Read)])
    assert await site.text("/") == "called back"
    assert await site.text("/read") == "v"


async def test_awaiting_finish_waits_for_save_and_send(serve: ServeSite) -> None:
    """Code after ``await self.finish()`` may rely on both."""
    order = []

    class Awaits(Handler):
        async def get(self) -> None:
            self.s["k"] = "v"
            await self.finish("done")
            order.append("finished")

    site = await serve([("/", Awaits)])
    arrived, release = site.store.gate("create")
    answer = asyncio.ensure_future(site.fetch("/"))
    await arrived.wait()
    await asyncio.sleep(0.02)
    assert order == []
    release.set()
    await answer
    assert order == ["finished"]


async def test_shutdown_waits_for_saves_under_way(serve: ServeSite) -> None:
    """A deployment must not lose what visitors were about to be told."""
    site = await serve([("/", Write)])
    arrived, release = site.store.gate("create")
    answer = asyncio.ensure_future(site.fetch("/"))
    await arrived.wait()
    closing = asyncio.ensure_future(site.sessions.aclose())
    await asyncio.sleep(0.02)
    assert not closing.done()
    release.set()
    await closing
    assert (await answer).body == b"done"
    assert len(await site.store.live()) == 1


async def test_server_sent_events_keep_their_timing(serve: ServeSite) -> None:
    """Only the first byte may wait, and only for the save."""
    steps = [asyncio.Event() for _ in range(3)]

    class Events(Handler):
        async def get(self) -> None:
            self.s["k"] = "v"
            self.set_header("Content-Type", "text/event-stream")
            for number, step in enumerate(steps):
                self.write(f"data: {number}\n\n")
                await self.flush()
                await step.wait()

    site = await serve([("/", Events)])
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    for number, step in enumerate(steps):
        await asyncio.wait_for(reader.readuntil(f"data: {number}\n\n".encode()), 5)
        step.set()
    await reader.read(-1)
    writer.close()


async def test_save_now_stores_before_the_answer(serve: ServeSite) -> None:
    """A long job can store its progress while it runs."""

    class Long(Handler):
        async def get(self) -> None:
            self.s["k"] = "v"
            await self.s.save()
            stored = len(await site.store.live())
            self.write(str(stored))

    site = await serve([("/", Long), ("/read", Read)])
    assert await site.text("/") == "1"
    assert await site.text("/read") == "v"
    assert site.store.calls.count("create") == 1


async def test_a_failed_save_now_can_be_tried_again(serve: ServeSite) -> None:
    """The changes are kept until the store acknowledges them."""

    class Stubborn(Handler):
        async def get(self) -> None:
            self.s["k"] = "v"
            try:
                await self.s.save()
            except StoreUnavailable:
                site.store.failures.clear()
                await self.s.save()
            self.write("stored")

    site = await serve([("/", Stubborn), ("/read", Read)])
    site.store.failures["create"] = StoreUnavailable("gone fishing")
    assert await site.text("/") == "stored"
    assert await site.text("/read") == "v"
