"""Sessions in MongoDB: one document per record, changed only by single-document operations.

Everything the contract promises rests on four things MongoDB does for one document: a unique ``_id``, a
filter and a change that are one atomic step, writes that a majority has confirmed, reads from the primary.
There are no transactions, no update pipelines, and nothing is decided by the server's clock.

Beside this file: ``mongodb_document`` (how a record looks there), ``mongodb_calls`` (deadlines, loads),
``mongodb_writes`` (writes that travel together).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final, Self

from eyewall.core.announcing import Announcer
from eyewall.core.record import Record
from eyewall.core.store import Clock, utc_now
from eyewall.errors import ConfigurationError, EyewallError, MissingDriverError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores.host_names import unknown_host
from eyewall.stores.mongodb_calls import Calls, Loads, named
from eyewall.stores.mongodb_document import (
    Document,
    changes_of,
    dead,
    document_of,
    live,
    principal_digest_of,
    record_of,
    times_of,
    undamaged,
)

try:
    import pymongo
    from bson import CodecOptions
    from bson.codec_options import DatetimeConversion
    from bson.errors import BSONError
    from pymongo import AsyncMongoClient, IndexModel, ReadPreference, WriteConcern
    from pymongo.asynchronous.collection import AsyncCollection
    from pymongo.errors import OperationFailure, PyMongoError

    # These import the driver, too.
    from eyewall.stores.mongodb_announcer import MongoAnnouncer
    from eyewall.stores.mongodb_url import hosts_and_database, nodes_of, url_from
    from eyewall.stores.mongodb_writes import Delete, Insert, Update, Writes
except ImportError as error:  # pragma: no cover - depends on what is installed
    raise MissingDriverError("the MongoDB store needs pymongo: pip install 'eyewall[mongodb]'") from error

RESERVED: Final = frozenset({"admin", "config", "local"})  # databases that are MongoDB's own
REFUSED_LOGIN: Final = frozenset({13, 18, 8000})  # Unauthorized, AuthenticationFailed, AtlasError
SCAN_PAGE: Final = 200
DELETES_PER_CALL: Final = 1000
INDEX_SECONDS: Final = 60.0  # on a large collection an index takes longer than any call of ours may

_logger: Final = logging.getLogger("eyewall.stores.mongodb")
_NO_INDEX: Final = "MongoDB at %s refused the index on %s (%s); all stays right, but slower to sweep and list"
_driver_errors: Final = (PyMongoError, BSONError, OSError)
_codec: Final[CodecOptions[Document]] = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_MS,  # one odd date or string must not spoil a batch
    unicode_decode_error_handler="replace",
)
_indexes: Final = {
    "expires_us": IndexModel("expires_us"),
    "principal_digest": IndexModel("principal_digest", sparse=True),  # many records have no principal
    "purge_at": IndexModel("purge_at", expireAfterSeconds=0),
}


class _Link:
    """The client of one event loop in one process, and what runs over it."""

    def __init__(self, place: str, records: AsyncCollection[Document], timeout: float) -> None:
        self.records = records
        self.calls = Calls(place, timeout, _driver_errors)
        self.loads = Loads(self.calls, self._read)
        self.writes = Writes(self.calls, records)
        self._place = place
        self._timeout = timeout
        self._indexing: asyncio.Task[None] | None = None

    def start_indexing(self, refused: set[str]) -> asyncio.Task[None]:
        """Begin to create the indexes unless that was begun before; nobody need wait for it.

        No promise rests on them: a refusal is logged, once for each field not yet in ``refused``.
        """
        if self._indexing is None:
            self._indexing = self.calls.start(self._create_indexes(refused))
        return self._indexing

    async def close(self) -> None:
        """Let calls under way end, then close the client; each within the deadline."""
        if self._indexing is not None:
            self._indexing.cancel()
        await self.calls.drain()
        with pymongo.timeout(self._timeout / 2):  # enough to take leave of a server, should it hang
            self.calls.start(self.records.database.client.close())
        await self.calls.drain()

    async def _read(self, keys: list[str]) -> dict[str, Document]:
        if len(keys) == 1:
            found = await self.records.find_one({"_id": keys[0]})
            return {} if found is None else {keys[0]: found}
        cursor = self.records.find({"_id": {"$in": keys}}, limit=len(keys), batch_size=len(keys))
        return {document["_id"]: document for document in await cursor.to_list()}

    async def _create_indexes(self, refused: set[str]) -> None:
        for field, index in _indexes.items():
            try:
                with pymongo.timeout(INDEX_SECONDS):
                    await self.records.create_indexes([index])
            except _driver_errors as error:
                if field not in refused:
                    refused.add(field)
                    _logger.warning(_NO_INDEX, self._place, field, named(error))


class MongoStore:
    """Keeps records in a MongoDB collection. Also a ``PrincipalIndex`` and a ``Scan``.

    The client is made at the first call, one for each process and event loop, so a store may be made
    before forking. Writes wait for a majority unless the URL says otherwise (``w=``); reads always go to
    the primary, whatever the URL says, because a secondary may still hold what was deleted.

    Args:
        url: ``mongodb://`` or ``mongodb+srv://`` with its options; ``timeout`` overrules its timeouts.
        clock: the current time.
        database: where the collection is. Default: the one that the URL names, else ``eyewall``.
        collection: holds one document for each session and nothing else.
        timeout: seconds until a call that got no answer raises StoreUnavailable.

    Raises:
        ConfigurationError: the URL cannot be read, ``database`` is MongoDB's own, or ``timeout`` not above 0.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = utc_now,
        database: str | None = None,
        collection: str = "sessions",
        timeout: float = 1.0,
    ) -> None:
        if timeout <= 0:
            raise ConfigurationError(f"the MongoDB store's timeout is {timeout!r}; give seconds above 0")
        self._url = url
        self._place, named_in_url = hosts_and_database(url)
        self._clock = clock
        self._names = (database or named_in_url, collection)
        self._timeout = timeout
        self._links: dict[tuple[int, asyncio.AbstractEventLoop], _Link] = {}
        self._refused_indexes: set[str] = set()
        self._announcer = MongoAnnouncer(self._records, self._link, clock=clock, timeout=timeout)
        if self._names[0] in RESERVED:
            raise ConfigurationError(
                f"the database {self._names[0]!r} is MongoDB's own; name another in the URL's path, and this "
                "one by ?authSource= if the user is kept there"
            )

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock) -> Self:
        """Make the store that ``settings`` ask for: by ``url``, else by ``host``, ``port`` and ``database``.

        Raises:
            ConfigurationError: the URL cannot be read, or there is a password but no user.
        """
        seconds = settings.store_timeout.total_seconds()
        return cls(url_from(settings), clock=clock, database=settings.database, timeout=seconds)

    async def check(self) -> None:
        """See :meth:`eyewall.core.store.SelfCheck.check`. Creates the indexes; finds out about an announcer.

        Raises:
            ConfigurationError: the server refuses the user, or a host's name is not known.
            StoreUnavailable: nobody answers.
        """
        link = self._link()
        try:
            await link.calls.finish(link.records.find_one({"_id": ""}))
        except StoreUnavailable as error:
            raise await self._explained(error) from None
        await asyncio.wait({link.start_indexing(self._refused_indexes)})
        await self._announcer.find_out(self._place)

    async def _explained(self, error: StoreUnavailable) -> EyewallError:
        cause = error.__cause__
        if isinstance(cause, OperationFailure) and cause.code in REFUSED_LOGIN:
            return ConfigurationError(f"{error}; check the user, the password and authSource")
        host = await unknown_host(nodes_of(self._url), seconds=self._timeout)
        if host is not None:
            return ConfigurationError(f"MongoDB: the host {host!r} is not known; check its name")
        return StoreUnavailable(f"{error}; check the port and that MongoDB is running")

    async def create(self, record: Record) -> bool:
        """Insert ``record``; False when its digest is taken. See :meth:`eyewall.core.store.Store.create`."""
        link = self._link()
        link.start_indexing(self._refused_indexes)
        return await link.writes.send(Insert(document_of(record, self._clock())), len(record.payload))

    async def load(self, digest: bytes) -> Record | None:
        """Return the live record of ``digest``, or None. See :meth:`eyewall.core.store.Store.load`.

        Expiry is judged here and not in the query, so that damage shows as damage.
        """
        document = await self._link().loads.fetch(digest.hex())
        if document is None:
            return None
        record = record_of(document)
        return record if record.expires_at > self._clock() else None

    async def replace(self, record: Record, *, version: int) -> bool:
        """Compare-and-swap on ``version``. See :meth:`eyewall.core.store.Store.replace`."""
        link, now = self._link(), self._clock()
        expected = {"_id": record.digest.hex(), "version": version, **live(now)}
        return await link.writes.send(Update(expected, changes_of(record, now)), len(record.payload))

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """Set the times of a live record. See :meth:`eyewall.core.store.Store.touch`."""
        link, now = self._link(), self._clock()
        times = {"$set": times_of(seen_at, expires_at, now)}
        return await link.writes.send(Update({"_id": digest.hex(), **live(now)}, times))

    async def delete(self, digest: bytes) -> bool:
        """Remove the record; False when there was none. See :meth:`eyewall.core.store.Store.delete`."""
        return await self._link().writes.send(Delete(digest.hex()))

    async def sweep(self, now: datetime, limit: int) -> int:
        """Remove at most ``limit`` dead records. See :meth:`eyewall.core.store.Store.sweep`.

        Each call to the server has the deadline to itself and removes at most 1000.
        """
        gone = 0
        while gone < limit and (due := await self._due(now, min(limit - gone, DELETES_PER_CALL))):
            gone += await self._delete_many({"_id": {"$in": due}, **dead(now)})
        return gone

    async def find_principal(self, principal: str) -> list[Record]:
        """Return the live records of ``principal``. See :class:`eyewall.core.store.PrincipalIndex`."""
        link = self._link()
        wanted = {"principal_digest": principal_digest_of(principal), **live(self._clock())}
        return list(undamaged(await link.calls.finish(link.records.find(wanted).to_list())))

    async def delete_principal(self, principal: str) -> int:
        """Delete the records of ``principal``. See :class:`eyewall.core.store.PrincipalIndex`."""
        return await self._delete_many({"principal_digest": principal_digest_of(principal)})

    async def scan(self) -> AsyncIterator[Record]:
        """Yield the live records by digest. See :class:`eyewall.core.store.Scan`.

        Walks in pages that each begin after the last digest seen: nothing stays open on the server, however
        slowly the caller walks, and a record that stays is met exactly once.
        """
        last = ""
        while documents := await self._page_after(last):
            for record in undamaged(documents):
                yield record
            last = documents[-1]["_id"]

    def announcer(self) -> Announcer | None:
        """See :meth:`eyewall.core.announcing.Announcing.announcer`.

        None before :meth:`check`, and when that found out that the server has no change streams.
        """
        return self._announcer if self._announcer.works else None

    async def close(self) -> None:
        """Close the running event loop's client; a later call would make a new one."""
        await self._announcer.close()
        link = self._links.pop(_here(), None)
        if link is not None:
            await link.close()

    async def _due(self, now: datetime, limit: int) -> list[str]:
        link = self._link()
        cursor = link.records.find(dead(now), {"_id": 1}, limit=limit, batch_size=limit)
        return [document["_id"] for document in await link.calls.finish(cursor.to_list())]

    async def _delete_many(self, which: Document) -> int:
        link = self._link()
        return (await link.calls.finish(link.records.delete_many(which))).deleted_count

    async def _page_after(self, key: str) -> list[Document]:
        link = self._link()
        after = {"_id": {"$gt": key}, **live(self._clock())}
        cursor = link.records.find(after, sort=[("_id", 1)], limit=SCAN_PAGE, batch_size=SCAN_PAGE)
        return await link.calls.finish(cursor.to_list())

    def _link(self) -> _Link:
        link = self._links.get(_here())
        if link is None:
            self._forget_closed_loops()
            link = self._links[_here()] = self._new_link()
        return link

    def _forget_closed_loops(self) -> None:
        """Drop the clients of loops that ended without ``close``: nobody can close those any more."""
        for at in list(self._links):  # a copy, made in one step: other threads may be adding theirs
            if at[1].is_closed():
                self._links.pop(at, None)

    def _new_link(self) -> _Link:
        return _Link(self._place, self._records(timeoutMS=int(self._timeout * 1000)), self._timeout)

    def _records(self, **limits: Any) -> AsyncCollection[Document]:
        """Return the collection of the records, over a new client."""
        limit = int(self._timeout * 1000)
        client: AsyncMongoClient[Document] = AsyncMongoClient(
            self._url, connectTimeoutMS=limit, serverSelectionTimeoutMS=limit, **limits
        )
        chosen = client.write_concern
        return client[self._names[0]].get_collection(
            self._names[1],
            codec_options=_codec,
            read_preference=ReadPreference.PRIMARY,
            write_concern=WriteConcern("majority") if chosen.is_server_default else chosen,
        )


def _here() -> tuple[int, asyncio.AbstractEventLoop]:
    """Name the process and event loop: no socket may be shared between two of either."""
    return os.getpid(), asyncio.get_running_loop()
