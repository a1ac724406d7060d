"""Cookies on the wire: reading ``Cookie`` lines and rendering ``Set-Cookie`` lines, both strictly.

Two rules hold for everything here:

1. Reading matches one exact name and nothing that merely looks like it. Whatever else a ``Cookie`` line
   holds was put there by somebody else and is passed over in silence.
2. Rendering checks everything before it returns anything. A cookie that a browser would drop, or that
   could smuggle in another attribute, is a :class:`~eyewall.errors.CookieError`, and no half of it exists.

The lifetime is sent as ``Max-Age`` alone. Every browser prefers it to ``Expires`` (RFC 6265bis 5.7); it is
relative, so a client with a wrong clock keeps the cookie as long as we meant; and it needs no clock here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil
from typing import Final, Literal, NoReturn, TypedDict, Unpack, get_args

from eyewall.errors import CookieError

SameSite = Literal["Lax", "Strict", "None"]
"""The values of the ``SameSite`` attribute, spelt as they must be sent."""

MAX_CHARACTERS_READ: Final = 64 * 1024
"""How much of a request's ``Cookie`` lines is looked at: all that Tornado lets through by default. With less,
whoever can plant cookies in front of ours makes us overlook it, and sign the visitor out."""

MOST_VALUES: Final = 256
"""How many cookies of one name are looked at. Chrome keeps 180 of a whole site and Firefox 150, so more of
one name come from no browser; and looking at 600 that are forged takes longer than all that Tornado does."""

MAX_PAIR_BYTES: Final = 4096
"""Largest name plus value a browser keeps (RFC 6265bis 5.6, ASVS 3.3.5)."""

MAX_ATTRIBUTE_BYTES: Final = 1024
"""Largest attribute value a browser heeds (RFC 6265bis 5.6)."""

MAX_LIFETIME: Final = timedelta(days=400)
"""Longest life a browser grants a cookie (RFC 6265bis 5.5)."""

_WHITESPACE: Final = " \t"
"""All that may surround a name. ``str.strip()`` also takes 0xA0 and 0x85, which forges names."""

_VALUE_BYTES: Final = bytes(c for c in range(0x21, 0x7F) if c not in b'",;\\')
"""The cookie-octets of RFC 6265 4.1.1."""

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PATH: Final = re.compile(r"/[\x21-\x3a\x3c-\x7e]*")
_LABEL: Final = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_DOMAIN: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")

_PREFIX_NEEDS: Final = {
    "__Secure-": ("secure",),
    "__Host-": ("secure", "host"),
    "__Http-": ("secure", "httponly"),
    "__Host-Http-": ("secure", "host", "httponly"),
}
"""What a name's prefix promises (RFC 6265bis 4.1.3; the two ``Http`` ones from the layered-cookies draft)."""


def cookie_values(lines: Sequence[str], name: str) -> list[str]:
    """Return every value sent under ``name``, in the order sent.

    There may be several: a sibling subdomain can set a cookie of the same name, and nothing in the request
    tells which is ours. The caller tries them all. Linear in the size of ``lines``.

    Args:
        lines: each ``Cookie`` header line by itself, decoded as latin-1: Tornado's ``get_list("Cookie")``,
            never ``get("Cookie")``, which joins lines with a comma.
        name: the exact name, case included. An empty one finds nothing.

    Returns:
        The raw values, without the spaces and tabs around them; nothing is unquoted or decoded. Cookies
        that do not end within the first :data:`MAX_CHARACTERS_READ` characters are not seen, nor those
        after the first :data:`MOST_VALUES` of the name.
    """
    values: list[str] = []
    if not name:
        return values
    room = MAX_CHARACTERS_READ
    for line in lines:
        seen = line if len(line) <= room else line[: room + 1].rpartition(";")[0]
        for pair in seen.split(";") if name in seen else ():
            if name in pair:  # spares all other cookies the next two lines, and so halves the time
                key, equals, value = pair.partition("=")
                if equals and key.strip(_WHITESPACE) == name:
                    values.append(value.strip(_WHITESPACE))
                    if len(values) == MOST_VALUES:
                        return values
        room -= len(line)
        if room <= 0:
            break
    return values


class CookieOptions(TypedDict, total=False):
    """What :func:`render_set_cookie` and :func:`render_deletion` take; see :class:`CookieAttributes`."""

    path: str
    domain: str | None
    secure: bool
    httponly: bool
    samesite: SameSite | None
    partitioned: bool


@dataclass(frozen=True, slots=True)
class CookieAttributes:
    """A cookie's name and attributes, checked once, for setting and deleting it many times.

    Args:
        name: an RFC 6265 token. The prefixes ``__Host-``, ``__Secure-``, ``__Http-`` and ``__Host-Http-``
            are held to what they promise, in exactly this spelling.
        path: where the cookie is sent; starts with ``/``.
        domain: None for this host alone; else a host name whose subdomains get the cookie too.
        secure: send it over HTTPS only.
        httponly: hide it from scripts.
        samesite: when requests caused by other sites carry it. None leaves the attribute out.
        partitioned: keep one copy per embedding site (CHIPS).

    Raises:
        CookieError: an attribute is malformed, or contradicts another.
    """

    name: str
    path: str = "/"
    domain: str | None = None
    secure: bool = False
    httponly: bool = True
    samesite: SameSite | None = "Lax"
    partitioned: bool = False
    _tail: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_name(self)
        _check_flags(self)
        _check_path(self)
        _check_domain(self)
        _check_same_site(self)
        _check_prefix(self)
        object.__setattr__(self, "_tail", _rendered_tail(self))

    def set(self, value: str, *, max_age: int | timedelta | None = None) -> str:
        """Return the ``Set-Cookie`` line that gives the cookie ``value``.

        Args:
            value: printable ASCII without space, quote, comma, semicolon and backslash (RFC 6265 4.1.1).
            max_age: seconds, or a timedelta (a part of a second counts as one), from 0 to 400 days; None
                for a cookie that ends with the browser.

        Raises:
            CookieError: the value has another character, name and value exceed 4096 bytes, or ``max_age``
                is out of range. The message never holds the value.
        """
        _check_value(self.name, value)
        if max_age is None:
            return f"{self.name}={value}{self._tail}"
        return f"{self.name}={value}; Max-Age={_seconds(self.name, max_age)}{self._tail}"

    def delete(self) -> str:
        """Return the ``Set-Cookie`` line that removes the cookie.

        It carries the same attributes, since a browser removes only the cookie whose name, domain, path and
        partition are the same (RFC 6265bis 3.1). ``Expires`` is for readers that know no ``Max-Age``.
        """
        return f"{self.name}=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT{self._tail}"


def render_set_cookie(
    name: str, value: str, *, max_age: int | timedelta | None = None, **options: Unpack[CookieOptions]
) -> str:
    """Return the ``Set-Cookie`` line for one cookie; see :class:`CookieAttributes` for the arguments.

    Raises:
        CookieError: a browser would drop this cookie, or it could inject an attribute.
    """
    return CookieAttributes(name, **options).set(value, max_age=max_age)


def render_deletion(name: str, **options: Unpack[CookieOptions]) -> str:
    """Return the ``Set-Cookie`` line that removes a cookie set with the same ``name`` and ``options``.

    Raises:
        CookieError: no cookie could have been set with these.
    """
    return CookieAttributes(name, **options).delete()


def _rendered_tail(cookie: CookieAttributes) -> str:
    parts = (
        f"; Path={cookie.path}",
        f"; Domain={cookie.domain}" if cookie.domain is not None else "",
        "; Secure" if cookie.secure else "",
        "; HttpOnly" if cookie.httponly else "",
        f"; SameSite={cookie.samesite}" if cookie.samesite is not None else "",
        "; Partitioned" if cookie.partitioned else "",
    )
    return "".join(parts)


def _refuse(name: object, problem: str, fix: str) -> NoReturn:
    raise CookieError(f"cookie {ascii(name)[:80]}: {problem}; {fix}")


def _is_text(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _check_name(cookie: CookieAttributes) -> None:
    name = cookie.name
    if not _is_text(name, _TOKEN):
        _refuse(name, "its name is not a token", "use letters, digits and any of !#$%&'*+-.^_`|~")
    if len(name) > MAX_PAIR_BYTES:
        _refuse(name, f"its name has {len(name)} bytes", f"browsers keep {MAX_PAIR_BYTES}, value included")


def _check_flags(cookie: CookieAttributes) -> None:
    for flag in ("secure", "httponly", "partitioned"):
        if not isinstance(getattr(cookie, flag), bool):  # "false" out of an environment variable is true
            _refuse(cookie.name, f"{flag} is not a bool", "give True or False")
    if cookie.partitioned and not cookie.secure:
        _refuse(cookie.name, "partitioned needs secure", "give secure=True or drop partitioned")


def _check_path(cookie: CookieAttributes) -> None:
    path = cookie.path
    if not _is_text(path, _PATH):
        _refuse(
            cookie.name,
            f"path {ascii(path)[:80]} is not one",
            "start with '/' and percent-encode spaces, ';' and what is not ASCII",
        )
    if len(path) > MAX_ATTRIBUTE_BYTES:
        _refuse(cookie.name, f"path has {len(path)} bytes", f"browsers heed {MAX_ATTRIBUTE_BYTES}")


def _check_domain(cookie: CookieAttributes) -> None:
    domain = cookie.domain
    if domain is None:
        return
    if not _is_text(domain, _DOMAIN):
        _refuse(
            cookie.name,
            f"domain {ascii(domain)[:80]} is not a host name",
            "write it like example.com: ASCII (xn--...), no scheme, port, leading or trailing dot",
        )


def _check_same_site(cookie: CookieAttributes) -> None:
    samesite = cookie.samesite
    if samesite is None:
        return
    if samesite not in get_args(SameSite):
        _refuse(cookie.name, f"samesite {ascii(samesite)[:80]} is unknown", "give 'Lax', 'Strict' or 'None'")
    if samesite == "None" and not cookie.secure:
        _refuse(cookie.name, "samesite='None' needs secure", "give secure=True or samesite='Lax'")


def _check_prefix(cookie: CookieAttributes) -> None:
    lowered = cookie.name.lower()
    for prefix, needs in _PREFIX_NEEDS.items():
        if not lowered.startswith(prefix.lower()):
            continue
        if not cookie.name.startswith(prefix):  # browsers hold any case to it, other readers only this one
            _refuse(cookie.name, f"its name only resembles the prefix {prefix}", "spell it exactly so")
        _check_prefix_needs(cookie, prefix, needs)


def _check_prefix_needs(cookie: CookieAttributes, prefix: str, needs: tuple[str, ...]) -> None:
    if "secure" in needs and not cookie.secure:
        _refuse(cookie.name, f"{prefix} needs secure", "give secure=True or a name without the prefix")
    if "httponly" in needs and not cookie.httponly:
        _refuse(cookie.name, f"{prefix} needs httponly", "give httponly=True or a name without the prefix")
    if "host" in needs and (cookie.domain is not None or cookie.path != "/"):
        _refuse(cookie.name, f"{prefix} allows no domain and only the path '/'", "drop them or the prefix")


def _check_value(name: str, value: str) -> None:
    try:
        stray = value.encode("ascii").translate(None, _VALUE_BYTES)
    except (AttributeError, UnicodeEncodeError):
        _refuse(name, "its value is not ASCII text", "encode it first, for instance as base64url")
    if stray:
        _refuse(name, f"its value holds {chr(stray[0])!r}", "encode it first, for instance as base64url")
    if len(name) + len(value) > MAX_PAIR_BYTES:
        _refuse(
            name,
            f"name and value have {len(name) + len(value)} bytes",
            f"browsers drop more than {MAX_PAIR_BYTES}: keep less in the cookie, or keep it on the server",
        )


def _seconds(name: str, max_age: int | timedelta) -> int:
    if isinstance(max_age, bool) or not isinstance(max_age, int | timedelta):
        _refuse(name, f"max_age is a {type(max_age).__name__}", "give whole seconds as int, or a timedelta")
    seconds = max_age if isinstance(max_age, int) else max_age.total_seconds()
    if not 0 <= seconds <= MAX_LIFETIME.total_seconds():
        _refuse(name, "max_age is out of range", f"give 0 to {MAX_LIFETIME.days} days; browsers cap it there")
    return ceil(seconds)  # upwards: a part of a second rounded down to 0 would delete the cookie
