"""The Redis and Valkey store: one key per session, one plain GET per load, compare-and-swap in Lua.

``<prefix>s:<digest>`` is a session. ``<prefix>p:<SHA-256 of the principal>`` is a sorted set of the digests
of one principal's sessions, by expires_at. The two are never written as one, because in a cluster they may
live on different servers. The session's record decides; the set is written before it, so that a crash
between the two leaves a member without a record (left out of every answer, dropped once its time is over)
and not a session that revocation cannot find. Every later write and touch of the record lists it again.

The server drops dead records by itself, a minute late; whether a record is live is decided by our clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from math import inf
from typing import Any, Final, Self

from eyewall.core.announcing import Announcer
from eyewall.core.record import Record
from eyewall.core.store import Clock, utc_now
from eyewall.errors import ConfigurationError, DamagedRecordError, EyewallError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores import resp_layout as layout
from eyewall.stores.host_names import unknown_host
from eyewall.stores.resp_address import read_address, url_from
from eyewall.stores.resp_announcer import RespAnnouncer
from eyewall.stores.resp_eviction import warn_of_eviction
from eyewall.stores.resp_links import Links
from eyewall.stores.resp_replies import (
    Command,
    Reply,
    is_misconfiguration,
    is_wrong_type,
    sent_again,
    sound,
)

AT_ONCE: Final = 256
"""Most records asked for at once when many are listed."""


class RespStore:
    """Keeps records in Redis (6.2 or newer) or Valkey: one server, Sentinel or Cluster.

    Connections are made when first needed, anew for each process and each event loop, so an application
    may fork and a test may use a loop of its own. A restarted server is found again without help.

    Args:
        url: where the servers are; :mod:`eyewall.stores.resp_address` lists the forms.
        clock: decides what is live.
        prefix: begins the name of every key.
        timeout: longest wait for one exchange with the server (seconds); then StoreUnavailable.
        wait_replicas: how many replicas must have heard of the end of a session before ``delete``,
            ``delete_principal`` or a replacement by a marker of its successor returns; fewer raise
            StoreUnavailable. Default: 0, nobody is asked, and a failover may bring the session back.

    Raises:
        ConfigurationError: the URL cannot be read, or ``wait_replicas`` is asked of a cluster.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = utc_now,
        prefix: str = "eyewall:",
        timeout: float = 1.0,
        wait_replicas: int = 0,
    ) -> None:
        self._address = read_address(url)
        if wait_replicas and self._address.kind == "cluster":
            raise ConfigurationError("wait_replicas does not work with +cluster; leave it at 0")
        self._clock = clock
        self._prefix = prefix
        self._sessions, self._principals = f"{prefix}s:".encode(), f"{prefix}p:".encode()
        self._timeout = timeout
        self._wait_replicas = wait_replicas
        self._links = Links(self._address, timeout)
        self._told_of_eviction = False
        self._announcer = RespAnnouncer(self._address, prefix, timeout, self._ask)

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock = utc_now) -> Self:
        """Make the store that ``settings`` name; ``store_timeout`` is its timeout.

        Where there is no ``url``, ``host``, ``port``, ``password`` and ``database`` say where it is.

        Raises:
            ConfigurationError: the URL cannot be read.
        """
        apart = {name: getattr(settings, name) for name in ("host", "port", "password", "database")}
        url = settings.url or url_from(**apart)
        return cls(url, clock=clock, timeout=settings.store_timeout.total_seconds())

    async def check(self) -> None:
        """See :meth:`eyewall.core.store.SelfCheck.check`. Warns, once, of a server that evicts sessions.

        Raises:
            ConfigurationError: the server turns us away (wrong password, database or certificate), or a
                host's name is not known.
            StoreUnavailable: nobody answers, or the sentinels have no master.
        """
        try:
            await self._ask(("EXISTS", self._prefix))
        except StoreUnavailable as error:
            raise await self._explained(error) from None
        if not self._told_of_eviction:
            self._told_of_eviction = True
            await warn_of_eviction(self._links.here())

    async def _explained(self, error: StoreUnavailable) -> EyewallError:
        if is_misconfiguration(error.__cause__):
            return ConfigurationError(f"the Redis or Valkey server turns us away: {error.__cause__}")
        host = await unknown_host(self._address.nodes, seconds=self._timeout)
        if host is not None:
            return ConfigurationError(f"Redis or Valkey: the host {host!r} is not known; check its name")
        return StoreUnavailable(str(error))

    @property
    def longest_wait(self) -> float:
        """See :class:`eyewall.core.store.KeepsTime`. A cluster may send a call on, again and again."""
        return inf if self._address.kind == "cluster" else self._timeout

    # The six verbs

    async def create(self, record: Record) -> bool:
        """See :meth:`eyewall.core.store.Store.create`."""
        key, life = self._session_key(record.digest), layout.life(record.expires_at, self._clock())
        insert: Command = ("SET", key, layout.pack(record), "NX", "PX", life)
        return await self._ask(*self._enlisting(record), insert) is not None

    async def load(self, digest: bytes) -> Record | None:
        """See :meth:`eyewall.core.store.Store.load`."""
        (reply,) = await self._links.here().send(("GET", self._session_key(digest)))
        return self._read(digest, reply)

    async def replace(self, record: Record, *, version: int) -> bool:
        """See :meth:`eyewall.core.store.Store.replace`."""
        now = self._clock()
        swap = layout.REPLACE.on(
            self._session_key(record.digest),
            layout.pack_version(version),
            layout.microseconds(now),
            layout.pack(record),
            layout.life(record.expires_at, now),
        )
        ends = record.successor is not None
        owner = await self._ask(*self._enlisting(record), swap, ends=ends)
        if owner and owner[0] and owner[0] != layout.mark_of(record.principal):
            await self._delist(owner[0], record.digest)
        return bool(owner)

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        """See :meth:`eyewall.core.store.Store.touch`."""
        now = self._clock()
        owner = await self._ask(
            layout.TOUCH.on(
                self._session_key(digest),
                layout.microseconds(now),
                layout.life(expires_at, now),
                layout.pack_times(seen_at, expires_at),
            )
        )
        if owner and owner[0]:
            await self._ask(self._enlist(owner[0], digest, expires_at))
        return bool(owner)

    async def delete(self, digest: bytes) -> bool:
        """See :meth:`eyewall.core.store.Store.delete`."""
        owner = await self._ask(layout.DELETE.on(self._session_key(digest)), ends=True)
        if owner and owner[0]:
            await self._delist(owner[0], digest)
        return bool(owner)

    async def sweep(self, now: datetime, limit: int) -> int:  # noqa: ARG002 - the contract's arguments
        """Return 0: the server drops dead records by itself."""
        return 0

    async def close(self) -> None:
        """Close this event loop's connections. Closing twice does nothing more."""
        await self._announcer.close()
        await self._links.close()

    # Capabilities

    async def find_principal(self, principal: str) -> list[Record]:
        """See :meth:`eyewall.core.store.PrincipalIndex.find_principal`."""
        key = self._principal_key(layout.mark_of(principal))
        members = await self._ask(("ZRANGE", key, 0, -1, "WITHSCORES"))
        ends = dict(zip(members[::2], map(float, members[1::2]), strict=True))
        past = layout.microseconds(self._clock() - layout.LISTED_LATE)
        found, stale = [], []
        async for digest, reply in self._values(list(ends)):
            record = self._read_sound(digest, reply)
            if record is not None and record.principal == principal:
                found.append(record)
            elif record is not None or ends[digest] <= past:
                stale.append(digest)  # else it may be on its way: listed, not yet written or prolonged
        if stale:
            await self._ask(("ZREM", key, *stale))
        return found

    async def delete_principal(self, principal: str) -> int:
        """See :meth:`eyewall.core.store.PrincipalIndex.delete_principal`."""
        mark = layout.mark_of(principal)
        key = self._principal_key(mark)
        gone: list[bytes] = []
        for digests in _chunks(await self._ask(("ZRANGE", key, 0, -1))):
            ends = (
                self._ask(layout.DELETE_OF.on(self._session_key(one), mark), ends=True) for one in digests
            )
            gone += [one for one, ended in zip(digests, await asyncio.gather(*ends), strict=True) if ended]
        if gone:
            await self._ask(("ZREM", key, *gone))
        return len(gone)

    async def scan(self) -> AsyncIterator[Record]:
        """See :meth:`eyewall.core.store.Scan.scan`."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", f"{self._prefix}s:") + "*"
        waiting: list[bytes] = []
        async for key in self._links.here().scan(pattern):
            waiting += layout.digest_in(key[len(self._sessions) :])
            if len(waiting) >= AT_ONCE:
                async for record in self._live(waiting):
                    yield record
                waiting = []
        async for record in self._live(waiting):
            yield record

    def announcer(self) -> Announcer:
        """See :meth:`eyewall.core.announcing.Announcing.announcer`."""
        return self._announcer

    # Keys and commands

    def _session_key(self, digest: bytes) -> bytes:
        return self._sessions + layout.text_of(digest)

    def _principal_key(self, mark: bytes) -> bytes:
        return self._principals + layout.text_of(mark)

    def _enlist(self, mark: bytes, digest: bytes, expires_at: datetime) -> Command:
        now, late = self._clock(), layout.LISTED_LATE
        past, end = layout.microseconds(now - late), layout.microseconds(expires_at)
        life = layout.life(expires_at, now, late)
        return layout.ENLIST.on(self._principal_key(mark), past, end, digest, life)

    def _enlisting(self, record: Record) -> tuple[Command, ...]:
        if record.principal is None:
            return ()
        return (self._enlist(layout.mark_of(record.principal), record.digest, record.expires_at),)

    async def _delist(self, mark: bytes, digest: bytes) -> None:
        """Take a session off its principal's list. Should that fail, the list is wrong harmlessly."""
        with contextlib.suppress(StoreUnavailable):
            await self._ask(("ZREM", self._principal_key(mark), digest))

    # Asking and reading

    async def _ask(self, *commands: Command, ends: bool = False) -> Any:
        """Run ``commands`` in order, return the last reply; with ``ends``, once the replicas have it."""
        if ends and self._wait_replicas:
            return await self._ask_and_wait(commands)
        link = self._links.here()
        replies = await link.send(*commands)
        for reply in replies:
            if isinstance(reply, Exception):
                return [sound(reply) for reply in await sent_again(link, commands, replies)][-1]
        return replies[-1]

    async def _ask_and_wait(self, commands: tuple[Command, ...]) -> Any:
        # An end asked for again deletes nothing, and then Valkey's WAIT waits for nothing. So replicas are
        # also sent what they always get, even from a full server; nobody listens, nor need it be allowed.
        notice: Command = ("PUBLISH", f"{self._prefix}w", b"")
        wait: Command = ("WAIT", self._wait_replicas, int(self._timeout * 500))
        commands, link = (*commands, notice, wait), self._links.here()
        *replies, _, counted = await sent_again(link, commands, await link.send(*commands))
        reply, replicas = [sound(reply) for reply in replies][-1], sound(counted)
        if replicas < self._wait_replicas:
            heard = f"{replicas} of {self._wait_replicas} replicas"
            raise StoreUnavailable(f"Redis or Valkey: {heard} took it in time")
        return reply

    def _read(self, digest: bytes, reply: Reply) -> Record | None:
        if isinstance(reply, bytes):
            return layout.unpack(reply, digest, self._clock())
        if is_wrong_type(reply):
            raise DamagedRecordError("not a session record: not even a string")
        sound(reply)
        return None

    def _read_sound(self, digest: bytes, reply: Reply) -> Record | None:
        """As :meth:`_read`, but for lists, from which damaged records are left out."""
        try:
            return self._read(digest, reply)
        except DamagedRecordError:
            return None

    async def _values(self, digests: Sequence[bytes]) -> AsyncIterator[tuple[bytes, Reply]]:
        """Yield what the server holds for each of ``digests``."""
        link = self._links.here()
        for some in _chunks(digests):
            asked = (link.send(("GET", self._session_key(digest))) for digest in some)
            for digest, (reply,) in zip(some, await asyncio.gather(*asked), strict=True):
                yield digest, reply

    async def _live(self, digests: Sequence[bytes]) -> AsyncIterator[Record]:
        async for digest, reply in self._values(digests):
            if (record := self._read_sound(digest, reply)) is not None:
                yield record


def _chunks(digests: Sequence[bytes]) -> Iterable[Sequence[bytes]]:
    return (digests[start : start + AT_ONCE] for start in range(0, len(digests), AT_ONCE))
