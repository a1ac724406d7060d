"""A WebSocket as the first request after the move to sessions: an open page that reconnects."""

from __future__ import annotations

import pytest
from tornado.httpclient import HTTPError, HTTPRequest
from tornado.websocket import WebSocketHandler, websocket_connect

from eyewall import SessionMixin
from tests.tornado.site import Way
from tests.tornado.test_upgrade import moving


class Socket(WebSocketHandler):
    """Says who is signed in."""

    def open(self) -> None:
        self.write_message(str(self.request.session.principal))  # type: ignore[attr-defined]

    def on_message(self, message: str | bytes) -> None:
        """Not needed."""


@pytest.mark.parametrize("way", ["mixin", "install"])
async def test_a_page_left_open_over_the_move_reconnects(way: Way) -> None:
    """Harm: every open page gets a 500 for its socket, again and again, until somebody reloads it."""
    async with moving(way) as app:
        handler = Socket if way == "install" else type("Socket", (SessionMixin, Socket), {})
        app.application.add_handlers(".*", [("/ws", handler)])
        app.bring_old_cookie()
        base = app.browser._base
        sent = {"Cookie": app.browser.jar.header_for(base, app.clock()) or ""}
        try:
            connection = await websocket_connect(
                HTTPRequest(f"{base.replace('http', 'ws')}/ws", headers=sent)
            )
            said = await connection.read_message()
            connection.close()
        except HTTPError as refusal:
            said = str(refusal)
    assert said == "bob"
