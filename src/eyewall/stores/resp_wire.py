"""The quick way over a connection that redis-py has opened: our own protocol on its transport.

redis-py connects, which is the hard part: TLS, passwords, databases, sentinels. But reading a reply takes it
five coroutines, and those cost more than everything else about a call. So once it is connected, a
:class:`Wire` takes its place as the transport's protocol: it writes a batch at once, and hands out all
replies of one wake-up in one loop, without any task.

That takes hiredis, and two attributes that redis-py calls private. Where one is missing, :meth:`Wire.over`
returns None, and :class:`~eyewall.stores.resp_lane.Lane` has redis-py write and read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any, Final, Protocol, Self

from eyewall.stores.resp_address import AbstractConnection
from eyewall.stores.resp_opening import transport_of
from eyewall.stores.resp_replies import Call, Command

hiredis: Any = None
with contextlib.suppress(ImportError):  # redis-py works without it, slower
    import hiredis

_NOT_YET: Final = object()
"""What the reader returns when the next reply has not come whole."""

_GET: Final = b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n"
"""Its key's length, and its key."""


class Owner(Protocol):
    """Whose batch travels on a wire."""

    def refused(self, refusal: Exception) -> None:
        """Note that a reply is an error; raise it if it is about the connection and not about one command."""

    def carried(self) -> None:
        """Note that every call of the batch has its replies."""

    def lost(self, error: BaseException) -> None:
        """Note that the connection is of no use any more; the calls left in the batch have no replies."""


class Wire(asyncio.Protocol):
    """Writes batches on one connection and matches the replies, in order. Made by :meth:`over`."""

    def __init__(self, transport: asyncio.Transport, reader: Any, owner: Owner) -> None:
        self._transport = transport
        self._former = transport.get_protocol()
        self._reader = reader
        self._owner = owner
        self._calls: deque[Call] = deque()
        self._replies: list[Any] = []
        self._is_whole = True
        transport.set_protocol(self)

    @classmethod
    def over(cls, connection: AbstractConnection, owner: Owner) -> Self | None:
        """Take over what ``connection`` has opened, or return None where this redis-py does not let us."""
        transport = transport_of(connection)
        error_of = getattr(getattr(connection, "_parser", None), "parse_error", None)
        if hiredis is None or transport is None or error_of is None:
            return None
        reader = hiredis.Reader(replyError=error_of, notEnoughData=_NOT_YET)
        return cls(transport, reader, owner)

    def is_open(self) -> bool:
        """Whether a batch can be sent."""
        return self._is_whole and not self._transport.is_closing()

    def send(self, calls: deque[Call]) -> None:
        """Send all commands of ``calls`` in one write. Each call leaves ``calls`` with its last reply."""
        self._calls = calls
        try:
            self._transport.write(b"".join([_packed(each) for call in calls for each in call.commands]))
        except Exception as error:  # noqa: BLE001 - whatever it was, nobody else may wait for it
            self._end(error)

    def drop(self) -> None:
        """Close the connection without a word to its owner. What it would still have brought is nobody's."""
        self._is_whole = False
        self._transport.abort()

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are whole."""
        if not self._is_whole:
            return
        try:
            self._reader.feed(data)
            is_answered = self._hand_out()
        except Exception as error:  # noqa: BLE001 - whatever it was, what is still to come belongs to nobody
            self._end(error)
            return
        if is_answered:
            self._owner.carried()

    def eof_received(self) -> None:
        """Give the connection up: nothing more will come."""
        self._end(ConnectionError("the server closed the connection"))

    def connection_lost(self, error: Exception | None) -> None:
        """Give the connection up, and tell redis-py, which waits for this when it closes."""
        self._former.connection_lost(error)
        self._end(error or ConnectionError("the server closed the connection"))

    def _hand_out(self) -> bool:
        """Give calls their replies; return whether all calls of the batch have theirs."""
        calls, replies, next_reply = self._calls, self._replies, self._reader.gets
        if not calls:
            raise ConnectionError("the server sent what nobody had asked for")
        while calls:
            reply = next_reply()
            if reply is _NOT_YET:
                return False
            if isinstance(reply, Exception):
                self._owner.refused(reply)
            replies.append(reply)
            if len(replies) == len(calls[0].commands):
                calls.popleft().answer(replies)
                replies = self._replies = []
        if self._reader.has_data():
            self.drop()  # not in step with us
        return True

    def _end(self, error: BaseException) -> None:
        if self._is_whole:
            self.drop()
            self._owner.lost(error)


def _packed(command: Command) -> bytes:
    """Return ``command`` as bytes to send.

    Most commands are a GET of a key, for which this costs half of what hiredis does.
    """
    if command[0] == "GET" and isinstance(key := command[1], bytes):
        return _GET % (len(key), key)
    packed: bytes = hiredis.pack_command(command)
    return packed
