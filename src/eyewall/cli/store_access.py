"""What the commands that work on a store share: which store, and what to say when it fails."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

from eyewall.cli.demo import demo_settings
from eyewall.core.opening import open_store
from eyewall.core.store import Store, utc_now
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.settings import Settings

Work = Callable[..., Coroutine[Any, Any, int]]
"""Does something with stores; returns the exit code."""

_IN_MEMORY: Final = (
    "sessions in memory live inside the process that serves them and end with it, so no other process can "
    "reach them; this command needs a store outside the process"
)


def add_url(parser: argparse.ArgumentParser) -> None:
    """Declare ``--url``."""
    parser.add_argument("--url", metavar="STORE_URL", help="the store (default: what EYEWALL_* or .env say)")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings of the environment, for the store that ``--url`` names if given.

    Raises:
        ConfigurationError: a setting is wrong, or the store is not one that this process can reach.
    """
    settings = demo_settings(arguments.url, None)
    check_reachable(settings)
    return settings


def check_reachable(settings: Settings, *, must_exist: bool = True) -> None:
    """Refuse a store that another process cannot share, and a folder that is not there.

    Raises:
        ConfigurationError: with the reason.
    """
    if settings.backend == "memory":
        raise ConfigurationError(_IN_MEMORY)
    if must_exist and settings.backend == "file" and not settings.path.is_dir():
        raise ConfigurationError(f"there is no folder {settings.path.absolute()}, so no sessions are in it")


def run_with(work: Work, *places: Settings) -> int:
    """Open the stores of ``places``, await ``work(*stores)``, close them.

    Returns:
        What ``work`` returned; 1 when a store did not answer or the user interrupted.
    """

    async def opened() -> int:
        async with AsyncExitStack() as closing:
            stores: list[Store] = []
            for settings in places:
                stores.append(open_store(settings, utc_now))
                closing.push_async_callback(stores[-1].close)
            return await work(*stores)

    try:
        return asyncio.run(opened())
    except StoreUnavailable as error:
        return failed(f"the store does not answer: {error}")
    except KeyboardInterrupt:
        return failed("interrupted; run the command again to go on")


def failed(reason: str) -> int:
    """Print ``reason`` on standard error; return the exit code 1."""
    print(f"eyewall: {one_line(reason)}", file=sys.stderr)
    return 1


def one_line(text: str, *, longest: int = 600) -> str:
    """Return ``text`` as printable ASCII on one line.

    User agents and principals come from strangers: what they send must not move the cursor of a terminal,
    hide a line of the list, or end the command where the terminal knows no Unicode.
    """
    spaced = " ".join(text.split())
    shown = "".join(character if character.isprintable() else "?" for character in spaced)
    shown = shown.encode("ascii", "backslashreplace").decode("ascii")
    return shown if len(shown) <= longest else f"{shown[: longest - 3]}..."
