"""Every shape of HTTP answer keeps the same rules for cookie, caching and saving."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from tornado.web import StaticFileHandler, stream_request_body

from tests.servers.patience import until
from tests.tornado.site import Handler, ServeSite


class Read(Handler):
    def get(self) -> None:
        self.write(str(self.s.get("k")))


class Write(Handler):
    def get(self) -> None:
        self.s["k"] = self.get_argument("v", "v")
        self.write("x" * 3000)

    head = get


async def test_a_304_saves_and_stays_private(serve: ServeSite) -> None:
    """The browser shows its old page, but what the handler stored is stored."""
    site = await serve([("/", Write), ("/read", Read)])
    first = await site.fetch("/?v=1")
    again = await site.fetch("/?v=2", headers={"If-None-Match": first.headers["Etag"], "Cookie": site.cookie})
    assert again.code == 304
    assert again.headers["Vary"] == "Cookie"
    assert await site.text("/read") == "2"


async def test_a_204_saves(serve: ServeSite) -> None:
    """No body is not no answer."""

    class Empty(Handler):
        def post(self) -> None:
            self.s["k"] = "v"
            self.set_status(204)

    site = await serve([("/", Empty), ("/read", Read)])
    assert (await site.fetch("/", "POST")).code == 204
    assert await site.text("/read") == "v"


async def test_head_saves_and_sends_no_body(serve: ServeSite) -> None:
    """HEAD runs the same handler, so it keeps the same rules."""
    site = await serve([("/", Write), ("/read", Read)])
    answer = await site.raw(b"HEAD /?v=h HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Set-Cookie: session=" in head
    assert body == b""
    site.cookie = head.partition(b"Set-Cookie: ")[2].partition(b";")[0].decode()
    assert await site.text("/read") == "h"


async def test_http_1_0_saves(serve: ServeSite) -> None:
    """Old clients close the connection to end the answer."""
    site = await serve([("/", Write)])
    answer = await site.raw(b"GET / HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"x" * 3000)
    assert len(await site.store.live()) == 1


async def test_gzip_saves(serve: ServeSite) -> None:
    """Transforms run before the wire."""
    site = await serve([("/", Write), ("/read", Read)], compress_response=True)
    answer = await site.fetch("/", decompress_response=True)
    assert answer.body == b"x" * 3000
    assert set(answer.headers["Vary"].replace(" ", "").split(",")) == {"Accept-Encoding", "Cookie"}
    assert await site.text("/read") == "v"


async def test_an_upload_saves(serve: ServeSite) -> None:
    """Bodies larger than one read arrive whole."""

    class Upload(Handler):
        def post(self) -> None:
            self.s["k"] = len(self.request.body)
            self.write("stored")

    site = await serve([("/", Upload), ("/read", Read)])
    assert await site.text("/", "POST", body=b"x" * 300_000) == "stored"
    assert await site.text("/read") == "300000"


async def test_pipelined_requests_are_answered_in_order(serve: ServeSite) -> None:
    """A held answer must hold back the ones behind it on the same connection."""
    site = await serve([("/", Write), ("/read", Read)])
    await site.sign_on()
    arrived, release = site.store.gate("replace")
    cookie = f"Cookie: {site.cookie}\r\n".encode()
    pipeline = (
        b"GET /?v=1 HTTP/1.1\r\nHost: x\r\n" + cookie + b"\r\n"
        b"GET /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + cookie + b"\r\n"
    )
    answer = asyncio.ensure_future(site.raw(pipeline))
    await arrived.wait()
    release.set()
    first, _, second = (await answer).partition(b"x" * 3000)
    assert first.startswith(b"HTTP/1.1 200")
    assert second.endswith(b"1"), "the second request was answered before the first was stored"


async def test_keep_alive_connections_stay_usable(serve: ServeSite) -> None:
    """Twenty writes over one connection."""
    site = await serve([("/", Write)])
    await site.sign_on()
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    for number in range(20):
        writer.write(f"GET /?v={number} HTTP/1.1\r\nHost: x\r\nCookie: {site.cookie}\r\n\r\n".encode())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readexactly(3000)
    writer.close()
    assert (await site.stored())["k"] == "19"


async def test_a_wrong_content_length_ends_the_connection_not_the_server(serve: ServeSite) -> None:
    """Tornado finds the mistake when the held answer is sent; it must not go unnoticed or hang."""

    class Wrong(Handler):
        def get(self) -> None:
            self.s["k"] = "v"
            self.set_header("Content-Length", "3")
            self.write("four")

    site = await serve([("/", Wrong), ("/read", Read)])
    assert b"four" not in await site.raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await site.text("/read") == "None"


async def test_body_data_after_an_early_answer_is_dropped(serve: ServeSite) -> None:
    """Tornado goes on feeding a handler whose answer is held back (200,000 bytes in our trial)."""
    received = []

    @stream_request_body
    class Upload(Handler):
        def prepare(self) -> None:
            self.s["k"] = "refused"
            self.set_status(401)
            self.finish("no")

        def data_received(self, chunk: bytes) -> None:
            received.append(len(chunk))

        def post(self) -> None:
            self.write("SECRET")

    site = await serve([("/", Upload), ("/read", Read)])
    _, release = site.store.gate("create")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"y" * 200_000)
    await asyncio.sleep(0.05)
    release.set()
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    assert head.startswith(b"HTTP/1.1 401")
    assert received == []


async def test_a_streamed_upload_still_arrives(serve: ServeSite) -> None:
    """The guard for the case above must not eat ordinary uploads."""

    @stream_request_body
    class Upload(Handler):
        def initialize(self) -> None:
            self.size = 0

        def data_received(self, chunk: bytes) -> None:
            self.size += len(chunk)

        def post(self) -> None:
            self.s["k"] = self.size
            self.write(str(self.size))

    site = await serve([("/", Upload), ("/read", Read)])
    assert await site.text("/", "POST", body=b"y" * 200_000) == "200000"
    assert await site.text("/read") == "200000"


async def test_a_client_that_leaves_during_the_save_loses_nothing(serve: ServeSite) -> None:
    """The save completes once; the server goes on."""
    site = await serve([("/", Write), ("/read", Read)])
    await site.sign_on()
    arrived, release = site.store.gate("replace")
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(f"GET /?v=gone HTTP/1.1\r\nHost: x\r\nCookie: {site.cookie}\r\n\r\n".encode())
    await arrived.wait()
    writer.transport.abort()
    await asyncio.sleep(0.02)
    release.set()
    assert await site.text("/read") == "gone"
    assert site.store.calls.count("replace") == 1


async def test_static_files_and_unknown_paths_never_ask_the_store(serve: ServeSite, tmp_path: Any) -> None:
    """A page has dozens of them."""
    (tmp_path / "a.txt").write_text("static")
    site = await serve([("/static/(.*)", StaticFileHandler, {"path": str(tmp_path)}), ("/read", Read)])
    await site.sign_on()
    assert await site.text("/static/a.txt") == "static"
    assert (await site.fetch("/nowhere")).code == 404
    assert site.store.calls == []


async def test_no_handler_is_kept_alive_after_300_writes(serve: ServeSite) -> None:
    """A reference cycle per request is a slow leak."""
    alive: weakref.WeakSet[Handler] = weakref.WeakSet()

    class Counted(Handler):
        def initialize(self) -> None:
            alive.add(self)

        def get(self) -> None:
            self.s["n"] = self.s.get("n", 0) + 1
            self.write("ok")

    site = await serve([("/", Counted)])
    gc.collect()
    gc.disable()
    try:
        for _ in range(300):
            await site.fetch("/")
        await until(lambda: len(alive) <= 1)
        assert len(alive) <= 1
    finally:
        gc.enable()
    assert (await site.stored())["n"] == 300


@pytest.mark.parametrize(
    "use",
    [
        lambda s: "k" in s,
        len,
        list,
        lambda s: s.get("k"),
        lambda s: s.all(),
        lambda s: s.flash("k"),
        lambda s: s.flash.peek("k"),
        lambda s: s.principal,
        lambda s: s.is_new,
    ],
    ids=["in", "len", "iter", "get", "all", "flash", "peek", "principal", "is_new"],
)
async def test_any_use_of_the_session_makes_the_answer_private(serve: ServeSite, use: Any) -> None:
    """Forms of access that did not count let caches hand out other people's pages (CVE-2026-27205)."""

    class Use(Handler):
        def get(self) -> None:
            use(self.s)
            self.write("ok")

    class Public(Handler):
        def get(self) -> None:
            self.write("ok")

    site = await serve([("/", Use), ("/public", Public)])
    for _ in range(2):  # as a stranger, and with a session
        answer = await site.fetch("/")
        assert answer.headers["Vary"] == "Cookie"
        assert "private" in answer.headers["Cache-Control"]
        public = await site.fetch("/public")
        assert "Vary" not in public.headers
        assert "Cache-Control" not in public.headers
        await site.sign_on()


async def test_a_handlers_own_caching_headers_are_kept_but_never_public(serve: ServeSite) -> None:
    """An application may say more, but not hand its visitors' pages to shared caches."""

    class Own(Handler):
        def get(self) -> None:
            self.s.get("k")
            self.set_header("Cache-Control", self.get_argument("cc"))
            self.set_header("Vary", "Accept-Language")

    site = await serve([("/", Own)])
    answer = await site.fetch("/?cc=public,%20max-age=60,%20s-maxage=600")
    assert answer.headers["Cache-Control"] == "private, max-age=60"
    assert answer.headers["Vary"] == "Accept-Language, Cookie"
    answer = await site.fetch("/?cc=private,%20max-age=5")
    assert answer.headers["Cache-Control"] == "private, max-age=5"
