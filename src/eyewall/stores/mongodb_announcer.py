"""Announcements by way of MongoDB: documents that are inserted, and a change stream that tells of them.

Change streams are there on replica sets and sharded clusters, not on a server that stands alone; so the
server is asked, when the application checks its store at the start. Messages are text (base64), kept for an
hour or so in a collection of their own beside the sessions: ``<collection>_announcements``.
"""

from __future__ import annotations

import asyncio
import binascii
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

import pymongo
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import OperationFailure

from eyewall.core.announcing import Listener, Listening, require_sendable
from eyewall.core.store import Clock
from eyewall.errors import StoreUnavailable
from eyewall.stores import listening
from eyewall.stores.listening import Ear, Listenings, ended_with
from eyewall.stores.mongodb_calls import Calls, Document, named

T = TypeVar("T")

KEPT: Final = timedelta(hours=1)
"""How long the server keeps an announcement; nobody reads it after the moment in which it was made."""

_INSERTED: Final = [{"$match": {"operationType": "insert"}}]


_logger: Final = logging.getLogger("eyewall.stores.mongodb")


class Link(Protocol):
    """The store's own connections."""

    @property
    def calls(self) -> Calls:
        """Runs calls within the store's deadline."""

    @property
    def records(self) -> AsyncCollection[Document]:
        """The collection of the sessions."""


def _beside(records: AsyncCollection[Document]) -> AsyncCollection[Document]:
    """Return the collection of the announcements that belong to ``records``."""
    return records.database.get_collection(
        f"{records.name}_announcements", write_concern=records.write_concern
    )


async def _try_change_stream(records: AsyncCollection[Document]) -> None:
    """Open a change stream and close it; see that announcements are purged.

    Raises:
        pymongo.errors.OperationFailure: the server has none, or the user has no right to it.
    """
    news = _beside(records)
    async with await news.watch(_INSERTED):
        await news.create_index("purge_at", expireAfterSeconds=0)


class MongoAnnouncer:
    """See :class:`eyewall.core.announcing.Announcer`.

    Args:
        connect: returns the collection of the sessions over a new client, which is closed by this.
        link: returns the store's own connections, to announce over.
        clock: the current time.
        timeout: longest wait for a connection (seconds).
    """

    def __init__(
        self,
        connect: Callable[[], AsyncCollection[Document]],
        link: Callable[[], Link],
        *,
        clock: Clock,
        timeout: float,
    ) -> None:
        self._connect = connect
        self._link = link
        self._clock = clock
        self._timeout = timeout
        self._listenings = Listenings()
        self.works = False
        """Whether the server has said that it can: see :meth:`find_out`."""

    async def find_out(self, place: str) -> None:
        """Ask the server whether it has change streams; log it if not, with ``place`` for its name.

        Raises:
            StoreUnavailable: it did not answer.
        """
        link = self._link()
        try:
            await link.calls.finish(_try_change_stream(link.records))
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, OperationFailure):
                raise
            _logger.info("MongoDB at %s cannot announce (%s)", place, named(error.__cause__))
        else:
            self.works = True

    async def announce(self, message: bytes) -> None:
        """See :meth:`eyewall.core.announcing.Announcer.announce`."""
        require_sendable(message)
        news = {"message": b64encode(message).decode(), "purge_at": self._clock() + KEPT}
        link = self._link()
        await link.calls.finish(_beside(link.records).insert_one(news))

    def listen(self, listener: Listener) -> Listening:
        """See :meth:`eyewall.core.announcing.Announcer.listen`."""
        return self._listenings.begin(listener, self._attend)

    async def close(self) -> None:
        """End what listens on the running event loop."""
        await self._listenings.close()

    async def _attend(self, ear: Ear) -> None:
        records = self._connect()
        try:
            patience = int(listening.ASK_SECONDS * 1000)
            opening = _beside(records).watch(_INSERTED, max_await_time_ms=patience)
            stream = await _finished(opening, self._timeout)
            ear.connected()
            while True:
                seconds = listening.ASK_SECONDS + listening.SILENCE_SECONDS
                _hear(await _finished(stream.try_next(), seconds), ear)
        finally:
            with pymongo.timeout(self._timeout / 2):  # to take leave of a server that may hang
                await records.database.client.close()


def _hear(change: Any, ear: Ear) -> None:
    if change is None:
        return
    try:
        ear.heard(b64decode(change["fullDocument"]["message"], validate=True))
    except (KeyError, TypeError, ValueError, binascii.Error):
        return  # a stranger's


async def _finished(call: Coroutine[Any, Any, T], seconds: float) -> T:
    """Await ``call`` in a task of its own: a driver that waits for a hung server need not notice the time.

    Raises:
        TimeoutError: it did not finish within ``seconds``.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            raise TimeoutError(f"no answer within {seconds:g} s")
        return task.result()
    finally:
        await ended_with(task)
