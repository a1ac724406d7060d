"""What a store's URL says: which backend, which folder; and how to show one without its password."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

BACKENDS: Final = ("memory", "file", "redis", "valkey", "database", "mongodb", "cookie")
"""The stores that come with Eyewall."""

PLUGIN_GROUP: Final = "eyewall.stores"
"""Entry points of this group add stores: the name is the backend and the URL scheme, the value the class."""

DEFAULT_FOLDER: Final = Path(".eyewall")

_SCHEMES: Final = {
    "file": "file",
    "memory": "memory",
    "redis": "redis",
    "rediss": "redis",
    "unix": "redis",
    "valkey": "valkey",
    "valkeys": "valkey",
    "sqlite": "database",
    "postgresql": "database",
    "postgres": "database",
    "mysql": "database",
    "mariadb": "database",
    "mongodb": "mongodb",
}


def scheme_of(url: str) -> str:
    """Return the scheme of ``url`` in lower case, without what follows a ``+`` (``redis+sentinel``)."""
    return url.partition(":")[0].partition("+")[0].lower()


def plugin(backend: str) -> EntryPoint | None:
    """Return the entry point an installed package offers for ``backend``, or None."""
    return next(iter(entry_points(group=PLUGIN_GROUP, name=backend)), None)


def is_backend(name: str) -> bool:
    """Return whether a store of this name comes with Eyewall or with an installed package."""
    return name in BACKENDS or plugin(name) is not None


def backend_of(url: str) -> str | None:
    """Return the backend that serves ``url``, or None when no store knows its scheme."""
    scheme = scheme_of(url)
    return _SCHEMES.get(scheme) or (scheme if plugin(scheme) else None)


def known_schemes() -> list[str]:
    """Return the URL schemes of the stores that come with Eyewall."""
    return list(_SCHEMES)


def folder_of(url: str) -> Path:
    """Return the folder a ``file:`` URL names: ``file:///var/lib/shop`` -> ``/var/lib/shop``.

    Raises:
        ValueError: there is no absolute path, or a host (a path that misses its third slash).
    """
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise ValueError("names no absolute folder; write file:///var/lib/shop/sessions, with three slashes")
    return Path(unquote(parts.path))


def masked_url(url: str) -> str:
    """Return ``url`` without user, password and query, all of which may be secret."""
    scheme, separator, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    # With one of these unescaped, where the password ends is anybody's guess: show nothing.
    if not {"@", "?", "#"}.isdisjoint(user):
        return f"{scheme}://***"
    shown = re.sub(r"[?#].*", "?***", place, count=1, flags=re.DOTALL)
    return f"{scheme}{separator}{'***@' if at else ''}{shown}"
