"""Client-side sessions: the whole record sealed into the cookie itself, and no store at all.

The record, encoded as stores keep it, is sealed with the cookie's name and the number of chunks as context.
The token is cut into up to three cookies; the first says how many there are::

    session=2.ewx1.<key id>.<base64url ...     session.1=... base64url>

All chunks together are one sealed text, so chunks of two answers, or fewer than there were, do not open.

Nothing is compressed. A compressed text is the shorter the more its parts resemble each other, so whoever
can put text into the session and see the cookie's length could guess the rest letter by letter (CRIME,
BREACH).

Everything here is a function of its arguments, the time included; no I/O, no clock.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate, product
from math import prod
from typing import Final

from eyewall.core.cookie import MAX_PAIR_BYTES, CookieAttributes
from eyewall.core.record import Record, decode_record, encode_record
from eyewall.crypto.sealer import FORMAT, Sealer, token_length
from eyewall.errors import ConfigurationError, DamagedRecordError, SessionTooLargeError

PURPOSE: Final = "client-side session"
"""The purpose to make the :class:`~eyewall.crypto.sealer.Sealer` with."""

MOST_CHUNKS: Final = 3
"""Three cookies are 12 KB in every request; servers and proxies refuse headers from 8 or 16 KB on."""

MAX_LINE_BYTES: Final = MAX_PAIR_BYTES
"""Longest ``Set-Cookie`` line, attributes included. RFC 6265bis limits name and value alone, but its
forerunner let browsers count the attributes too (RFC 6265 6.1), and Safari and old proxies do."""

CLOCK_SKEW: Final = timedelta(seconds=60)
"""How far the clocks of our own servers may differ."""

_MOST_CANDIDATES: Final = 8
_LEAST_ROOM: Final = 256
_IN_ONE: Final = f"1.{FORMAT}."
_FIRST: Final = re.compile(rf"[1-{MOST_CHUNKS}]\.{FORMAT}\.[A-Za-z0-9_-]{{8}}\.[A-Za-z0-9_-]+")
_FURTHER: Final = re.compile(r"[A-Za-z0-9_-]+")

Values = Callable[[str], Sequence[str]]
"""Returns all values that a request has for a cookie name: ``partial(cookie_values, cookie_lines)``."""


class ClientSideSessions:
    """Writes records into cookies and reads them back.

    Args:
        sealer: made for :data:`PURPOSE`.
        attributes: name and attributes of the first cookie; the others differ by ``.1`` and ``.2`` at the
            end of the name.
        max_chunks: into how many cookies a record may be cut, 1 to 3.

    Raises:
        ConfigurationError: ``max_chunks`` is out of range, or name and attributes are so long that hardly
            anything fits beside them.
    """

    def __init__(
        self, sealer: Sealer, attributes: CookieAttributes, *, max_chunks: int = MOST_CHUNKS
    ) -> None:
        if not 1 <= max_chunks <= MOST_CHUNKS:
            raise ConfigurationError(f"max_chunks is {max_chunks}; give 1 to {MOST_CHUNKS}")
        _check_room(attributes)
        self._sealer = sealer
        self._name = attributes.name
        self._cookies = [attributes, *(_numbered(attributes, number) for number in range(1, MOST_CHUNKS))]
        rooms = (_room_in(cookie) for cookie in self._cookies[:max_chunks])
        self._ends = [0, *accumulate(rooms)]  # where each chunk begins, and the last one ends
        self.names: Final = tuple(cookie.name for cookie in self._cookies)
        """The names of all cookies that a session may be in."""

    def to_lines(self, record: Record, now: datetime, names_sent: Iterable[str] = ()) -> list[str]:
        """Return the ``Set-Cookie`` lines that make the browser keep ``record``.

        The cookies end with the browser; the session's own end is sealed inside.

        Args:
            record: what to keep. One that is dead at ``now`` gives the lines of :meth:`delete_lines`.
            now: the current time (UTC).
            names_sent: names of the cookies that came with the request; chunks among them that are no
                longer needed are deleted.

        Raises:
            SessionTooLargeError: the record does not fit into ``max_chunks`` cookies. Nothing is to be sent.
        """
        if record.expires_at <= now:
            return self.delete_lines(names_sent)
        encoded = encode_record(record)
        chunks = self._chunks_for(len(encoded))
        value = f"{chunks}.{self._sealer.seal(encoded, self._name, str(chunks))}"
        lines = [
            self._cookies[chunk].set(value[self._ends[chunk] : self._ends[chunk + 1]])
            for chunk in range(chunks)
        ]
        return lines + self._deletions(self._cookies[chunks:], names_sent)

    def delete_lines(self, names_sent: Iterable[str]) -> list[str]:
        """Return the ``Set-Cookie`` lines that remove the session's cookies among ``names_sent``."""
        return self._deletions(self._cookies, names_sent)

    def read(self, values: Values, now: datetime) -> Record | None:
        """Return the live record in a request's cookies, or None.

        There may be several cookies of a name, since sibling subdomains can plant some. They are tried in
        every combination as long as those are few; exactly one has to open. What did not come from
        :meth:`to_lines` for this cookie name, is expired, or was made more than :data:`CLOCK_SKEW` ahead of
        ``now``, is None like no cookie at all. Never raises.

        Args:
            values: gives the request's values of a cookie name.
            now: the current time (UTC).
        """
        sealed = self._sealed_in(values)
        return None if sealed is None else _live_record(sealed, now)

    def is_current(self, first: str) -> bool:
        """Return whether the newest key is named in ``first``, the value of a session's first cookie."""
        return self._sealer.is_current(first[2:])

    def _sealed_in(self, values: Values) -> bytes | None:
        """Return what is sealed in the cookies, when that is one thing."""
        firsts = values(self._name)
        if len(firsts) == 1 and firsts[0].startswith(_IN_ONE):
            return self._opened(firsts[0])  # nearly always; of what shape the rest must be, the sealer knows
        candidates = self._candidates(firsts, values)
        found = [opened for value in candidates if (opened := self._opened(value)) is not None]
        return found[0] if len(found) == 1 else None

    def _candidates(self, firsts: Iterable[str], values: Values) -> Iterable[str]:
        """Return the sealed texts that the chunks may be of; none when they are too many to try."""
        firsts = [value for value in dict.fromkeys(firsts) if _FIRST.fullmatch(value)]
        if not firsts:
            return ()
        further = [_fitting(values(cookie.name)) for cookie in self._cookies[1:]]
        combinations = sum(prod(map(len, further[: int(first[0]) - 1])) for first in firsts)
        return _joined(firsts, further) if combinations <= _MOST_CANDIDATES else ()

    def _opened(self, value: str) -> bytes | None:
        return self._sealer.open(value[2:], self._name, value[0])

    def _chunks_for(self, encoded_bytes: int) -> int:
        """Return how many chunks are needed; how long a token gets is known before it is sealed."""
        needed = len("1.") + token_length(encoded_bytes)
        if needed > self._ends[-1]:
            raise SessionTooLargeError(
                f"this session would take {needed} bytes of cookies; {self._ends[-1]} fit into "
                f"{len(self._ends) - 1}. Keep large data elsewhere and its key in the session, or choose a "
                "backend that keeps sessions on the server."
            )
        return bisect_left(self._ends, needed)

    def _deletions(self, cookies: Iterable[CookieAttributes], names_sent: Iterable[str]) -> list[str]:
        sent = frozenset(names_sent)
        return [cookie.delete() for cookie in cookies if cookie.name in sent]


def is_cut_off(record: Record, cutoff: datetime | None) -> bool:
    """Return whether ``record`` began before its principal's cut-off, and so counts as revoked.

    A sealed cookie cannot be taken back. What can be kept on the server is one time per principal, moved
    to now at "sign out everywhere" or a changed password; sessions that began earlier are dead.

    Args:
        record: the record that was read.
        cutoff: the principal's cut-off (UTC), or None when there is none.
    """
    return cutoff is not None and record.created_at < cutoff


def _check_room(attributes: CookieAttributes) -> None:
    room = _room_in(attributes)
    if room < _LEAST_ROOM:
        raise ConfigurationError(
            f"name and attributes of the session cookie leave {max(room, 0)} of {MAX_LINE_BYTES} bytes for "
            "its value; shorten name, cookie_path or domain"
        )


def _room_in(cookie: CookieAttributes) -> int:
    return MAX_LINE_BYTES - len(cookie.set(""))


def _numbered(attributes: CookieAttributes, number: int) -> CookieAttributes:
    return replace(attributes, name=f"{attributes.name}.{number}")


def _fitting(values: Sequence[str]) -> list[str]:
    return [value for value in dict.fromkeys(values) if _FURTHER.fullmatch(value)]


def _joined(firsts: Iterable[str], further: Sequence[list[str]]) -> Iterator[str]:
    for first in firsts:
        for rest in product(*further[: int(first[0]) - 1]):
            yield "".join((first, *rest))


def _live_record(encoded: bytes, now: datetime) -> Record | None:
    try:
        record = decode_record(encoded)
    except DamagedRecordError:  # sealed by us, so it is of another version of Eyewall
        return None
    return record if is_live(record, now) else None


def is_live(record: Record, now: datetime) -> bool:
    """Return whether what is written in ``record`` lets it count ``now``: it is not over, nor made later."""
    issued_at = max(record.created_at, record.seen_at)
    return issued_at - now <= CLOCK_SKEW and now < record.expires_at
