"""Telling a host that does not answer from one that does not exist."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable


async def unknown_host(nodes: Iterable[tuple[str, int]], *, seconds: float) -> str | None:
    """Return the first host of ``nodes`` whose name nobody knows; None when all are known.

    Asked when nobody has answered: drivers tell the two apart badly, or not at all.

    Args:
        nodes: host and port of each.
        seconds: longest wait for all the names; a name that is not looked up by then counts as known.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            for host, port in nodes:
                try:
                    await loop.getaddrinfo(host, port)
                except (socket.gaierror, UnicodeError):
                    return host
    except TimeoutError:
        return None
    return None
