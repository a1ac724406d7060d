"""What the Tornado applications share: the routes over an asynchronous ``opened()`` and ``saved()``.

Each application says how a handler comes by its session; what the handlers do with it stands here once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from bench.apps import answers


async def serve(application: Application, port: int) -> None:
    """Serve until the process is ended, in one process and without an access log."""
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)
    HTTPServer(application).listen(port, "127.0.0.1")
    await asyncio.Event().wait()


class ByHand(RequestHandler):
    """A handler that fetches and stores its session itself; the subclass says how."""

    async def opened(self) -> dict[str, Any]:
        raise NotImplementedError

    async def saved(self, session: dict[str, Any]) -> None:
        raise NotImplementedError

    async def renewed(self, session: dict[str, Any]) -> None:
        """Store under a new ID, where there is one."""
        await self.saved(session)


class Bare(RequestHandler):
    """Touches no session."""

    def get(self) -> None:
        self.write(answers.BARE)


class Start(ByHand):
    """A first write."""

    async def post(self) -> None:
        session = await self.opened()
        answer = answers.start(session, self.request.body)
        await self.saved(session)
        self.write(answer)


class Read(ByHand):
    """Two values."""

    async def get(self) -> None:
        self.write(answers.read(await self.opened()))


class Count(ByHand):
    """Read, add one, save."""

    async def post(self) -> None:
        session = await self.opened()
        answer = answers.count(session)
        await self.saved(session)
        self.write(answer)


class Login(ByHand):
    """A new ID, and a name."""

    async def post(self) -> None:
        session = await self.opened()
        session["user"] = user = self.request.body.decode()
        await self.renewed(session)
        self.write(user)


class Big(ByHand):
    """A large value."""

    async def get(self) -> None:
        self.write(answers.big(await self.opened()))

    async def post(self) -> None:
        session = await self.opened()
        answer = answers.store_big(session, self.request.body)
        await self.saved(session)
        self.write(answer)


class Mark(ByHand):
    """A key of its own."""

    async def post(self) -> None:
        session = await self.opened()
        answer = answers.mark(session, self.get_query_argument("k"))
        await self.saved(session)
        self.write(answer)


class Marks(ByHand):
    """How many keys."""

    async def get(self) -> None:
        self.write(answers.marks(await self.opened()))


def application(way: type[ByHand], **settings: Any) -> Application:
    """Return the application whose handlers come by their session in this ``way``."""
    plain: list[type[ByHand]] = [Start, Read, Count, Login, Big, Mark, Marks]
    mixed = [("/" + cls.__name__.lower(), type(cls.__name__, (way, cls), {})) for cls in plain]
    return Application([("/bare", Bare), *mixed], **settings)
