"""A MongoDB server that refuses what it is told to: a proxy that answers some commands itself."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import bson

Answer = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Given a command, returns the proxy's answer, or None to let the server answer."""

Alter = Callable[[bytes], bytes]
"""Given what the server sends, returns what the client gets in its place; of the same length."""

HEADER = struct.Struct("<iiii")
OP_MSG = 2013


def refusing(command: str, code: int, *, when: str = "") -> Answer:
    """Answer ``command`` with error ``code``, if ``when`` occurs in it."""

    def answer(body: dict[str, Any]) -> dict[str, Any] | None:
        if next(iter(body)) != command or when not in repr(body):
            return None
        return {"ok": 0.0, "code": code, "codeName": "Refused", "errmsg": "refused by the proxy"}

    return answer


def server_of_7(data: bytes) -> bytes:
    """Have the server say that it speaks as MongoDB 7.0 does."""
    return data.replace(b"maxWireVersion\0\x19", b"maxWireVersion\0\x15")


@asynccontextmanager
async def proxied(url: str, answer: Answer, alter: Alter = bytes) -> AsyncIterator[str]:
    """Serve a proxy to the server of ``url``; yields the proxy's host and port."""
    address = urlsplit(url)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await asyncio.gather(
                    _pump(back_reader, writer, alter), _ask(reader, writer, back_writer, answer)
                )
        finally:  # also when cancelled: nothing else closes them
            back_writer.close()
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the sockets close in the event loop's next turn


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter, answer: Answer
) -> None:
    while True:
        header = await reader.readexactly(HEADER.size)
        length, request, _, opcode = HEADER.unpack(header)
        rest = await reader.readexactly(length - HEADER.size)
        refusal = answer(_command(rest)) if opcode == OP_MSG else None
        if refusal is None:
            back.write(header + rest)
        else:
            body = b"\0\0\0\0\0" + bson.encode(refusal)
            writer.write(HEADER.pack(HEADER.size + len(body), 1, request, OP_MSG) + body)


def _command(rest: bytes) -> dict[str, Any]:
    """Return the command of an OP_MSG: after the flags and the section's kind comes one BSON document."""
    size = int.from_bytes(rest[5:9], "little")
    return bson.decode(rest[5 : 5 + size])


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, alter: Alter) -> None:
    while data := await reader.read(65536):
        writer.write(alter(data))
    raise asyncio.IncompleteReadError(b"", None)
