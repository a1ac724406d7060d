"""What visitors send beside cookies: other headers, addresses, account names, and where to go next."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urljoin, urlsplit

from eyewall.core.cors import CorsPolicy
from eyewall.core.csrf import MAX_REASON, Origin, parse_origin, source_refusal
from eyewall.settings import Settings
from eyewall.signin.attempt_rules import UNREADABLE, account_name, network_of
from eyewall.signin.device_label import LONGEST, label_of
from eyewall.tornado.next_url import safe_next
from tests.fuzz.kit import SECRET, utf8

HERE: Final = "https://app.example"
FRIEND: Final = "https://friend.example:8443"
OUR_HOST: Final = Origin("https", "app.example", 443)
CORS: Final = CorsPolicy.from_settings(
    Settings(backend="memory", cookie_secret=SECRET, cors_origins=(FRIEND,), cors_credentials=True)
)


def origin(data: bytes) -> bool:
    """What parses reads back as itself; only our own origin and a friend's may pass, whatever is told why."""
    words = utf8(data)
    found = parse_origin(words)
    assert found is None or parse_origin(str(found)) == found
    site, _, host = words.partition("\n")
    for sec_fetch_site in (None, site):
        reason = source_refusal(
            sec_fetch_site=sec_fetch_site, origin=site, scheme="https", host=host, trusted_origins=()
        )
        assert reason is None or (len(reason) <= MAX_REASON and reason.isascii() and reason.isprintable())
    passes = source_refusal(
        sec_fetch_site=None, origin=words, scheme="https", host="app.example", trusted_origins=(FRIEND,)
    )
    assert (passes is None) == (found == OUR_HOST or (found is not None and str(found) == FRIEND))
    return found is not None


def cors(data: bytes) -> bool:
    """Only the one origin that is named gets leave, and in its own spelling."""
    assert CORS is not None
    words = utf8(data)
    allowed = words.isascii() and words.lower() == FRIEND
    for granted in (CORS.actual_headers(words), CORS.preflight_headers(words)):
        assert granted.get("Access-Control-Allow-Origin") == (FRIEND if allowed else None)
        assert ("Access-Control-Allow-Credentials" in granted) == allowed
    return allowed


def next_url(data: bytes) -> bool:
    """Where to go next is a path of this host, for Python's resolver too."""
    url = safe_next(utf8(data), "")
    if url:
        assert url.startswith("/")
        assert not url.startswith(("//", "/\\"))
        assert url.isascii()
        assert url.isprintable()
        assert urlsplit(url).netloc == ""
        assert urlsplit(urljoin(f"{HERE}/sign-in", url)).netloc == "app.example"
    return bool(url)


def network(data: bytes) -> bool:
    """An address counts as one place, and a place as itself."""
    found = network_of(utf8(data))
    if found == UNREADABLE:
        return False
    assert ipaddress.ip_network(found).version in (4, 6)
    return True


def account(data: bytes) -> bool:
    """A name is one account, and not much longer than it was cut to."""
    found = account_name(utf8(data))
    assert len(found) <= 18 * 3 * 1024
    return bool(found)


def device_label(data: bytes) -> bool:
    """A label is short, of one line, and printable."""
    label = label_of(utf8(data))
    assert label
    assert len(label) <= LONGEST
    assert label.isprintable()
    return label != "a browser"


TARGETS: Final = (origin, cors, next_url, network, account, device_label)
