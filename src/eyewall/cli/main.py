"""The ``eyewall`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, Protocol

from eyewall import __version__
from eyewall.cli import demo, keys, migrate, new_key, revoke, schema, settings, sweep
from eyewall.cli import list as list_sessions
from eyewall.errors import ConfigurationError


class Command(Protocol):
    """What a subcommand's module offers. Its docstring is the help text."""

    @property
    def __name__(self) -> str: ...  # its last part names the subcommand

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the subcommand's own options."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it; return the exit code."""


COMMANDS: Final[tuple[Command, ...]] = (
    demo,
    settings,
    list_sessions,
    revoke,
    sweep,
    migrate,
    schema,
    keys,
    new_key,
)
"""The subcommands, in the order of the help page. A new one: write a module beside these, name it here."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the ``eyewall`` command.

    Args:
        argv: the words after the command's name; those of the process unless given.

    Returns:
        The exit code: 0 done, 1 could not be done, 2 a setting or an option is wrong.
    """
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except BrokenPipeError:  # somebody read the first lines and left; nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ConfigurationError as error:
        print(f"eyewall: {error}", file=sys.stderr)
        return 2
    return code


def typed_name(command: Command) -> str:
    """Return what is typed for ``command``: its module's name, with hyphens."""
    return command.__name__.rpartition(".")[2].replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="eyewall", description="Sessions, cookies and sign-in for Tornado.")
    parser.add_argument("--version", action="version", version=f"eyewall {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        summary, _, _ = (command.__doc__ or "").partition("\n")
        subparser = subparsers.add_parser(typed_name(command), help=summary.rstrip("."), description=summary)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
