"""What must be true of an application before anything it does is measured.

The bare minimum of a session: it counts, visitors do not meet, a forged cookie is nobody. Each check names
the system's fault, and a system with a fault is left out of the table.
"""

from __future__ import annotations

import asyncio

from bench.drive import Client, WrongAnswerError, ask, connected
from bench.loads import LARGE, NOTE, Visitor, forged, request_bytes
from bench.systems import System

FORGERIES = 20


def require(kept: object, fault: str) -> None:
    """Raise WrongAnswerError with ``fault`` unless ``kept``."""
    if not kept:
        raise WrongAnswerError(fault)


async def check(port: int, system: System) -> list[str]:
    """Check the application at ``port``; return what is worth a note in the results.

    Raises:
        WrongAnswerError: it is not fit to be measured; the message says why.
    """
    (client,) = await connected(port, 1)
    try:
        async with asyncio.timeout(20):
            if system.is_bare:
                await _answers(client)
                return []
            await _leaves_strangers_alone(client)
            await _counts(client)
            await _knows_forgeries(client)
            if not system.in_cookie:
                await _keeps_large_values(client)
            return await _signs_in(client)
    finally:
        client.close()


async def _answers(client: Client) -> None:
    for method, path in (("GET", "/read"), ("POST", "/count")):
        require(await ask(client, Visitor(), method, path) == b"bare", f"{path} is not bare")


async def _leaves_strangers_alone(client: Client) -> None:
    stranger = Visitor()
    require(await ask(client, stranger, "GET", "/bare") == b"bare", "/bare does not answer")
    require(not stranger.cookie, "a page that touches no session sets a cookie")
    require(await ask(client, stranger, "GET", "/read") == b"nobody", "a stranger is somebody")


async def _counts(client: Client) -> None:
    alice, other = Visitor(), Visitor()
    for number in (b"1", b"2", b"3"):
        require(await ask(client, alice, "POST", "/count") == number, "the counter does not count")
    require(await ask(client, other, "POST", "/count") == b"1", "two visitors share a counter")
    require(await ask(client, alice, "POST", "/count") == b"4", "another visitor disturbed the counter")


async def _knows_forgeries(client: Client) -> None:
    alice = Visitor()
    await ask(client, alice, "POST", "/start", NOTE)
    require(await ask(client, alice, "GET", "/read") == b"alice 0", "a session is not there again")
    for _ in range(FORGERIES):
        impostor = Visitor(forged(alice.cookie))
        require(impostor.cookie != alice.cookie, "the forged cookie is the real one")
        require(await ask(client, impostor, "GET", "/read") == b"nobody", "a forged cookie is somebody")


async def _keeps_large_values(client: Client) -> None:
    visitor = Visitor()
    require(await ask(client, visitor, "POST", "/big", LARGE) == b"8192", "8 KB are refused")
    require(await ask(client, visitor, "GET", "/big") == b"8192", "8 KB are not there again")


async def _signs_in(client: Client) -> list[str]:
    visitor = Visitor()
    await ask(client, visitor, "POST", "/start", NOTE)
    before = Visitor(visitor.cookie)
    require(await ask(client, visitor, "POST", "/login", b"bob") == b"bob", "nobody can sign in")
    require(await ask(client, visitor, "GET", "/read") == b"bob 0", "signing in loses the session")
    notes = []
    if before.cookie == visitor.cookie:
        notes.append("signing in changes no ID")
    else:
        _, body = await client.ask(request_bytes("GET", "/read", b"", before.cookie))
        if body != b"nobody":
            notes.append("the cookie from before a sign-in still opens the session")
    return notes
