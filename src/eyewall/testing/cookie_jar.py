"""A cookie jar that keeps and sends cookies as strictly as a browser does (RFC 6265bis).

The jars in ``http.cookiejar``, ``requests`` and ``httpx`` know nothing of name prefixes, ``SameSite`` and
size limits, so a test that uses them passes while every browser drops the cookie. This one refuses what
browsers refuse, and remembers each refusal with its reason in :attr:`StrictCookieJar.rejected`.

What it leaves out: the list of public suffixes (a ``Domain`` of one label is refused, ``co.uk`` is not), the
two minutes in which Chrome sends a cookie without ``SameSite`` on a cross-site POST, limits on how many
cookies there are, and the double key of partitioned cookies (they are only kept apart from the others).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

MAX_PAIR_BYTES: Final = 4096
MAX_ATTRIBUTE_BYTES: Final = 1024
MAX_SECONDS: Final = 400 * 24 * 3600

_WHITESPACE: Final = " \t"
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ATTRIBUTES: Final = ("max-age", "expires", "domain", "path", "secure", "httponly", "samesite", "partitioned")
_SAME_SITE: Final = ("lax", "strict", "none")
_NUMBER: Final = re.compile("-?[0-9]+")
_PREFIXES: Final = ("__secure-", "__host-", "__http-", "__host-http-")
_DATE_DELIMITERS: Final = re.compile(r"[\t\x20-\x2f\x3b-\x40\x5b-\x60\x7b-\x7e]+")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE_FIELDS: Final = {
    "time": re.compile(r"([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?![0-9])"),
    "day": re.compile(r"([0-9]{1,2})(?![0-9])"),
    "month": re.compile("(" + "|".join(_MONTHS) + ")", re.IGNORECASE),
    "year": re.compile(r"([0-9]{2,4})(?![0-9])"),
}


class RequestFrom(Enum):
    """Who caused a request, as far as ``SameSite`` cares."""

    SAME_SITE = "a page of the same site, or the user"
    CROSS_SITE_NAVIGATION = "a link or form of another site that changes the address bar"
    CROSS_SITE_SUBRESOURCE = "a fetch, image or frame of another site"


@dataclass(frozen=True, slots=True)
class StoredCookie:
    """A cookie as the jar keeps it. Without ``expires`` it ends with the browser; ``order`` counts up."""

    name: str
    value: str
    domain: str
    host_only: bool
    path: str
    secure: bool
    http_only: bool
    same_site: str
    partitioned: bool
    expires: datetime | None
    order: int

    @property
    def key(self) -> tuple[str, str, bool, str, bool]:
        """What makes two cookies the same cookie."""
        return self.name, self.domain, self.host_only, self.path, self.partitioned


@dataclass(frozen=True, slots=True)
class Rejection:
    """A ``Set-Cookie`` line, or an attribute of one, that was not heeded, and why."""

    line: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Response:
    """Where a ``Set-Cookie`` line came from, its attributes, and what the jar held before."""

    url: str
    host: str
    secure: bool
    request_from: RequestFrom
    attributes: dict[str, str]
    kept: list[StoredCookie]


class StrictCookieJar:
    """A browser's cookies, under RFC 6265bis with the prefixes of the layered-cookies draft and CHIPS.

    Args:
        trust_localhost: let plain http on ``localhost`` and ``127.0.0.1`` set and get ``Secure`` cookies, as
            Chrome and Firefox do and Safari does not.

    Attributes:
        rejected: every ``Set-Cookie`` line that was refused, with the reason, oldest first.
        ignored: every attribute that was passed over while its cookie was kept.
    """

    def __init__(self, *, trust_localhost: bool = False) -> None:
        self.rejected: list[Rejection] = []
        self.ignored: list[Rejection] = []
        self._trust_localhost = trust_localhost
        self._cookies: dict[tuple[str, str, bool, str, bool], StoredCookie] = {}
        self._count = 0

    @property
    def cookies(self) -> list[StoredCookie]:
        """The cookies it holds, oldest first, without those found expired so far."""
        return sorted(self._cookies.values(), key=lambda cookie: cookie.order)

    def receive(
        self, url: str, lines: Iterable[str], now: datetime, request_from: RequestFrom = RequestFrom.SAME_SITE
    ) -> None:
        """Take in the ``Set-Cookie`` lines of a response.

        Args:
            url: where the response came from.
            lines: each line by itself, as latin-1 text.
            now: the time (aware, UTC).
            request_from: who had caused the request.
        """
        for line in lines:
            self._evict(now)
            reason = self._store(url, line, now, request_from)
            if reason is not None:
                self.rejected.append(Rejection(line, reason))
        self._evict(now)

    def header_for(
        self, url: str, now: datetime, request_from: RequestFrom = RequestFrom.SAME_SITE, method: str = "GET"
    ) -> str | None:
        """Return the ``Cookie`` header for a request, or None when it carries no cookie.

        Args:
            url: where the request goes.
            now: the time (aware, UTC).
            request_from: who causes it.
            method: its method; an unsafe one keeps ``Lax`` cookies from crossing sites.
        """
        self._evict(now)
        parts = urlsplit(url)
        host, secure = parts.hostname or "", self._is_secure(url)
        chosen = [
            cookie
            for cookie in self.cookies
            if (cookie.domain == host if cookie.host_only else _domain_matches(host, cookie.domain))
            and _path_matches(parts.path or "/", cookie.path)
            and (secure or not cookie.secure)
            and _may_travel(cookie, request_from, method)
        ]
        chosen.sort(key=lambda cookie: -len(cookie.path))  # stable: then the oldest first
        return "; ".join(f"{c.name}={c.value}" if c.name else c.value for c in chosen) or None

    def _evict(self, now: datetime) -> None:
        dead = [key for key, c in self._cookies.items() if c.expires is not None and c.expires <= now]
        for key in dead:
            del self._cookies[key]

    def _is_secure(self, url: str) -> bool:
        parts = urlsplit(url)
        return parts.scheme in ("https", "wss") or (
            self._trust_localhost and parts.hostname in ("localhost", "127.0.0.1", "::1")
        )

    def _store(self, url: str, line: str, now: datetime, request_from: RequestFrom) -> str | None:
        """Keep the cookie of ``line``, or return why not."""
        if _CONTROLS.search(line):
            return "a control character"
        name, value, rest = _split_pair(line)
        host, attributes = urlsplit(url).hostname or "", self._heeded(line, rest)
        response = _Response(url, host, self._is_secure(url), request_from, attributes, self.cookies)
        cookie = _built(name, value, response, now, self._count)
        for reason, breaks in _RULES:
            if breaks(cookie, response):
                return reason
        self._keep(cookie)
        return None

    def _keep(self, cookie: StoredCookie) -> None:
        if _is_single(cookie.domain):  # a Domain no wider than the host itself is dropped
            cookie = replace(cookie, host_only=True)
        old = self._cookies.get(cookie.key)
        self._cookies[cookie.key] = cookie if old is None else replace(cookie, order=old.order)
        self._count += 1

    def _heeded(self, line: str, rest: list[str]) -> dict[str, str]:
        """Return the attributes a browser heeds, names in lower case; the last of a name wins."""
        heeded: dict[str, str] = {}
        for part in rest:
            name, _, value = part.partition("=")
            name, value = name.strip(_WHITESPACE).lower(), value.strip(_WHITESPACE)
            reason = _why_ignored(name, value)
            if reason is None:
                if name in heeded:
                    self.ignored.append(Rejection(line, f"{name} is given twice; the last one counts"))
                heeded[name] = _normalised(name, value)
            elif name or value:  # a lone ";" says nothing
                self.ignored.append(Rejection(line, reason))
        return heeded


def _has_prefix(text: str, *prefixes: str) -> bool:
    return text.lower().startswith(prefixes)


def _overlays_secure(cookie: StoredCookie, response: _Response) -> bool:
    """Whether an insecure response would hide or replace a Secure cookie."""
    if cookie.secure or response.secure:
        return False
    return any(
        other.secure
        and other.name == cookie.name
        and (_domain_matches(other.domain, cookie.domain) or _domain_matches(cookie.domain, other.domain))
        and _path_matches(cookie.path, other.path)
        for other in response.kept
    )


def _breaks_host_prefix(cookie: StoredCookie, response: _Response) -> bool:
    bound = cookie.host_only and response.attributes.get("path") == "/"
    return _has_prefix(cookie.name, "__host-") and not bound


# Sections 5.6 and 5.7 of RFC 6265bis, in their order: a cookie is kept when no rule here is broken.
_RULES: Final[tuple[tuple[str, Callable[[StoredCookie, _Response], bool]], ...]] = (
    ("neither name nor value", lambda c, _: not c.name and not c.value),
    (f"name and value over {MAX_PAIR_BYTES} bytes", lambda c, _: len(c.name) + len(c.value) > MAX_PAIR_BYTES),
    ("Domain is a public suffix", lambda c, r: c.domain != r.host and _is_single(c.domain)),
    ("Domain is another host's", lambda c, r: not _domain_matches(r.host, c.domain)),
    ("Secure over an insecure connection", lambda c, r: c.secure and not r.secure),
    ("an insecure response would hide a Secure cookie", _overlays_secure),
    (
        "SameSite cookie set by a cross-site subresource",
        lambda c, r: c.same_site != "none" and r.request_from is RequestFrom.CROSS_SITE_SUBRESOURCE,
    ),
    ("SameSite=None needs Secure", lambda c, _: c.same_site == "none" and not c.secure),
    ("Partitioned needs Secure", lambda c, _: c.partitioned and not c.secure),
    ("its prefix needs Secure", lambda c, _: _has_prefix(c.name, *_PREFIXES) and not c.secure),
    ("__Host- needs Path=/ and no Domain", _breaks_host_prefix),
    ("its prefix needs HttpOnly", lambda c, _: _has_prefix(c.name, *_PREFIXES[2:]) and not c.http_only),
    ("a prefix in a nameless cookie", lambda c, _: not c.name and _has_prefix(c.value, *_PREFIXES)),
)


def _built(name: str, value: str, response: _Response, now: datetime, order: int) -> StoredCookie:
    attributes = response.attributes
    domain = attributes.get("domain", "")
    return StoredCookie(
        name=name,
        value=value,
        domain=domain or response.host,
        host_only=not domain,
        path=attributes.get("path") or _default_path(response.url),
        secure="secure" in attributes,
        http_only="httponly" in attributes,
        same_site=attributes.get("samesite", "lax"),
        partitioned="partitioned" in attributes,
        expires=_expiry(attributes, now),
        order=order,
    )


def _split_pair(line: str) -> tuple[str, str, list[str]]:
    pair, *rest = line.split(";")
    name, equals, value = pair.partition("=")
    if not equals:
        name, value = "", pair
    return name.strip(_WHITESPACE), value.strip(_WHITESPACE), rest


_ATTRIBUTE_RULES: Final[tuple[tuple[str, Callable[[str, str], bool]], ...]] = (
    ("is not an attribute", lambda name, _: name not in _ATTRIBUTES),
    (f"has over {MAX_ATTRIBUTE_BYTES} bytes", lambda _, value: len(value) > MAX_ATTRIBUTE_BYTES),
    ("is not a number", lambda name, value: name == "max-age" and not _NUMBER.fullmatch(value)),
    ("is not a date", lambda name, value: name == "expires" and _cookie_date(value) is None),
    ("does not start with '/'", lambda name, value: name == "path" and not value.startswith("/")),
    ("is unknown", lambda name, value: name == "samesite" and value.lower() not in _SAME_SITE),
)


def _why_ignored(name: str, value: str) -> str | None:
    broken = (reason for reason, breaks in _ATTRIBUTE_RULES if breaks(name, value))
    return next((f"{name[:40]!r} {reason}" for reason in broken), None)


def _normalised(name: str, value: str) -> str:
    if name == "domain":
        return value.removeprefix(".").lower()
    return value.lower() if name == "samesite" else value


def _expiry(attributes: dict[str, str], now: datetime) -> datetime | None:
    """When the cookie ends: Max-Age before Expires, and at most 400 days ahead."""
    if "max-age" in attributes:
        return now + timedelta(seconds=max(0, min(int(attributes["max-age"]), MAX_SECONDS)))
    date = _cookie_date(attributes["expires"]) if "expires" in attributes else None
    return None if date is None else min(date, now + timedelta(seconds=MAX_SECONDS))


def _cookie_date(text: str) -> datetime | None:
    """Read a date as RFC 6265bis 5.1.1 does: the fields in any order, each from the first token that fits."""
    found: dict[str, re.Match[str]] = {}
    for token in _DATE_DELIMITERS.split(text):
        for field, pattern in _DATE_FIELDS.items():
            match = pattern.match(token)
            if match and field not in found:
                found[field] = match
                break
    if len(found) < len(_DATE_FIELDS):
        return None
    year = int(found["year"][1])
    year += 1900 if 70 <= year <= 99 else 2000 if year < 70 else 0
    month, day = _MONTHS.index(found["month"][1].lower()) + 1, int(found["day"][1])
    hour, minute, second = map(int, found["time"].groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _is_single(host: str) -> bool:
    """Whether ``host`` has no domain above it: one label, or an IP address."""
    return "." not in host or host.rpartition(".")[2].isdigit()


def _domain_matches(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _default_path(url: str) -> str:
    path = urlsplit(url).path
    return path[: path.rfind("/")] or "/" if path.startswith("/") else "/"


def _path_matches(path: str, cookie_path: str) -> bool:
    if path == cookie_path:
        return True
    return path.startswith(cookie_path) and (cookie_path.endswith("/") or path[len(cookie_path)] == "/")


def _may_travel(cookie: StoredCookie, request_from: RequestFrom, method: str) -> bool:
    if request_from is RequestFrom.SAME_SITE or cookie.same_site == "none":
        return True
    safe = method in ("GET", "HEAD", "OPTIONS", "TRACE")
    return cookie.same_site == "lax" and safe and request_from is RequestFrom.CROSS_SITE_NAVIGATION
