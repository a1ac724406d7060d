"""Devices: where a principal is signed in, as they see it and as an operator does, and ending them.

A *device* is made at each sign-in and is known by a random ``device_id``: to it belong every session that
has this ID, and the remember token, if there is one. So a device keeps its place in the list when its session
gets a new ID, and when the token starts another session; and ending it ends both, or it would come back.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from eyewall.core.events import EventKind, EventStream
from eyewall.core.payload import Payload, decode_payload, empty_payload
from eyewall.core.record import Device, Record
from eyewall.core.store import PrincipalIndex, Store
from eyewall.errors import ConfigurationError, DamagedRecordError, StoreUnavailable
from eyewall.signin.device_label import label_of

MOST_PASSES: Final = 5
"""How often ending looks again for what was started meanwhile, before it gives up."""

_HANDLE_BYTES: Final = 16


class TokenOfDevice(Protocol):
    """What must be known of a remember token."""

    @property
    def device_id(self) -> bytes:
        """Of the sign-in that it was issued at."""

    @property
    def issued_at(self) -> datetime:
        """When that was (UTC)."""


@dataclass(frozen=True, slots=True)
class SignedInDevice:
    """One device, as a list shows it. Nothing in it opens a session.

    Args:
        handle: names it to :meth:`Devices.revoke`; safe in a page or a URL.
        label: what it seems to be, for people; see :func:`~eyewall.signin.device_label.label_of`.
        user_agent: the ``User-Agent`` header at sign-in, or "". A stranger's text.
        address: the IP address at sign-in, or "".
        signed_in_at: when its principal signed in there (UTC).
        seen_at: when it was used last, to within the touch interval (UTC).
        method: how its principal signed in, in the application's words, or None.
        current: whether the list was asked for from it.
        active: whether it has a live session.
        remembered: whether it has a remember token, which can start one.
    """

    handle: str
    label: str
    user_agent: str
    address: str
    signed_in_at: datetime
    seen_at: datetime
    method: str | None
    current: bool
    active: bool
    remembered: bool


@dataclass(slots=True)
class DeviceRecords:
    """All that the store keeps of one device.

    Args:
        handle: its public name.
        device_id: None for a session of an older version, and for one whose payload is damaged.
        sessions: the records of its sessions, and what is known of each.
        tokens: the records of its remember token, and the token.
        has_kept: whether a session was left out of it, because it stays.
        markers: what its sessions left where they got a new ID, a moment ago.
    """

    handle: str
    device_id: bytes | None
    sessions: list[tuple[Record, Payload]] = field(default_factory=list)
    tokens: list[tuple[Record, TokenOfDevice]] = field(default_factory=list)
    has_kept: bool = False
    markers: list[Record] = field(default_factory=list)

    def without(self, kept: Sequence[bytes], *, its_tokens: bool) -> DeviceRecords:
        """Return this without one session, and, if so asked, without its token.

        Args:
            kept: the digests the session has had, the live one last; empty when it has ended. What names
                this one as its predecessor is the same session, on its way to a new ID.
            its_tokens: whether to leave the token in here.
        """
        live = kept[-1] if kept else None
        sessions = [
            (record, payload)
            for record, payload in self.sessions
            if record.digest not in kept and (live is None or payload.predecessor != live)
        ]
        has_kept = len(sessions) < len(self.sessions)
        tokens = self.tokens if its_tokens or not has_kept else []
        markers = [one for one in self.markers if one.digest not in kept and one.successor not in kept]
        return DeviceRecords(self.handle, self.device_id, sessions, tokens, has_kept, markers)

    def is_there(self) -> bool:
        """Whether anything is left that could bring somebody in."""
        return bool(self.sessions or self.tokens)

    def records(self) -> list[Record]:
        """Return all its records, the one used last first."""
        records = [record for record, _ in (*self.sessions, *self.tokens)]
        return sorted(records, key=lambda record: (record.seen_at, record.digest), reverse=True)

    def seen_at(self) -> datetime:
        """Return when it was used last."""
        return self.records()[0].seen_at


class Devices:
    """Lists and ends the devices of one principal at a time.

    Every method may raise :class:`~eyewall.errors.StoreUnavailable`, and
    :class:`~eyewall.errors.ConfigurationError` when the store is no
    :class:`~eyewall.core.store.PrincipalIndex`.

    Args:
        store: where sessions and tokens are kept.
        end: ends a session, also under an ID it has got meanwhile
            (:meth:`Writer.end_record <eyewall.core.writer.Writer.end_record>`).
        lineage: returns the digests that a session has had since it had this one, the live one last; none
            when it has ended (:meth:`~eyewall.core.stored_sessions.StoredSessions.lineage`).
        token_in: returns the remember token in a record, or None when the record is none.
        events: hears of every session that is ended.
    """

    def __init__(
        self,
        store: Store,
        *,
        end: Callable[[Record], Awaitable[object]],
        lineage: Callable[[bytes], Awaitable[Sequence[bytes]]],
        token_in: Callable[[Record], TokenOfDevice | None],
        events: EventStream,
    ) -> None:
        self._store = store
        self._end = end
        self.lineage = lineage
        self._token_in = token_in
        self._events = events

    async def of(self, principal: str, *, current: bytes | None = None) -> list[SignedInDevice]:
        """Return the devices that ``principal`` is signed in on, the one used last first.

        Args:
            principal: whose; nobody else's are ever among them (ASVS 8.2.2).
            current: the ``device_id`` of the session that asks, so that its device is marked.
        """
        there = [device for device in await self.find(principal) if device.is_there()]
        found = sorted(there, key=lambda one: (one.seen_at(), one.handle), reverse=True)
        return [_shown(device, current) for device in found]

    async def revoke(self, principal: str, handle: str, *, keep: bytes | None = None) -> bool:
        """End one device: its sessions and its remember token (ASVS 7.5.2).

        It is out when this returns: its next request is a stranger's. Two things could slip through one look
        at the store: a token that is being redeemed may start one more session, and a session that is being
        given a new ID turns up under another record. So it looks again until it finds nothing more. Sessions
        end before the token: should it fail half-way, the token is there to be noticed again. That leaves a
        redemption that has used the token up and has not yet started its session; whoever redeems must
        therefore look whether the token is still there *after* starting the session.

        Args:
            principal: whose device it must be.
            handle: of the device. Any text: what is no handle, names nothing.
            keep: digest of a session that stays, because somebody else ends it; None ends all.

        Returns:
            False for a handle that nobody has and, indistinguishably, for one that somebody else has.

        Raises:
            StoreUnavailable: also when new sessions of the device keep coming. What was found has ended.
        """
        return bool(await self._end_until_none(principal, lambda device: device.handle == handle, keep))

    async def revoke_all(
        self, principal: str, *, keep: bytes | None = None, tokens_of_kept: bool = False
    ) -> int:
        """End all sessions of ``principal``, or all but one, as :meth:`revoke` does.

        One *session* stays, not one device: whoever has copied the device's remember token has another
        session on what looks like the same device (ASVS 7.4.2, 7.4.3, 7.4.5).

        Args:
            principal: whose.
            keep: digest of the session that stays; None ends all.
            tokens_of_kept: end the remember token of its device, too: after a change of password, what was
                issued before must bring nobody back.

        Returns:
            How many other devices were ended.

        Raises:
            StoreUnavailable: also when new sessions keep coming. What was found has ended.
        """
        ended = await self._end_until_none(principal, lambda _: True, keep, tokens_of_kept=tokens_of_kept)
        if keep is None and isinstance(self._store, PrincipalIndex):
            # What could not be read as anybody's device goes too: an account that is locked must be out, also
            # when this process has not the newest key of those that the records are sealed with.
            await self._store.delete_principal(principal)
        return len(ended)

    async def find(self, principal: str) -> list[DeviceRecords]:
        """Return all that the store keeps of the devices of ``principal``, in no particular order."""
        if not isinstance(self._store, PrincipalIndex):
            raise ConfigurationError(
                f"{type(self._store).__name__} cannot find what belongs to a principal, so devices can be "
                "neither listed nor ended; use a store that is a PrincipalIndex (every store of Eyewall is "
                "one; sessions in their own cookies are in no store)"
            )
        found: dict[str, DeviceRecords] = {}
        for record in await self._store.find_principal(principal):
            if record.successor is None:
                payload = _payload_of(record)
                device_id = payload.device_id
                handle = handle_of(device_id) if device_id else _handle_without_id(record)
                found.setdefault(handle, DeviceRecords(handle, device_id)).sessions.append((record, payload))
            elif (token := self._token_in(record)) is not None:
                handle = handle_of(token.device_id)
                device = found.setdefault(handle, DeviceRecords(handle, token.device_id))
                device.tokens.append((record, token))
            elif record.successor != record.digest and (device_id := _payload_of(record).device_id):
                handle = handle_of(device_id)
                found.setdefault(handle, DeviceRecords(handle, device_id)).markers.append(record)
        return list(found.values())

    async def end(self, device: DeviceRecords) -> None:
        """End what ``device`` lists, its token last.

        Markers go first: a change of ID that fails half-way could otherwise be taken back, over one of them.
        """
        for marker in device.markers:
            await self._store.delete(marker.digest)
        for record, _ in device.sessions:
            await self.end_session(record)
        await self._end_tokens(device)

    async def end_session(self, record: Record) -> None:
        """End one session, and tell."""
        await self._end(record)
        self._events.emit(EventKind.REVOKED, digest=record.digest, principal=record.principal)

    async def _end_tokens(self, device: DeviceRecords) -> None:
        for record, _ in device.tokens:
            await self._store.delete(record.digest)

    async def _end_until_none(
        self,
        principal: str,
        chosen: Callable[[DeviceRecords], bool],
        keep: bytes | None,
        *,
        tokens_of_kept: bool = True,
    ) -> set[str]:
        ended: set[str] = set()
        for _ in range(MOST_PASSES):
            devices = [device for device in await self.find(principal) if chosen(device)]
            # Looked at after the others: whatever the kept session is called among them, it is known here.
            kept = () if keep is None else await self.lineage(keep)
            spared = [device.without(kept, its_tokens=tokens_of_kept) for device in devices]
            ending = [device for device in spared if device.is_there() or device.markers]
            if not ending:
                return ended
            for device in ending:
                await self.end(device)
                if device.is_there() and not device.has_kept:
                    ended.add(device.handle)
        raise StoreUnavailable(
            f"after {MOST_PASSES} times of ending what was found there are new sessions still; try again"
        )


def handle_of(device_id: bytes) -> str:
    """Return the public name of a device: its ``device_id`` in lower-case base32.

    It is no credential, nothing accepts it as one. It is not base64url, which may begin with a hyphen: a
    command would take it for an option.
    """
    return b32encode(device_id).decode("ascii").rstrip("=").lower()


def _handle_without_id(record: Record) -> str:
    # One way: the digest itself would tell which record of a stolen dump is whose.
    hashed = hashlib.blake2b(record.digest, digest_size=_HANDLE_BYTES, person=b"device handle")
    return handle_of(hashed.digest())


def _payload_of(record: Record) -> Payload:
    """Return the payload; an empty one when it is damaged. Such a session must end like any other."""
    try:
        payload = decode_payload(record.payload, record.digest)
    except DamagedRecordError:
        return empty_payload()
    return payload if payload.principal == record.principal else empty_payload()


def _shown(device: DeviceRecords, current: bytes | None) -> SignedInDevice:
    records = device.records()
    place = next((record.device for record in records if record.device is not None), Device())
    began = [record.created_at for record, _ in device.sessions]
    methods = {record.digest: payload.method for record, payload in device.sessions}
    return SignedInDevice(
        handle=device.handle,
        label=label_of(place.user_agent),
        user_agent=place.user_agent,
        address=place.address,
        signed_in_at=min(began + [token.issued_at for _, token in device.tokens]),
        seen_at=records[0].seen_at,
        method=next((found for record in records if (found := methods.get(record.digest))), None),
        current=current is not None and device.device_id == current,
        active=bool(device.sessions),
        remembered=bool(device.tokens),
    )
