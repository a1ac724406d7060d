"""Whole requests through Tornado inside one process: what a session layer adds, free of noise.

Client and server share an event loop, one request under way. The client's part is in every figure, so only
differences between two of them mean anything; counted in instructions (:mod:`bench.instructions`) they do
not depend on what else the machine does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from bench.apps import answers, eyewall_site, tornado_bare
from bench.drive import Client, ask, connected
from bench.loads import NOTE, Visitor, forged, request_bytes
from eyewall import Sessions


async def served(application: Application) -> Client:
    """Serve ``application`` on this event loop; return a connection to it."""
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(application).add_sockets(sockets)
    (client,) = await connected(sockets[0].getsockname()[1], 1)
    return client


async def started(client: Client) -> bytes:
    """Return the cookie of a session of about 500 bytes."""
    visitor = Visitor()
    await ask(client, visitor, "POST", "/start", NOTE)
    return visitor.cookie


def whole_requests() -> dict[str, Callable[[], object]]:
    """Return the requests by name; each call sends one and awaits its answer."""
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    sessions = {way: Sessions(backend=way, cookie_secret=answers.SECRET) for way in ("memory", "cookie")}
    bare = loop.run_until_complete(served(tornado_bare.make_app()))
    memory, sealed = (
        loop.run_until_complete(served(eyewall_site.make_app(sessions[way], "mixin")))
        for way in ("memory", "cookie")
    )
    cookie, sealed_cookie = (loop.run_until_complete(started(client)) for client in (memory, sealed))

    def asking(client: Client, method: str, path: str, value: bytes = b"") -> Callable[[], object]:
        request = request_bytes(method, path, b"", value)
        return lambda: loop.run_until_complete(client.ask(request))

    return {
        "W0, bare Tornado": asking(bare, "GET", "/bare"),
        "W1, memory store": asking(memory, "GET", "/read", cookie),
        "W1, sealed cookie": asking(sealed, "GET", "/read", sealed_cookie),
        "W2, memory store": asking(memory, "POST", "/count", cookie),
        "W3, memory store": asking(memory, "GET", "/bare"),
        "W4, memory store": asking(memory, "GET", "/read", forged(cookie)),
    }
