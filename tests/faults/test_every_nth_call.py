"""In the manner of SQLite's own tests: break every single call to the store, of every route, in every way.

For each route of the lab, the first call that the request makes to the store goes wrong, then the second,
and so on to the last; each in every way in which a call can go wrong. After each, everything that was
promised is looked at again.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from eyewall import Sessions, Settings
from tests.examples.program import EXAMPLES
from tests.faults.failing_store import FailingStore, Fault
from tests.faults.kit import ALLOWED

SECRET = "Rk4pV9zTq1Wx7LmC2sYd8HbN5gJf0EuA"
TIMEOUT = 0.15
"""Seconds: the ``store_timeout`` of these sites; every hung call is waited for."""

NOISE = 1.0
"""Seconds that the other scenarios of the same test may add."""

AT_ONCE = 30
"""Scenarios that run side by side, each on a site of its own."""

MANY = 6
"""Routes that list or end many sessions may take so many times the timeout; all others 2."""


def _lab() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lab_of_faults", EXAMPLES / "lab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LAB = _lab()


@dataclass
class Client:
    """One browser of one user."""

    port: int
    name: str
    cookies: dict[str, str]
    http: AsyncHTTPClient

    async def ask(self, path: str, method: str = "GET", **data: Any) -> HTTPResponse:
        """Send one request and take in its cookies; whoever is named in the answer is this user (I1)."""
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        answer = await self.http.fetch(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            headers=headers if self.cookies else {},
            body=None if method == "GET" else json.dumps(data),
            follow_redirects=False,
            raise_error=False,
        )
        for line in answer.headers.get_list("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
            if not value:
                del self.cookies[name]
        others = {"alice", "bob"} - {self.name}
        assert not any(other.encode() in answer.body for other in others), "somebody else's session"
        return answer

    async def told(self, path: str) -> Any:
        """What an answer says, read as JSON."""
        answer = await self.ask(path)
        assert answer.code == 200, answer.body
        return json.loads(answer.body)

    async def principal(self) -> Any:
        """Who the application says this is."""
        return (await self.told("/whoami"))["principal"]

    async def value(self) -> Any:
        """What is stored under ``k``."""
        return (await self.told("/kv?k=k"))["value"]

    def thief(self) -> Client:
        """Somebody who has copied the session cookie as it is now, and nothing else."""
        cookies = {name: value for name, value in self.cookies.items() if name == "session"}
        return Client(self.port, self.name, cookies, self.http)


@dataclass
class Site:
    """The lab over a store that fails; alice is signed in on two devices, and so is bob on one."""

    store: FailingStore
    alice: Client
    other: Client
    bob: Client


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    """Serve the lab; everybody has signed in and stored something."""
    store = FailingStore()
    settings = Settings(backend="memory", cookie_secret=SECRET, store_timeout=timedelta(seconds=TIMEOUT))
    sessions = Sessions(settings, store=store)
    server = HTTPServer(LAB.make_app(sessions))
    socket, port = bind_unused_port()
    server.add_socket(socket)
    http = AsyncHTTPClient(force_instance=True)
    people = [Client(port, name, await signed_in(sessions, name), http) for name in ("alice", "alice", "bob")]
    try:
        yield Site(store, *people)
    finally:
        http.close()
        server.stop()
        await server.close_all_connections()
        await sessions.aclose()


async def signed_in(sessions: Sessions, name: str) -> dict[str, str]:
    """Return the cookies of a browser that is signed in, is remembered and has stored something."""
    session = sessions.open([], https=False)
    session["k"] = f"{name}'s"
    session.flash("message", "hello")
    session.sign_in(name, remember=True)
    await sessions.save(session)
    lines = sessions.set_cookie_lines(session, https=False)
    return dict(line.partition(";")[0].split("=", 1) for line in lines)


# The routes, and what each promises once it has been acknowledged

After = Callable[[Site, Client, HTTPResponse], Awaitable[None]]


async def nothing(_site: Site, _before: Client, _answer: HTTPResponse) -> None:
    """No promise of its own."""


async def stored(site: Site, _before: Client, answer: HTTPResponse) -> None:
    """The new value is there (I2)."""
    told = json.loads(answer.body or b"{}")
    told = told.get("written", told)
    assert await site.alice.value() == told.get("value", "new")


async def counted(site: Site, _before: Client, answer: HTTPResponse) -> None:
    """Counted once, also when the reply was lost."""
    assert json.loads(answer.body) == {"value": 1}
    assert (await site.alice.told("/kv?k=n"))["value"] == 1


async def flashed(site: Site, _before: Client, _answer: HTTPResponse) -> None:
    """Two messages wait, none of them twice."""
    messages = (await site.alice.told("/flash"))["messages"]
    assert messages == [["info", "hello"], ["info", "again"]]


async def read_once(site: Site, _before: Client, _answer: HTTPResponse) -> None:
    """Shown, so it is gone."""
    assert (await site.alice.told("/flash"))["messages"] == []


async def moved(_site: Site, before: Client, _answer: HTTPResponse) -> None:
    """The ID from before is dead."""
    assert await before.principal() is None


async def signed_out(site: Site, before: Client, _answer: HTTPResponse) -> None:
    """Neither this browser nor a copied cookie is signed in (I3)."""
    assert await before.principal() is None
    assert await site.alice.principal() is None


async def others_out(site: Site, _before: Client, _answer: HTTPResponse) -> None:
    """The other device is out, and its remember token with it."""
    assert await site.other.principal() is None


async def all_out(site: Site, before: Client, answer: HTTPResponse) -> None:
    """Nobody is signed in any more."""
    await signed_out(site, before, answer)
    await others_out(site, before, answer)


@dataclass(frozen=True)
class Route:
    """A request, and what its acknowledgement promises."""

    method: str
    path: str
    after: After = nothing
    data: dict[str, Any] = field(default_factory=dict)
    forgets_session: bool = False  # comes back by the remember token alone
    ends: bool = False  # alice may be signed out afterwards
    ends_token: bool = False  # what ends takes effect even if the request fails
    patience: int = 2

    def __str__(self) -> str:
        how = " by the remember token" if self.forgets_session else ""
        how += " and be remembered" if self.data.get("remember") else ""
        return f"{self.method} {self.path.partition('?')[0]}{how}"


ROUTES = (
    Route("GET", "/public"),
    Route("GET", "/whoami"),
    Route("GET", "/whoami", forgets_session=True),
    Route("GET", "/kv?k=k"),
    Route("POST", "/kv", stored, {"k": "k", "v": "new"}),
    Route("POST", "/kv", stored, {"k": "k", "v": "new"}, forgets_session=True),
    Route("POST", "/incr?k=n", counted),
    Route("POST", "/login", moved, {"user": "alice", "remember": True}),
    Route("POST", "/login", moved, {"user": "alice"}),
    Route("POST", "/logout", signed_out, ends=True),
    Route("POST", "/logout-others", nothing, patience=MANY),
    Route("POST", "/logout-everywhere", all_out, ends=True),
    Route("POST", "/password", moved, patience=MANY, ends_token=True),
    Route("GET", "/devices", nothing, patience=MANY),
    Route("GET", "/csrf"),
    Route("POST", "/transfer"),
    Route("GET", "/fresh-only"),
    Route("POST", "/reauthenticate", moved),
    Route("POST", "/role", moved, {"role": "admin"}),
    Route("GET", "/flash", read_once),
    Route("POST", "/flash", flashed, {"message": "again"}),
    Route("GET", "/slow?ms=1&write=k", stored),
    Route("GET", "/stream?write=k", stored),
    Route("GET", "/redirect?write=k"),
    Route("POST", "/regenerate", moved),
    Route("POST", "/clear", nothing, ends=True),
)


@pytest.mark.parametrize("route", ROUTES, ids=str)
async def test_whichever_call_fails_the_promises_hold(route: Route, caplog: pytest.LogCaptureFixture) -> None:
    """Harm: the failure that nobody thought of signs somebody in, or out, or shows a stranger's page."""
    caplog.set_level(logging.WARNING)
    calls = await _calls_of(route)
    room = asyncio.Semaphore(AT_ONCE)
    ways = (_break(room, route, fault, number) for fault in Fault for number in range(1, calls + 1))
    broken = [error for error in await asyncio.gather(*ways, return_exceptions=True) if error]
    if broken:
        raise BaseExceptionGroup(f"{len(broken)} ways", broken)
    assert not [entry for entry in caplog.records if entry.exc_info], "a traceback in the log"


async def _calls_of(route: Route) -> int:
    """How many calls to the store the route makes when all is well; no fault makes it more than double."""
    async with site() as place:
        if route.forgets_session:
            del place.alice.cookies["session"]
        place.store.arm(Fault.REFUSED, 1_000)
        answer = await place.alice.ask(route.path, route.method, **route.data)
        assert answer.code in (200, 204, 302), answer.body
        return place.store.calls_since_armed()


async def _break(room: asyncio.Semaphore, route: Route, fault: Fault, number: int) -> None:
    async with room, site() as place:
        try:
            await _break_one(place, route, fault, number)
        except AssertionError as error:
            error.add_note(f"{route}, {fault.name} at call {number}")
            raise


async def _break_one(place: Site, route: Route, fault: Fault, number: int) -> None:
    alice = place.alice
    before = alice.thief()
    if route.forgets_session:
        del alice.cookies["session"]
    held = dict(alice.cookies)
    place.store.arm(fault, number)
    began = time.monotonic()
    answer = await alice.ask(route.path, route.method, **route.data)
    took = time.monotonic() - began
    assert place.store.mend(), "the call was never made"
    assert answer.code in ALLOWED, f"{answer.code} {answer.body!r}"
    assert took < route.patience * TIMEOUT + NOISE, f"answered after {took:.2f} s"
    if answer.code == 503:
        assert "Retry-After" in answer.headers
        taken = held.keys() - alice.cookies.keys()
        assert taken <= ({"session-remember"} if route.ends_token else set()), "an outage took a cookie away"
        await _unknown(place, route, before)
    elif answer.code < 400:
        await route.after(place, before, answer)
    await _all_is_well(place)


async def _unknown(place: Site, route: Route, before: Client) -> None:
    """It was not acknowledged: then it happened or it did not, and nothing else."""
    assert await place.alice.principal() in (("alice", None) if route.ends else ("alice",))
    assert await place.alice.value() in ("alice's", "new", None) or "write" in route.path


async def _all_is_well(place: Site) -> None:
    """Bob noticed nothing; alice can go on, and end all that is hers."""
    assert await place.bob.value() == "bob's"
    assert await place.other.principal() in ("alice", None)
    alice = place.alice
    assert (await alice.ask("/login", "POST", user="alice", remember=True)).code == 200
    assert (await alice.ask("/kv", "POST", k="k", v="on")).code == 204
    assert await alice.value() == "on"
    assert (await alice.ask("/logout-everywhere", "POST")).code == 204
    signed_in = [record.principal async for record in place.store.live() if record.principal]
    assert signed_in == ["bob"], "a session that nobody can end"
