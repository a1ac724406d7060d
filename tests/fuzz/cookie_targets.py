"""What browsers send as cookies, and what is set in them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from tornado.web import Application

from eyewall.core.client_side import PURPOSE, ClientSideSessions
from eyewall.core.cookie import (
    MAX_CHARACTERS_READ,
    MAX_PAIR_BYTES,
    MOST_VALUES,
    CookieAttributes,
    cookie_values,
)
from eyewall.core.cookie_values import PlainValues
from eyewall.core.csrf_token import CsrfTokens, PreSessions
from eyewall.core.draft import Draft
from eyewall.core.manager import Manager
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.core.signed_envelope import SignedEnvelope
from eyewall.core.stamped_values import StampedValues
from eyewall.crypto.sealer import Sealer
from eyewall.crypto.signer import Signer
from eyewall.errors import CookieError
from eyewall.settings import Settings
from eyewall.signin.remember_cookie import RememberCookieSigner
from eyewall.stores.memory import MemoryStore
from eyewall.tornado.signed_values import TornadoValues
from tests.fuzz.kit import CLOCK, DIGEST, NAME, RING, SECRET, latin, utf8

SIGNER: Final = SessionCookieSigner(RING)
REMEMBER: Final = RememberCookieSigner(RING)
ENVELOPE: Final = SignedEnvelope(RING, "fuzz")
SEALER: Final = Sealer(RING, "fuzz")
STAMPED: Final = StampedValues(ENVELOPE, CLOCK)
CLIENT_SIDE: Final = ClientSideSessions(Sealer(RING, PURPOSE), CookieAttributes(NAME, secure=True))
PLAIN: Final = PlainValues()
TORNADO: Final = TornadoValues(Application(cookie_secret=SECRET), CLOCK)
SETTINGS: Final = Settings(backend="memory", cookie_secret=SECRET)
CSRF: Final = CsrfTokens(RING, SETTINGS, CLOCK)
PRE_SESSIONS: Final = PreSessions(RING, SETTINGS, CLOCK)
PRE_SESSION: Final = "__Host-session-pre"
CSRF_SIGNER: Final = Signer(RING, "csrf token")
PRE_ENVELOPE: Final = SignedEnvelope(RING, "pre-session")
MANAGER: Final = Manager(SETTINGS, MemoryStore(clock=CLOCK), CLOCK)
MANAGER.use_keyring(RING)


def cookie_header(data: bytes) -> bool:
    """The values are those that the rules of RFC 6265bis find; of too much, those at the front."""
    lines = latin(data).split("\n")
    values = cookie_values(lines, NAME)
    all_values = [value for line in lines for value in _values_by_the_book(line)]
    assert values == all_values[: len(values)]
    assert values == all_values or len(data) > MAX_CHARACTERS_READ or len(values) == MOST_VALUES
    return bool(values)


def _values_by_the_book(line: str) -> list[str]:
    """As `cookie_values` for one line, with nothing left out for speed."""
    found = []
    for pair in line.split(";"):
        name, equals, value = pair.partition("=")
        if equals and re.sub(r"\A[ \t]+|[ \t]+\Z", "", name) == NAME:
            found.append(re.sub(r"\A[ \t]+|[ \t]+\Z", "", value))
    return found


def set_cookie(data: bytes) -> bool:
    """A cookie is refused, or is one line that says exactly what was asked, and reads back the same."""
    name, path, domain, value = (*utf8(data).split("\n"), "", "", "")[:4]
    try:
        line = CookieAttributes(name, path=path or "/", domain=domain or None).set(value)
    except CookieError as error:
        assert re.fullmatch(r"[ -~]{1,500}", str(error))  # noqa: PT017 - some are set
        return False
    assert line.isascii()
    assert line.isprintable()
    asked = [f"{name}={value}", f"Path={path or '/'}", *([f"Domain={domain}"] if domain else [])]
    assert line.split("; ") == [*asked, "HttpOnly", "SameSite=Lax"]
    assert len(asked[0]) <= MAX_PAIR_BYTES + 1
    assert cookie_values([asked[0]], name) == [value]
    return True


def session_cookie(data: bytes) -> bool:
    """Nothing is accepted but, character for character, what we issue."""
    value = latin(data)
    session_id = SIGNER.read(NAME, value)
    assert session_id is None or SIGNER.issue(NAME, session_id) == value
    return session_id is not None


def remember_cookie(data: bytes) -> bool:
    """As the session cookie."""
    value = latin(data)
    token = REMEMBER.read(NAME, [value])
    assert token is None or REMEMBER.issue(NAME, token) == value
    return token is not None


def signed(data: bytes) -> bool:
    """Nothing is accepted but what we sign."""
    value = latin(data)
    opened = ENVELOPE.open(value, NAME)
    assert opened is None or ENVELOPE.seal(opened, NAME) == value
    return opened is not None


def sealed(data: bytes) -> bool:
    """Whatever opens was sealed here: nobody can make another one."""
    opened = SEALER.open(latin(data), NAME)
    assert opened in (None, b"a plain text")
    blob = SEALER.open_bytes(data, NAME)
    assert blob in (None, b"a plain text")
    return opened is not None or blob is not None


def stamped(data: bytes) -> bool:
    """A signed value with its dates is read or not, without an error, also when its inside is anything."""
    STAMPED.decode(NAME, [ENVELOPE.seal(data, NAME)])
    return STAMPED.decode(NAME, [latin(data)]) is not None


def plain_value(data: bytes) -> bool:
    """What is read can be set, and reads back the same."""
    reading = PLAIN.decode(NAME, [latin(data)])
    assert reading is not None
    sent = PLAIN.encode(NAME, reading.value, None, {})
    assert PLAIN.decode(NAME, [sent]) == reading or len(sent) > MAX_PAIR_BYTES
    return True


def tornado_value(data: bytes) -> bool:
    """Tornado's signed values are read when the MAC over all in front of it is right, and only then."""
    words = latin(data)
    reading = TORNADO.decode(NAME, [words])
    if reading is None:
        return False
    bare = words.strip('"')
    front, _, mac = bare.rpartition("|")
    right = hmac.new(SECRET.encode(), f"{front}|".encode("latin-1"), hashlib.sha256).hexdigest()
    assert hmac.compare_digest(mac, right)
    assert bare.startswith("2|")
    assert reading.value == base64.b64decode(front.rpartition(":")[2])
    return True


def client_side(data: bytes) -> bool:
    """Up to three cookies, in any order and number, open nothing that we did not seal."""
    parts = latin(data).split("\n")
    names = CLIENT_SIDE.names
    record = CLIENT_SIDE.read(
        lambda name: parts[names.index(name) :: len(names)] if name in names else [], CLOCK()
    )
    assert record is None or record.digest == DIGEST
    return record is not None


def csrf_token(data: bytes) -> bool:
    """A token, and after a line end the pre-session's cookie: good only if we made both for each other."""
    token, _, cookie = latin(data).partition("\n")
    session = MANAGER.open([f"{PRE_SESSION}={cookie}"], https=True)
    accepted = CSRF.accepts(session, token)
    assert accepted == (_unmasked_by_the_book(token) in _plain_tokens(session.draft))
    return accepted


def _unmasked_by_the_book(token: str) -> bytes | None:
    if not re.fullmatch(r"[A-Za-z0-9_-]{104}", token):
        return None
    both = base64.urlsafe_b64decode(token)
    return bytes(mask ^ masked for mask, masked in zip(both[:39], both[39:], strict=True))


def _plain_tokens(draft: Draft) -> list[bytes]:
    """What a good token is without its mask, for each of the pre-sessions that the browser brought."""
    made = [CSRF_SIGNER.sign(*binding) for binding in PRE_SESSIONS.bindings(draft)]
    return [b"\x01" + base64.urlsafe_b64decode(f"{key_id}{mac}=") for key_id, mac in made]


def pre_session(data: bytes) -> bool:
    """The pre-session's cookie: its numbers, as long as they are young; also with anything signed inside."""
    value = latin(data)
    for each in (value, PRE_ENVELOPE.seal(data, PRE_SESSION)):
        draft = MANAGER.open([f"{PRE_SESSION}={each}"], https=True).draft
        assert len(PRE_SESSIONS.bindings(draft)) <= len(data) // 24 + 1
        PRE_SESSIONS.binding_for_page(draft)
        assert all(len(line) < MAX_PAIR_BYTES for line in draft.companions.values())
    return PRE_ENVELOPE.open(value, PRE_SESSION) is not None


TARGETS: Final = (
    cookie_header,
    set_cookie,
    session_cookie,
    remember_cookie,
    signed,
    sealed,
    stamped,
    plain_value,
    tornado_value,
    client_side,
    csrf_token,
    pre_session,
)
