"""Watching the sessions of what stays open (WebSockets, streams), so that it ends when they do.

Two ways to notice that a session has ended, because neither is enough by itself:

- an announcement: whoever ends a session, in whatever process, tells all others at once, where the store has
  the means. It may get lost, and anybody with access to the store's server can send one. So it only says
  where to look; what the store then answers decides.
- a re-check: every few seconds all watched sessions are looked up, in batches that the store answers in one
  call each. It also finds what nobody announces: timeouts, and records that an operator deleted.

While the store does not answer, everything stays open: an outage signs nobody out.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import timedelta
from typing import Any, Final

from eyewall.core.announcements import Ended, Message, decode, encode_ended
from eyewall.core.announcing import Announcer, Listening, announcer_of, require_sendable
from eyewall.core.events import logger
from eyewall.core.still_open import StillOpen
from eyewall.core.store import Clock, Store
from eyewall.core.stored_sessions import Stored
from eyewall.core.watched import OpenSessions, Watched
from eyewall.core.writer import Writer
from eyewall.errors import DamagedRecordError, SessionError, StoreUnavailable

INTERVAL: Final = timedelta(seconds=5)
"""How often all watched sessions are looked up."""

BATCH: Final = 250
"""Most sessions looked up in one call: few enough that neither the store nor the event loop is held up."""

_LONGEST_STORM_DELAY: Final = 1.0


class SessionWatch(OpenSessions):
    """All that is open in this process, by session.

    Args:
        store: where the sessions are; it may be able to announce.
        writer: looks sessions up.
        clock: returns the current time (UTC).
        spawn: runs a coroutine as a task that is not lost.
        patience: seconds that one batch may take.
    """

    def __init__(
        self,
        store: Store,
        writer: Writer,
        clock: Clock,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        patience: float,
    ) -> None:
        super().__init__()
        self._store = store
        self._writer = writer
        self._clock = clock
        self._spawn = spawn
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None
        self._listening: Listening | None = None
        self._to_tell: dict[str, list[bytes]] = {}
        self._to_look_at: dict[bytes, str] = {}
        self._is_looking = False
        self._can_announce = True
        self._checking: asyncio.Task[Any] | None = None
        self.still_open = StillOpen()
        """Also what has no stored session, and so is not watched."""
        self.interval = INTERVAL
        self.longest_outage: timedelta | None = None
        """After a store has not answered for so long, everything open is closed; None lets it stay."""
        self._answered_at = clock()

    def use(self, store: Store, writer: Writer) -> None:
        """Look into ``store`` from now on: it is the same place, opened with other keys."""
        self._store, self._writer = store, writer

    # -- what is open -------------------------------------------------------------------------------------

    def add(self, watched: Watched) -> None:
        """Watch the session of ``watched`` from now on."""
        if not self._by_digest:
            self._answered_at = self._clock()  # it was loaded just now
        super().add(watched)
        announcer = self._announcer()
        if self._listening is None and announcer is not None:
            self._listening = announcer.listen(self)
        if self._timer is None:
            self._set_timer()

    def remove(self, watched: Watched) -> None:
        """Watch it no longer; nothing happens when it is not watched."""
        super().remove(watched)
        if not self._by_digest and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- telling others -----------------------------------------------------------------------------------

    def tell_ended(self, digest: bytes, reason: str) -> None:
        """Let every process, this one included, look at the session of ``digest`` at once.

        Returns at once and never raises; what cannot be told is found by the re-check.
        """
        if digest in self._by_digest:
            self.look_soon([digest], reason)  # here at once, also when our own listening is interrupted
        if self._announcer() is None:
            return
        if not self._to_tell:
            asyncio.get_running_loop().call_soon(self._tell_soon)
        self._to_tell.setdefault(reason, []).append(digest)

    def _tell_soon(self) -> None:
        waiting, self._to_tell = self._to_tell, {}
        for reason, digests in waiting.items():
            for message in encode_ended(digests, reason):
                self._spawn(self._announce(message))

    def _announcer(self) -> Announcer | None:
        # Asked each time: some stores know only after their first contact with the server.
        return announcer_of(self._store)

    async def _announce(self, message: bytes) -> None:
        announcer = self._announcer()
        if announcer is None:
            return
        try:
            await announcer.announce(message)
        except StoreUnavailable as error:
            if self._can_announce:  # a missing right to publish looks like this for ever: say it once
                self._can_announce = False
                logger.warning(
                    "ended sessions cannot be announced (sockets elsewhere close later): %s", error
                )
            self.heard(message)  # at least what is open here
        else:
            self._can_announce = True

    async def send(self, message: Message) -> None:
        """Deliver ``message`` to all that its principal has open, in every process that can be told.

        Raises:
            StoreUnavailable: whether anybody got it is unknown.
            ValueError: it is too long to be announced.
        """
        encoded = message.encode()
        require_sendable(encoded)
        announcer = self._announcer()
        if announcer is None:
            self.heard(encoded)
        else:
            await announcer.announce(encoded)

    # -- hearing (see eyewall.core.announcing.Listener) ---------------------------------------------------

    def heard(self, message: bytes) -> None:
        """Act on an announcement; what is no announcement of ours is passed over."""
        found = decode(message)
        if isinstance(found, Ended):
            ours = [digest for digest in found.digests if digest in self._by_digest]
            if ours:
                self.look_soon(ours, found.reason)
        elif isinstance(found, Message):
            self._deliver(found)

    def look_soon(self, digests: Iterable[bytes], reason: str) -> None:
        """Look at these sessions at once; those already waiting to be looked at are looked at once."""
        for digest in digests:
            self._to_look_at.setdefault(digest, reason)
        if self._to_look_at and not self._is_looking:
            self._is_looking = True
            self._spawn(self._look())

    async def _look(self) -> None:
        try:
            while self._to_look_at:
                waiting, self._to_look_at = self._to_look_at, {}
                for reason in set(waiting.values()):
                    for digests in _in_batches([one for one, why in waiting.items() if why == reason]):
                        await self.look_at(digests, reason)
        finally:
            self._is_looking = False

    def connected(self) -> None:
        """Look at everything, since something may have been missed; not in all processes at one moment."""
        delay = random.uniform(0, _LONGEST_STORM_DELAY)  # noqa: S311 - not a secret
        asyncio.get_running_loop().call_later(delay, self._check_soon)

    def lost(self, reason: str) -> None:
        """Go on with the re-check alone."""
        logger.warning("session announcements are not heard (re-checking every few seconds): %s", reason)

    def _deliver(self, message: Message) -> None:
        for watched in self.of(message.principal):
            if watched.on_message is not None:
                watched.on_message(message.content)

    # -- looking ------------------------------------------------------------------------------------------

    async def check_all(self) -> None:
        """Look at every watched session once."""
        for digests in _in_batches(list(self._by_digest)):
            await self.look_at(digests, "")
        if self.longest_outage is not None and self._clock() - self._answered_at > self.longest_outage:
            for watched in [each for those in list(self._by_digest.values()) for each in list(those)]:
                self.end(watched, "the session cannot be checked")

    async def look_at(self, digests: Iterable[bytes], reason: str) -> None:
        """Look these sessions up, end what has ended, and bring the others up to date.

        Args:
            digests: of watched sessions; others are passed over.
            reason: why they have ended, if they have; "" finds one.
        """
        asked = [digest for digest in digests if digest in self._by_digest]
        try:
            async with asyncio.timeout(self._patience):
                # Asked in one turn of the event loop, they travel to the store together.
                looks = (self._look_up(digest) for digest in asked)
                answers = await asyncio.gather(*looks, return_exceptions=True)
        except TimeoutError:
            logger.debug("watched sessions could not be looked up in time, so all stay open")
            return
        for digest, stored in zip(asked, answers, strict=True):
            if isinstance(stored, BaseException):
                logger.debug("a watched session could not be looked up, so it stays open: %r", stored)
                continue
            self._answered_at = self._clock()
            for watched in list(self._by_digest.get(digest, ())):
                self._settle(watched, stored, reason)

    async def _look_up(self, digest: bytes) -> Stored | None:
        try:
            return await self._writer.current(digest)
        except DamagedRecordError:
            return None

    def _settle(self, watched: Watched, stored: Stored | None, reason: str) -> None:
        if stored is None:
            self.end(watched, reason or self._reason_for(watched))
        elif stored[0].principal != watched.principal:
            self.end(watched, "somebody else signed in")
        else:
            self._bring_up_to_date(watched, stored)

    def _bring_up_to_date(self, watched: Watched, stored: Stored) -> None:
        record, _ = stored
        if record.digest != watched.digest:  # it was given a new ID: go along
            self._follow(watched, record.digest)
        try:
            watched.session.draft.refresh(*stored)
        except SessionError as error:  # what its handler has put inside cannot be stored
            logger.debug("an open session could not be brought up to date: %s", error)

    def end(self, watched: Watched, reason: str) -> None:
        """End ``watched``, once."""
        if self.is_watching(watched):
            self.remove(watched)
            watched.on_end(reason)

    def _reason_for(self, watched: Watched) -> str:
        record = watched.session.draft.record
        return "expired" if record is not None and self._clock() >= record.expires_at else "ended"

    # -- the timer ----------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        # A timer, not a sleeping task: one that is pending when the loop ends is simply dropped.
        delay = self.interval.total_seconds() * random.uniform(0.8, 1.0)  # noqa: S311 - not a secret
        self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._set_timer()
        self._check_soon()

    def _check_soon(self) -> None:
        if self._checking is None and self._by_digest:
            self._spawn(self._check_once())

    async def _check_once(self) -> None:
        self._checking = asyncio.current_task()
        try:
            await self.check_all()
        finally:
            self._checking = None

    async def aclose(self) -> None:
        """Watch nothing any more. What is open then stays so: see :attr:`still_open`."""
        self._tell_soon()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._listening is not None:
            await self._listening.aclose()
            self._listening = None
        self._by_digest.clear()
        self._by_principal.clear()


def _in_batches(digests: list[bytes]) -> Iterator[list[bytes]]:
    for at in range(0, len(digests), BATCH):
        yield digests[at : at + BATCH]
