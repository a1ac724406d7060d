"""End all sessions of one principal."""

from __future__ import annotations

import argparse

from eyewall.cli.store_access import add_url, failed, one_line, run_with, settings_of
from eyewall.core.store import PrincipalIndex, Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose, and in which store."""
    parser.add_argument("principal", help="who is signed in, as the application told sign_in()")
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    """Delete every record of the principal and say how many there were."""

    async def revoke(store: Store) -> int:
        if not isinstance(store, PrincipalIndex):
            return failed("this store cannot find the sessions of a principal")
        went = await store.delete_principal(arguments.principal)
        print(f"{went} sessions of {one_line(arguments.principal)} ended")
        return 0

    return run_with(revoke, settings_of(arguments))
