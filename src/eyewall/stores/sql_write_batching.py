"""Writes that are asked for in one turn of the event loop, or that wait for a connection, travel together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Final, Protocol

from sqlalchemy import Connection

from eyewall.stores.sql_batching import own_copy
from eyewall.stores.sql_writing import Values, Verb, Write

MOST_BYTES: Final = 256 * 1024
"""Payload in one batch. As hexadecimal text it stays below the least ``max_allowed_packet`` that MySQL ever
had by default (1 MiB), and the event loop is not held for long by writing it out."""

OPEN_SHARE: Final = 0.1
"""The part of a write's time for which a batch that waits for a connection can be joined. A batch has the
deadline of its first write, so the others have up to that much less."""

Answered = list[tuple[Write, bool | None]]


class Send(Protocol):
    """What sends a batch: :meth:`eyewall.stores.sql_connections.Pool.write`."""

    def __call__(
        self,
        work: Callable[[Connection], Answered],
        *,
        repeatable: bool,
        timeout: float,
        begin: Callable[[], object],
    ) -> asyncio.Future[Answered]:
        """Start ``work`` on a connection, after ``begin``; return its outcome."""


class Batch:
    """Writes of different rows, in one transaction.

    Args:
        first: the first of them. Its deadline is the batch's.
    """

    def __init__(self, first: Write) -> None:
        self.repeatable: Final = first.verb.repeatable
        self.deadline: Final = first.deadline
        self.writes: Final = {first.digest: first}
        self._form = first.verb.form
        self._bytes = _size(first)

    def takes(self, write: Write) -> bool:
        """Put ``write`` among the others, if there is room for it, and tell so.

        Two writes of one row do not travel together: which comes first would be for the database to say.
        """
        size = self._bytes + _size(write)
        if size > MOST_BYTES or len(self.writes) == self._form.most or write.digest in self.writes:
            return False
        self._bytes = size
        self.writes[write.digest] = write
        return True

    def run(self, connection: Connection) -> Answered:
        """Do the writes that are still waited for; return what is known of each."""
        wanted = [write for write in self.writes.values() if not write.outcome.done()]
        if len(wanted) == 1:
            return [(wanted[0], self._form.one(connection, wanted[0]))]
        wanted.sort(key=attrgetter("digest"))
        return list(zip(wanted, self._form.many(connection, wanted) if wanted else (), strict=True))


class WriteBatching:
    """Gathers the writes of one event loop, and sends them with as few transactions as possible.

    A batch leaves in the loop's next turn, and can be joined until it gets a connection. Every caller has a
    future of its own, so one that is cancelled disturbs no other. What a batch could not do, because a row
    was locked or another's data were refused, is sent again alone, in the time that is left.

    Args:
        send: sends a batch; see :meth:`eyewall.stores.sql_connections.Pool.write`.
        timeout: seconds that a write may last.
    """

    def __init__(self, send: Send, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._send = send
        self._timeout = timeout
        self._open: dict[Verb | None, Batch] = {}

    def write(self, verb: Verb, values: Values) -> asyncio.Future[bool]:
        """Return the future answer to whether ``verb`` took effect.

        Args:
            verb: what to do.
            values: its parameters by name; see :class:`~eyewall.stores.sql_writing.Write`.
        """
        write = Write(verb, values, self._loop.create_future(), self._loop.time() + self._timeout)
        kind = None if verb.form.mixes_verbs else verb
        batch = self._open.get(kind)
        if batch is None or self._is_late(write, batch) or not batch.takes(write):
            batch = self._open[kind] = Batch(write)
            self._depart(kind, batch)
        return write.outcome

    def _is_late(self, write: Write, batch: Batch) -> bool:
        return write.deadline - batch.deadline > self._timeout * OPEN_SHARE

    def _depart(self, kind: Verb | None, batch: Batch) -> None:
        answered = self._send(
            batch.run,
            repeatable=batch.repeatable,
            timeout=max(0.0, batch.deadline - self._loop.time()),
            begin=partial(self._close, kind, batch),
        )
        answered.add_done_callback(partial(self._deliver, kind, batch))

    def _close(self, kind: Verb | None, batch: Batch) -> None:
        if self._open.get(kind) is batch:
            del self._open[kind]

    def _deliver(self, kind: Verb | None, batch: Batch, answered: asyncio.Future[Answered]) -> None:
        self._close(kind, batch)  # it may have ended before it began; who joined it now would wait for ever
        error = answered.exception()
        answers = dict.fromkeys(batch.writes.values()) if error else dict(answered.result())
        for write, answer in answers.items():
            if write.outcome.done():
                continue
            if error:
                write.outcome.set_exception(own_copy(error))
            elif answer is None:
                self._depart(None, Batch(write))
            else:
                write.outcome.set_result(answer)


def _size(write: Write) -> int:
    return sum(len(write.values.get(column) or b"") for column in ("payload", "principal"))
