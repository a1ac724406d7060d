"""Long answers: who has left, and what the jar puts before the barrier."""

from __future__ import annotations

import asyncio

from tornado.web import RequestHandler

from eyewall import SessionMixin
from tests.tornado.site import serving


async def test_a_client_that_left_first_keeps_its_stream_waiting_for_ever() -> None:
    """Strangers who come and go leave a waiting handler behind each time, and stopping waits for them all."""
    asked: asyncio.Queue[asyncio.Future[str | None]] = asyncio.Queue()
    gone = asyncio.Event()

    class News(SessionMixin, RequestHandler):
        async def get(self) -> None:
            await gone.wait()  # looks something up first
            ended = self.session_ended
            asked.put_nowait(ended)
            await ended

        def on_connection_close(self) -> None:
            gone.set()

    async with serving("mixin", [("/", News)]) as site:
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.close()
        ended = await asyncio.wait_for(asked.get(), 5)
        done, _ = await asyncio.wait({ended}, timeout=0.5)
        left = len(site.sessions.watch.still_open._open)
        await site.sessions.drain()
        assert done, f"{left} streams wait for a client that is gone"


async def test_a_stream_that_has_read_a_cookie_from_the_jar_is_answered_500() -> None:
    """The jar stands before the barrier, and session_ended then says that there is no session."""

    class News(SessionMixin, RequestHandler):
        async def get(self) -> None:
            self.write(self.jar.get("theme", "light"))
            _ = self.session_ended
            self.finish()

    async with serving("mixin", [("/", News)]) as site:
        await site.sign_on()
        assert (await site.fetch("/")).code == 200


async def test_asking_again_and_again_whether_the_session_has_ended_costs_memory_each_time() -> None:
    """A stream that looks every second for a day holds on to 86400 futures."""
    counts: list[int] = []

    class News(SessionMixin, RequestHandler):
        async def get(self) -> None:
            for _ in range(1000):
                if self.session_ended.done():
                    break
            hold = self.request.connection.hold_stream(self)  # type: ignore[union-attr]
            counts.append(len(hold.ended._callbacks or ()))

    async with serving("mixin", [("/", News)]) as site:
        await site.fetch("/")
    assert counts[0] < 100


async def test_a_page_that_reads_the_session_after_its_head_has_left_is_not_private() -> None:
    """A shared cache keeps the page of whoever came first, with their name on it."""

    class Page(SessionMixin, RequestHandler):
        async def get(self) -> None:
            self.write("<html>")
            await self.flush()
            self.write(self.session.get("name", "-"))

    async with serving("mixin", [("/", Page)]) as site:
        await site.sign_on(name="Ada")
        answer = await site.fetch("/")
        assert b"Ada" not in answer.body or "private" in answer.headers.get("Cache-Control", "")


async def test_a_stream_that_is_handed_over_is_never_let_go() -> None:
    """Each request leaves something behind that stopping waits for, though its client is long gone."""

    class Tunnel(SessionMixin, RequestHandler):
        async def get(self) -> None:
            _ = self.session_ended
            self.detach().close()

    async with serving("mixin", [("/", Tunnel)]) as site:
        await site.raw(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        left = len(site.sessions.watch.still_open._open)
        for one in list(site.sessions.watch.still_open._open):
            site.sessions.watch.still_open.remove(one)
        assert left == 0


async def test_an_answer_that_is_finished_lets_its_stream_go_on_waiting() -> None:
    """What the handler does until its stream ends, it would do for ever: its session was only read."""
    told: list[str | None] = []

    class News(SessionMixin, RequestHandler):
        async def get(self) -> None:
            ended = self.session_ended
            self.finish("the last")
            told.append(await asyncio.wait_for(ended, 5))

    async with serving("mixin", [("/", News)]) as site:
        await site.sign_on()
        assert (await site.fetch("/")).body == b"the last"
        await asyncio.sleep(0)
        assert told == [None]
