"""A manager over a memory store with a clock of its own: everything but HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from eyewall.core.draft import CookieAction
from eyewall.core.events import Event
from eyewall.core.manager import Manager
from eyewall.core.record import Device, Record
from eyewall.core.session import Session
from eyewall.crypto.keyring import KeyRing
from eyewall.settings import Settings
from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock

SECRET = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"


class Prefetch:
    """A request whose answer nobody sees for now."""

    def device(self) -> Device:
        """Return an unknown one."""
        return Device()

    def shows_a_page(self) -> bool:
        """Return that it does not."""
        return False


@dataclass
class Browser:
    """One browser: a manager to talk to, and a cookie."""

    manager: Manager
    cookie: str | None = None

    async def open(self, *, consuming: bool = True) -> Session:
        """Begin a request."""
        lines = [self.cookie] if self.cookie else []
        session = self.manager.open(lines, https=True, whence=None if consuming else Prefetch())
        await self.manager.load(session)
        return session

    async def end(self, session: Session, status: int = 200) -> str | None:
        """End a request as the adapter does; returns the Set-Cookie line."""
        if self.manager.needs_commit(session, status=status):
            await self.manager.commit(session, status=status)
        session.close()
        line = next(iter(self.manager.set_cookie_lines(session, https=True)), None)
        if session.cookie_due() is CookieAction.DELETE:
            self.cookie = None
        elif line is not None:
            self.cookie = line.partition(";")[0]
        return line

    async def put(self, **data: Any) -> None:
        """One request that stores ``data``."""
        session = await self.open()
        session.update(data)
        await self.end(session)

    async def data(self) -> dict[str, Any]:
        """One request that reads everything."""
        session = await self.open()
        found = session.all()
        await self.end(session)
        return found


class World:
    """Store, clock, manager and events."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(clock=self.clock)
        self.settings = Settings(backend="memory", cookie_secret=SECRET, **options)
        self.manager = self.another_process()
        self.events: list[Event] = []
        self.manager.events.subscribe(self.events.append)

    def another_process(self) -> Manager:
        """A second manager over the same store, as another process has it."""
        manager = Manager(self.settings, self.store, self.clock)
        manager.use_keyring(KeyRing.from_secret(SECRET))
        return manager

    def browser(self) -> Browser:
        """A fresh visitor."""
        return Browser(self.manager)

    async def records(self) -> list[Record]:
        """Live records that are sessions, not markers."""
        return [record async for record in self.store.scan() if record.successor is None]

    def kinds(self) -> list[str]:
        """Names of the events so far."""
        return [event.kind.name for event in self.events]

    def pass_time(self, **spans: float) -> None:
        """Let time pass."""
        self.clock.advance(timedelta(**spans))
