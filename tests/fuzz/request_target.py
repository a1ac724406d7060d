"""Whole requests with any headers, over a real socket to a real Tornado server.

The server knows one session, of one user. It must never take anybody for that user who does not bring the
very cookie, never answer 500, never log an error, and never write to the store: the page only looks, and
what would change something lacks its CSRF token.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import re
from datetime import timedelta
from functools import cache
from typing import Any, Final

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from eyewall import SessionMixin, Sessions, Settings
from eyewall.core.payload import Payload, encode_payload
from eyewall.core.record import Record
from eyewall.signin.device_label import label_of
from eyewall.tornado.next_url import next_of
from eyewall.tornado.websocket import SessionWebSocketMixin
from tests.fuzz.kit import CLOCK, COOKIE, SECRET, SESSION_DIGEST, USER
from tests.tornado.site import WatchedStore

HANDSHAKE: Final = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
STARTS: Final = (
    b"GET /page HTTP/1.1\r\n",
    b"HEAD /page HTTP/1.1\r\n",
    b"OPTIONS /page HTTP/1.1\r\n",
    b"POST /page HTTP/1.1\r\nContent-Length: 0\r\n",
    b"GET /socket HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HANDSHAKE,
)
FRAMING: Final = (b"connection", b"content-length", b"transfer-encoding", b"expect")
"""Left out, because they are Tornado's: with them a request does not end where it ends here."""

ALLOWED: Final = frozenset({101, 200, 204, 304, 400, 403, 405, 426})
WRITES: Final = frozenset({"create", "replace", "touch", "delete"})
LENGTH: Final = re.compile(rb"\r\nContent-Length: ([0-9]+)\r\n")
SIGNED_IN: Final = b"signed in as alice"
SET_COOKIE: Final = re.compile(r" (__Host-)?session(-pre=ew1s\.|-remember=;|=;)")
"""A pre-session for the page's form, and what ends cookies that are good for nothing."""


class Page(SessionMixin, RequestHandler):
    """Looks at everything that a request brings, and changes nothing."""

    def get(self) -> None:
        jar = self.jar
        for reader in (jar, jar.signed, jar.encrypted, jar.tornado()):
            reader.get("theme")
        self.session.get("k")
        self.session.flash.peek("note")
        label_of(self.request.headers.get("User-Agent", ""))
        who = self.session.principal
        self.write(f"signed in as {who}, next {next_of(self)} {self.xsrf_token.decode()}")

    def post(self) -> None:
        self.session["k"] = "changed"


class Socket(SessionWebSocketMixin, WebSocketHandler):
    """Accepts whoever may open it."""

    def open(self, *_: str, **__: str) -> None:
        self.close()


class Errors(logging.Handler):
    """Keeps what was logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class Server:
    """The site, and a client that sends bytes as they are."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(self._start())
        self._errors = Errors()
        for name in ("tornado", "eyewall", "asyncio"):
            logging.getLogger(name).addHandler(self._errors)  # which also keeps warnings off the screen
        atexit.register(self._runner.close)

    async def _start(self) -> None:
        self.store = WatchedStore(clock=CLOCK)
        settings = Settings(
            backend="memory",
            cookie_secret=SECRET,
            strict=True,
            cors_origins=("https://friend.example",),
            store_timeout=timedelta(hours=1),
        )
        sessions = Sessions(settings, store=self.store, clock=CLOCK)
        payload = Payload(format=1, principal=USER, device_id=bytes(16))
        await self.store.create(
            Record(
                digest=SESSION_DIGEST,
                version=1,
                payload=encode_payload(payload, SESSION_DIGEST),
                created_at=CLOCK(),
                seen_at=CLOCK(),
                expires_at=CLOCK() + timedelta(hours=1),
                principal=USER,
            )
        )
        application = Application(
            [("/page", Page), ("/socket", Socket)],
            cookie_secret=SECRET,
            sessions=sessions,
            log_function=lambda _handler: None,
        )
        server = HTTPServer(application, xheaders=True)
        listening, self._port = bind_unused_port()
        server.add_socket(listening)

    def answer(self, request: bytes) -> tuple[bytes, list[str], list[str]]:
        """Send ``request``; return the answer, the calls of the store, and what was logged as an error."""
        self.store.calls.clear()
        self._errors.found.clear()
        answer = self._runner.run(self._ask(request))
        return answer, list(self.store.calls), list(self._errors.found)

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(request)
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                length = LENGTH.search(head)
                has_body = length is not None and not request.startswith(b"HEAD")
                return head + (await reader.readexactly(int(length[1])) if length and has_body else b"")
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""  # closed without an answer, as Tornado does for what is no HTTP
        finally:
            writer.close()


@cache
def _server() -> Server:
    return Server()


def request(data: bytes) -> bool:
    """The first byte chooses the method and the page; every line after it is a header."""
    start = STARTS[data[0] % len(STARTS)] if data else STARTS[0]
    lines = [line + b"\r\n" for line in data[1:].replace(b"\r", b"").split(b"\n") if line]
    sent = [line for line in lines if not line.strip().lower().startswith(FRAMING)]
    answer, calls, errors = _server().answer(start + b"".join(sent) + b"\r\n")
    assert errors == []
    assert not WRITES.intersection(calls), calls
    status = int(answer.split(b" ", 2)[1]) if answer else 400
    assert status in ALLOWED, answer
    assert status != 200 or not start.startswith(b"POST"), "changed without a CSRF token"
    is_user = SIGNED_IN in answer
    assert not is_user or COOKIE.encode() in data
    head = answer.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    for line in head:
        if line.lower().startswith("set-cookie:"):
            assert SET_COOKIE.match(line.partition(":")[2]), line
    return is_user or status == 101


TARGETS: Final[tuple[Any, ...]] = (request,)
