"""A site with a socket, as a program of its own: for tests that need two real processes."""

from __future__ import annotations

import argparse
import asyncio

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.websocket import WebSocketHandler

from eyewall import SessionMixin, Sessions
from eyewall.tornado.websocket import SessionWebSocketMixin, authenticated_socket


class SignIn(SessionMixin, tornado.web.RequestHandler):
    """Signs in whoever asks."""

    def post(self) -> None:
        self.sign_in(self.get_argument("name"))


class SignOut(SessionMixin, tornado.web.RequestHandler):
    """Signs out."""

    def post(self) -> None:
        self.sign_out()


class Send(SessionMixin, tornado.web.RequestHandler):
    """Sends to all sockets of one principal."""

    async def post(self) -> None:
        await Sessions.serving(self.application).send(self.get_argument("to"), self.get_argument("text"))


@authenticated_socket
class Echo(SessionWebSocketMixin, WebSocketHandler):
    """Says who is there."""

    def on_message(self, message: str | bytes) -> None:
        self.session["said"] = message
        self.write_message(f"{self.session.principal}: {message!r}")


async def serve(port: int) -> None:
    """Serve until killed."""
    routes = [("/in", SignIn), ("/out", SignOut), ("/send", Send), ("/ws", Echo)]
    server = HTTPServer(tornado.web.Application(routes))
    sockets = bind_sockets(port, "127.0.0.1")
    server.add_sockets(sockets)
    print(f"serving http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)  # noqa: T201 - how it is found
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port))
