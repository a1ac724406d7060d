"""A site people sign in to, over real sockets: one or more processes on one store of any kind."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tornado.httpclient import HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from eyewall import Sessions, Settings
from eyewall.core.events import Event, EventKind
from eyewall.core.opening import open_store
from eyewall.core.record import Record
from eyewall.stores.file import FileStore
from eyewall.stores.memory import MemoryStore
from eyewall.testing.client import Browser
from eyewall.testing.clock import ManualClock
from tests.signin.pages import ROUTES
from tests.tornado.site import SECRET

SERVERS: Final = ("postgres", "mariadb", "redis7", "valkey9", "cluster", "sentinel", "mongodb")
STORES: Final = (
    "memory",
    "file",
    "sqlite",
    *(pytest.param(name, marks=pytest.mark.server) for name in SERVERS),
)
"""Every server-side store, as the parameters of a fixture."""

PATIENCE: Final = timedelta(seconds=10)
"""For tests that are none of deadlines: the machine may be busy."""

SESSION: Final = "session"
REMEMBER: Final = "session-remember"
"""The cookies, on plain http."""

Open = Callable[[], Any]


def opener(request: pytest.FixtureRequest, folder: Path, clock: ManualClock) -> Open:
    """Return what opens one more handle to the store that ``request.param`` names, as a process does."""
    kind = request.param
    memory = MemoryStore(clock=clock)
    if kind == "memory":
        return lambda: memory
    if kind == "file":
        return lambda: FileStore(folder / "data", clock=clock)
    url = request.getfixturevalue(kind).url if kind in SERVERS else f"sqlite:///{folder}/s.db"
    return lambda: open_store(Settings(url=url, store_timeout=PATIENCE), clock)


class Meddled:
    """A store whose calls a test may hold up or let fail; it counts them, too.

    ``meddle`` is awaited with the name of the verb before each call; what it raises, the store raises.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls: list[str] = []
        self.meddle: Callable[[str], Awaitable[None]] | None = None

    def fail(self, verb: str, error: Exception, *, after: int = 0) -> None:
        """Let ``verb`` fail from now on, once it has worked ``after`` times."""
        left = after

        async def meddle(called: str) -> None:
            nonlocal left
            if called == verb:
                left -= 1
                if left < 0:
                    raise error

        self.meddle = meddle

    def hang(self, *verbs: str) -> None:
        """Let ``verbs`` never return."""

        async def meddle(called: str) -> None:
            if called in verbs:
                await asyncio.Event().wait()

        self.meddle = meddle

    def hold(self, verb: str, *, after: int = 0) -> tuple[asyncio.Event, asyncio.Event]:
        """Hold the call number ``after`` of ``verb`` until the second event; the first tells it is there."""
        arrived, go_on, left = asyncio.Event(), asyncio.Event(), after

        async def meddle(called: str) -> None:
            nonlocal left
            if called == verb:
                left -= 1
                if left == -1:
                    arrived.set()
                    await go_on.wait()

        self.meddle = meddle
        return arrived, go_on

    async def _pass(self, verb: str) -> None:
        self.calls.append(verb)
        if self.meddle is not None:
            await self.meddle(verb)

    async def create(self, record: Record) -> bool:
        await self._pass("create")
        return bool(await self.inner.create(record))

    async def load(self, digest: bytes) -> Record | None:
        await self._pass("load")
        found: Record | None = await self.inner.load(digest)
        return found

    async def replace(self, record: Record, *, version: int) -> bool:
        await self._pass("replace")
        return bool(await self.inner.replace(record, version=version))

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        await self._pass("touch")
        return bool(await self.inner.touch(digest, seen_at, expires_at))

    async def delete(self, digest: bytes) -> bool:
        await self._pass("delete")
        return bool(await self.inner.delete(digest))

    async def sweep(self, now: datetime, limit: int) -> int:
        return int(await self.inner.sweep(now, limit))

    async def find_principal(self, principal: str) -> list[Record]:
        await self._pass("find_principal")
        found: list[Record] = await self.inner.find_principal(principal)
        return found

    async def delete_principal(self, principal: str) -> int:
        await self._pass("delete_principal")
        return int(await self.inner.delete_principal(principal))

    async def close(self) -> None:
        await self.inner.close()


class Process:
    """One process of the site: its sessions, its store's handle, its port, what it has told."""

    def __init__(self, sessions: Sessions, store: Meddled, application: Application, url: str) -> None:
        self.sessions = sessions
        self.store = store
        self.application = application
        self.url = url
        self.events: list[Event] = []
        sessions.events.subscribe(self.events.append)

    def count(self, kind: EventKind) -> int:
        """How many events of ``kind`` there were."""
        return sum(event.kind is kind for event in self.events)

    @property
    def slow(self) -> tuple[asyncio.Event, asyncio.Event]:
        """Tells that a slow request is there, and lets it go on."""
        return self.application.settings["slow_is_here"], self.application.settings["slow_may_go"]


class Deployment:
    """Processes on one store, and browsers. The names of those who sign in are new for each test."""

    def __init__(self, open_one: Open, clock: ManualClock, stack: AsyncExitStack) -> None:
        self.clock = clock
        self.ann, self.bob = (f"{name}-{secrets.token_hex(8)}" for name in ("ann", "bob"))
        self._open = open_one
        self._stack = stack

    async def process(self, routes: list[Any] | None = None, settings: Any = None, **options: Any) -> Process:
        """Start one more process; ``options`` are settings of ours, ``settings`` the application's."""
        store = Meddled(self._open())
        values = {"store_timeout": PATIENCE, "backend": "memory", "cookie_secret": SECRET, **options}
        sessions = Sessions(Settings(**values), store=store, clock=self.clock)
        application = Application(
            [*(routes or []), *ROUTES],
            **{
                "sessions": sessions,
                "disabled": set(),
                "slow_is_here": asyncio.Event(),
                "slow_may_go": asyncio.Event(),
                **(settings or {}),
            },
        )
        return await self._stack.enter_async_context(_serving(sessions, store, application))

    def at_end(self, call: Callable[[], object]) -> None:
        """Call this when the test is over."""
        self._stack.callback(call)

    def browser(self, process: Process, like: Browser | None = None) -> Browser:
        """A new browser; with ``like``, one more tab of that one."""
        made = Browser(process.url, clock=self.clock, jar=None if like is None else like.jar)
        self.at_end(made.close)
        return made

    async def signed_in(self, process: Process, name: str, **more: str) -> Browser:
        """A new browser in which ``name`` has signed in."""
        browser = self.browser(process)
        answer = await sign_in(browser, name, **more)
        assert answer.code == 200
        return browser


@asynccontextmanager
async def _serving(sessions: Sessions, store: Meddled, application: Application) -> AsyncIterator[Process]:
    server = HTTPServer(application)
    socket, port = bind_unused_port()
    server.add_socket(socket)
    try:
        yield Process(sessions, store, application, f"http://127.0.0.1:{port}")
    finally:
        store.meddle = None
        server.stop()
        await server.close_all_connections()
        await sessions.aclose()


@asynccontextmanager
async def deployed(open_one: Open, clock: ManualClock) -> AsyncIterator[Deployment]:
    """Everything that a deployment starts ends with it."""
    async with AsyncExitStack() as stack:
        yield Deployment(open_one, clock, stack)


async def sign_in(browser: Browser, name: str, **more: str) -> HTTPResponse:
    """Sign in as ``name``."""
    return await browser.post_form("/in", {"name": name, **more})


async def me(browser: Browser) -> dict[str, Any]:
    """What the site says about who asks."""
    found: dict[str, Any] = json.loads((await browser.get("/")).body)
    return found


async def user(browser: Browser) -> str | None:
    """Who the site takes ``browser`` for."""
    name: str | None = (await me(browser))["user"]
    return name


def cookies(browser: Browser) -> dict[str, str]:
    """The browser's cookies."""
    return {cookie.name: cookie.value for cookie in browser.jar.cookies}


def copied(browser: Browser) -> str:
    """The ``Cookie`` header that a thief has copied."""
    return "; ".join(f"{name}={value}" for name, value in cookies(browser).items())


def drop(browser: Browser, *names: str) -> None:
    """Let the browser lose cookies, as closing it does with those of the session."""
    for key in [key for key in browser.jar._cookies if key[0] in names]:
        del browser.jar._cookies[key]


async def replayed(browser: Browser, cookie: str) -> str | None:
    """Who the site takes the bearer of ``cookie`` for."""
    name: str | None = json.loads((await browser.get("/", headers={"Cookie": cookie})).body)["user"]
    return name


def is_clean_503(answer: HTTPResponse) -> bool:
    """Whether it says when to come back, and neither clears nor replaces a cookie."""
    return (
        answer.code == 503
        and int(answer.headers.get("Retry-After", "0")) > 0
        and "Set-Cookie" not in answer.headers
        and b"Traceback" not in answer.body
    )
