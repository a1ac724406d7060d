"""Remove expired sessions now, for instance from cron."""

from __future__ import annotations

import argparse

from eyewall.cli.store_access import add_url, run_with, settings_of
from eyewall.core.store import Store, utc_now
from eyewall.core.sweeping import BATCH


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which store, and how many at most."""
    add_url(parser)
    parser.add_argument(
        "--limit", type=_count, metavar="N", help="remove at most N (default: all that are due)"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of sessions")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Sweep in batches, so that a serving site is not held up, until nothing is due."""

    async def sweep(store: Store) -> int:
        went = await sweep_all(store, arguments.limit)
        print(f"{went} expired record{'' if went == 1 else 's'} removed")
        return 0

    return run_with(sweep, settings_of(arguments))


async def sweep_all(store: Store, limit: int | None = None) -> int:
    """Remove what is expired now, at most ``limit`` records; return how many went."""
    now = utc_now()  # one moment for all batches, so that the end does not run away
    went = 0
    while limit is None or went < limit:
        batch = BATCH if limit is None else min(BATCH, limit - went)
        removed = await store.sweep(now, batch)
        went += removed
        if removed < batch:
            break
    return went
