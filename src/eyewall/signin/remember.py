"""Remember tokens: bring a user back, signed in but never fresh, after the session has ended.

A browser that was told to remember its user has a *family* of tokens, of which one is valid at a time. Each
is used once: redeeming it starts a session and gives the browser its successor. A token that comes again was
copied, by a thief or from one, so the whole family ends (the scheme of Charles Miller and Barry Jaspan).
The family ends 30 days after the sign-in at the latest, however often it was used: NIST SP 800-63B-4, 2.1.3
asks for the password at least that often.

Browsers open many tabs at once, and each brings the same token. So the one used last is taken again for
:data:`GRACE`, and gives the *same* successor and the *same* session. The store knows hashes only and could
not repeat them; they are therefore derived from what the browser brings, what the store keeps and the key
ring, and none of the three can be left out::

    successor  = HMAC(sub-key "remember successor", verifier . selector . nonce of the rotation)
    session ID = HMAC(sub-key "remember session",   verifier . selector . nonce of the rotation)

One family is one side record, found by its selector and changed by compare-and-swap: which of two requests
was first is decided once for all processes, and in any store.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Annotated, Final

import msgspec

from eyewall.core.record import Device, Instant, Record
from eyewall.core.side_records import Kept, SideRecordReader, SideRecords
from eyewall.core.store import Clock, Store
from eyewall.crypto.keyring import Key, KeyRing
from eyewall.signin.remember_cookie import PresentedToken, RememberCookieSigner

GRACE: Final = timedelta(seconds=30)
"""How long a token that was just used is taken again: time for all tabs of a browser that was reopened."""

_KIND: Final = "remember token"
_SELECTOR_BYTES: Final = 16
_VERIFIER_BYTES: Final = 32
_NONCE_BYTES: Final = 16
_SUCCESSOR: Final = "remember successor"
_SESSION: Final = "remember session"

_Hash = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Rotation(msgspec.Struct, frozen=True, array_like=True):
    """The last use of a family: what is needed to answer another tab in the same way.

    Args:
        used: SHA-256 of the verifier that was used up.
        at: when (UTC).
        nonce: random bytes that went into its successor.
        key_id: the key that went into it.
    """

    used: _Hash
    at: Instant
    nonce: bytes
    key_id: str


class RememberToken(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The stored half of a family of remember tokens; nothing in it can be sent as a cookie.

    Args:
        principal: who comes back; the record's ``principal`` is the copy that stores index.
        device_id: of the sign-in; the sessions that are started from here get it too.
        valid: SHA-256 of the one verifier that is good for the next use.
        issued_at: when the principal signed in (UTC).
        ends_at: from this moment on no token of the family is any good (UTC); never moves.
        device: where the principal signed in; the record has a copy for lists.
        last: the last use, or None before the first.
    """

    principal: str
    device_id: bytes
    valid: _Hash
    issued_at: Instant
    ends_at: Instant
    device: Device | None = None
    last: Rotation | None = None


_reader: Final = SideRecordReader(_KIND, RememberToken)


def token_in(record: Record) -> RememberToken | None:
    """Return the family that ``record`` keeps, or None for any other record, and for a damaged one.

    Deleting the record ends the family.
    """
    return _reader.read(record)


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A token was good: what to start, and what to send. The secrets are not in its ``repr``.

    Args:
        principal: who is back. Not fresh: they have proved nothing now (NIST SP 800-63B-4, 5.1).
        device_id: what the new session's ``device_id`` is to be.
        session_id: the new session's ID; all requests that bring this token at once get the same.
        value: the successor, as the cookie's new value.
        ends_at: when the family ends (UTC), and the cookie with it.
        was_first: whether this request used the token; the others of the same moment came second.
    """

    principal: str
    device_id: bytes
    session_id: str = field(repr=False)
    value: str = field(repr=False)
    ends_at: datetime
    was_first: bool


@dataclass(frozen=True, slots=True)
class Replayed:
    """A token came again: somebody has a copy.

    The sessions must be ended, and after them the family (:meth:`RememberTokens.end`): should that fail
    half-way, the next replay is noticed as this one was.

    Args:
        principal: whose it was.
        device_id: of the sessions that were started from it, which should end too.
    """

    principal: str
    device_id: bytes


class _Verdict(Enum):
    GONE = auto()
    VALID = auto()
    JUST_USED = auto()
    REPLAY = auto()


class RememberTokens:
    """Issues, redeems and ends remember tokens.

    Every method that awaits raises :class:`~eyewall.errors.StoreUnavailable` when the store does not answer;
    whether anything was changed is unknown then. The browser still has the token it brought, and the next
    request within :data:`GRACE` finds out.

    Args:
        store: keeps the hashes; any store that is on the server.
        clock: returns the current time (UTC).
        keyring: its newest key signs and derives; all of its keys verify. A key must stay in the ring for
            ``life`` after it was retired, or what it signed is forgotten.
        life: how long a family lives from its sign-in on.
    """

    def __init__(self, store: Store, clock: Clock, keyring: KeyRing, life: timedelta) -> None:
        self._records = SideRecords(store, clock, _KIND, RememberToken)
        self._clock = clock
        self._keyring = keyring
        self._life = life
        self._cookie = RememberCookieSigner(keyring)

    def read(self, cookie_name: str, values: Iterable[str]) -> PresentedToken | None:
        """Return the token that a request brings, or None; does not ask the store.

        Args:
            cookie_name: the cookie's name.
            values: every value the request has under that name.

        Returns:
            The token, if exactly one of the values was made by us for this name. Whether it is still good,
            :meth:`redeem` finds out.
        """
        return self._cookie.read(cookie_name, values)

    async def issue(
        self, cookie_name: str, *, principal: str, device_id: bytes, device: Device | None
    ) -> tuple[str, datetime]:
        """Begin a family of tokens for a principal who has just signed in.

        Args:
            cookie_name: the cookie that the first token will be in.
            principal: who signed in.
            device_id: the session's.
            device: where from, or None.

        Returns:
            The cookie's value, and when the family ends (UTC).
        """
        first = PresentedToken(_random_text(_SELECTOR_BYTES), _random_text(_VERIFIER_BYTES))
        now = self._clock()
        token = RememberToken(
            principal=principal,
            device_id=device_id,
            valid=_hash(first.verifier),
            issued_at=now,
            ends_at=now + self._life,
            device=device,
        )
        await self._records.update(first.selector, lambda _nothing_yet: _kept(token))
        return self._cookie.issue(cookie_name, first), token.ends_at

    async def redeem(self, cookie_name: str, presented: PresentedToken) -> Redeemed | Replayed | None:
        """Use a token: once, or together with the other tabs of the same :data:`GRACE`.

        A reply that never reached the browser cannot be told from a theft: the browser brings the token
        again, which works within the grace, and counts as a replay after it. The user then has to sign in,
        as after a theft. The same goes for a request that was cancelled half-way.

        Args:
            cookie_name: the cookie that the successor will be in.
            presented: what :meth:`read` returned.

        Returns:
            What to start and to send; or that the token was a copy, and its device must end; or None when
            nothing is known of it: it ended, it was revoked, or its key was dropped. Several replays of the
            same moment may each be told, so that an error on the way silences none.
        """
        now, used, nonce = self._clock(), _hash(presented.verifier), secrets.token_bytes(_NONCE_BYTES)

        def use_up(token: RememberToken | None) -> Kept[RememberToken] | None:
            if token is None or _judge(token, used, now) is not _Verdict.VALID:
                return None
            last = Rotation(used, now, nonce, self._keyring.current.id)
            valid = _hash(_derived(self._keyring.current, _SUCCESSOR, presented, nonce))
            return _kept(msgspec.structs.replace(token, valid=valid, last=last))

        token = await self._records.update(presented.selector, use_up)
        verdict = _judge(token, used, now)
        if token is None or verdict is _Verdict.GONE:
            return None
        if verdict is _Verdict.REPLAY:
            return Replayed(token.principal, token.device_id)
        return self._answer(cookie_name, presented, token, nonce)

    async def is_live(self, presented: PresentedToken) -> bool:
        """Return whether the family of ``presented`` has neither ended nor been revoked.

        To be asked after a session was started from it: a revocation that ran beside has ended the family,
        and cannot have seen the session.
        """
        token = await self._records.load(presented.selector)
        return token is not None and self._clock() < token.ends_at

    async def end(self, presented: PresentedToken) -> bool:
        """End the family of ``presented``, as signing out does; return whether there was one.

        Any token of the family will do, a used one too: signing out in a slow tab must not fail, and a copy
        that is brought here ends what it would have ended elsewhere.
        """
        return await self._records.delete(presented.selector)

    def _answer(
        self, cookie_name: str, presented: PresentedToken, token: RememberToken, nonce: bytes
    ) -> Redeemed | None:
        last = token.last
        key = None if last is None else self._keyring.find(last.key_id)
        if last is None or key is None:  # dropped from the ring within the grace; nobody's theft
            return None
        successor = PresentedToken(presented.selector, _derived(key, _SUCCESSOR, presented, last.nonce))
        return Redeemed(
            principal=token.principal,
            device_id=token.device_id,
            session_id=_derived(key, _SESSION, presented, last.nonce),
            value=self._cookie.issue(cookie_name, successor),
            ends_at=token.ends_at,
            was_first=last.nonce == nonce,
        )


def _judge(token: RememberToken | None, verifier_hash: bytes, now: datetime) -> _Verdict:
    """Decide what a verifier with a valid MAC is, ``now``."""
    if token is None or now >= token.ends_at:
        return _Verdict.GONE
    if hmac.compare_digest(token.valid, verifier_hash):
        return _Verdict.VALID
    last = token.last
    # Only the token used last has a grace. The one before it is a replay even when both were used within
    # 30 s, which takes a session that ended at once: a slow tab signed out is better than a longer window.
    if last is None or not hmac.compare_digest(last.used, verifier_hash):
        return _Verdict.REPLAY
    # Clocks of two servers differ a little, so a use may seem to lie ahead; a clock that was set back an hour
    # must not make the grace an hour longer.
    return _Verdict.JUST_USED if abs(now - last.at) <= GRACE else _Verdict.REPLAY


def _kept(token: RememberToken) -> Kept[RememberToken]:
    return Kept(token, token.ends_at, principal=token.principal, device=token.device)


def _hash(verifier: str) -> bytes:
    return hashlib.sha256(verifier.encode("ascii")).digest()


def _derived(key: Key, purpose: str, presented: PresentedToken, nonce: bytes) -> str:
    """Return 256 bits as 43 characters: the shape of a verifier, and of a session ID."""
    material = f"{presented.verifier}.{presented.selector}.".encode("ascii") + nonce
    return _text(hmac.digest(key.derive(purpose), material, "sha256"))


def _random_text(size: int) -> str:
    return _text(secrets.token_bytes(size))


def _text(octets: bytes) -> str:
    return urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
