"""A short name for what a ``User-Agent`` header describes: "Firefox 142 on Linux".

The header is whatever a stranger sends. So it is cut and cleaned before anything looks at it, and what comes
out is short, printable and on one line. It is a hint for a person who looks for a device they do not know,
never a fact to decide by: anyone can send any header.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Final

MOST_READ: Final = 512
"""Characters of the header that are looked at. The patterns of ua-parser are many, and some backtrack; on
this much text all of them together take a few milliseconds at worst."""

LONGEST: Final = 80
"""Characters of a label, at most."""

_UNKNOWN: Final = "a browser"
_NOT_TOLD: Final = frozenset({"", "Other"})

_Parts = tuple[str, str, str]
"""Browser, its major version, operating system; "" for what is not known."""


def label_of(user_agent: str) -> str:
    """Return a name of at most :data:`LONGEST` characters for a person to recognise.

    With the extra ``devices`` it names browser and system. Without it, and for a header that the library does
    not know, it is the header itself, shortened; "a browser" when there is none.

    Args:
        user_agent: the header; any text, of any length.

    Returns:
        Printable text on one line (ASVS 16.4.1). It is still a stranger's: escape it in HTML.
    """
    plain = _plain(user_agent[:MOST_READ])
    parse = _parser()
    label = "" if parse is None else _joined(*parse(plain))
    return _shortened(label or plain) or _UNKNOWN


def _joined(browser: str, version: str, system: str) -> str:
    if not browser and not system:
        return ""
    named = f"{browser} {version}".rstrip() if browser else _UNKNOWN
    return _plain(f"{named} on {system}" if system else named)


def _plain(text: str) -> str:
    """Drop what does not print: control characters, line ends, marks that turn the direction of writing."""
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


@cache
def _parser() -> Callable[[str], _Parts] | None:
    try:
        from ua_parser import Domain, parser
    except ImportError:
        return None

    def parse(user_agent: str) -> _Parts:
        found = parser(user_agent, Domain.USER_AGENT | Domain.OS)
        browser, system = found.user_agent, found.os
        return (
            _known(browser.family if browser else ""),
            (browser.major if browser else None) or "",
            # Without its version: browsers tell the same one for Windows 10 and 11, and for every macOS.
            _known(system.family if system else ""),
        )

    return parse


def _known(family: str) -> str:
    return "" if family in _NOT_TOLD else family
