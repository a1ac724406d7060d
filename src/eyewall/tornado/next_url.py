"""Where to go after signing in: ``next``, which anybody can put into a link to our sign-in page.

Whoever can choose it freely sends our visitors to a look-alike of our site, straight from our own sign-in
(open redirect, CWE-601, ASVS 3.7.2). So it must be a path of this host, and one that no browser, proxy or
library reads as anything else.
"""

from __future__ import annotations

import re
from typing import Final

from tornado.web import RequestHandler

MAX_NEXT: Final = 2048
"""Longest address accepted (characters)."""

_PATH: Final = re.compile(r"/(?!/|%2f|%5c)[!#-;=?-\[\]-~]*", re.IGNORECASE | re.ASCII)
"""One slash, then printable ASCII; without the second flag a long s would pass for an "s". Browsers read a
backslash as a slash, and drop tabs and line ends before they look for ``//``; what they send themselves has
neither, nor spaces, quotes and angle brackets. A proxy that decodes too much makes ``//`` of ``/%2f``."""

_END_OF_PATH: Final = re.compile(r"[?#]")
_ENCODED_CONTROL: Final = re.compile(r"%[01][0-9a-f]|%7f", re.IGNORECASE)


def safe_next(url: str | None, default: str = "/") -> str:
    r"""Return ``url`` if it is a path of this host, else ``default``.

    It must begin with exactly one slash and be at most 2048 printable ASCII characters. Refused are other
    hosts and schemes however spelt (``//host``, ``/\host``), dot segments (``/.//host``), spaces and
    control characters, also encoded ones in the path.

    Args:
        url: what somebody sent, or None.
        default: where to go instead; chosen by the application, not checked.
    """
    if not isinstance(url, str) or len(url) > MAX_NEXT or _PATH.fullmatch(url) is None:
        return default
    path = _END_OF_PATH.split(url, maxsplit=1)[0]
    if _ENCODED_CONTROL.search(path) or any(_is_dots(segment) for segment in path.split("/")):
        return default
    return url


def next_of(handler: RequestHandler, default: str = "/") -> str:
    """Return the argument ``next`` of ``handler``'s request, from query or body, as :func:`safe_next` has it.

    Of several the last counts, as in ``get_argument``. Never raises.

    Args:
        handler: its request may have come from anywhere.
        default: where to go without ``next``, or with an unsafe one.
    """
    values = handler.request.arguments.get("next")
    return safe_next(values[-1].decode("ascii", "replace"), default) if values else default


def _is_dots(segment: str) -> bool:
    """Whether resolvers would take ``segment`` out of the path; browsers also decode ``%2e`` for that."""
    return segment.lower().replace("%2e", ".") in (".", "..")
