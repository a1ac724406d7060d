"""The chapter's third gotcha in a real browser: a frontend on one port, the API on another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from eyewall import SessionMixin, Sessions
from tests.examples.chromium import running_chromium

pytestmark = pytest.mark.browser


class Frontend(RequestHandler):
    def get(self) -> None:
        self.write("<!doctype html><title>frontend</title>")


class Cart(SessionMixin, RequestHandler):
    def get(self) -> None:
        self.write({"n": self.session.get("n", 0)})

    def put(self) -> None:
        self.session["n"] = self.session.get("n", 0) + 1
        self.set_status(201)
        self.write({"n": self.session["n"]})

    def delete(self) -> None:
        self.send_error(400)


@contextmanager
def serving_on_a_thread(*applications: Application) -> Iterator[list[int]]:
    """Serve each application on a port of localhost; playwright has this thread."""
    ready, ports, ends = threading.Event(), list[int](), list[Any]()

    async def serve() -> None:
        servers = []
        for application in applications:
            sockets = bind_sockets(0, "localhost")[:1]
            servers.append(HTTPServer(application))
            servers[-1].add_sockets(sockets)
            ports.append(sockets[0].getsockname()[1])
        stopped = asyncio.Event()
        ends.extend((asyncio.get_running_loop(), stopped))
        ready.set()
        await stopped.wait()
        for server in servers:
            server.stop()
            await server.close_all_connections()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    try:
        yield ports
    finally:
        loop, stopped = ends
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser process for the whole file."""
    with running_chromium() as browser:
        yield browser


FETCH = """async ([url, method, credentials]) => {
    try {
        const headers = method === "PUT" ? {"Content-Type": "application/json"} : {}
        const answer = await fetch(url, {method, credentials, headers})
        return [answer.status, (await answer.text()).slice(0, 20)]
    } catch (error) {
        return [0, error.name]
    }
}"""


def test_the_listed_frontend_has_its_session_and_another_has_nothing(chromium: Browser) -> None:
    """Harm: a cart that is empty at every click; or one that any page may read and change."""
    frontend = Application([("/", Frontend)])
    api = Application([("/cart", Cart)])
    with serving_on_a_thread(frontend, Application([("/", Frontend)]), api) as (listed, unlisted, port):
        api.settings["sessions"] = Sessions(
            backend="memory", cors_origins=f"http://localhost:{listed}", cors_credentials=True
        )
        context = chromium.new_context()

        def page_on(number: int) -> Page:
            page = context.new_page()
            page.goto(f"http://localhost:{number}/")
            return page

        def ask(page: Page, method: str, credentials: str = "include") -> Any:
            return page.evaluate(FETCH, [f"http://localhost:{port}/cart", method, credentials])

        ours, theirs = page_on(listed), page_on(unlisted)
        assert ask(ours, "PUT") == [201, '{"n": 1}']
        assert ask(ours, "PUT") == [201, '{"n": 2}']
        assert ask(ours, "GET") == [200, '{"n": 2}']
        assert ask(ours, "GET", "omit") == [200, '{"n": 0}']
        assert ask(ours, "DELETE")[0] == 400  # an error, and not a riddle
        assert ask(theirs, "GET") == [0, "TypeError"]
        assert ask(theirs, "PUT") == [0, "TypeError"]
        assert ask(ours, "GET") == [200, '{"n": 2}']
        context.close()
