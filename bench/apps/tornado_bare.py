"""Tornado with no session layer: what everything on Tornado is compared with."""

from __future__ import annotations

import asyncio

from tornado.web import Application, RequestHandler

from bench.apps import answers
from bench.apps.tornado_site import Bare, serve


class BarePost(RequestHandler):
    """Takes a body and touches no session."""

    def post(self) -> None:
        self.write(answers.BARE)


def make_app() -> Application:
    """Return the application."""
    handlers = {"GET": Bare, "POST": BarePost}
    return Application([(path, handlers[method]) for path, method in answers.METHODS.items()])


if __name__ == "__main__":
    asyncio.run(serve(make_app(), answers.place().port))
