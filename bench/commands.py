"""How many commands or statements a request costs the store, told by the server or the driver itself.

Counted apart from the measuring, because most of the witnesses slow down what they watch:

=====================  =====================================================================================
Redis, Valkey          ``MONITOR`` shows each command that came over a connection. Those that a script of ours
                       runs inside the server are marked ``lua`` and not counted again.
PostgreSQL             ``log_statement = all``: the log has a line for each statement it is told to execute.
MariaDB                ``SHOW GLOBAL STATUS LIKE 'Questions'``, before and after.
SQLite                 the driver's ``set_trace_callback``, in an application of its own (``--count``).
MongoDB                the driver's command listener, likewise.
=====================  =====================================================================================

``BEGIN`` and ``COMMIT`` count where they are sent, since each is a way to the server and back. Memory and
files have no such witness, and their column stays empty.
"""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Self
from urllib.parse import urlsplit

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench.drive import Client, ask, connected, visitors_for
from bench.loads import BURST, NOTE, Load, Visitor
from eyewall.stores.sql_urls import driver_url
from tests.servers.process import ServerProcess

HOUSEKEEPING = (b'"CLIENT"', b'"HELLO"', b'"PING"', b'"SELECT"', b'"INFO"', b'"COMMAND"')
END = b"the-count-ends-here"
SILENCE = 0.2
"""Seconds to wait for what the application still has to say."""
CONNECTIONS = 16
EACH = 4
EXECUTED = re.compile(r"LOG:  (?:statement|execute [^:]*): ")


class Witness:
    """Counts what a store is asked, inside an ``async with``."""

    own = 0
    """How many of what it counts are its own, between two counts."""

    async def count(self) -> int:
        """Return how many commands or statements there have been since some fixed moment."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin to watch."""

    async def stop(self) -> None:
        """Watch no more."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class RespWitness(Witness):
    """Reads what a Redis or Valkey server says it is asked.

    Args:
        url: the server's address.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 6379)
        self._seen = 0

    async def start(self) -> None:
        self._watcher = socket.create_connection(self._address, 5)
        self._watcher.sendall(b"MONITOR\r\n")
        while not self._watcher.recv(64).startswith(b"+OK"):
            pass

    async def count(self) -> int:
        with socket.create_connection(self._address, 5) as marker:
            marker.sendall(b"PING " + END + b"\r\n")
            self._seen += sum(map(_counts, self._until_end()))
        return self._seen

    def _until_end(self) -> list[bytes]:
        received = b""
        while END not in received[-200:]:
            chunk = self._watcher.recv(1 << 20)
            if not chunk:
                raise ConnectionError("the server ended the watch")
            received += chunk
        return received.split(b"\r\n")

    async def stop(self) -> None:
        self._watcher.close()


def _counts(line: bytes) -> bool:
    """Whether a line of the watch is a command that an application sent."""
    where, _, command = line.partition(b"] ")
    if not command or where.endswith(b" lua"):
        return False
    return not command.upper().startswith(HOUSEKEEPING)


class PostgresWitness(Witness):
    """Counts the statements in a PostgreSQL server's log.

    Args:
        server: has its log where it can be read.
    """

    def __init__(self, server: ServerProcess) -> None:
        self._server = server

    async def start(self) -> None:
        await self._log("all")

    async def count(self) -> int:
        return len(EXECUTED.findall(self._server.log))

    async def stop(self) -> None:
        await self._log("none")

    async def _log(self, what: str) -> None:
        await _answer(self._server.url, f"ALTER SYSTEM SET log_statement = '{what}'")
        await _answer(self._server.url, "SELECT pg_reload_conf()")
        await asyncio.sleep(SILENCE)  # its processes are told by a signal


class MariaDBWitness(Witness):
    """Asks a MariaDB server for its counter, which counts the asking too.

    Args:
        server: runs.
    """

    def __init__(self, server: ServerProcess) -> None:
        self._server = server

    async def start(self) -> None:
        before = await self.count()
        self.own = await self.count() - before

    async def count(self) -> int:
        _, value = await _answer(self._server.url, "SHOW GLOBAL STATUS LIKE 'Questions'")
        return int(value)


async def _answer(url: str, statement: str) -> tuple[str, ...]:
    """Run one statement on a connection of its own; return the first row, if there are rows."""
    address, _ = driver_url(url)
    engine = create_async_engine(address, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        result = await connection.execute(text(statement))
        row = tuple(map(str, result.one())) if result.returns_rows else ()
    await engine.dispose()
    return row


class DriverWitness(Witness):
    """Asks an application that counts what its driver sends.

    Args:
        port: of the application, which was started with ``--count``.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    async def count(self) -> int:
        (client,) = await connected(self._port, 1)
        try:
            return int(await ask(client, Visitor(), "GET", "/statements"))
        finally:
            client.close()


async def commands_per_request(witness: Witness, port: int, load: Load) -> float:
    """Return how many commands a request of ``load`` costs, with 16 connections to the application.

    Raises:
        WrongAnswerError: a request failed.
    """
    clients = await connected(port, CONNECTIONS)
    ask_all = _burst if load.burst else _single_requests
    try:
        return await ask_all(witness, clients, load)
    finally:
        for client in clients:
            client.close()


async def _burst(witness: Witness, clients: list[Client], _: Load) -> float:
    visitor, keys = Visitor(), iter(range(BURST))
    await ask(clients[0], visitor, "POST", "/start", NOTE)

    async def share(client: Client) -> None:
        for key in keys:
            await ask(client, visitor, "POST", f"/mark?k={key}")

    before = await witness.count()
    await asyncio.gather(*map(share, clients))
    return await _since(before, witness) / BURST


async def _single_requests(witness: Witness, clients: list[Client], load: Load) -> float:
    visitors = await visitors_for(load, clients, CONNECTIONS * EACH)

    async def share(client: Client, own: list[Visitor]) -> None:
        for visitor in own:
            await ask(client, visitor, load.method, load.path, load.body)

    await asyncio.sleep(SILENCE)  # what making the visitors left to do
    before = await witness.count()
    shares = [visitors[i * EACH : (i + 1) * EACH] for i in range(len(clients))]
    await asyncio.gather(*map(share, clients, shares))
    return await _since(before, witness) / (len(clients) * EACH)


async def _since(before: int, witness: Witness) -> float:
    await asyncio.sleep(SILENCE)
    return await witness.count() - before - witness.own
