"""Where settings that are not keyword arguments come from: mappings, the environment, a ``.env`` file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final, TypeVar

from eyewall.errors import ConfigurationError, MissingDriverError

Value = TypeVar("Value")

DATABASE_URL: Final = "DATABASE_URL"
"""The variable most hosts and frameworks (Tina4 too) put the application's own database in."""

_NOT_SETTINGS: Final = ("TEST_", "REQUIRE_SERVERS")
"""What follows the prefix in variables that steer Eyewall's own test suite (see CONTRIBUTING.md)."""


def by_field(given: Mapping[str, Value], known: Mapping[str, str]) -> dict[str, Value]:
    """Return the values of ``given`` by field name.

    Args:
        given: values by the name the user wrote.
        known: field names by every name a user may write.

    Raises:
        ConfigurationError: a name is not known; says which one was probably meant.
    """
    for name in given:
        if name not in known:
            near = get_close_matches(str(name), known, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ConfigurationError(f"unknown setting {name}; {hint}")
    return {known[name]: value for name, value in given.items()}


def read_environment(
    prefix: str,
    environ: Mapping[str, str],
    dotenv: str | os.PathLike[str] | None,
    fields: Iterable[str],
) -> tuple[dict[str, str], Callable[[str], str]]:
    """Return the settings found in variables by field name, and how the user spells a field.

    See :meth:`eyewall.settings.Settings.from_environment` for the rules.
    """
    spelled = {field: prefix + field.upper() for field in fields}
    variables = {**_dotenv_values(dotenv, prefix), **_filled(environ)}
    ours = {name: value for name, value in variables.items() if is_setting(name, prefix)}
    values = by_field(ours, {name: field for field, name in spelled.items()})
    if values.get("backend", "").lower() == "database" and "url" not in values:
        url = variables.get(DATABASE_URL) or _dotenv_values(dotenv, DATABASE_URL).get(DATABASE_URL)
        if url:
            values["url"], spelled["url"] = url, DATABASE_URL
    return values, spelled.__getitem__


def is_setting(name: str, prefix: str) -> bool:
    """Return whether the variable ``name`` is meant as one of our settings."""
    return name.startswith(prefix) and not name.removeprefix(prefix).startswith(_NOT_SETTINGS)


def _filled(variables: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if value and value.strip()}


def _dotenv_values(dotenv: str | os.PathLike[str] | None, mention: str) -> dict[str, str]:
    """Return the variables of a ``.env`` file, if it is there and mentions the text ``mention``.

    Only then is python-dotenv needed, so that a file that is none of our business costs nobody a library.
    """
    if dotenv is None:
        return {}
    try:
        if not Path(dotenv).is_file() or mention not in Path(dotenv).read_text(encoding="utf-8"):
            return {}
        from dotenv import dotenv_values
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{os.fspath(dotenv)} cannot be read as UTF-8 text: {error}") from None
    except ImportError:
        raise MissingDriverError(
            f"{os.fspath(dotenv)} has {mention} settings, but python-dotenv is not installed; run: "
            "pip install 'eyewall[dotenv]', or export the variables"
        ) from None
    return _filled(dotenv_values(dotenv, encoding="utf-8"))
