"""Copy all sessions from one store to another, and verify that they are there."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta
from typing import Final, cast

from eyewall.cli.copying import Copier, Mover, ScannedStore, count
from eyewall.cli.store_access import check_reachable, failed, run_with
from eyewall.core.opening import encrypted_store, keyring_for
from eyewall.core.store import Store, utc_now
from eyewall.errors import ConfigurationError
from eyewall.settings import Settings
from eyewall.store_url import masked_url

_TIMEOUT: Final = timedelta(seconds=30)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """From where to where, and how."""
    parser.description = (
        f"{__doc__} Stop the site first, or use --live. Records that are there already are skipped, or "
        "brought up to date when they are older, so the command can be interrupted and run again."
    )
    parser.add_argument("source", metavar="FROM", help="URL of the store that has the sessions")
    parser.add_argument("target", metavar="TO", help="URL of the store that is to have them")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--live", action="store_true", help="move rather than copy, while the site serves both stores as one"
    )
    how.add_argument(
        "--prune",
        action="store_true",
        help="end the sessions that TO has and FROM has not; never once the site has begun to use TO",
    )


def run(arguments: argparse.Namespace) -> int:
    """Copy or move; print what became of it."""
    if arguments.source == arguments.target:
        raise ConfigurationError("FROM and TO are the same store")
    places = [_place("FROM", arguments.source), _place("TO", arguments.target)]
    print(f"from {masked_url(arguments.source)} to {masked_url(arguments.target)}", flush=True)

    async def migrate(source: Store, target: Store) -> int:
        if not isinstance(source, ScannedStore):
            return failed("FROM cannot list its sessions, so they cannot be migrated")
        if arguments.live:
            return await _move(Mover(*_opening_seals(source, target)), source)
        return await _copy(Copier(source, target, utc_now), prune=arguments.prune)

    return run_with(migrate, *places)


def _place(name: str, url: str) -> Settings:
    def spelled(field: str) -> str:
        return name if field == "url" else field

    settings = Settings(url=url, store_timeout=_TIMEOUT, spelling=spelled)
    try:
        check_reachable(settings, must_exist=name == "FROM")
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    return settings


async def _copy(copier: Copier, *, prune: bool) -> int:
    tally = await copier.copy_all(sys.stderr)
    print(f"{tally.copied} copied, {tally.updated} updated, {tally.skipped} already there", flush=True)
    verified, missing = await copier.verify(sys.stderr)
    if missing:
        return failed(
            f"{missing} of {verified + missing} sessions are not in TO as they are in FROM; was the site "
            "still running? Stop it and run the command again."
        )
    print(f"{verified} sessions verified")
    if not copier.target_can_be_listed():
        return 0
    extra = await copier.extra(end=prune)
    if extra and not prune:
        return failed(
            f"TO has {extra} sessions that FROM has not: either TO is in use already, then all is well, or "
            "they were ended after an earlier run, then run again with --prune to end them in TO, too"
        )
    if extra:
        print(f"{extra} sessions ended that were in TO only")
    return 0


def _opening_seals(source: ScannedStore, target: Store) -> tuple[ScannedStore, Store]:
    """Return the stores as the site sees them: a move changes the version that a seal is bound to."""
    site = Settings.from_environment()
    if not site.encrypt:
        return source, target
    if site.cookie_secret is None and site.secret_file is None:
        raise ConfigurationError("set EYEWALL_COOKIE_SECRET or EYEWALL_SECRET_FILE to the keys of the site")
    ring = keyring_for(site)
    return cast(ScannedStore, encrypted_store(source, ring)), encrypted_store(target, ring)


async def _move(mover: Mover, source: ScannedStore) -> int:
    moved = await mover.move_all(sys.stderr)
    print(f"{moved} sessions moved", flush=True)
    if left := await count(source):  # also those that no key of ours opens
        return failed(f"{left} sessions are still in FROM; run the command again, with all keys of the site")
    print("FROM has no live session any more; the site can go on with TO alone")
    return 0
