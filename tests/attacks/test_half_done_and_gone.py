"""A client that leaves is nobody's error; but a handler that failed half-way has still failed."""

from __future__ import annotations

import asyncio

from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

from eyewall import SessionMixin
from tests.tornado.site import serving


async def test_a_handler_whose_own_connection_broke_stores_half_its_work_once_its_client_is_gone() -> None:
    """The bank's connection breaks in the middle; the session says that it was paid, the log says 200."""
    gone, failed = asyncio.Event(), asyncio.Event()

    class Paying(SessionMixin, RequestHandler):
        async def post(self) -> None:
            self.session["order"] = "paid"
            await gone.wait()
            raise StreamClosedError  # of the stream to the bank, and the rest was not done

        def on_connection_close(self) -> None:
            gone.set()

        def on_finish(self) -> None:
            failed.set()

    async with serving("mixin", [("/", Paying)]) as site:
        await site.sign_on()
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
        cookie = (site.cookie or "").encode()
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nCookie: " + cookie + b"\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.close()
        await asyncio.wait_for(failed.wait(), 5)
        await site.sessions._background.drained()
        assert "order" not in await site.stored()
