"""A real Tornado server on a real socket, with a store that can be watched, held up and broken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from eyewall import SessionMixin, Sessions, Settings
from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.stores.memory import MemoryStore

SECRET = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"
Way = Literal["mixin", "install"]


class WatchedStore(MemoryStore):
    """A memory store that notes its calls and does what a test tells it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[str] = []
        self.failures: dict[str, Exception] = {}
        self.gates: dict[str, asyncio.Event] = {}
        self.entered: dict[str, asyncio.Event] = {}

    def gate(self, verb: str) -> tuple[asyncio.Event, asyncio.Event]:
        """Hold every ``verb`` until the second event is set; the first tells that one has arrived."""
        self.entered[verb], self.gates[verb] = asyncio.Event(), asyncio.Event()
        return self.entered[verb], self.gates[verb]

    async def _pass(self, verb: str) -> None:
        self.calls.append(verb)
        if verb in self.gates:
            self.entered[verb].set()
            await self.gates[verb].wait()
        if verb in self.failures:
            raise self.failures[verb]

    async def create(self, record: Record) -> bool:
        await self._pass("create")
        return await super().create(record)

    async def load(self, digest: bytes) -> Record | None:
        await self._pass("load")
        return await super().load(digest)

    async def replace(self, record: Record, *, version: int) -> bool:
        await self._pass("replace")
        return await super().replace(record, version=version)

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        await self._pass("touch")
        return await super().touch(digest, seen_at, expires_at)

    async def delete(self, digest: bytes) -> bool:
        await self._pass("delete")
        return await super().delete(digest)

    async def live(self) -> list[Record]:
        """Every live record that is a session, not a marker."""
        return [record async for record in self.scan() if record.successor is None]


class Handler(RequestHandler):
    """Base of the handlers of these tests; works for both ways in."""

    @property
    def s(self) -> Session:
        """The session, found where both ways put it."""
        session: Session = self.request.session  # type: ignore[attr-defined]
        return session


@dataclass
class Site:
    """One server under test."""

    port: int
    sessions: Sessions
    store: WatchedStore
    application: Application
    cookie: str | None = None
    client: AsyncHTTPClient = field(default_factory=lambda: AsyncHTTPClient(force_instance=True))

    async def fetch(
        self, path: str, method: str = "GET", *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> HTTPResponse:
        """Send one request as a browser with one cookie would; never follows redirects or raises."""
        sent = dict(headers or {})
        if self.cookie is not None and "Cookie" not in sent:
            sent["Cookie"] = self.cookie
        if method in ("POST", "PUT", "PATCH") and "body" not in more:
            more["body"] = b""
        response = await self.client.fetch(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            headers=sent,
            follow_redirects=False,
            raise_error=False,
            **more,
        )
        for line in response.headers.get_list("Set-Cookie"):
            if line.startswith("session="):
                self.cookie = None if "Max-Age=0" in line else line.partition(";")[0]
        return response

    async def text(self, path: str, method: str = "GET", **more: Any) -> str:
        """The body of an answer, as text."""
        return (await self.fetch(path, method, **more)).body.decode()

    async def raw(self, request: bytes) -> bytes:
        """Send bytes as they are; return everything until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(-1), 10)
        writer.close()
        return answer

    async def sign_on(self, **data: Any) -> None:
        """Start a session that holds ``data``, without a request."""
        session = self.sessions.open([], https=False)
        session["started"] = True
        for key, value in data.items():
            session[key] = value
        await self.sessions.save(session)
        (line,) = self.sessions.set_cookie_lines(session, https=False)
        self.cookie = line.partition(";")[0]
        self.store.calls.clear()

    async def stored(self) -> dict[str, Any]:
        """What the store holds for the browser's cookie: the session as a new request would see it."""
        session = self.sessions.open([self.cookie] if self.cookie else [], https=False)
        await self.sessions.load(session)
        return session.all()


ServeSite = Callable[..., Any]


@asynccontextmanager
async def serving(
    way: Way,
    handlers: list[Any],
    *,
    settings: Settings | None = None,
    clock: Callable[[], datetime] | None = None,
    **application_settings: Any,
) -> AsyncIterator[Site]:
    """Serve ``handlers`` with sessions, by the mixin or by ``install()``."""
    clocked: dict[str, Any] = {"clock": clock} if clock else {}
    store = WatchedStore(**clocked)
    sessions = Sessions(settings or Settings(backend="memory", cookie_secret=SECRET), store=store, **clocked)
    application = Application([_routed(way, rule) for rule in handlers], **application_settings)
    if way == "install":
        sessions.install(application)
    else:
        application.settings["sessions"] = sessions
        Sessions.serving(application)  # as the first request does
    server = HTTPServer(application)
    socket, port = bind_unused_port()
    server.add_socket(socket)
    site = Site(port, sessions, store, application)
    try:
        yield site
    finally:
        site.client.close()
        server.stop()
        await server.close_all_connections()
        for gate in store.gates.values():
            gate.set()
        await sessions.aclose()


_OWN = ("uses_session", "check_xsrf_cookie", "when_store_fails")
"""What a test's handler overrides of the mixin, as a handler below the mixin would."""


def _routed(way: Way, rule: tuple[Any, ...]) -> tuple[Any, ...]:
    path, handler, *rest = rule
    if way == "mixin" and issubclass(handler, Handler) and not issubclass(handler, SessionMixin):
        own = {name: value for name, value in vars(handler).items() if name in _OWN}
        own.setdefault("uses_session", True)
        handler = type(handler.__name__, (SessionMixin, handler), own)
    return (path, handler, *rest)
