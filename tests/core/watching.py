"""A process with things that stay open, over a store that counts; no HTTP."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from eyewall.core.manager import Manager
from eyewall.core.record import Record
from eyewall.core.session import Session
from eyewall.core.watch import SessionWatch
from eyewall.core.watched import Watched
from eyewall.crypto.keyring import KeyRing
from eyewall.settings import Settings
from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock
from tests.core.world import SECRET


class CountedStore(MemoryStore):
    """Counts loads, and the turns of the event loop in which they come: those of one travel together."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.loads = self.turns = 0
        self.meddle: Any = None

    async def load(self, digest: bytes) -> Record | None:
        self.loads += 1
        if self.loads == 1 or not self._same_turn:
            self.turns += 1
            self._same_turn = True
            asyncio.get_running_loop().call_soon(self._next_turn)
        if self.meddle is not None:
            await self.meddle(digest)
        return await super().load(digest)

    _same_turn = False

    def _next_turn(self) -> None:
        self._same_turn = False

    def forget_calls(self) -> None:
        """Count from here."""
        self.loads = self.turns = 0


class Place:
    """A process with things that stay open."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = CountedStore(clock=self.clock)
        self.settings = Settings(backend="memory", cookie_secret=SECRET)
        self.manager = self.process()
        self.ends: list[tuple[Watched, str]] = []
        self.messages: list[Any] = []

    @property
    def watch(self) -> SessionWatch:
        """The first process's."""
        return self.manager.watch

    def process(self) -> Manager:
        """One more process."""
        manager = Manager(self.settings, self.store, self.clock)
        manager.use_keyring(KeyRing.from_secret(SECRET))
        manager.watch.interval = timedelta(hours=1)
        manager.watch.connected = lambda: None  # type: ignore[method-assign]  # looks at all by itself
        return manager

    async def session(self, principal: str | None = None, **data: Any) -> Session:
        """A session that is stored."""
        session = self.manager.open([], https=True)
        session["k"] = "v"
        session.update(data)
        if principal is not None:
            session.sign_in(principal)
        await self.manager.save(session)
        session.stay_open()
        return session

    def open(self, session: Session) -> Watched:
        """Something open."""
        watched = Watched(
            session, lambda reason: self.ends.append((watched, reason)), self.messages.append, 1
        )
        self.watch.add(watched)
        return watched

    async def until_ended(self) -> None:
        """Wait for the first end."""
        async with asyncio.timeout(5):
            while not self.ends:  # noqa: ASYNC110 - a timer of the watch brings it
                await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Let everything under way end."""
        for _ in range(5):
            await asyncio.sleep(0)
        await self.manager._background.drained()
