"""One route per promise, to try them from outside: by hand, from a test, under load.

    python examples/lab.py --port 7146

All settings come from the environment (EYEWALL_…), so several of these on several ports can share a store.
Nothing here is meant to be copied into a shop: /login asks for no password.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from tornado.web import Application, HTTPError, RequestHandler

from eyewall import ConfigurationError, SessionMixin, Sessions, SessionTooLargeError, UnstorableValueError
from eyewall.cli.serving import serve

FRESH = timedelta(minutes=10)
LONGEST_WAIT = 30_000  # milliseconds


class Public(SessionMixin, RequestHandler):
    """A visitor who stores nothing gets no cookie and costs nothing."""

    uses_session = False

    def get(self) -> None:
        self.write("public")


class RefusedError(HTTPError):
    """Bad input: ``message`` is told to the client as JSON."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status)
        self.message = message


class LabHandler(SessionMixin, RequestHandler):
    """JSON in, JSON out."""

    written: dict[str, str]

    def prepare(self) -> None:
        self.written = {}

    def field(self, name: str, default: Any = ...) -> Any:
        """Return the field ``name`` of the JSON body."""
        try:
            body = json.loads(self.request.body, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError):
            raise RefusedError(400, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise RefusedError(400, "the body must be a JSON object")
        if name not in body and default is ...:
            raise RefusedError(400, f"the field {name!r} is missing")
        return body.get(name, default)

    def text_field(self, name: str, default: Any = ...) -> str:
        value = self.field(name, default)
        if not isinstance(value, str):
            raise RefusedError(400, f"the field {name!r} must be text")
        return value

    def store_fresh_value(self) -> None:
        """Store a value nobody has seen before under the key that ``?write=`` names, if it names one."""
        key = self.get_query_argument("write", None)
        if key is not None:
            self.written = {"key": key, "value": secrets.token_urlsafe(8)}
            with refusing():
                self.session[key] = self.written["value"]

    def write_error(self, status_code: int, **kwargs: Any) -> None:  # noqa: ARG002 - Tornado sets it
        error = kwargs.get("exc_info", (None, None))[1]
        self.write({"error": getattr(error, "message", self._reason), **getattr(self, "written", {})})


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


@contextmanager
def refusing() -> Iterator[None]:
    """Answer what the session will not store with 400, and what is too much with 413."""
    try:
        yield
    except UnstorableValueError as error:
        raise RefusedError(400, str(error)) from None
    except SessionTooLargeError as error:
        raise RefusedError(413, str(error)) from None


class WhoAmI(LabHandler):
    """Who is signed in, and whether they proved it lately."""

    def get(self) -> None:
        since, now = self.session.authenticated_at, Sessions.of(self.application).clock()
        self.write({"principal": self.session.principal, "fresh": since is not None and now - since < FRESH})


class KeyValue(LabHandler):
    """What a client has been told is stored."""

    def get(self) -> None:
        self.write({"value": self.session.get(self.get_query_argument("k"))})

    def post(self) -> None:
        key, value = self.text_field("k"), self.field("v")
        with refusing():
            self.session[key] = value
        self.set_status(204)


class Increment(LabHandler):
    """Parallel requests lose nothing."""

    async def post(self) -> None:
        with refusing():
            value = await self.session.modify(self.get_query_argument("k"), _one_more, default=0)
        self.write({"value": value})


def _one_more(value: object) -> int:
    if type(value) is not int:
        raise RefusedError(400, "the value under this key is not a whole number")
    return value + 1


class Login(LabHandler):
    """A new ID at sign-in; data of the anonymous visitor is kept."""

    def post(self) -> None:
        user = self.field("user")
        with refusing():
            self.session.sign_in(user)
        self.write({"principal": self.session.principal})


class Logout(LabHandler):
    """Signing out ends the session: the old cookie is of no use to anyone."""

    def post(self) -> None:
        self.session.sign_out()
        self.set_status(204)


class FlashMessages(LabHandler):
    """A message is read once."""

    def get(self) -> None:
        self.write({"messages": [[category, value] for category, value in self.session.flash.messages()]})

    def post(self) -> None:
        message, category = self.field("message"), self.text_field("category", "info")
        with refusing():
            self.session.flash("message", message, category=category)
        self.set_status(204)


class Slow(LabHandler):
    """A slow request puts back no old state, and brings no ended session back."""

    async def get(self) -> None:
        before = self.session.get(self.get_query_argument("write", ""))
        await asyncio.sleep(self.milliseconds() / 1000)
        self.store_fresh_value()
        self.write({"before": before, **self.written})

    def milliseconds(self) -> int:
        text = self.get_query_argument("ms", "0")
        if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) <= LONGEST_WAIT):
            raise RefusedError(400, f"ms must be a whole number from 0 to {LONGEST_WAIT}")
        return int(text)


class Boom(LabHandler):
    """A request that failed stores nothing."""

    def get(self) -> None:
        self.store_fresh_value()
        raise RuntimeError("boom, as asked for")


class Stream(LabHandler):
    """Not the first chunk leaves before the change is stored."""

    async def get(self) -> None:
        self.store_fresh_value()
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        for chunk in ('{"written": ', json.dumps(self.written), ', "chunks": 3}'):
            self.write(chunk)
            await self.flush()


class Redirect(LabHandler):
    """What was stored before a redirect is there on the page it leads to."""

    def get(self) -> None:
        self.store_fresh_value()
        self.redirect("/kv?" + urlencode({"k": self.get_query_argument("write", "")}))


class Regenerate(LabHandler):
    """A new ID, the same data; the old ID is dead at once."""

    def post(self) -> None:
        self.session.regenerate()
        self.set_status(204)


class Clear(LabHandler):
    """Empty, and nobody signed in; the session stays."""

    def post(self) -> None:
        self.session.clear()
        self.set_status(204)


def make_app(sessions: Sessions) -> Application:
    """Return the lab."""
    routes = {
        "/public": Public,
        "/whoami": WhoAmI,
        "/kv": KeyValue,
        "/incr": Increment,
        "/login": Login,
        "/logout": Logout,
        "/flash": FlashMessages,
        "/slow": Slow,
        "/boom": Boom,
        "/stream": Stream,
        "/redirect": Redirect,
        "/regenerate": Regenerate,
        "/clear": Clear,
    }
    return Application(list(routes.items()), sessions=sessions)


def main() -> None:
    """Serve the lab until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="One route per promise, to try them from outside.")
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    arguments = parser.parse_args()

    def announce(port: int) -> None:
        print(f"Lab at http://{arguments.host}:{port}", flush=True)

    async def run() -> None:
        await serve(make_app(Sessions()), arguments.host, arguments.port, announce)

    try:
        asyncio.run(run())
    except ConfigurationError as error:
        print(f"lab: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
