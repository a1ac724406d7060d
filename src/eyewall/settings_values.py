"""Reads one setting's value, whatever way it came: as text from the environment or as a Python value.

Each reader returns the value in its one inner type, or raises ``ValueError`` whose text continues the
sentence "<setting> …".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final, Literal

from eyewall.errors import ConfigurationError

_SWITCH: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+._-]*://")
_HOST: Final = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_ORIGIN: Final = re.compile(
    rf"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|{_HOST}(\.{_HOST})*)(:(?P<port>[1-9][0-9]{{0,4}}))?"
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_HEADER_NAME: Final = re.compile(r"[0-9A-Za-z_-]{1,100}")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_LABEL: Final = r"[0-9A-Za-z_]([0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_DOMAIN: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_COOKIE_PATH: Final = re.compile(r"/[!-:<-~]{0,1022}")
_SECRET_FIELDS: Final = ("cookie_secret", "password", "url", "migrate_from")
_OPTIONAL_FIELDS: Final = (
    "cookie_secret",
    "secret_file",
    "password",
    "url",
    "migrate_from",
    "host",
    "port",
    "database",
    "name",
    "domain",
    "profile",
    "ttl",
    "absolute_ttl",
    "remember_ttl",
    "max_sessions",
)
_SHORTEST_SECRET: Final = 32  # bytes; crypto/secret.py says why


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            return timedelta(seconds=float(value))
    except (ValueError, OverflowError):
        pass
    raise ValueError("is not a number of seconds; one hour is 3600")


def _whole_number(value: object) -> int:
    try:
        if isinstance(value, str | int) and not isinstance(value, bool):
            return int(value)
    except ValueError:
        pass
    raise ValueError("is not a whole number")


def _switch(value: object) -> bool:
    try:
        return _SWITCH[str(value).strip().lower()]
    except KeyError:
        raise ValueError("is neither true nor false") from None


def _secure(value: object) -> bool | Literal["auto"]:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    try:
        return _switch(value)
    except ValueError:
        raise ValueError("is neither auto, true nor false") from None


def _samesite(value: object) -> str:
    if isinstance(value, str) and value.strip().lower() in ("lax", "strict", "none"):
        return value.strip().capitalize()
    raise ValueError("is neither Lax, Strict nor None (the word)")


def _one_of(words: tuple[str, ...], value: object) -> str:
    if isinstance(value, str) and value.strip().lower() in words:
        return value.strip().lower()
    raise ValueError(f"is none of {', '.join(words)}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is of type {type(value).__name__}, but must be text")
    if not value.strip() or not value.isprintable():
        raise ValueError("is empty or has control characters")
    return value.strip()


def _url(value: object) -> str:
    if not _SCHEME.match(url := _text(value)):
        raise ValueError("is not a URL; write scheme://..., e.g. redis://localhost:6379/0")
    return url


def _backend(value: object) -> str:
    return "" if value == "" else _text(value).lower()


def _database(value: object) -> str:
    return _text(str(value) if isinstance(value, int) else value)


def _password(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"is of type {type(value).__name__}, but must be text")
    return value


def _path(value: object) -> Path:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    try:
        return Path(_text(value)).expanduser()
    except RuntimeError:
        raise ValueError("begins with ~ and names no user of this machine; write the whole path") from None


def _secret(value: object) -> object:
    if isinstance(value, str) and "," in value:
        return _secrets_of(value)
    entries = value if isinstance(value, Mapping) else {0: value}
    if not entries or not all(isinstance(each, str | bytes) and each for each in entries.values()):
        raise ValueError("is empty or of a wrong type; give text, bytes, or a mapping of version to them")
    return dict(value) if isinstance(value, Mapping) else value


def _secrets_of(text: str) -> dict[int, str]:
    """Read secrets with commas between, newest first, as secrets by version.

    A comma is in no secret that is hexadecimal or base64, and platforms that configure by environment
    variables alone could not rotate without a separator.
    """
    newest_first = [each.strip() for each in text.split(",") if each.strip()]
    if not newest_first or any(len(each) < _SHORTEST_SECRET for each in newest_first):
        raise ValueError(
            "has a comma, which separates secrets, and a secret shorter than 32 bytes beside it; make them "
            "with `eyewall new-key`, or give a single secret that has a comma as bytes"
        )
    return dict(zip(range(len(newest_first), 0, -1), newest_first, strict=True))


def _origins(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [each.strip() for each in value.split(",") if each.strip()]
    if not isinstance(value, Iterable):
        raise ValueError("is not a list of origins")
    return tuple(_origin(each) for each in value)


def _origin(value: object) -> str:
    found = _ORIGIN.fullmatch(value) if isinstance(value, str) else None
    if not isinstance(value, str) or found is None or int(found["port"] or 0) > 65535:
        raise ValueError(
            f"has {value!r}, which is not scheme://host[:port] in lower case; write an origin without path "
            "or wildcard, e.g. https://app.example"
        )
    scheme = value.partition(":")[0]
    return value.removesuffix(_DEFAULT_PORTS.get(scheme, "/"))  # as browsers spell it, else it never matches


def _cors_origins(value: object) -> tuple[str, ...]:
    everyone = value in ("*", ("*",), ["*"])
    return ("*",) if everyone else _origins(value)


def _header_names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [each.strip() for each in value.split(",") if each.strip()]
    if not isinstance(value, Iterable):
        raise ValueError("is not a list of header names")
    # The token "*" would mean every header in one mode and a header of that name in the other.
    return tuple(_matching(_HEADER_NAME, each, f"has {each!r}, which is no header's name") for each in value)


def _cookie_name(value: object) -> str:
    return _matching(_TOKEN, value, "is not a cookie name; use up to 100 letters, digits, - and _")


def _domain(value: object) -> str:
    return _matching(_DOMAIN, value, "is not a domain; write it like example.com, without a dot in front")


def _cookie_path(value: object) -> str:
    return _matching(_COOKIE_PATH, value, "is not a URL path; it starts with / and has no ; or space")


def _matching(pattern: re.Pattern[str], value: object, problem: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(problem)
    return value


_READERS: Final[Mapping[str, Callable[[object], object]]] = {
    "backend": _backend,
    "url": _url,
    "host": _text,
    "port": _whole_number,
    "password": _password,
    "database": _database,
    "path": _path,
    "migrate_from": _url,
    "encrypt": _switch,
    "store_timeout": _duration,
    "max_size": _whole_number,
    "profile": partial(_one_of, ("aal1", "aal2", "aal3")),
    "ttl": _duration,
    "absolute_ttl": _duration,
    "remember_ttl": _duration,
    "max_sessions": _whole_number,
    "when_full": partial(_one_of, ("end-oldest", "refuse")),
    "clear_site_data": _switch,
    "cookie_secret": _secret,
    "secret_file": _path,
    "name": _cookie_name,
    "secure": _secure,
    "httponly": _switch,
    "samesite": _samesite,
    "domain": _domain,
    "cookie_path": _cookie_path,
    "partitioned": _switch,
    "cross_origin_protection": _switch,
    "trusted_origins": _origins,
    "cors_origins": _cors_origins,
    "cors_credentials": _switch,
    "cors_headers": _header_names,
    "cors_expose_headers": _header_names,
    "strict": _switch,
}


def read_value(field: str, value: object, spelled: str) -> object:
    """Return ``value`` in the type that ``field`` has inside.

    Args:
        field: name of the setting.
        value: as the user gave it.
        spelled: what the user calls the field.

    Raises:
        ConfigurationError: the value cannot be read; a secret one is not repeated in the message.
    """
    if value is None and field in _OPTIONAL_FIELDS:
        return None
    try:
        return _READERS[field](value)
    except ValueError as problem:
        shown = "" if field in _SECRET_FIELDS else f"={_cut(repr(value))}"
        raise ConfigurationError(f"{spelled}{shown} {problem}") from None


def _cut(shown: str) -> str:
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
