"""The systems that are compared: which program, on which store, against which bare application."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple


class System(NamedTuple):
    """One line of the table.

    Args:
        name: what the table calls it.
        module: its program in ``bench/apps``.
        bare: the system without a session layer that it is compared with; its own name if it is that.
        store: the kind of place its sessions are in, as :mod:`bench.servers` names it.
        way: what its program is told by ``--way``.
        needs: a library that must be installed.
        in_cookie: the session travels in the cookie: it cannot be large, and parallel writes cannot merge.
        revokes: its old cookie is dead after a sign-in.
    """

    name: str
    module: str
    bare: str
    store: str = ""
    way: str = ""
    needs: str = "tornado"
    in_cookie: bool = False
    revokes: bool = True

    @property
    def is_bare(self) -> bool:
        """Whether others are compared with it."""
        return self.name == self.bare

    @property
    def is_installed(self) -> bool:
        """Whether the library it is made of is there."""
        return find_spec(self.needs) is not None


TORNADO, STARLETTE, AIOHTTP, FLASK, DJANGO = "Tornado", "Starlette", "aiohttp", "Flask", "Django"
STORES = {
    "redis": "Redis",
    "valkey": "Valkey",
    "memory": "memory",
    "file": "file",
    "sqlite": "SQLite",
    "postgres": "PostgreSQL",
    "mysql": "MariaDB",
    "mongodb": "MongoDB wire",
}
DRIVERS = {
    "redis": "redis",
    "valkey": "redis",
    "sqlite": "sqlalchemy",
    "postgres": "asyncpg",
    "mysql": "asyncmy",
    "mongodb": "pymongo",
}


def _eyewall() -> list[System]:
    found = []
    for way, suffix in (("mixin", ""), ("install", ", install()")):
        for store, title in STORES.items():
            needs = DRIVERS.get(store, "tornado")
            found.append(System(f"Eyewall, {title}{suffix}", "eyewall_site", TORNADO, store, way, needs))
        sealed = f"Eyewall, sealed cookie{suffix}"
        found.append(
            System(
                sealed, "eyewall_site", TORNADO, "cookie", way, "cryptography", in_cookie=True, revokes=False
            )
        )
    return found


SYSTEMS = [
    System(TORNADO, "tornado_bare", TORNADO),
    System("Tornado signed cookie", "tornado_signed_cookie", TORNADO, in_cookie=True, revokes=False),
    System("Tornado + redis-py by hand", "tornado_redis", TORNADO, "redis", needs="redis"),
    *_eyewall(),
    System(STARLETTE, "starlette_site", STARLETTE, needs="starsessions"),
    System(
        "Starlette signed cookie",
        "starlette_site",
        STARLETTE,
        way="cookie",
        needs="starsessions",
        in_cookie=True,
        revokes=False,
    ),
    System("starsessions, Redis", "starlette_site", STARLETTE, "redis", "starsessions", "starsessions"),
    System(AIOHTTP, "aiohttp_site", AIOHTTP, needs="aiohttp_session"),
    System("aiohttp-session, Redis", "aiohttp_site", AIOHTTP, "redis", needs="aiohttp_session"),
    System(FLASK, "flask_site", FLASK, needs="flask_session"),
    System("Flask-Session, Redis", "flask_site", FLASK, "redis", needs="flask_session"),
    System(DJANGO, "django_site", DJANGO, needs="django"),
    System("Django, Redis cache", "django_site", DJANGO, "redis", "cache", "django"),
    System(
        "Django, signed cookie",
        "django_site",
        DJANGO,
        way="cookie",
        needs="django",
        in_cookie=True,
        revokes=False,
    ),
]

QUICK = (TORNADO, "Tornado signed cookie", "Eyewall, Redis", "Eyewall, sealed cookie")


def chosen(only: list[str]) -> list[System]:
    """Return the systems whose names contain one of ``only`` (any case), and those they are compared with.

    Raises:
        ValueError: a word matches no system.
    """
    if not only:
        return SYSTEMS
    for word in only:
        if not any(word.lower() in system.name.lower() for system in SYSTEMS):
            raise ValueError(f"no system is called {word!r}; there are: {', '.join(s.name for s in SYSTEMS)}")
    matching = [system for system in SYSTEMS if any(word.lower() in system.name.lower() for word in only)]
    bare = {system.bare for system in matching}
    return [system for system in SYSTEMS if system in matching or system.name in bare]
