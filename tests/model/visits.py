"""Browsers and processes without HTTP: whole requests, each a coroutine that calls nothing but the store."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, Final

from eyewall.core.events import Event
from eyewall.core.session import Session
from eyewall.core.store import Clock, Store
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import SessionEndedError
from eyewall.settings import Settings
from eyewall.signin.service import SignInManager
from eyewall.testing.clock import ManualClock
from eyewall.testing.cookie_jar import StrictCookieJar
from tests.core.world import SECRET

PATIENCE: Final = timedelta(hours=1)
"""The machine may be busy; these are no tests of deadlines."""

SESSION: Final = "__Host-session"
REMEMBER: Final = "__Host-session-remember"
_URL: Final = "https://site.example/"

Act = Callable[[Session, SignInManager], Awaitable[object]]


def process(store: Store, clock: Clock, **options: Any) -> SignInManager:
    """One process of the site, over the store that all share; dropped changes are errors here."""
    manager = SignInManager(_settings(*options.items()), store, clock)
    manager.use_keyring(_keyring())
    return manager


@cache
def _settings(*options: tuple[str, Any]) -> Settings:
    values = {"backend": "memory", "cookie_secret": SECRET, "strict": True, "store_timeout": PATIENCE}
    return Settings(**{**values, **dict(options)})


@cache
def _keyring() -> KeyRing:
    return KeyRing.from_secret(SECRET)  # made once: thousands of processes begin in every test


@dataclass(frozen=True)
class Answer:
    """What a browser sees of a request: what the handler said, or why there was a 409."""

    value: object = None
    refused: bool = False


@dataclass
class Browser:
    """A cookie jar, and all that it has ever been given."""

    clock: ManualClock
    jar: StrictCookieJar = field(default_factory=StrictCookieJar)
    ever: set[str] = field(default_factory=set)
    """Every ``Cookie`` header it could have sent: what a thief may have copied at some moment."""

    def cookies(self, *names: str) -> str | None:
        """The ``Cookie`` header of a request now, or only the cookies called ``names`` of it."""
        header = self.jar.header_for(_URL, self.clock())
        if header is None or not names:
            return header
        kept = [pair for pair in header.split("; ") if pair.partition("=")[0] in names]
        return "; ".join(kept) or None

    def receive(self, lines: list[str]) -> None:
        """Take in what a response sets."""
        self.jar.receive(_URL, lines, self.clock())
        header = self.cookies()
        self.ever.update([] if header is None else header.split("; "))

    def copied(self, clock: ManualClock) -> Browser:
        """Return the same browser at the same moment, independent of what happens in this one."""
        jar = copy.copy(self.jar)
        jar._cookies = self.jar._cookies.copy()
        jar.rejected, jar.ignored = self.jar.rejected.copy(), self.jar.ignored.copy()
        return Browser(clock, jar, self.ever.copy())

    def lose_session(self) -> None:
        """As closing the window does; what was remembered stays."""
        for key in [key for key in self.jar._cookies if key[0] == SESSION]:
            del self.jar._cookies[key]


async def visit(
    browser: Browser, manager: SignInManager, act: Act, *, header: str | None, strict: bool = True
) -> Answer:
    """One request of ``browser`` that sends ``header``; the answer arrives the moment it is made.

    An error that is none of the rules goes through.
    """
    session = manager.open([header] if header else [], https=True)
    await manager.load(session)
    try:
        answer = Answer(await act(session, manager))
        if manager.needs_commit(session):
            await manager.commit(session)
    except SessionEndedError:
        if not strict:
            raise
        answer = Answer(refused=True)
    session.close()
    browser.receive(manager.set_cookie_lines(session, https=True))
    return answer


def shown(session: Session) -> tuple[str | None, dict[str, Any]]:
    """Who is signed in, and all data."""
    return session.principal, session.all()


async def look(session: Session, _: SignInManager) -> object:
    """A page that only reads."""
    return shown(session)


def heard(manager: SignInManager) -> list[Event]:
    """Return the list that every event of ``manager`` will be added to."""
    events: list[Event] = []
    manager.events.subscribe(events.append)
    return events
