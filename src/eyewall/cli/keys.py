"""Show the keys of the secret file: which one signs, and since when the others only verify."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from eyewall.core.opening import SECRET_FILE
from eyewall.crypto.key_file import FileKey, load_keys
from eyewall.crypto.keyring import Key
from eyewall.errors import ConfigurationError
from eyewall.settings import Settings

_HEADINGS: Final = ("KEY", "MADE (UTC)", "")
_ROW: Final = "{:<8}  {:<19}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file."""
    add_file(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per key, never a secret."""
    path = secret_file_of(arguments)
    print(path)
    for line in table_of(load_keys(path)):
        print(line)
    return 0


def add_file(parser: argparse.ArgumentParser) -> None:
    """Declare ``--file``."""
    parser.add_argument(
        "--file",
        type=Path,
        metavar="PATH",
        help="the secret file (default: the one that EYEWALL_* or .env name, else that of the file store)",
    )


def secret_file_of(arguments: argparse.Namespace) -> Path:
    """Return the secret file that ``--file`` names, or that an application started here would read.

    Raises:
        ConfigurationError: such an application would read none.
    """
    if arguments.file is not None:
        given: Path = arguments.file
        return given
    settings = Settings.from_environment()
    if settings.secret_file is not None:
        return settings.secret_file
    if settings.cookie_secret is not None:
        raise ConfigurationError(
            "EYEWALL_COOKIE_SECRET holds the keys, so no secret file is read. To rotate there, put a new "
            "secret and a comma in front of the old one; or name a file with --file"
        )
    if settings.backend == "file":
        return settings.path / SECRET_FILE
    raise ConfigurationError(
        f"the {settings.backend} backend has no secret file of its own; name one with --file, and tell the "
        "servers by EYEWALL_SECRET_FILE"
    )


def table_of(keys: Sequence[FileKey]) -> list[str]:
    """Return one line per key, newest first, below headings."""
    since = [None, *(key.made for key in keys)]  # a key retires when the next newer one is made
    rows = [
        _ROW.format(Key(key.secret).id, _utc(key.made), _role(number, retired))
        for number, (key, retired) in enumerate(zip(keys, since, strict=False))
    ]
    return [_ROW.format(*_HEADINGS).rstrip(), *rows]


def _role(number: int, retired: datetime | None) -> str:
    if number == 0:
        return "newest: signs"
    return f"retired {_utc(retired)}: verifies" if retired else "retired: verifies"


def _utc(moment: datetime | None) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S") if moment else "not noted"
