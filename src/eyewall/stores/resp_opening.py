"""Opens connections of redis-py, and closes them at once.

redis-py closes politely, also when what it does is cancelled. Over TLS that lasts until the server says
goodbye, half a minute with one that hangs, and the socket of an application that ends meanwhile stays open.
So nothing of redis-py's is cancelled once it has a transport: that is aborted, and redis-py finds out.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyewall.stores.resp_address import AbstractConnection


async def connect(connection: AbstractConnection) -> None:
    """Connect; a caller that is cancelled meanwhile leaves nothing open.

    Raises:
        OSError: the server cannot be reached.
        redis.RedisError: it refuses us.
    """
    # redis-py gives this method no types.
    connecting = asyncio.ensure_future(connection.connect())  # type: ignore[no-untyped-call]
    try:
        await asyncio.wait({connecting})
    finally:
        if not connecting.done():
            if not abort(connection):
                connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
    connecting.result()


async def hang_up(connection: AbstractConnection) -> None:
    """Close ``connection`` without a word, whatever its state."""
    abort(connection)
    with contextlib.suppress(OSError):
        await connection.disconnect()


def transport_of(connection: AbstractConnection) -> Any:
    """Return the transport of a connection, or None while it has none.

    redis-py calls the attribute private. Without it, all is as slow and as polite as redis-py.
    """
    return getattr(getattr(connection, "_writer", None), "transport", None)


def abort(connection: AbstractConnection) -> bool:
    """Close the socket of ``connection`` at once; return whether there is one."""
    transport = transport_of(connection)
    if transport is None:
        return False
    transport.abort()
    return True
