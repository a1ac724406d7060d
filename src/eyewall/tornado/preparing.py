"""What of ours must come before a handler's ``prepare()``, or in its place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

Prepare = Callable[[], Awaitable[None] | None]
"""What Tornado calls before a handler's method."""


class Preparing:
    """A handler whose ``prepare()`` may be another one for a single request."""

    # A class attribute, because looking into a handler's __dict__ makes Python build one: 2 us a request.
    prepares_otherwise = False


def prepare_by(handler: Preparing, prepare: Prepare) -> None:
    """Let ``prepare`` stand for the handler's own, for this request."""
    handler.__dict__["prepare"] = prepare
    handler.prepares_otherwise = True


def prepare_as_ever(handler: Preparing) -> None:
    """Take back what :func:`prepare_by` has put there."""
    del handler.__dict__["prepare"]
    handler.prepares_otherwise = False
