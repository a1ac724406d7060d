"""A chat whose sockets end with the session: open two tabs, sign out in one, and the other is closed too.

    python examples/live/live.py        then open http://localhost:7150

Signing in asks for a name and no password, because this is about what comes after it; whoever types your
name is you. Sessions are kept in the folder ``.eyewall``; EYEWALL_URL puts them elsewhere. Several of these
can share a store: on Redis, Valkey and PostgreSQL all of them close a socket at once, on others those of
another process within some five seconds. What is said stays in the process: a chat of yours has a database.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from tornado.web import Application, RequestHandler, StaticFileHandler, authenticated
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from eyewall import ConfigurationError, SessionMixin, Sessions
from eyewall.cli.serving import serve
from eyewall.tornado.websocket import SessionWebSocketMixin, authenticated_socket

NAME = re.compile(r"\w[\w .'-]{0,23}")
LONGEST = 500  # characters of a message
REMEMBERED = 50  # messages, for those who come later
PAUSE = 0.1  # seconds between two messages of one socket
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Room:
    """Who is here, and what was said: in this process."""

    def __init__(self) -> None:
        self._sockets: set[Chat] = set()
        self._said: deque[dict[str, str]] = deque(maxlen=REMEMBERED)

    def enter(self, socket: Chat) -> None:
        self._sockets.add(socket)
        socket.tell({"kind": "welcome", "you": socket.current_user, "said": list(self._said)})
        self._tell_who_is_here()

    def leave(self, socket: Chat) -> None:
        self._sockets.discard(socket)
        self._tell_who_is_here()

    def say(self, name: str, text: str) -> None:
        self._said.append({"name": name, "text": text})
        self._tell_all({"kind": "said", "name": name, "text": text})

    def _tell_who_is_here(self) -> None:
        """Present is who has a socket open, so nobody has to be asked."""
        names = [socket.current_user for socket in self._sockets]
        here = [{"name": name, "tabs": names.count(name)} for name in sorted(set(names), key=str.casefold)]
        self._tell_all({"kind": "here", "people": here})

    def _tell_all(self, message: dict[str, Any]) -> None:
        for socket in list(self._sockets):
            socket.tell(message)


@authenticated_socket
class Chat(SessionWebSocketMixin, WebSocketHandler):
    """One tab. A message keeps the session from idling away; a tab that only listens does not."""

    session_activity = "messages"

    @property
    def room(self) -> Room:
        room: Room = self.settings["room"]
        return room

    def open(self) -> None:
        self.room.enter(self)

    async def on_message(self, message: str | bytes) -> None:
        if isinstance(message, str) and message.strip():
            self.room.say(self.current_user, message.strip()[:LONGEST])
            await asyncio.sleep(PAUSE)  # Tornado reads the next one after this: who floods, waits

    def on_session_end(self, reason: str) -> None:
        """Say a last word. The page would learn as much from the close code, 4401, and its reason."""
        self.tell({"kind": "ended", "reason": reason})

    def on_close(self) -> None:
        self.room.leave(self)

    def tell(self, message: dict[str, Any]) -> None:
        with suppress(WebSocketClosedError):  # on_close() comes right after
            self.write_message(message)


class Safe(RequestHandler):
    def set_default_headers(self) -> None:
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)


class Static(Safe, StaticFileHandler):
    pass


class Page(SessionMixin, Safe):
    def show_sign_in(self, *, name: str = "", problem: str = "") -> None:
        self.render("sign_in.html", name=name, problem=problem)


class ChatPage(Page):
    @authenticated
    def get(self) -> None:
        self.render("chat.html", longest=LONGEST)


class SignIn(Page):
    def get(self) -> None:
        self.show_sign_in(name=self.current_user or "")

    def post(self) -> None:
        name = " ".join(self.get_body_argument("name", "").split())
        if NAME.fullmatch(name) is None:
            self.set_status(422)
            self.show_sign_in(name=name, problem="A name has 1 to 24 letters, digits, spaces or . ' -")
            return
        self.sign_in(name, method="just a name")
        self.redirect("/", status=303)


class SignOut(Page):
    """By POST only. The sockets need no word of it."""

    def post(self) -> None:
        self.sign_out(everywhere=self.get_body_argument("everywhere", "") == "yes")
        self.redirect("/sign-in", status=303)


def make_app(sessions: Sessions) -> Application:
    """Return the chat."""
    here = Path(__file__).parent
    return Application(
        [("/", ChatPage), ("/socket", Chat), ("/sign-in", SignIn), ("/sign-out", SignOut)],
        sessions=sessions,
        room=Room(),
        login_url="/sign-in",
        xsrf_cookies=True,
        websocket_ping_interval=30,  # a tab that is gone without a word leaves the list
        websocket_max_message_size=8 * 1024,
        template_path=here / "templates",
        static_path=here / "static",
        static_handler_class=Static,
    )


async def main(host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; sessions are kept where the environment says, else in ``.eyewall``."""
    chat = make_app(Sessions())
    await serve(chat, host, port, lambda chosen: print(f"Chat at http://{host}:{chosen}/", flush=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat whose sockets end with the session.")
    parser.add_argument("--port", type=int, default=7150, help="port to listen on; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.host, arguments.port))
    except (ConfigurationError, OSError) as wrong:
        print(f"live: {wrong}", file=sys.stderr)
        sys.exit(2)
