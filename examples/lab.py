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
from typing import Any
from urllib.parse import urlencode

import msgspec
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler

from eyewall import (
    ConfigurationError,
    SessionError,
    SessionMixin,
    Sessions,
    SessionTooLargeError,
    StoreUnavailable,
)
from eyewall.cli.serving import serve
from eyewall.tornado.fresh import fresh
from eyewall.tornado.websocket import SessionWebSocketMixin

LONGEST_WAIT = 30_000  # milliseconds
LONGEST_MESSAGE = 64 * 1024  # bytes
KEEP_ALIVE = 3.0  # seconds between two signs of life of a stream


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

    def who(self) -> str:
        """Return who is signed in."""
        principal = self.session.principal
        if principal is None:
            raise RefusedError(401, "nobody is signed in")
        return principal

    @property
    def sessions(self) -> Sessions:
        return Sessions.serving(self.application)

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
    """Answer what a session cannot do with 400, what is too much with 413, what needs a store with 501."""
    try:
        yield
    except HTTPError:  # it knows its answer, as that of a session ended meanwhile does
        raise
    except SessionTooLargeError as error:
        raise RefusedError(413, str(error)) from None
    except SessionError as error:
        raise RefusedError(400, str(error)) from None
    except ConfigurationError as error:  # sessions in their own cookies can be neither listed nor ended
        raise RefusedError(501, str(error)) from None


class WhoAmI(LabHandler):
    """Who is signed in, and whether they proved it lately."""

    def get(self) -> None:
        self.write({"principal": self.session.principal, "fresh": self.session.is_fresh()})


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
        user, remember = self.field("user"), self.field("remember", default=False)
        if not isinstance(remember, bool):
            raise RefusedError(400, "the field 'remember' must be true or false")
        with refusing():
            self.sign_in(user, remember=remember)
        self.write({"principal": self.session.principal})


class Logout(LabHandler):
    """Signing out ends the session: the old cookie is of no use to anyone."""

    def post(self) -> None:
        self.sign_out()
        self.set_status(204)


class LogoutOthers(LabHandler):
    """All other devices are out at their next request, and no remember token brings them back."""

    async def post(self) -> None:
        self.who()
        with refusing():
            self.write({"ended": await self.sessions.revoke_others(self.session)})


class LogoutEverywhere(LabHandler):
    """So is this one."""

    def post(self) -> None:
        self.who()
        with refusing():
            self.sign_out(everywhere=True)
        self.set_status(204)


class Password(LabHandler):
    """A changed password ends all other sessions and all remember tokens; this session gets a new ID."""

    async def post(self) -> None:
        with refusing():
            self.write({"ended": await self.sessions.credentials_changed(self.who(), keep=self.session)})


class DeviceList(LabHandler):
    """Everybody sees their own devices, and nothing in the list opens a session."""

    async def get(self) -> None:
        with refusing():
            devices = await self.sessions.of(self.who(), current=self.session)
        self.write({"devices": [{"id": one.handle, **msgspec.to_builtins(one)} for one in devices]})


class RevokeDevice(LabHandler):
    """Ends one device; somebody else's are as unknown as those that never were."""

    async def post(self) -> None:
        principal = self.who()
        with refusing():
            found = await self.sessions.revoke(self.text_field("id"), principal=principal)
        if not found:
            raise RefusedError(404, "no such device")
        self.set_status(204)


class CsrfToken(LabHandler):
    """A token that is good in this session only."""

    def get(self) -> None:
        self.write({"token": self.xsrf_token.decode("ascii")})


class Transfer(LabHandler):
    """What other sites would like to post, as a form or as JSON. EYEWALL_STRICT demands the token."""

    def post(self) -> None:
        if self.request.headers.get("Content-Type", "").startswith("application/json"):
            amount = self.field("amount", None)
        else:
            amount = self.get_body_argument("amount", None)
        self.write({"transferred": amount})


class FreshOnly(LabHandler):
    """For those who have proved lately who they are; a remember token proves nothing."""

    @fresh(minutes=10)
    def get(self) -> None:
        self.write({"principal": self.session.principal})


class Reauthenticate(LabHandler):
    """Proving it again: a new ID, and fresh."""

    def post(self) -> None:
        self.sign_in(self.who())
        self.write({"principal": self.session.principal})


class Role(LabHandler):
    """A change of privilege: the ID from before does not get it."""

    def post(self) -> None:
        self.who()
        role = self.text_field("role")
        with refusing():
            self.session["role"] = role
        self.session.regenerate()
        self.write({"role": role})


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


class Socket(SessionWebSocketMixin, WebSocketHandler):
    """A socket is closed when its session ends. It echoes, and ``set k v`` is stored before it is told."""

    def prepare(self) -> None:
        self.principal = self.session.principal  # here, a store that is down is a 503

    def open(self) -> None:
        self.write_message({"principal": self.principal})

    async def on_message(self, message: str | bytes) -> None:
        if isinstance(message, str) and message.startswith("set "):
            self.write_message(await self.stored(*message.split(" ", 2)[1:]))
        else:
            self.write_message(message, binary=isinstance(message, bytes))

    async def stored(self, key: str, value: str = "") -> dict[str, str]:
        """Store a value; return what to tell."""
        try:
            self.session[key] = value
            await self.session.save()
        except (SessionError, StoreUnavailable) as error:
            return {"error": str(error)}
        return {"set": key}


class Events(LabHandler):
    """A stream ends with its session too. Whether the client is still there, only writing tells."""

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream; charset=UTF-8")
        self.write(f"event: principal\ndata: {json.dumps(self.session.principal)}\n\n")
        ended = self.session_ended
        while not ended.done():
            self.write(": still here\n\n")
            await self.flush()
            await asyncio.wait({ended}, timeout=KEEP_ALIVE)
        if ended.result() is not None:
            self.write(f"event: end\ndata: {ended.result()}\n\n")


def make_app(sessions: Sessions) -> Application:
    """Return the lab."""
    routes = {
        "/public": Public,
        "/whoami": WhoAmI,
        "/kv": KeyValue,
        "/incr": Increment,
        "/login": Login,
        "/logout": Logout,
        "/logout-others": LogoutOthers,
        "/logout-everywhere": LogoutEverywhere,
        "/password": Password,
        "/devices": DeviceList,
        "/devices/revoke": RevokeDevice,
        "/csrf": CsrfToken,
        "/transfer": Transfer,
        "/fresh-only": FreshOnly,
        "/reauthenticate": Reauthenticate,
        "/role": Role,
        "/flash": FlashMessages,
        "/slow": Slow,
        "/boom": Boom,
        "/stream": Stream,
        "/redirect": Redirect,
        "/regenerate": Regenerate,
        "/clear": Clear,
        "/ws": Socket,
        "/events": Events,
    }
    return Application(list(routes.items()), sessions=sessions, websocket_max_message_size=LONGEST_MESSAGE)


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
