"""The MongoDB store's URL: made from the settings, and read."""

from __future__ import annotations

import warnings
from typing import Any, Final
from urllib.parse import urlsplit

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from pymongo.uri_parser import parse_uri

from eyewall.errors import ConfigurationError
from eyewall.settings import Settings

DATABASE: Final = "eyewall"


def url_from(settings: Settings) -> str:
    """Return ``settings.url``, or the URL that says the same as ``host`` and ``port``.

    Raises:
        ConfigurationError: there is a password but no user.
    """
    if settings.url is not None:
        return settings.url
    if settings.password is not None:
        raise ConfigurationError(
            "MongoDB wants a user with the password; give both in url=mongodb://user:password@host/database"
        )
    host = settings.host or "localhost"
    return f"mongodb://{f'[{host}]' if ':' in host else host}:{settings.port or 27017}/"


def hosts_and_database(url: str) -> tuple[str, str]:
    """Return the hosts of ``url``, for messages, and the database it names, else ours.

    Raises:
        ConfigurationError: the URL cannot be read. It is not quoted, for it may hold a password.
    """
    try:
        with warnings.catch_warnings(action="error"):  # the driver warns of options it does not know
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, connect=False)
            named_database = client.get_default_database(DATABASE).name
            if not client.write_concern.acknowledged:
                raise ValueError("w=0")  # noqa: TRY301 - told with all else that can be wrong
            if url.startswith("mongodb+srv://"):
                return str(urlsplit(url).hostname), named_database
            return ",".join(f"{host}:{port}" for host, port in nodes_of(url)), named_database
    except (PyMongoError, ValueError, TypeError, OSError, Warning):
        raise ConfigurationError(
            "the MongoDB URL cannot be read, or has an unknown option or w=0; write "
            "mongodb://user:password@host:27017/database, with : / ? @ % in user and password percent-encoded"
        ) from None


def nodes_of(url: str) -> list[tuple[str, int]]:
    """Return the hosts that ``url`` names; none when only the DNS knows them (``mongodb+srv``)."""
    return [] if url.startswith("mongodb+srv://") else list(parse_uri(url)["nodelist"])
