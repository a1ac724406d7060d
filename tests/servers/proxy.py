"""A TCP proxy that makes a healthy server look ill: slow, frozen, cut off, or dripping byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from types import TracebackType
from typing import Self


class Flow:
    """One direction through the proxy. Its settings may be changed at any time.

    Args:
        latency: longest delay of a piece of data (seconds); each waits a random part of it.
        slice_bytes: forward in pieces of at most so many bytes; 0 leaves data as it came.
    """

    def __init__(self) -> None:
        self.latency = 0.0
        self.slice_bytes = 0
        self.pieces: list[bytes] = []
        """What came, piece by piece as it was read."""
        self._came = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._chance = random.Random(27)

    def forget(self) -> None:
        """Forget the pieces that came so far."""
        self.pieces.clear()
        self._came.clear()

    async def first_piece(self) -> None:
        """Wait until a piece has come since :meth:`forget` was called."""
        await self._came.wait()

    def freeze(self) -> None:
        """Hold everything back, connections staying open."""
        self._running.clear()

    def thaw(self) -> None:
        """Let what was held back go on."""
        self._running.set()

    async def carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        """Forward until the source ends."""
        while data := await source.read(65536):
            self.pieces.append(data)
            self._came.set()
            if self.latency:
                await asyncio.sleep(self.latency * self._chance.random())
            step = self.slice_bytes or len(data)
            for start in range(0, len(data), step):
                await self._running.wait()
                sink.write(data[start : start + step])
                await sink.drain()
                if step < len(data):
                    await asyncio.sleep(0)


class Proxy:
    """Listens on a port of its own and passes everything on to ``port``, both of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.requests = Flow()
        self.replies = Flow()
        self._target = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        if self._server is None:
            raise RuntimeError("the proxy listens only inside `async with`")
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def url_for(self, url: str) -> str:
        """Return ``url`` with the proxy's port in the place of its own."""
        return re.sub(r"(127\.0\.0\.1:)\d+", rf"\g<1>{self.port}", url, count=1)

    def cut(self) -> None:
        """Reset every connection, in the middle of whatever was on its way."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._connect(client_reader, client_writer)

    async def _connect(
        self, client_reader: asyncio.StreamReader, client_writer: asyncio.StreamWriter
    ) -> None:
        pair = {client_writer}
        self._writers |= pair
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
            pair.add(server_writer)
            self._writers.add(server_writer)
            flows = (
                asyncio.ensure_future(self.requests.carry(client_reader, server_writer)),
                asyncio.ensure_future(self.replies.carry(server_reader, client_writer)),
            )
            try:
                await asyncio.wait(flows, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for flow in flows:
                    flow.cancel()
                await asyncio.gather(*flows, return_exceptions=True)
        finally:
            self._writers -= pair
            for writer in pair:
                writer.close()
