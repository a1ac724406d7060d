"""Eyewall on any store, by mixin or by ``install()``; every setting is the default but for the store.

``--store cookie`` seals the session into its cookie; any other value is the store's address.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tornado.web import Application, RequestHandler

from bench.apps import answers
from bench.apps.statements import Statements, count_statements
from bench.apps.tornado_site import Bare, serve
from eyewall import SessionMixin, Sessions
from eyewall.core.session import Session


class Handler(RequestHandler):
    """What both ways in have in common: the session on the request."""

    session: Session


class Start(Handler):
    """A first write."""

    def post(self) -> None:
        self.write(answers.start(self.session, self.request.body))


class Read(Handler):
    """Two values."""

    def get(self) -> None:
        self.write(answers.read(self.session))


class Count(Handler):
    """Read, add one, save."""

    def post(self) -> None:
        self.write(answers.count(self.session))


class Login(Handler):
    """A new ID, and a name."""

    def post(self) -> None:
        self.session["user"] = user = self.request.body.decode()
        self.session.sign_in(user)
        self.write(user)


class Big(Handler):
    """A large value."""

    def get(self) -> None:
        self.write(answers.big(self.session))

    def post(self) -> None:
        self.write(answers.store_big(self.session, self.request.body))


class Mark(Handler):
    """A key of its own."""

    def post(self) -> None:
        self.write(answers.mark(self.session, self.get_query_argument("k")))


class Marks(Handler):
    """How many keys."""

    def get(self) -> None:
        self.write(answers.marks(self.session))


class ByInstall:
    """``install()`` puts the session on the request; a handler that is not ours finds it there."""

    request: Any

    @property
    def session(self) -> Session:
        found: Session = self.request.session
        return found


PLAIN: list[type[RequestHandler]] = [Start, Read, Count, Login, Big, Mark, Marks]


def make_app(sessions: Sessions, way: str) -> Application:
    """Return the application; W3 is the session layer before a handler that does not use it."""
    by_mixin = way != "install"
    through: type = SessionMixin if by_mixin else ByInstall
    mixed = [("/" + cls.__name__.lower(), type(cls.__name__, (through, cls), {})) for cls in PLAIN]
    bare = type("Bare", (SessionMixin, Bare), {}) if by_mixin else Bare
    app = Application([("/bare", bare), ("/statements", Statements), *mixed], sessions=sessions)
    if not by_mixin:
        sessions.install(app)
    return app


async def main() -> None:
    """Serve."""
    where = answers.place()
    if where.counts:
        count_statements(where.store)
    store: dict[str, Any] = (
        {"backend": where.store} if where.store in ("cookie", "memory") else {"url": where.store}
    )
    sessions = Sessions(cookie_secret=answers.SECRET, **store)
    await sessions.check()
    await serve(make_app(sessions, where.way), where.port)


if __name__ == "__main__":
    asyncio.run(main())
