"""How many commands a request costs the store, told by Redis itself.

Counted apart from the measuring, because ``MONITOR`` slows the server down. It shows every command that
came over a connection; those that a script of ours runs inside the server are marked ``lua`` and not
counted again. Other stores have no such witness, and their column stays empty.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from bench.drive import Client, ask, connected, visitors_for
from bench.loads import BURST, NOTE, Load, Visitor

HOUSEKEEPING = (b'"CLIENT"', b'"HELLO"', b'"PING"', b'"SELECT"', b'"INFO"', b'"COMMAND"')
END = b"the-count-ends-here"
SILENCE = 0.2
CONNECTIONS = 16
EACH = 4


class Watch:
    """Counts what a Redis or Valkey server is asked.

    Args:
        url: the server's address.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self.commands = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the commands that arrive inside the ``with``."""
        with socket.create_connection(self._address, 5) as watcher:
            watcher.sendall(b"MONITOR\r\n")
            while not watcher.recv(64).startswith(b"+OK"):
                pass
            yield
            time.sleep(SILENCE)  # what the application still had to say
            with socket.create_connection(self._address, 5) as marker:
                marker.sendall(b"PING " + END + b"\r\n")
                self.commands = sum(map(_counts, _until_end(watcher)))


def _until_end(watcher: socket.socket) -> list[bytes]:
    received = b""
    while END not in received[-200:]:
        chunk = watcher.recv(1 << 20)
        if not chunk:
            raise ConnectionError("the server ended the watch")
        received += chunk
    return received.split(b"\r\n")


def _counts(line: bytes) -> bool:
    """Whether a line of the watch is a command that an application sent."""
    where, _, command = line.partition(b"] ")
    if not command or where.endswith(b" lua"):
        return False
    return not command.upper().startswith(HOUSEKEEPING)


async def commands_per_request(watch: Watch, port: int, load: Load) -> float:
    """Return how many commands a request of ``load`` costs, with 16 connections to the application."""
    clients = await connected(port, CONNECTIONS)
    try:
        if load.burst:
            return await _of_a_burst(watch, clients)
        return await _of_single_requests(watch, clients, load)
    finally:
        for client in clients:
            client.close()


async def _of_a_burst(watch: Watch, clients: list[Client]) -> float:
    visitor, keys = Visitor(), iter(range(BURST))
    await ask(clients[0], visitor, "POST", "/start", NOTE)

    async def share(client: Client) -> None:
        for key in keys:
            await ask(client, visitor, "POST", f"/mark?k={key}")

    with watch.counting():
        await asyncio.gather(*map(share, clients))
    return watch.commands / BURST


async def _of_single_requests(watch: Watch, clients: list[Client], load: Load) -> float:
    visitors = await visitors_for(load, clients, bare=False)

    async def share(client: Client, own: list[Visitor]) -> None:
        for visitor in own:
            await ask(client, visitor, load.method, load.path, load.body)

    with watch.counting():
        shares = [visitors[i * EACH : (i + 1) * EACH] for i in range(len(clients))]
        await asyncio.gather(*map(share, clients, shares))
    return watch.commands / (len(clients) * EACH)
