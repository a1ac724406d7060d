"""The application of the soak: every answer says whose session the server thinks it is.

    python tests/soak/application.py --port 0

Sessions are configured by the environment (EYEWALL_…), so that two of these share a store.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
from contextlib import suppress
from typing import Any

from tornado.iostream import StreamClosedError
from tornado.web import Application, HTTPError, RequestHandler
from tornado.websocket import WebSocketHandler

from eyewall import SessionMixin, Sessions, SessionWebSocketMixin, authenticated_socket
from eyewall.cli.serving import serve
from eyewall.signin.passwords import hash_password, verify_password
from tests.soak.broken import BREAKING
from tests.soak.loop_lag import LoopLag

KEEP_ALIVE = 3.0  # seconds between two signs of life of a stream


class Public(SessionMixin, RequestHandler):
    """A page without a session."""

    uses_session = False

    def get(self) -> None:
        self.write({})


class Probe(Public):
    """What only the process itself can tell."""

    def get(self) -> None:
        lag: LoopLag = self.settings["lag"]
        objects, tasks = len(gc.get_objects()), len(asyncio.all_tasks())
        self.write({"objects": objects, "tasks": tasks, "lag": lag.figures()})


class Told(SessionMixin, RequestHandler):
    """A handler whose answers are JSON, and say who is there."""

    def field(self, name: str) -> Any:
        return json.loads(self.request.body)[name]

    def identity(self) -> dict[str, Any]:
        """Who this is: the principal, and the secret that only this session holds."""
        return {"principal": self.session.principal, "marker": self.session.get("marker")}

    def tell(self, **facts: Any) -> None:
        self.write({**self.identity(), **facts})


class WhoAmI(Told):
    def get(self) -> None:
        self.tell()


class Claim(Told):
    """Leaves the secret in the session, as whoever it is."""

    def post(self) -> None:
        self.session["marker"] = self.field("marker")
        self.tell()


class SignIn(Told):
    """Verifies a password with argon2id; whoever is not known yet gets an account."""

    async def post(self) -> None:
        user, password = self.field("user"), self.field("password")
        accounts: dict[str, str] = self.settings["accounts"]
        await self.count_attempt(user)
        if user not in accounts and password.startswith("right"):
            accounts[user] = await hash_password(password)
        if not await verify_password(password, accounts.get(user)):
            raise HTTPError(401)
        await self.attempt_succeeded(user)
        self.sign_in(user, remember=self.field("remember"))
        self.session["marker"] = self.field("marker")
        self.tell()


class SignOut(Told):
    def post(self) -> None:
        self.sign_out()
        self.tell()


class Count(Told):
    """A counter that no parallel request may lose."""

    def get(self) -> None:
        self.tell(count=self.session.get("count", 0))

    async def post(self) -> None:
        count = await self.session.modify("count", lambda count: count + 1, default=0)
        self.tell(count=count)


class Putting(Told):
    """Puts things into the session, one key for each."""

    def put(self, key: str, value: str | None) -> None:
        if value is None:
            self.session.delete(key)
        else:
            self.session[key] = value


class Cart(Putting):
    def get(self) -> None:
        self.tell(cart={key: value for key, value in self.session.all().items() if key.startswith("cart")})

    def post(self) -> None:
        self.put(self.field("key"), self.field("value"))
        self.tell()


class Slow(Putting):
    """Holds its answer for a while, and writes only then."""

    async def post(self) -> None:
        who = self.identity()
        await asyncio.sleep(self.field("seconds"))
        self.put(self.field("key"), self.field("value"))
        self.write({**who, "after": self.identity()})


class FlashMessages(Told):
    def get(self) -> None:
        self.tell(messages=[each.value for each in self.session.flash.messages("message")])

    def post(self) -> None:
        self.session.flash("message", self.field("message"))
        self.tell()


class Regenerate(Told):
    def post(self) -> None:
        self.session.regenerate()
        self.tell()


class RevokeOthers(Told):
    async def post(self) -> None:
        ended = await Sessions.serving(self.application).revoke_others(self.session)
        self.tell(ended=ended)


class Events(Told):
    """A stream that says when it ends."""

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream; charset=UTF-8")
        self.write(f"event: identity\ndata: {json.dumps(self.identity())}\n\n")
        with suppress(StreamClosedError):
            await self.flush()
            while not self.session_ended.done():
                await asyncio.wait({self.session_ended}, timeout=KEEP_ALIVE)
                self.write(": still here\n\n")
                await self.flush()
            self.write(f"event: end\ndata: {self.session_ended.result()}\n\n")


@authenticated_socket
class Socket(SessionWebSocketMixin, WebSocketHandler):
    """Says who is there for every message, and stores the message first."""

    async def on_message(self, message: str | bytes) -> None:
        self.session["cart socket"] = message
        await self.session.save()
        self.write_message({"principal": self.session.principal, "marker": self.session.get("marker")})


ROUTES = {
    "/public": Public,
    "/probe": Probe,
    "/whoami": WhoAmI,
    "/claim": Claim,
    "/sign-in": SignIn,
    "/sign-out": SignOut,
    "/count": Count,
    "/cart": Cart,
    "/slow": Slow,
    "/flash": FlashMessages,
    "/regenerate": Regenerate,
    "/revoke-others": RevokeOthers,
    "/events": Events,
    "/ws": Socket,
}


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--broken", choices=sorted(BREAKING), help="do one thing wrong, to try the judge")
    options = parser.parse_args()
    if options.broken:
        BREAKING[options.broken](Told, Putting, SignOut)

    def announce(port: int) -> None:
        application.settings["lag"] = LoopLag()  # not before: until now nobody was kept waiting
        print(f"Soak at http://127.0.0.1:{port}", flush=True)  # noqa: T201 - who started it waits for this

    async def run() -> None:
        # Each thread keeps the memory of its first hash. They all begin now, or memory would grow late.
        await asyncio.gather(*(hash_password("warm-up") for _ in range(4)))
        await serve(application, "127.0.0.1", options.port, announce)

    application = Application(list(ROUTES.items()), sessions=Sessions(), accounts={})
    asyncio.run(run())


if __name__ == "__main__":
    main()
