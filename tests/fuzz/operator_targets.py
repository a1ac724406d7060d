"""What operators write: settings in any form, URLs of stores, secrets and the files they are in."""

from __future__ import annotations

import tomllib
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from eyewall.crypto.key_file import MAX_KEYS, _from_text, _to_text
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import ConfigurationError, MissingDriverError
from eyewall.settings import Settings
from eyewall.store_url import backend_of, folder_of, masked_url
from eyewall.stores.resp_address import read_address
from eyewall.stores.sql_urls import driver_url
from tests.fuzz.kit import latin, utf8

SECRET_TEXT: Final = "sesame-opens"
SECRET_VARIABLES: Final = frozenset({"EYEWALL_PASSWORD", "EYEWALL_COOKIE_SECRET"})


def settings(data: bytes) -> bool:
    """Lines of ``NAME=value``, the prefix left out: settings, or one clear error."""
    lines = [line.partition("=") for line in utf8(data).replace("\0", "").split("\n")]
    environ = {f"EYEWALL_{name}": value for name, _, value in lines if name}
    shown = {value for name, value in environ.items() if name not in SECRET_VARIABLES}
    hidden = not any(SECRET_TEXT in each.lower() for each in shown | environ.keys())
    try:
        found = Settings.from_environment(environ=environ, dotenv=None)
    except ConfigurationError as error:
        assert not hidden or SECRET_TEXT not in str(error).lower()  # noqa: PT017 - some lines are right
        return False
    assert not hidden or SECRET_TEXT not in repr(found).lower()
    return True


def dotenv(data: bytes) -> bool:
    """A ``.env`` file of any bytes: settings, or one clear error."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / ".env"
        path.write_bytes(data)
        with suppress(ConfigurationError):
            Settings.from_environment(environ={}, dotenv=path)
            return b"EYEWALL_" in data
    return False


def toml(data: bytes) -> bool:
    """A part of a TOML file, and any mapping at all: settings, or one clear error."""
    mappings = []
    with suppress(ValueError, RecursionError):
        mappings.append(tomllib.loads(utf8(data)))
    with suppress(msgspec.DecodeError, ValueError, RecursionError):
        mappings.append(msgspec.msgpack.decode(data, type=dict[str, Any]))
    made = False
    for mapping in mappings:
        with suppress(ConfigurationError):
            Settings.from_mapping(mapping).describe()
            made = bool(mapping)
    return made


def store_url(data: bytes) -> bool:
    """No password is shown; a folder is absolute; everything else is a ValueError."""
    words = utf8(data)
    user, separator, rest = words.partition("@")
    if separator and "://" in user and SECRET_TEXT not in words:
        scheme, _, _ = user.partition("://")
        assert SECRET_TEXT not in masked_url(f"{scheme}://u:{SECRET_TEXT}@{rest}").replace(scheme, "")
    masked_url(words)
    try:
        folder = folder_of(words)
    except ValueError:
        return backend_of(words) is not None
    assert folder.is_absolute()
    return True


def server_url(data: bytes) -> bool:
    """The URL of a server or a database is read, or refused without its password."""
    words = utf8(data)
    scheme, separator, rest = words.partition("://")
    with_password = f"{scheme}://u:{SECRET_TEXT}@{rest}" if separator else words
    read = [
        _is_read(reader, each) for reader in (read_address, driver_url) for each in (words, with_password)
    ]
    return any(read)


def _is_read(reader: Any, url: str) -> bool:
    try:
        reader(url)
    except (ConfigurationError, MissingDriverError) as error:
        assert SECRET_TEXT not in str(error)  # noqa: PT017 - some URLs are right
        return False
    return True


def key_file(data: bytes) -> bool:
    """The secret file: a few secrets that are written back the same, or an error that shows none of it."""
    try:
        keys = _from_text(data)
    except ValueError as error:
        lines = [line for line in latin(data).split("\n") if len(line) > 40]  # no part of our own words
        assert not any(line in str(error) for line in lines)  # noqa: PT017 - some files are right
        return False
    assert 1 <= len(keys) <= MAX_KEYS
    assert all(len(key.secret) == 43 for key in keys)
    assert _from_text(_to_text(keys).encode()) == keys
    return True


def secret(data: bytes) -> bool:
    """A secret is refused without being shown, or makes a ring that signs."""
    words = latin(data)
    try:
        ring = KeyRing.from_secret(data)
    except ConfigurationError as error:
        assert len(words) < 24 or words not in str(error)  # noqa: PT017 - some secrets are right
        return False
    assert len(data) >= 32
    assert len(ring.current.id) == 8
    return True


TARGETS: Final = (settings, dotenv, toml, store_url, server_url, key_file, secret)
