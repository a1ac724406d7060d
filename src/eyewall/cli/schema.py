"""Print the SQL that makes the table of sessions."""

from __future__ import annotations

import argparse
from typing import Final

from eyewall.cli.demo import demo_settings
from eyewall.errors import ConfigurationError, MissingDriverError
from eyewall.settings import Settings
from eyewall.store_url import scheme_of

DIALECTS: Final = ("postgresql", "mysql", "sqlite")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For which database."""
    parser.add_argument("--dialect", choices=DIALECTS, help="default: that of EYEWALL_URL")


def run(arguments: argparse.Namespace) -> int:
    """Print it; nothing is connected to."""
    dialect = arguments.dialect or _dialect_of(demo_settings(None, None))
    try:
        from eyewall.stores.sql_schema import schema_sql
    except ImportError as error:
        raise MissingDriverError(
            f"the schema needs the library {error.name!r}, which is not installed; "
            "run: pip install 'eyewall[sqlite]'"
        ) from error
    print(schema_sql(dialect), end="")
    return 0


def _dialect_of(settings: Settings) -> str:
    if settings.backend != "database" or settings.url is None:
        raise ConfigurationError(
            f"the settings name no database, so say which one is meant: --dialect {' or '.join(DIALECTS)}"
        )
    return scheme_of(settings.url)
