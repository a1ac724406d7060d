"""A WebSocket handshake cannot wait for a save: what was not saved before it must not be lost in silence."""

from __future__ import annotations

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketHandler, websocket_connect

from eyewall import SessionMixin
from tests.tornado.site import Handler, Site, Way, serving


class Read(Handler):
    def get(self) -> None:
        self.write(str(self.s.get("k")))


class Saves(SessionMixin, WebSocketHandler):
    async def prepare(self) -> None:
        self.session["k"] = "saved"
        await self.session.save()

    def on_message(self, message: str | bytes) -> None:
        self.write_message(f"{self.session.get('k')} {message!r}")


class Forgets(SessionMixin, WebSocketHandler):
    def prepare(self) -> None:
        self.session["k"] = "forgotten"


async def connect(site: Site, path: str) -> HTTPRequest:
    """The handshake of the site's browser."""
    headers = {"Cookie": site.cookie} if site.cookie else {}
    return HTTPRequest(f"ws://127.0.0.1:{site.port}{path}", headers=headers)


async def test_a_change_saved_before_the_handshake_is_there() -> None:
    """And the session can be read while the socket is open."""
    async with serving("mixin", [("/ws", Saves), ("/read", Read)]) as site:
        await site.sign_on()
        socket = await websocket_connect(await connect(site, "/ws"))
        await socket.write_message("hi")
        assert await socket.read_message() == "saved 'hi'"
        socket.close()
        assert await site.text("/read") == "saved"


async def test_a_change_made_before_the_handshake_is_stored_before_the_101() -> None:
    """The client believes what the open socket tells it; nothing can wait any more when it is open."""
    async with serving("mixin", [("/ws", Forgets), ("/read", Read)]) as site:
        await site.sign_on(k="early")
        socket = await websocket_connect(await connect(site, "/ws"))
        assert await site.text("/read") == "forgotten"
        socket.close()


@pytest.mark.parametrize("way", ["mixin", "install"])
async def test_a_handshake_from_another_site_is_refused_where_tornado_would_let_it_in(way: Way) -> None:
    """A GET is harmless, but a GET that opens a socket is not: any page could talk in its visitor's name."""

    class Welcoming(WebSocketHandler):
        def check_origin(self, origin: str) -> bool:
            return True

    class Mixed(SessionMixin, Welcoming):
        pass

    async with serving(way, [("/ws", Mixed if way == "mixin" else Welcoming)]) as site:
        await site.sign_on()
        request = await connect(site, "/ws")
        request.headers.update({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"})
        with pytest.raises(HTTPClientError) as refusal:
            await websocket_connect(request)
        assert refusal.value.code == 403
