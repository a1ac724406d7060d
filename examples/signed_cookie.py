"""A signed cookie, from both ends: the server sets it, a client sends it back, a forger bends it.

    python examples/signed_cookie.py

Tutorials show this with Tornado 2.2, a hand-written Cookie header and print(). Here the server is today's
Tornado, the client keeps cookies by itself, and the forger tries every single character.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime

import httpx2
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from eyewall import Sessions
from eyewall.tornado.cookies import CookieMixin

NAME = "technobeans"


class User(CookieMixin, RequestHandler):
    def get(self) -> None:
        since = self.jar.signed.get(NAME)
        if since is None:
            self.jar.signed.set(NAME, datetime.now(UTC), max_age=30 * 24 * 60 * 60)
            self.write("Hello, stranger.")
        else:
            self.write(f"Welcome back, known since {since:%Y-%m-%d %H:%M}.")  # a datetime again


def make_app() -> Application:
    """Return the application; `backend="memory"` makes a secret that ends with the process."""
    return Application([("/user/", User)], sessions=Sessions(backend="memory"))


def tampered(value: str) -> Iterator[str]:
    """Yield ``value`` with one character changed, for each of its characters."""
    for position, character in enumerate(value):
        bent = "B" if character == "A" else "A"
        yield value[:position] + bent + value[position + 1 :]


async def walk(url: str) -> None:
    """Visit as a client that keeps cookies, then as a forger who changes them."""
    async with httpx2.AsyncClient(base_url=url) as client:
        first = await client.get("/user/")
        print("1. first visit:  ", first.text)
        print("   Set-Cookie:   ", first.headers["set-cookie"])
        again = await client.get("/user/")
        print("2. cookie back:  ", again.text)
        value = client.cookies[NAME]
    async with httpx2.AsyncClient(base_url=url) as forger:
        answers = [
            (await forger.get("/user/", headers={"Cookie": f"{NAME}={bent}"})).text
            for bent in tampered(value)
        ]
    strangers = sum("stranger" in answer for answer in answers)
    print(f"3. tampered with: {strangers} of {len(value)} changed characters made a stranger")


async def main(port: int | None, *, serve_only: bool) -> None:
    """Serve, and walk unless told to serve only."""
    server = HTTPServer(make_app())
    if port:
        server.listen(port, "127.0.0.1")
    else:
        socket, port = bind_unused_port()
        server.add_socket(socket)
    print(f"Serving on http://127.0.0.1:{port}/user/")
    if serve_only:
        await asyncio.Event().wait()
    await walk(f"http://127.0.0.1:{port}")
    server.stop()
    await server.close_all_connections()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, help="where to listen; a free port unless given")
    parser.add_argument("--serve", action="store_true", help="serve only, for a browser or a client of yours")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(options.port, serve_only=options.serve))
