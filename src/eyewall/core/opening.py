"""Finds what the settings name: the store, and the key ring that signs the cookie.

Stores are found by name at run time. The core therefore imports none of them, and no driver is loaded for a
store nobody chose.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol

from eyewall.core.store import Clock, Store
from eyewall.crypto.key_file import load_keys, load_or_make_keys
from eyewall.crypto.keyring import Key, KeyRing
from eyewall.crypto.secret import FIX
from eyewall.errors import ConfigurationError, MissingDriverError
from eyewall.settings import Settings
from eyewall.store_url import PLUGIN_GROUP, plugin, scheme_of

STORES: Final = {
    "memory": "eyewall.stores.memory:MemoryStore",
    "file": "eyewall.stores.file:FileStore",
    "redis": "eyewall.stores.resp:RespStore",
    "valkey": "eyewall.stores.resp:RespStore",
    "database": "eyewall.stores.sql:SqlStore",
    "mongodb": "eyewall.stores.mongodb:MongoStore",
    "cookie": "eyewall.stores.in_cookie:InCookie",
}
"""Where the class of each backend's store is, as ``module:Class``."""

_EXTRAS: Final = {
    "redis": "redis",
    "valkey": "redis",
    "mongodb": "mongodb",
    "sqlite": "sqlite",
    "postgresql": "postgres",
    "postgres": "postgres",
    "mysql": "mysql",
    "mariadb": "mysql",
}
"""The extra that installs the driver of a backend, or of a database's URL scheme."""

SECRET_FILE: Final = "secret"  # noqa: S105 - a name
"""Name of the secret file in the folder of the file store, where the settings name no other."""


class StoreClass(Protocol):
    """What a store's class offers so that settings can open it; also asked of plug-ins."""

    def from_settings(self, settings: Settings, clock: Clock) -> Store:
        """Return a store as ``settings`` say. Does not connect: a server may come up later."""


def open_store(settings: Settings, clock: Clock) -> Store:
    """Return the store that ``settings`` name; with ``migrate_from``, both of the two.

    Args:
        settings: say which store, and where it is.
        clock: the current time, handed to the store.

    Raises:
        MissingDriverError: the store's library is not installed; the message names the extra.
        ConfigurationError: no store has this name.
    """
    store = _opened(settings, clock)
    if settings.migrate_from is None:
        return store
    old = _opened(Settings(url=settings.migrate_from, store_timeout=settings.store_timeout), clock)
    migrating: Callable[[Store, Store], Store] = import_module("eyewall.stores.migrating").migrating
    return migrating(old, store)


def encrypted_store(store: Store, keyring: KeyRing) -> Store:
    """Return ``store`` with everything it keeps about people sealed by ``keyring``.

    Raises:
        MissingDriverError: the library of the extra ``encryption`` is not installed.
    """
    encrypted: Callable[[Store, KeyRing], Store] = import_module("eyewall.stores.encrypted").encrypted
    return encrypted(store, keyring)


def _opened(settings: Settings, clock: Clock) -> Store:
    try:
        return _store_class(settings.backend).from_settings(settings, clock)
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "eyewall"):  # a fault of ours, not a driver that could be installed
            raise
        raise MissingDriverError(_how_to_install(settings, missing)) from error


def _store_class(backend: str) -> StoreClass:
    if backend in STORES:
        module, _, name = STORES[backend].partition(":")
        found: StoreClass = getattr(import_module(module), name)
        return found
    entry = plugin(backend)
    if entry is None:
        raise ConfigurationError(
            f"backend={backend!r} has no store; known are {', '.join(STORES)} and the entry points of "
            f"the group {PLUGIN_GROUP!r}"
        )
    offered: StoreClass = entry.load()
    if not callable(getattr(offered, "from_settings", None)):
        raise ConfigurationError(
            f"the plug-in {entry.value!r} for backend={backend!r} has no from_settings(settings, clock)"
        )
    return offered


def _how_to_install(settings: Settings, missing: str) -> str:
    needed = f"the {settings.backend} store needs the library {missing!r}, which is not installed; "
    extra = _EXTRAS.get(settings.backend) or _EXTRAS.get(scheme_of(settings.url or ""))
    if extra is None:
        return needed + "install it, or what the store's own guide says"
    return needed + f"run: pip install 'eyewall[{extra}]'"


def keyring_for(
    settings: Settings,
    *,
    cookie_secret: str | bytes | Mapping[int, str | bytes] | None = None,
    key_version: int | None = None,
    store_folder: Path | None = None,
) -> KeyRing:
    """Return the key ring that signs the cookies of one application.

    Args:
        settings: may have a secret, else their backend decides where one comes from.
        cookie_secret: the application's own (Tornado's setting); it goes before all others.
        key_version: the application's own; which version of ``cookie_secret`` signs.
        store_folder: where the file store's secret is; ``settings.path`` unless given.

    Raises:
        WeakSecretError: the secret could be guessed.
        ConfigurationError: nobody gave a secret, and making one here would not reach the other processes
            that share the store; or the secret file is not safe to use.
    """
    if cookie_secret is not None:
        return KeyRing.from_secret(cookie_secret, key_version=key_version)
    if settings.cookie_secret is not None:
        return KeyRing.from_secret(settings.cookie_secret)
    if settings.secret_file is not None:
        # Never made here: each server of a group would make one of its own.
        keys = load_keys(settings.secret_file)
        return KeyRing.from_lines([key.secret for key in keys], place=str(settings.secret_file))
    if settings.backend == "file":
        path = (store_folder or settings.path) / SECRET_FILE
        return KeyRing.from_lines([key.secret for key in load_or_make_keys(path)], place=str(path))
    if settings.backend == "memory":
        # Its sessions end with the process, so a secret that does too loses nothing.
        return KeyRing([Key(secrets.token_bytes(32))])
    raise ConfigurationError(
        f"the {settings.backend} backend needs a secret that all processes share; set EYEWALL_COOKIE_SECRET "
        f"(or Tornado's cookie_secret, or EYEWALL_SECRET_FILE) to one value everywhere; {FIX}"
    )
