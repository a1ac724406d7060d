"""What one request changed, kept apart from what it read, so that it can be applied again.

Two requests that run at the same time each load the session, change something and save. The second to
save finds that the record's version has moved on; it loads the newer record and applies its *changes* to
it. Nothing but the keys it touched is written, so the other request's keys survive.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from eyewall.core.payload import FlashEntry, Payload


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Who the session belongs to from now on; None detaches the principal.

    The fields are those of :class:`~eyewall.core.payload.Payload`.
    """

    principal: str | None
    authenticated_at: datetime | None
    device_id: bytes | None = None
    method: str | None = None


NOBODY: Final = Identity(None, None)
"""The identity of an anonymous session."""


def identity_of(payload: Payload) -> Identity:
    """Return who a stored session belongs to."""
    return Identity(payload.principal, payload.authenticated_at, payload.device_id, payload.method)


class Changes(msgspec.Struct):
    """The changes of one request, in a form that can be applied to any version of the record.

    Args:
        cleared: everything that was there before is dropped first.
        deleted: keys that go.
        assigned: keys that are set, with their encoded values.
        flashed: messages to add.
        taken: ids of the messages that were read.
        identity: a change of principal, if any.
        goes_along: the new ID that is asked for is given also where another request has given the session one
            meanwhile: whoever has changed the credentials must not lose it to a copy of the old ID.
    """

    cleared: bool = False
    deleted: set[str] = msgspec.field(default_factory=set)
    assigned: dict[str, bytes] = msgspec.field(default_factory=dict)
    flashed: list[FlashEntry] = msgspec.field(default_factory=list)
    taken: set[bytes] = msgspec.field(default_factory=set)
    identity: Identity | None = None
    goes_along: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.assigned
            or self.deleted
            or self.flashed
            or self.taken
            or self.cleared
            or self.identity
            or self.goes_along
        )

    def apply_to(self, base: Payload) -> Payload:
        """Return ``base`` with these changes; ``base`` itself is left alone."""
        who = base if self.identity is None else self._identity_over(base, self.identity)
        return Payload(
            format=1,
            data=self._data_over(base),
            flash=self._flash_over(base),
            principal=who.principal,
            authenticated_at=who.authenticated_at,
            device_id=who.device_id,
            method=who.method,
        )

    def _data_over(self, base: Payload) -> dict[str, msgspec.Raw]:
        data = {} if self.cleared else base.data.copy()
        for key in self.deleted:
            data.pop(key, None)
        for key, value in self.assigned.items():
            data[key] = msgspec.Raw(value)
        return data

    def _flash_over(self, base: Payload) -> list[FlashEntry]:
        if not (self.flashed or self.taken or self.cleared):
            return base.flash  # nearly always; nobody changes a list that a payload holds
        flash = [] if self.cleared else [entry for entry in base.flash if entry.id not in self.taken]
        # Applied twice it has the effect of once: a save that was given up may have happened after all.
        known = {entry.id for entry in flash}
        return flash + [entry for entry in self.flashed if entry.id not in known]

    def _identity_over(self, base: Payload, who: Identity) -> Identity:
        if self.cleared or who.principal != base.principal or base.device_id is None:
            return who
        # They had signed in on this device already, perhaps by another request of the same moment.
        return replace(who, device_id=base.device_id)

    def sign_in(self) -> bool:
        """Whether somebody has just proved who they are."""
        return self.identity is not None and self.identity.principal is not None

    def signs_out(self) -> bool:
        """Whether whoever was signed in no longer is."""
        return self.cleared and self.identity == NOBODY

    def may_follow(self, loaded: str | None, gone_on: Payload) -> bool:
        """Whether these changes may move the session on from the ID that another request has given it.

        Only for its owner: who has proved just now that they are, or has loaded it as theirs and changed
        their credentials in it. Never into an anonymous session: applications sign in by hand, too.

        Args:
            loaded: who was signed in when it was loaded.
            gone_on: what it holds now.
        """
        whose = gone_on.principal
        if whose is None or not (self.sign_in() or self.signs_out() or self.goes_along):
            return False
        return whose == loaded or (self.identity is not None and whose == self.identity.principal)

    def warranted_by(self, status: int) -> Changes:
        """Return what may be stored when the request is answered with ``status``.

        A 500 or more keeps nothing but a sign-out. A 304 uses up no flash message: the browser shows an old
        page.
        """
        if status >= 500:
            return self.signing_out_only()
        return replace(self, taken=set()) if status == 304 else self

    def signing_out_only(self) -> Changes:
        """Return what takes effect although the request failed: detaching the principal, and no data."""
        if self.identity is None or self.identity.principal is not None:
            return Changes(goes_along=self.goes_along)
        return Changes(cleared=self.cleared, identity=self.identity)

    def followed_by(self, later: Changes | None) -> Changes:
        """Return one change set with the effect of these changes and then ``later``."""
        if later is None:
            return self
        if later.cleared:
            return replace(
                later,
                identity=later.identity or self.identity,
                goes_along=later.goes_along or self.goes_along,
            )
        assigned = {key: value for key, value in self.assigned.items() if key not in later.deleted}
        return Changes(
            cleared=self.cleared,
            deleted=(self.deleted - later.assigned.keys()) | later.deleted,
            assigned=assigned | later.assigned,
            flashed=[entry for entry in self.flashed if entry.id not in later.taken] + later.flashed,
            taken=self.taken | later.taken,
            identity=later.identity or self.identity,
            goes_along=self.goes_along or later.goes_along,
        )
