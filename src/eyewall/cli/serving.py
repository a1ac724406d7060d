"""Serving an application until it is told to stop, and stopping without losing anything."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from eyewall.errors import StoreUnavailable
from eyewall.tornado import Sessions
from eyewall.tornado.stopping import UnderWay

PATIENCE: Final = timedelta(seconds=10)
"""Longest wait for requests that are being answered when the signal to stop arrives."""

MAX_BODY: Final = 1024 * 1024
"""Largest request body taken, in bytes."""


async def serve(application: Application, host: str, port: int, announce: Callable[[int], None]) -> None:
    """Serve ``application`` until SIGINT or SIGTERM, then drain.

    Draining: take no new connection, close WebSockets and streams, let the requests under way be answered
    (:data:`PATIENCE`) and what they changed be stored, close the store.

    Args:
        application: the application; its sessions are those it was made with, else the environment's.
        host: name or address to listen on.
        port: TCP port; 0 takes a free one.
        announce: called with the port once it is listening.

    Raises:
        ConfigurationError: a setting or the secret is missing or unsafe, or the store's address or
            password is wrong.
        OSError: the address cannot be listened on.
    """
    sessions = Sessions.serving(application)
    under_way = UnderWay(application)
    try:
        await _check(sessions)
        sockets = bind_sockets(port, host)
        server = HTTPServer(application, max_body_size=MAX_BODY)
        server.add_sockets(sockets)
        stopped = _stop_signal()
        announce(sockets[0].getsockname()[1])
        await stopped.wait()
        server.stop()
        await under_way.finished(PATIENCE)
    finally:
        await sessions.aclose()
    await server.close_all_connections()


async def _check(sessions: Sessions) -> None:
    try:
        await sessions.check()
    except StoreUnavailable as error:
        said = " ".join(str(error).split())
        print(f"eyewall: serving without sessions until the store answers: {said}", file=sys.stderr)


def _stop_signal() -> asyncio.Event:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped
