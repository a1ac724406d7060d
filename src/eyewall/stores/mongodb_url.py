"""The MongoDB store's URL, made from the settings."""

from __future__ import annotations

from eyewall.errors import ConfigurationError
from eyewall.settings import Settings


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
