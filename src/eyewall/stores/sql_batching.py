"""Reads that are asked for in one turn of the event loop travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

from eyewall.core.record import Record
from eyewall.errors import DamagedRecordError, StoreUnavailable
from eyewall.stores.sql_schema import to_record

MOST_AT_ONCE: Final = 64
"""Digests in one statement: well below every database's limit on parameters, and 4 MiB of answer when
every session is as large as the default ``max_size`` allows."""

Row = Sequence[Any]
Fetch = Callable[[list[bytes]], "asyncio.Future[list[Row]]"]
Waiting = dict[bytes, "list[asyncio.Future[Record | None]]"]


class Batching:
    """Gathers loads until the event loop's next turn, then fetches them with as few calls as possible.

    Every caller has a future of its own, so one that is cancelled disturbs no other.

    Args:
        fetch: starts reading the rows of some digests; the rows come in any order, missing ones not.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._waiting: dict[asyncio.AbstractEventLoop, Waiting] = {}

    def load(self, digest: bytes) -> asyncio.Future[Record | None]:
        """Return the future record of ``digest``, dead or alive, or None if there is none."""
        loop = asyncio.get_running_loop()
        if loop not in self._waiting:
            self._waiting[loop] = {}
            loop.call_soon(self._send, loop)
        future: asyncio.Future[Record | None] = loop.create_future()
        self._waiting[loop].setdefault(digest, []).append(future)
        return future

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        for part in _parts(self._waiting.pop(loop)):
            self._fetch(list(part)).add_done_callback(partial(_deliver, part))


def _parts(waiting: Waiting) -> Iterator[Waiting]:
    items = iter(waiting.items())
    while part := dict(islice(items, MOST_AT_ONCE)):
        yield part


def _deliver(part: Waiting, answer: asyncio.Future[list[Row]]) -> None:
    error = answer.exception()
    rows = {} if error else {row[0]: row for row in answer.result()}
    for digest, futures in part.items():
        for future in futures:
            if future.done():
                continue
            if error:
                future.set_exception(own_copy(error))
            else:
                _settle(future, rows.get(digest))


def _settle(future: asyncio.Future[Record | None], row: Row | None) -> None:
    try:
        future.set_result(None if row is None else to_record(row))
    except DamagedRecordError as damage:
        future.set_exception(damage)


def own_copy(error: BaseException) -> BaseException:
    """One exception raised in many tasks would collect the tracebacks of all of them."""
    if not isinstance(error, StoreUnavailable):
        return error
    copy = StoreUnavailable(*error.args)
    copy.__cause__ = error.__cause__
    return copy


def padded(digests: list[bytes]) -> list[bytes]:
    """Return ``digests``, the last one repeated up to the next power of two.

    A statement's text depends on how many there are; so there are seven texts to parse and to keep
    prepared instead of 64.
    """
    size = 1 << (len(digests) - 1).bit_length()
    return digests + digests[-1:] * (size - len(digests))
