"""Run the shopping cart of the examples, to see sessions at work."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import errno
import os
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from eyewall.cli.serving import serve
from eyewall.cli.settings import PREFIX
from eyewall.errors import ConfigurationError
from eyewall.settings import Settings
from eyewall.settings_sources import read_environment
from eyewall.store_url import masked_url
from eyewall.tornado import Sessions

HOST: Final = "127.0.0.1"
PORT: Final = 7145
_WHERE: Final = ("backend", "url", "host", "port", "password", "database", "path")
"""The settings that together say where the sessions are kept."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to listen, and where to keep the sessions."""
    parser.add_argument("--host", default=HOST, help=f"address to listen on (default: {HOST})")
    parser.add_argument("--port", type=_port, default=PORT, help=f"port to listen on (default: {PORT})")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--url", metavar="STORE_URL", help="keep sessions there, e.g. redis://localhost:6379/0"
    )
    where.add_argument("--data", metavar="FOLDER", help="keep sessions in files there (default: .eyewall)")


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; use 1 to 65535, or 0 for any free one")
    return port


def run(arguments: argparse.Namespace) -> int:
    """Serve the cart until told to stop."""
    settings = demo_settings(arguments.url, arguments.data)

    def announce(port: int) -> None:
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        print(f"Shopping cart at http://{host}:{port}/cart, sessions in {place_of(settings)}", flush=True)

    async def serve_cart() -> None:
        application = load_cart().make_app(Sessions(settings))
        await serve(application, arguments.host, arguments.port, announce)

    try:
        asyncio.run(serve_cart())
    except OSError as error:
        print(f"eyewall: {_why_not(error, arguments.host, arguments.port)}", file=sys.stderr)
        return 1
    return 0


def demo_settings(url: str | None, folder: str | None) -> Settings:
    """Return the settings of the environment, with sessions kept where the options say.

    Args:
        url: ``--url``, or None.
        folder: ``--data``, or None.

    Raises:
        ConfigurationError: a setting is wrong; named as the user wrote it, option or variable.
    """
    fields = [field.name for field in dataclasses.fields(Settings)]
    given, spelled = read_environment(PREFIX, os.environ, ".env", fields)
    values: dict[str, Any] = {**given}
    options = {"--url": ("url", url), "--data": ("path", folder)}
    chosen = {field: (option, value) for option, (field, value) in options.items() if value is not None}
    if chosen:
        # An option replaces all of it: half an address from here and half from there is nobody's wish.
        values = {field: value for field, value in values.items() if field not in _WHERE}
        values |= {field: value for field, (_, value) in chosen.items()}
    return Settings(**values, spelling=lambda field: chosen[field][0] if field in chosen else spelled(field))


def place_of(settings: Settings) -> str:
    """Say where sessions are kept, without passwords."""
    if settings.url is not None:
        return masked_url(settings.url)
    if settings.backend == "file":
        return str(settings.path.absolute())
    if settings.backend == "memory":
        return "memory (gone when this process ends)"
    return f"{settings.backend} at {settings.host or 'its default host'}"


def cart_folder() -> Path:
    """Return the folder of the example: beside this module when installed, else in the checkout.

    Raises:
        ConfigurationError: it is in neither place.
    """
    here = Path(__file__).resolve()
    for folder in (here.with_name("cart_example"), here.parents[3] / "examples" / "cart"):
        if (folder / "cart.py").is_file():
            return folder
    raise ConfigurationError("the cart example is not installed; run this in a checkout of Eyewall")


def load_cart() -> ModuleType:
    """Import the example as the module ``cart``, wherever it is."""
    path = str(cart_folder() / "cart.py")
    module = ModuleType("cart")
    module.__file__ = path  # the example finds its templates by it
    SourceFileLoader("cart", path).exec_module(module)
    return module


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; choose another with --port"
    return f"cannot listen on {host} port {port}: {error.strerror or error}"
