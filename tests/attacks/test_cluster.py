"""A cluster whose servers come and go under new addresses, and one that is cut off and does not know it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tornado.testing import bind_unused_port

from eyewall.errors import StoreUnavailable
from eyewall.stores.resp_address import ResponseError, read_address
from eyewall.stores.resp_cluster import ClusterLink

Answer = Callable[[str, int, list[bytes]], bytes]
"""Given the address and port that was asked and the words, the reply as bytes."""


@asynccontextmanager
async def _servers(addresses: list[str], answer: Answer, slow: str = "") -> AsyncIterator[int]:
    """Something at each of ``addresses``, on one port, that speaks as much RESP as a store needs."""
    holding, port = bind_unused_port()
    holding.close()
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await talk(reader, writer)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        here = writer.get_extra_info("sockname")[0]
        while line := await reader.readline():
            words = []
            for _ in range(int(line[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            if here == slow:
                await asyncio.sleep(0.02)
            known = words[0].upper() in (b"CLUSTER", b"GET")
            writer.write(answer(here, port, words) if known else b"+OK\r\n")

    server = await asyncio.start_server(serve, addresses, port)
    try:
        yield port
    finally:
        server.close()
        for writer in writers:
            writer.close()


def _all_slots_at(host: str, port: int) -> bytes:
    return f"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n${len(host)}\r\n{host}\r\n:{port}\r\n".encode()


async def test_masters_that_are_replaced_one_after_another_are_all_remembered_for_ever() -> None:
    """In a cluster whose servers get new addresses, each one that is gone keeps two connections here."""
    addresses = [f"127.0.0.{n}" for n in range(1, 21)]
    masters = [addresses[0]]

    def answer(here: str, port: int, words: list[bytes]) -> bytes:
        if words[0].upper() == b"CLUSTER":
            return _all_slots_at(masters[0], port)
        return b"$-1\r\n" if here == masters[0] else f"-MOVED 1 {masters[0]}:{port}\r\n".encode()

    async with _servers(addresses, answer) as port:
        link = ClusterLink(read_address(f"redis+cluster://127.0.0.1:{port}"), 2.0)
        for masters[0] in addresses:
            assert await link.send(("GET", "k")) == [None]
        await link.send(("GET", "k"))
        kept = len(link._links)
        await link.close()
    assert kept <= 4


async def test_a_master_that_is_cut_off_from_its_cluster_and_answers_first_keeps_everybody_out() -> None:
    """The others have replaced it long ago, but it is always asked, and believed, before them."""
    cut_off, healthy = "127.0.0.2", "127.0.0.3"

    def answer(here: str, port: int, words: list[bytes]) -> bytes:
        if words[0].upper() == b"CLUSTER":
            return _all_slots_at(here, port)
        return b"-CLUSTERDOWN The cluster is down\r\n" if here == cut_off else b"$-1\r\n"

    async with _servers([cut_off, healthy], answer, slow=healthy) as port:
        link = ClusterLink(read_address(f"redis+cluster://{cut_off}:{port},{healthy}:{port}"), 2.0)
        answered = 0
        for _ in range(10):
            try:
                (reply,) = await link.send(("GET", "k"))
            except StoreUnavailable:
                continue
            answered += not isinstance(reply, ResponseError)
        await link.close()
    assert answered >= 8


async def test_a_slot_that_has_moved_is_looked_for_at_its_old_master_for_ever() -> None:
    """The driver's MovedError is an AskError too, so every call of a moved session takes two servers."""
    old, new = "127.0.0.2", "127.0.0.3"
    asked = list[str]()

    def answer(here: str, port: int, words: list[bytes]) -> bytes:
        if words[0].upper() == b"CLUSTER":
            return _all_slots_at(new if asked else old, port)
        asked.append(here)
        return b"$-1\r\n" if here == new else f"-MOVED 1 {new}:{port}\r\n".encode()

    async with _servers([old, new], answer) as port:
        link = ClusterLink(read_address(f"redis+cluster://{old}:{port}"), 2.0)
        for _ in range(10):
            await link.send(("GET", "k"))
        await link.close()
    assert asked.count(old) == 1
