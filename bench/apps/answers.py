"""What every application answers: the same routes over the same session data, whoever keeps it.

==============  =========================================================================
``GET /bare``   touches no session
``POST /start`` a visitor's first write: ``user``, ``n`` and the body as ``note``
``GET /read``   reads two values: ``alice 0``, or ``nobody``
``POST /count`` reads a counter, adds one, saves; answers with it
``POST /login`` signs in whom the body names: a new session ID where the system has a verb for it
``POST /big``   stores the body; answers with its length, as ``GET /big`` does later
``POST /mark``  stores a value under the key that ``?k=`` names
``GET /marks``  how many such keys there are
==============  =========================================================================

A bare application, which has no session layer, answers ``BARE`` to all of them.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

BARE = "bare"
METHODS = {
    "/bare": "GET",
    "/start": "POST",
    "/read": "GET",
    "/count": "POST",
    "/login": "POST",
    "/big": "POST",
    "/mark": "POST",
    "/marks": "GET",
}
SECRET = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"  # noqa: S105 - protects nothing but a benchmark
HOUR = 3600


class Place(NamedTuple):
    """Where an application listens, and where it keeps its sessions."""

    port: int
    store: str
    way: str
    counts: bool


def place() -> Place:
    """Read the command line that every application understands."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--store", default="", help="address of the store, or nothing for a bare application")
    parser.add_argument("--way", default="", help="which of its ways of keeping sessions")
    parser.add_argument("--count", action="store_true", help="count what the driver of the store sends")
    arguments = parser.parse_args()
    return Place(arguments.port, arguments.store, arguments.way, arguments.count)


def start(session: Any, body: bytes) -> str:
    """Store what a session of about 500 bytes holds."""
    session["user"] = "alice"
    session["n"] = 0
    session["note"] = body.decode()
    return "started"


def read(session: Any) -> str:
    """Read two values."""
    user = session.get("user")
    return "nobody" if user is None else f"{user} {session.get('n')}"


def count(session: Any) -> str:
    """Read, add one, store."""
    session["n"] = number = session.get("n", 0) + 1
    return str(number)


def store_big(session: Any, body: bytes) -> str:
    """Store a large value."""
    session["big"] = body.decode()
    return str(len(body))


def big(session: Any) -> str:
    """Return the large value's length."""
    return str(len(session.get("big", "")))


def mark(session: Any, key: str) -> str:
    """Store a small value under a key of its own."""
    session[f"mark{key}"] = 1
    return "marked"


def marks(session: Any) -> str:
    """Return how many small values there are."""
    return str(sum(1 for key in session.keys() if key.startswith("mark")))  # noqa: SIM118 - Django's needs it
