"""Whether a request was caused by a page of another origin, told from its headers alone.

The algorithm is Filippo Valsorda's, as Tornado 6.6 has it under ``cross_origin_protection``; carried here so
that every Tornado we support has it. ``Sec-Fetch-Site`` decides where a browser sends it; where it does not
(plain http, browsers from before 2023) ``Origin`` is held against ``Host``. A request with neither comes from
no browser, carries nobody's cookies by accident, and is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, NamedTuple

from eyewall.errors import ConfigurationError

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that must not change anything (RFC 9110 9.2.1), and so need no protection."""

MAX_REASON: Final = 200
"""Most characters of a reason: it quotes the sender, and ends up in logs."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_ORIGIN: Final = 512
_LABEL: Final = r"[0-9a-z_](?:[0-9a-z_-]*[0-9a-z_])?"
_HOST: Final = rf"{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\]"
_AUTHORITY: Final = re.compile(rf"({_HOST})(?::([1-9][0-9]{{0,4}}))?")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")


class Origin(NamedTuple):
    """Scheme, host (lower case) and port of a page; ``port`` is 0 where the scheme has no default."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """Spell the origin as browsers do: without a default port."""
        default = _DEFAULT_PORTS.get(self.scheme, 0)
        return f"{self.scheme}://{self.host}" + ("" if self.port == default else f":{self.port}")


def parse_origin(text: str) -> Origin | None:
    """Read the serialised origin ``text``; None when it is not exactly ``scheme://host[:port]``.

    ``null``, user names, paths, a trailing dot or slash, several origins in one header and anything outside
    ASCII are all None.
    """
    if len(text) > _MAX_ORIGIN or not text.isascii():  # before lower(): the Kelvin sign's is a plain "k"
        return None
    scheme, found, authority = text.lower().partition("://")
    if not found or not _SCHEME.fullmatch(scheme):
        return None
    return _at(scheme, authority)


def validate_trusted_origin(text: object) -> str:
    """Return the trusted origin ``text`` as browsers spell it, for :func:`cross_origin_refusal`.

    Raises:
        ConfigurationError: it is not exactly ``scheme://host[:port]``. Patterns are refused on purpose: one
            that is too wide lets ``good.com.evil.com`` in (Bokeh's CVE-2026-21883).
    """
    origin = parse_origin(text) if isinstance(text, str) else None
    if origin is None:
        raise ConfigurationError(
            f"trusted origin {_quoted(text)} is not scheme://host[:port]; write it like https://app.example.com:"
            " no path or trailing slash, no '*', no user name, and international names in their xn-- form"
        )
    return str(origin)


def cross_origin_refusal(  # noqa: PLR0913 - the six facts of a request that decide
    *,
    method: str,
    sec_fetch_site: str | None,
    origin: str | None,
    scheme: str,
    host: str,
    trusted_origins: Collection[str],
) -> str | None:
    """Say why a request must be refused as another origin's doing, or None when it may pass.

    Args:
        method: the request's method, as sent.
        sec_fetch_site: its ``Sec-Fetch-Site`` header, or None without one.
        origin: its ``Origin`` header, or None without one.
        scheme: ``http`` or ``https``, as far as we know.
        host: its ``Host`` header.
        trusted_origins: other origins that may send requests, from :func:`validate_trusted_origin`.

    Returns:
        None, or a reason of at most :data:`MAX_REASON` printable ASCII characters, safe to log.
    """
    if method in SAFE_METHODS:
        return None
    return source_refusal(
        sec_fetch_site=sec_fetch_site,
        origin=origin,
        scheme=scheme,
        host=host,
        trusted_origins=trusted_origins,
    )


def source_refusal(
    *,
    sec_fetch_site: str | None,
    origin: str | None,
    scheme: str,
    host: str,
    trusted_origins: Collection[str],
) -> str | None:
    """As :func:`cross_origin_refusal`, whatever the method: for WebSocket handshakes, which are GETs."""
    if sec_fetch_site in ("same-origin", "none"):
        return None
    if sec_fetch_site is None and origin is None:
        return None
    source = None if origin is None else parse_origin(origin)
    if source is not None and str(source) in trusted_origins:
        return None
    if sec_fetch_site is not None:
        # An unknown value counts as cross-site: only browsers send this header, none sends another value
        # today, and letting it fall back to "no Origin, so no browser" would open the door.
        return f"Sec-Fetch-Site {_quoted(sec_fetch_site)}, Origin {_quoted(origin)}: not trusted"
    if source is not None and _is_ours(source, scheme, host):
        return None
    return f"Origin {_quoted(origin)}: neither {scheme} at {_quoted(host)} nor trusted"


def _is_ours(source: Origin, scheme: str, host: str) -> bool:
    """Say whether ``source`` is the origin the request was sent to.

    An https page may post to what looks like plain http to us: TLS may end at a proxy we were not told of,
    and a page of the secure origin is no weaker than ours. Never the other way round: whoever sits on the
    network can write http pages of any host.
    """
    if source.scheme not in _DEFAULT_PORTS or (source.scheme == "http" and scheme != "http"):
        return False
    return host.isascii() and source == _at(source.scheme, host.lower())


def _at(scheme: str, authority: str) -> Origin | None:
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        return None
    port = int(match[2]) if match[2] else _DEFAULT_PORTS.get(scheme, 0)
    return Origin(scheme, match[1], port) if port <= 65535 else None


def _quoted(text: object) -> str:
    """Quote what a stranger sent: printable ASCII only, and two of these fit into :data:`MAX_REASON`."""
    return ascii(text)[:64]
