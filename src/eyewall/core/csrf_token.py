"""The CSRF token: proof that a form came from a page that we rendered for this very session.

Nothing is stored for it. The token is a MAC over its *binding*, a few texts that only this session has:

=======================  ==============================================================================
visitor                  binding
=======================  ==============================================================================
signed in                the device ID (made at sign-in, kept when the session gets a new ID) and the
                         principal
anonymous session        the digest of its ID
no session               a pre-session: a random number in a signed cookie of its own, made when a page
                         renders a token, good for 15 minutes, deleted at sign-in
=======================  ==============================================================================

An attacker can get a token of their own, but not a victim's; and a token that was good before somebody signed
in is good for nothing afterwards, which is what makes forged sign-ins and fixed tokens fail.

On the wire a token is base64url of ``mask || (mask XOR plain)``, with a new random mask each time so that a
compressed page does not give it away letter by letter (BREACH). ``plain`` is 39 bytes: ``0x01`` for the
format, 6 of the key ID, 32 of the MAC. 78 bytes are 104 characters without padding: a token has one spelling.

OWASP's CSRF prevention sheet (signed tokens, pre-sessions for sign-in), NIST SP 800-63B-4 5.1.
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from typing import Final

from eyewall.core.client_side import CLOCK_SKEW
from eyewall.core.cookie import CookieAttributes, cookie_values
from eyewall.core.draft import Draft
from eyewall.core.session import Session
from eyewall.core.signed_envelope import SignedEnvelope
from eyewall.core.store import Clock
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.signer import Signer
from eyewall.settings import Settings
from eyewall.settings_rules import NAME_PREFIXES

PRE_SESSION_LIFE: Final = timedelta(minutes=15)
"""How long a sign-in page can be filled in (OWASP: a pre-session is short and ends at sign-in)."""

_RENEW_AFTER: Final = timedelta(minutes=5)
"""From this age on a page gets a new number, so that every page has at least 10 of the 15 minutes."""

_MOST_NUMBERS: Final = 3
"""One every five minutes for fifteen minutes: pages in other tabs stay good until their own end."""

_TIME_BYTES: Final = 8
_NUMBER_BYTES: Final = _TIME_BYTES + 16
_FORMAT: Final = b"\x01"
_PLAIN_BYTES: Final = 39
_KEY_ID_CHARACTERS: Final = 8
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]{104}")

Binding = tuple[str, ...]
"""What a token proves to belong to."""


class CsrfTokens:
    """Makes and checks the CSRF tokens of an application.

    Args:
        keyring: its newest key signs; all of its keys verify.
        settings: those of the session cookie that the pre-session's cookie follows.
        clock: returns the current time (UTC).
    """

    def __init__(self, keyring: KeyRing, settings: Settings, clock: Clock) -> None:
        self._signer = Signer(keyring, "csrf token")
        self._pre_sessions = PreSessions(keyring, settings, clock)

    def make(self, session: Session) -> str:
        """Return a token for the visitor of ``session``: 104 base64url characters, others at each call.

        A visitor without a session gets a pre-session's cookie with this response. Counts as a use of the
        session, so that no shared cache keeps the page.

        Raises:
            StoreUnavailable: the session could not be loaded, so nobody knows whose it is.
        """
        _mark_used(session)
        binding = _binding_of(session.draft) or self._pre_sessions.binding_for_page(session.draft)
        key_id, mac = self._signer.sign(*binding)
        return _masked(_FORMAT + urlsafe_b64decode(f"{key_id}{mac}="))

    def accepts(self, session: Session, token: str) -> bool:
        """Return whether ``token`` was made for the visitor of ``session``.

        A signed-in session accepts only its own. An anonymous one accepts also its pre-session's: the page
        may have been rendered before anything was stored. Any text is safe to pass in.

        Raises:
            StoreUnavailable: the session could not be loaded, so nobody knows whose it is.
        """
        _mark_used(session)
        plain = _unmasked(token)
        if plain is None:
            return False
        text = urlsafe_b64encode(plain).rstrip(b"=").decode("ascii")
        key_id, mac = text[:_KEY_ID_CHARACTERS], text[_KEY_ID_CHARACTERS:]
        own = _binding_of(session.draft)
        bindings = [own] if own is not None else []
        if session.principal is None:
            bindings += self._pre_sessions.bindings(session.draft)
        return any(self._signer.verify(key_id, mac, *binding) for binding in bindings)

    def end_pre_session(self, draft: Draft) -> None:
        """Delete the pre-session's cookie with the response, if it has become a signed-in session's.

        To be called when the session is stored and the cookies of the response are about to be rendered.
        """
        record = draft.record
        if record is not None and record.principal is not None:
            self._pre_sessions.end(draft)


class PreSessions:
    """The cookie that binds tokens to a visitor without a session: random numbers, dated and signed.

    Args:
        keyring: its newest key signs; all of its keys verify.
        settings: where the session cookie may travel, this one must.
        clock: returns the current time (UTC).
    """

    def __init__(self, keyring: KeyRing, settings: Settings, clock: Clock) -> None:
        self._envelope = SignedEnvelope(keyring, "pre-session")
        self._clock = clock
        self._cookies = {https: _attributes(settings, https=https) for https in (True, False)}

    def bindings(self, draft: Draft) -> list[Binding]:
        """Return the bindings of the numbers that the browser sent and that are still good."""
        return [_binding_to(number) for number in self._live(draft)]

    def binding_for_page(self, draft: Draft) -> Binding:
        """Return the binding for a page rendered now, and let the response set the cookie if it must."""
        live = self._live(draft)
        if live and self._age(live[0]) < _RENEW_AFTER.total_seconds():
            return _binding_to(live[0])
        issued = int(self._clock().timestamp()).to_bytes(_TIME_BYTES, "big")
        fresh = issued + secrets.token_bytes(_NUMBER_BYTES - _TIME_BYTES)
        cookie = self._cookies[draft.https]
        value = self._envelope.seal(b"".join([fresh, *live][:_MOST_NUMBERS]), cookie.name)
        draft.send_along(cookie.name, cookie.set(value))
        return _binding_to(fresh)

    def end(self, draft: Draft) -> None:
        """Let the response delete the cookie, if the browser has one."""
        cookie = self._cookies[draft.https]
        if cookie_values(draft.cookie_lines, cookie.name):
            draft.send_along(cookie.name, cookie.delete())
        elif draft.companions:
            draft.send_along(cookie.name, None)

    def _live(self, draft: Draft) -> list[bytes]:
        """Return the numbers in the one cookie that is ours, newest first, without those that are too old.

        Two different ones mean that one was planted, and there is no telling which: neither is used then.
        """
        name = self._cookies[draft.https].name
        values = cookie_values(draft.cookie_lines, name)
        opened = {found for value in values if (found := self._envelope.open(value, name)) is not None}
        if len(opened) != 1:
            return []
        together = opened.pop()
        numbers = [together[at : at + _NUMBER_BYTES] for at in range(0, len(together), _NUMBER_BYTES)]
        return [number for number in numbers if self._is_live(number)]

    def _is_live(self, number: bytes) -> bool:
        return -CLOCK_SKEW.total_seconds() <= self._age(number) < PRE_SESSION_LIFE.total_seconds()

    def _age(self, number: bytes) -> float:
        return self._clock().timestamp() - int.from_bytes(number[:_TIME_BYTES], "big")


def _mark_used(session: Session) -> None:
    """Ask who it belongs to, as any handler would; it raises what loading the session has failed with."""
    _ = session.principal


def _binding_of(draft: Draft) -> Binding | None:
    """Return what the session itself binds tokens to, or None while it has nothing that will last."""
    who, record = draft.identity, draft.record
    if who.principal is not None and who.device_id is not None:
        return "device", who.device_id.hex(), who.principal
    # About to be regenerated: the digest that the next request will see is not known yet.
    if record is None or (draft.renew and who.principal is None):
        return None
    return "session", record.digest.hex(), who.principal or ""


def _binding_to(number: bytes) -> Binding:
    return "pre-session", number.hex()


def _attributes(settings: Settings, *, https: bool) -> CookieAttributes:
    """Return the cookie's attributes: this host's alone, so that on HTTPS no subdomain can plant one."""
    secure = https or settings.cookie_secure(https)
    # Two applications on one host have session cookies of two names; these must not meet either.
    name = settings.cookie_name(https)
    for prefix in NAME_PREFIXES:
        name = name.removeprefix(prefix)
    return CookieAttributes(
        f"__Host-{name}-pre" if secure else f"{name}-pre",
        secure=secure,
        # A form in another site's frame, or a frontend on another site, could never sign in with Lax.
        samesite="None" if settings.samesite == "None" and secure else "Lax",
        partitioned=settings.partitioned and secure,
    )


def _masked(plain: bytes) -> str:
    mask = secrets.token_bytes(_PLAIN_BYTES)
    return urlsafe_b64encode(mask + _xor(mask, plain)).decode("ascii")


def _unmasked(token: str) -> bytes | None:
    """Return key ID and MAC, or None for what cannot be a token."""
    if _SHAPE.fullmatch(token) is None:
        return None
    both = urlsafe_b64decode(token)
    plain = _xor(both[:_PLAIN_BYTES], both[_PLAIN_BYTES:])
    return plain[1:] if plain[:1] == _FORMAT else None


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(_PLAIN_BYTES, "big")
