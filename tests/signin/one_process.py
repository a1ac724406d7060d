"""What one process has for signing people in: a store's handle, and all that works on it. No HTTP."""

from __future__ import annotations

import secrets
from datetime import timedelta

from eyewall.core.background import Background
from eyewall.core.changes import Changes, Identity
from eyewall.core.codec import encode_value
from eyewall.core.events import Event, EventStream
from eyewall.core.payload import decode_payload
from eyewall.core.record import Device, Record
from eyewall.core.side_records import Kept, SideRecords
from eyewall.core.store import Clock, PrincipalIndex, Store
from eyewall.core.stored_sessions import Issued, Limits
from eyewall.core.timeouts import Timeouts
from eyewall.core.writer import Writer
from eyewall.errors import TooManySessionsError
from eyewall.signin.admission import Admission, WhenFull
from eyewall.signin.devices import Devices
from eyewall.signin.remember import RememberToken, token_in

LIFE = timedelta(hours=1)


class OneProcess:
    """One process on ``store``; make two on one store for two processes."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.clock = clock
        self.events = EventStream(clock)
        self.heard: list[Event] = []
        self.events.subscribe(self.heard.append)
        self.background = Background()
        timeouts = Timeouts(LIFE, LIFE * 24)
        self.writer = Writer(store, timeouts, clock, Limits(65536, 10.0), self.background.spawn)
        self.devices = Devices(
            store,
            end=self.writer.end_record,
            lineage=self.writer.lineage,
            token_in=token_in,
            events=self.events,
        )
        self.tokens = SideRecords(store, clock, "remember token", RememberToken)

    def admission(self, most: int, when_full: WhenFull = "end-oldest", patience: float = 30.0) -> Admission:
        """The limit, patient enough for a machine that does much at once."""
        return Admission(
            self.store,
            self.clock,
            most=most,
            when_full=when_full,
            devices=self.devices,
            events=self.events,
            spawn=self.background.spawn,
            patience=patience,
        )

    async def sign_in(
        self,
        principal: str,
        *,
        device_id: bytes | None = None,
        device: Device | None = None,
        method: str = "password",
    ) -> Record:
        """Start a session of ``principal``, without asking for the limit."""
        identity = Identity(principal, self.clock(), device_id or secrets.token_bytes(16), method)
        issued = await self.writer.create(Changes(identity=identity).apply_to, device)
        return issued.record

    async def admit(self, admission: Admission, principal: str) -> Record | None:
        """Sign in within the limit; None when it was refused."""
        try:
            async with admission.of(principal, own=None):
                return await self.sign_in(principal)
        except TooManySessionsError:
            return None

    async def remember(self, principal: str, device_id: bytes) -> Record:
        """Keep a remember token of a device; returns its record."""
        now = self.clock()
        token = RememberToken(
            principal=principal,
            device_id=device_id,
            valid=secrets.token_bytes(32),
            issued_at=now,
            ends_at=now + LIFE,
        )
        name = secrets.token_hex(8)
        await self.tokens.update(name, lambda _: Kept(token, token.ends_at, principal=principal))
        record = await self.store.load(self.tokens.digest(name))
        assert record is not None
        return record

    async def visit(self) -> Record:
        """Start a session of nobody's."""
        return (await self.writer.create(Changes(assigned={"k": encode_value("k", 1)}).apply_to)).record

    async def regenerate(self, record: Record, principal: str | None = None) -> Issued:
        """Give the session a new ID; with a principal, as signing in does."""
        payload = decode_payload(record.payload, record.digest)
        who = None if principal is None else Identity(principal, self.clock(), secrets.token_bytes(16))
        return await self.writer.move((record, payload), Changes(identity=who).apply_to, restart=False)

    async def sessions(self, principal: str) -> list[Record]:
        """The session records there are."""
        assert isinstance(self.store, PrincipalIndex)
        return [one for one in await self.store.find_principal(principal) if one.successor is None]

    async def close(self) -> None:
        """Let end what is under way, then close the store."""
        await self.background.drained()
        await self.store.close()

    def kinds(self) -> list[str]:
        """Names of the events so far."""
        return [event.kind.name for event in self.heard]
