"""One entry per format that others can write: each takes any bytes, and fails when a rule is broken.

The same entries serve hypothesis (``test_formats.py``, always) and atheris (``run.py``, by ``make fuzz``).
Each returns whether the bytes were accepted, so that a test can see to it that the seeds still are.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

import msgspec

from eyewall.core.announcements import decode as decode_announcement
from eyewall.core.client_side import PURPOSE, ClientSideSessions
from eyewall.core.codec import decode_value, encode_value
from eyewall.core.cookie import CookieAttributes, cookie_values
from eyewall.core.cookie_values import PlainValues
from eyewall.core.csrf import MAX_REASON, parse_origin, source_refusal
from eyewall.core.payload import decode_payload, encode_payload
from eyewall.core.record import Record, decode_record, encode_record
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.core.side_records import SideRecordReader
from eyewall.core.signed_envelope import SignedEnvelope
from eyewall.core.stamped_values import StampedValues
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.sealer import Sealer
from eyewall.errors import ConfigurationError, DamagedRecordError, UnstorableValueError
from eyewall.settings import Settings
from eyewall.signin.attempt_rules import UNREADABLE, account_name, network_of
from eyewall.signin.device_label import LONGEST, label_of
from eyewall.signin.remember_cookie import RememberCookieSigner
from eyewall.store_url import backend_of, folder_of, masked_url
from eyewall.testing.clock import ManualClock
from eyewall.tornado.next_url import safe_next

Target = Callable[[bytes], bool]

NAME: Final = "__Host-session"
CLOCK: Final = ManualClock()
RING: Final = KeyRing.from_secret("Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi")
DIGEST: Final = hashlib.sha256(b"fuzzed").digest()
SECRET_TEXT: Final = "sesame-opens"
SECRET_VARIABLES: Final = frozenset({"EYEWALL_PASSWORD", "EYEWALL_COOKIE_SECRET"})

SIGNER: Final = SessionCookieSigner(RING)
REMEMBER: Final = RememberCookieSigner(RING)
ENVELOPE: Final = SignedEnvelope(RING, "fuzz")
SEALER: Final = Sealer(RING, "fuzz")
STAMPED: Final = StampedValues(ENVELOPE, CLOCK)
CLIENT_SIDE: Final = ClientSideSessions(Sealer(RING, PURPOSE), CookieAttributes(NAME, secure=True))
SIDE_RECORDS: Final = SideRecordReader("fuzz", dict[str, int])
PLAIN: Final = PlainValues()


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _unicode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def cookie_header(data: bytes) -> bool:
    """Every value is a piece of the header, without what ends a value."""
    header = _text(data)
    values = cookie_values([header], NAME)
    for value in values:
        assert ";" not in value
        assert f"{NAME}" in header
        assert value in header
    return bool(values)


def session_cookie(data: bytes) -> bool:
    """Nothing is accepted but, character for character, what we issue."""
    value = _text(data)
    session_id = SIGNER.read(NAME, value)
    assert session_id is None or SIGNER.issue(NAME, session_id) == value
    return session_id is not None


def remember_cookie(data: bytes) -> bool:
    """As the session cookie."""
    value = _text(data)
    token = REMEMBER.read(NAME, [value])
    assert token is None or REMEMBER.issue(NAME, token) == value
    return token is not None


def signed(data: bytes) -> bool:
    """Nothing is accepted but what we sign."""
    value = _text(data)
    opened = ENVELOPE.open(value, NAME)
    assert opened is None or ENVELOPE.seal(opened, NAME) == value
    return opened is not None


def sealed(data: bytes) -> bool:
    """Whatever opens was sealed here: nobody can make another one."""
    opened = SEALER.open(_text(data), NAME)
    assert opened in (None, b"a plain text")
    blob = SEALER.open_bytes(data, NAME)
    assert blob in (None, b"a plain text")
    return opened is not None or blob is not None


def stamped(data: bytes) -> bool:
    """A signed value with its dates is read or not, without an error, also when its inside is anything."""
    STAMPED.decode(NAME, [ENVELOPE.seal(data, NAME)])
    return STAMPED.decode(NAME, [_text(data)]) is not None


def plain_value(data: bytes) -> bool:
    """What is read can be set, and reads back the same."""
    reading = PLAIN.decode(NAME, [_text(data)])
    assert reading is not None
    again = PLAIN.decode(NAME, [PLAIN.encode(NAME, reading.value, None, {})])
    assert again == reading
    return True


def client_side(data: bytes) -> bool:
    """Up to three cookies, in any order and number, open nothing that we did not seal."""
    parts = _text(data).split("\n")
    names = CLIENT_SIDE.names
    record = CLIENT_SIDE.read(
        lambda name: parts[names.index(name) :: len(names)] if name in names else [], CLOCK()
    )
    assert record is None or record.digest == DIGEST
    return record is not None


def record(data: bytes) -> bool:
    """Bytes are damage, or a record that comes back equal."""
    try:
        found = decode_record(data)
    except DamagedRecordError:
        return False
    assert decode_record(encode_record(found)) == found
    return True


def payload(data: bytes) -> bool:
    """A body with the right checksum is damage, or a payload that comes back equal."""
    checksum = hashlib.blake2b(data, digest_size=8, key=DIGEST).digest()
    try:
        found = decode_payload(checksum + data, DIGEST)
    except DamagedRecordError:
        return False
    again = decode_payload(encode_payload(found, DIGEST), DIGEST)
    assert again == found
    return True


def _surprised(error: Exception) -> bool:
    raise AssertionError(f"read, but not to be stored again: {error}")


def stored_value(data: bytes) -> bool:
    """Bytes are damage, or a value that can be stored again and then stays as it is.

    But one that somebody has nested too deep in the store itself is read, and refused at the next save.
    """
    try:
        value = decode_value(data)
    except DamagedRecordError:
        return False
    try:
        once = encode_value("k", value)
    except UnstorableValueError as error:
        return "nests deeper" in str(error) or _surprised(error)
    assert encode_value("k", decode_value(once)) == once
    return True


def side_record(data: bytes) -> bool:
    """A side record's payload is one of its kind or nothing; also with the right checksum."""
    checksum = hashlib.blake2b(data, digest_size=8, key=DIGEST, person=b"side record").digest()
    whole = Record(
        digest=DIGEST,
        version=1,
        payload=checksum + data,
        created_at=CLOCK(),
        seen_at=CLOCK(),
        expires_at=CLOCK() + timedelta(hours=1),
        successor=DIGEST,
    )
    found = SIDE_RECORDS.read(whole)
    assert found is None or isinstance(found, dict)
    if data != checksum:
        assert SIDE_RECORDS.read(msgspec.structs.replace(whole, payload=data)) is None
    return found is not None


def announcement(data: bytes) -> bool:
    """A message is one of ours or nothing."""
    return decode_announcement(data) is not None


def origin(data: bytes) -> bool:
    """What parses reads back as itself; what is refused is told in one short line of ASCII."""
    text = _unicode(data)
    found = parse_origin(text)
    assert found is None or parse_origin(str(found)) == found
    site, _, host = text.partition("\n")
    for sec_fetch_site in (None, site):
        reason = source_refusal(
            sec_fetch_site=sec_fetch_site, origin=site, scheme="https", host=host, trusted_origins=()
        )
        assert reason is None or (len(reason) <= MAX_REASON and reason.isascii() and reason.isprintable())
    return found is not None


def next_url(data: bytes) -> bool:
    """Where to go next is a path of this host."""
    url = safe_next(_unicode(data), "")
    if url:
        assert url.startswith("/")
        assert not url.startswith(("//", "/\\"))
        assert url.isascii()
        assert url.isprintable()
        assert urlsplit(url).netloc == ""
    return bool(url)


def settings(data: bytes) -> bool:
    """Lines of ``NAME=value``, the prefix left out: settings, or one clear error."""
    lines = [line.partition("=") for line in _unicode(data).replace("\0", "").split("\n")]
    environ = {f"EYEWALL_{name}": value for name, _, value in lines if name}
    shown = {value for name, value in environ.items() if name not in SECRET_VARIABLES}
    hidden = not any(SECRET_TEXT in each.lower() for each in shown | environ.keys())
    try:
        found = Settings.from_environment(environ=environ, dotenv=None)
    except ConfigurationError as error:
        assert not hidden or SECRET_TEXT not in str(error).lower()  # noqa: PT017 - some lines are right
        return False
    assert not hidden or SECRET_TEXT not in repr(found).lower()
    return True


def store_url(data: bytes) -> bool:
    """No password is shown; a folder is absolute; everything else is a ValueError."""
    text = _unicode(data)
    user, separator, rest = text.partition("@")
    if separator and "://" in user and SECRET_TEXT not in text:
        scheme, _, _ = user.partition("://")
        assert SECRET_TEXT not in masked_url(f"{scheme}://u:{SECRET_TEXT}@{rest}").replace(scheme, "")
    masked_url(text)
    try:
        folder = folder_of(text)
    except ValueError:
        return backend_of(text) is not None
    assert folder.is_absolute()
    return True


def network(data: bytes) -> bool:
    """An address counts as one place, and a place as itself."""
    found = network_of(_unicode(data))
    if found == UNREADABLE:
        return False
    assert ipaddress.ip_network(found).version in (4, 6)
    return True


def account(data: bytes) -> bool:
    """A name is one account, however often it is looked at; and not much longer than it was cut to."""
    found = account_name(_unicode(data))
    assert len(found) <= 18 * 3 * 1024
    return bool(found)


def device_label(data: bytes) -> bool:
    """A label is short, of one line, and printable."""
    label = label_of(_unicode(data))
    assert label
    assert len(label) <= LONGEST
    assert label.isprintable()
    return label != "a browser"


TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for target in (
        cookie_header,
        session_cookie,
        remember_cookie,
        signed,
        sealed,
        stamped,
        plain_value,
        client_side,
        record,
        payload,
        stored_value,
        side_record,
        announcement,
        origin,
        next_url,
        settings,
        store_url,
        network,
        account,
        device_label,
    )
}
"""Every entry by its name, which is also the name of the folder of its seeds."""
