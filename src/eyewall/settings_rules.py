"""The rules between settings: what contradicts what, and how to mend it. Each check is one promise.

Every rule takes the values it compares, and ``spelled``, which tells what the user calls a field. All raise
:class:`~eyewall.errors.ConfigurationError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from eyewall.errors import ConfigurationError
from eyewall.store_url import (
    BACKENDS,
    DEFAULT_FOLDER,
    backend_of,
    folder_of,
    is_backend,
    known_schemes,
    masked_url,
    scheme_of,
)

Spelling = Callable[[str], str]
"""Turns a field's name into what the user calls it, e.g. ``ttl`` into ``EYEWALL_TTL``."""

LONGEST_COOKIE_LIFE: Final = timedelta(days=400)
"""Browsers cap a cookie's age here (RFC 6265bis 5.5)."""

NAME_PREFIXES: Final = ("__Host-Http-", "__Host-", "__Http-", "__Secure-")
"""What a cookie's name may begin with to promise something; all of them promise ``Secure``."""

SERVER_FIELDS: Final = ("host", "port", "password", "database")
"""The settings that say where a server is when there is no URL."""

PROFILE_FIELDS: Final = ("ttl", "absolute_ttl", "remember_ttl")
"""The settings that a profile limits."""

_PROFILES: Final = {
    profile: dict(zip(PROFILE_FIELDS, limits, strict=True))
    for profile, limits in {
        "aal1": (timedelta(days=30), timedelta(days=30), timedelta(days=30)),
        "aal2": (timedelta(hours=1), timedelta(hours=24), timedelta(days=30)),
        "aal3": (timedelta(minutes=15), timedelta(hours=12), timedelta(0)),
    }.items()
}

_SERVER_BACKENDS: Final = ("redis", "valkey", "mongodb")
_SERVERLESS_BACKENDS: Final = ("memory", "file", "cookie")


def check_address(url: str | None, server: Mapping[str, object], spelled: Spelling) -> None:
    """Refuse two answers to the question where the store is."""
    also = _given(server, spelled)
    if url is not None and also:
        raise ConfigurationError(
            f"{spelled('url')} and {also} both say where the store is; put all of it into "
            f"{spelled('url')}, or leave {spelled('url')} out"
        )


def _given(server: Mapping[str, object], spelled: Spelling) -> str:
    return ", ".join(spelled(name) for name, value in server.items() if value is not None)


def effective_backend(named: str, url: str | None, spelled: Spelling) -> str:
    """Return the backend, as ``named`` or from the URL; refuse an unknown one, and two that contradict."""
    if named and not is_backend(named):
        raise ConfigurationError(
            f"{spelled('backend')}={named!r} is no store{_nearest(named, BACKENDS)}; "
            f"known are {', '.join(BACKENDS)} and installed plug-ins"
        )
    if url is None:
        return named or "file"
    served_by = backend_of(url)
    if served_by is None:
        raise ConfigurationError(
            f"{spelled('url')} has a scheme no store knows{_nearest(scheme_of(url), known_schemes())}; "
            f"known are {', '.join(known_schemes())}"
        )
    if named and not _same_store(named, served_by):
        raise ConfigurationError(
            f"{spelled('backend')}={named!r} contradicts {spelled('url')}={masked_url(url)!r}, which is "
            f"{served_by}; leave {spelled('backend')} out, the URL decides"
        )
    return named or served_by


def check_around(
    backend: str, url: str | None, migrate_from: str | None, *, encrypt: bool, spelled: Spelling
) -> None:
    """Refuse what cannot be put around this store: moving from nowhere, sealing what is sealed."""
    if backend == "cookie" and (encrypt or migrate_from):
        around = spelled("encrypt" if encrypt else "migrate_from")
        raise ConfigurationError(f"{around} needs sessions in a store; backend 'cookie' keeps none. Drop one")
    if migrate_from is None:
        return
    if backend_of(migrate_from) in (None, "memory", "cookie"):
        raise ConfigurationError(
            f"{spelled('migrate_from')} is no store that sessions can be left in; known are "
            f"{', '.join(known_schemes())}, without memory"
        )
    if migrate_from == url:
        raise ConfigurationError(f"{spelled('migrate_from')} and {spelled('url')} are the same; drop one")


def _same_store(named: str, served_by: str) -> bool:
    # Valkey speaks Redis's protocol, and its own guides write redis:// URLs.
    resp = ("redis", "valkey")
    return named == served_by or (named in resp and served_by in resp)


def _nearest(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def effective_folder(path: Path, url: str | None, backend: str, spelled: Spelling) -> Path:
    """Return the file store's folder, as ``path`` or from a ``file:`` URL; refuse one for other stores."""
    explicit = path != DEFAULT_FOLDER
    if backend != "file" and explicit:
        raise ConfigurationError(
            f"{spelled('path')} is the folder of the file store, but the backend is {backend}; "
            f"leave {spelled('path')} out or set {spelled('backend')}=file"
        )
    if backend != "file" or url is None:
        return path
    try:
        folder = folder_of(url)
    except ValueError as problem:
        raise ConfigurationError(f"{spelled('url')} {problem}") from None
    if explicit and folder != path:
        raise ConfigurationError(f"{spelled('path')} and {spelled('url')} name different folders; keep one")
    return folder


def check_server(backend: str, url: str | None, server: Mapping[str, object], spelled: Spelling) -> None:
    """Refuse server settings for a store without a server, and a database that is nowhere."""
    given = _given(server, spelled)
    if given and backend in _SERVERLESS_BACKENDS:
        raise ConfigurationError(
            f"{given} says where a server is, but the {backend} backend has none; set "
            f"{spelled('backend')} to one of {', '.join(_SERVER_BACKENDS)}, or leave it out"
        )
    if backend == "database" and url is None:
        raise ConfigurationError(
            f"the database backend needs {spelled('url')} (or the variable DATABASE_URL) to know which "
            "database, e.g. postgresql://user@localhost/shop or sqlite:///sessions.db"
        )


def check_port(port: int | None, spelled: Spelling) -> None:
    """Refuse a port TCP does not have."""
    if port is not None and not 1 <= port <= 65535:
        raise ConfigurationError(f"{spelled('port')}={port} is not a port; they go from 1 to 65535")


def check_max_size(max_size: int, spelled: Spelling) -> None:
    """Refuse a size no session fits in, or that lets one session fill a store."""
    if not 1024 <= max_size <= 16 * 1024 * 1024:
        raise ConfigurationError(
            f"{spelled('max_size')}={max_size} is out of range; give 1024 to 16777216 bytes"
        )


def check_positive(name: str, value: timedelta, spelled: Spelling) -> None:
    """Refuse a duration that is over before it begins."""
    if value <= timedelta(0):
        raise ConfigurationError(f"{spelled(name)} must be longer than 0 seconds; it is {value}")


def check_timeouts(ttl: timedelta, absolute_ttl: timedelta, spelled: Spelling) -> None:
    """Refuse timeouts that end a session before it began, in the wrong order, or never."""
    check_positive("ttl", ttl, spelled)
    check_positive("absolute_ttl", absolute_ttl, spelled)
    if ttl > absolute_ttl:
        raise ConfigurationError(
            f"{spelled('ttl')} ({ttl}) is longer than {spelled('absolute_ttl')} ({absolute_ttl}), so it "
            f"could never take effect; lower {spelled('ttl')}, or raise {spelled('absolute_ttl')} if "
            "sessions may live that long"
        )
    if absolute_ttl > LONGEST_COOKIE_LIFE:
        raise ConfigurationError(
            f"{spelled('absolute_ttl')} ({absolute_ttl}) is longer than browsers keep any cookie; lower "
            f"it to 400 days ({LONGEST_COOKIE_LIFE.total_seconds():.0f} seconds) or less"
        )


def limits_of(
    profile: str | None, chosen: Mapping[str, timedelta | None], spelled: Spelling
) -> dict[str, timedelta]:
    """Return the timeouts: as chosen, else the profile's; refuse a chosen one that the profile forbids."""
    limits = _PROFILES[profile or "aal2"]
    for name, value in chosen.items():
        if profile is not None and value is not None and value > limits[name]:
            raise ConfigurationError(
                f"{spelled(name)} ({value}) is longer than {spelled('profile')}={profile} allows "
                f"({limits[name]}); lower {spelled(name)}, or leave {spelled('profile')} out"
            )
    settled = {name: limits[name] if value is None else value for name, value in chosen.items()}
    if profile is None and chosen["ttl"] is None and settled["absolute_ttl"] > timedelta(0):
        settled["ttl"] = min(settled["ttl"], settled["absolute_ttl"])
    return settled


def check_sign_in(remember_ttl: timedelta, max_sessions: int | None, spelled: Spelling) -> None:
    """Refuse a memory longer than browsers have, and a limit that lets nobody in."""
    if not timedelta(0) <= remember_ttl <= LONGEST_COOKIE_LIFE:
        raise ConfigurationError(
            f"{spelled('remember_ttl')} ({remember_ttl}) is out of range; give 0 (off) to 34560000 seconds, "
            "400 days, the longest any browser keeps a cookie"
        )
    if max_sessions is not None and not 1 <= max_sessions <= 10_000:
        raise ConfigurationError(
            f"{spelled('max_sessions')}={max_sessions} is out of range; give 1 to 10000, or leave it out"
        )


def check_secure_only(*, secure: bool | str, samesite: str, partitioned: bool, spelled: Spelling) -> None:
    """Refuse attributes that browsers accept on Secure cookies only: they would drop the cookie."""
    wanting = {
        f"{spelled('samesite')}=None": samesite == "None",
        f"{spelled('partitioned')}=true": partitioned,
    }
    for setting, wants_secure in wanting.items():
        if wants_secure and secure is not True:
            raise ConfigurationError(f"{setting} needs {spelled('secure')}=true; browsers drop it otherwise")


def check_name_prefix(  # noqa: PLR0913 - the settings that a prefix may contradict
    name: str,
    *,
    secure: bool | str,
    httponly: bool,
    domain: str | None,
    cookie_path: str,
    spelled: Spelling,
) -> None:
    """Refuse a prefixed name beside settings that break what the prefix promises (RFC 6265bis 4.1.3)."""
    prefix = next((each for each in NAME_PREFIXES if name.lower().startswith(each.lower())), "")
    if not name.startswith(prefix):
        raise ConfigurationError(f"{spelled('name')}={name!r} must spell its prefix exactly {prefix!r}")
    host_bound = prefix.startswith("__Host-")
    breaches = {
        f"{spelled('secure')}=false": prefix != "" and secure is False,
        f"{spelled('httponly')}=false": prefix.endswith("Http-") and not httponly,
        f"{spelled('domain')}={domain!r}": host_bound and domain is not None,
        f"{spelled('cookie_path')}={cookie_path!r}": host_bound and cookie_path != "/",
    }
    for setting, breached in breaches.items():
        if breached:
            raise ConfigurationError(
                f"{spelled('name')}={name!r} and {setting} contradict: browsers drop such a cookie; "
                f"change the name or leave the other setting at its default"
            )


def check_one_secret(cookie_secret: object, secret_file: Path | None, spelled: Spelling) -> None:
    """Refuse two answers to the question which keys there are."""
    if cookie_secret is not None and secret_file is not None:
        raise ConfigurationError(
            f"{spelled('cookie_secret')} and {spelled('secret_file')} both say which keys there are; keep one"
        )


def check_cors(origins: tuple[str, ...], *, credentials: bool, spelled: Spelling) -> None:
    """Refuse credentials for every site, which browsers refuse too, and credentials for nobody."""
    named, allowed = spelled("cors_credentials"), spelled("cors_origins")
    if credentials and "*" in origins:
        raise ConfigurationError(
            f"{named}=true and {allowed}=* contradict: every site could act as your visitors, and browsers "
            f"refuse it (Fetch standard, 3.3.5); list the exact origins in {allowed}, e.g. http://localhost:3000"
        )
    if credentials and not origins:
        raise ConfigurationError(
            f"{named}=true lets nobody in while {allowed} is empty; list the exact origins there, "
            "e.g. http://localhost:3000"
        )
