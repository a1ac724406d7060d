"""Starlette: bare, with starsessions on Redis, or with Starlette's own signed cookie.

Served by uvicorn with uvloop and httptools, its usual production setup; starsessions' Redis store runs on
redis-py's asyncio client with hiredis and a blocking pool (the default pool refuses the 101st call).
"""

from __future__ import annotations

import uvicorn
from redis.asyncio import BlockingConnectionPool, Redis
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as SignedCookieMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starsessions import SessionAutoloadMiddleware, SessionMiddleware, regenerate_session_id
from starsessions.stores.redis import RedisStore

from bench.apps import answers


async def bare(_: Request) -> Response:
    """Touch no session."""
    return PlainTextResponse(answers.BARE)


async def start(request: Request) -> Response:
    """A first write."""
    return PlainTextResponse(answers.start(request.session, await request.body()))


async def read(request: Request) -> Response:
    """Two values."""
    return PlainTextResponse(answers.read(request.session))


async def count(request: Request) -> Response:
    """Read, add one, save."""
    return PlainTextResponse(answers.count(request.session))


async def login(request: Request) -> Response:
    """A name, and with starsessions a new ID."""
    request.session["user"] = user = (await request.body()).decode()
    if "session_handler" in request.scope:
        regenerate_session_id(request)
    return PlainTextResponse(user)


async def big(request: Request) -> Response:
    """A large value."""
    if request.method == "POST":
        return PlainTextResponse(answers.store_big(request.session, await request.body()))
    return PlainTextResponse(answers.big(request.session))


async def mark(request: Request) -> Response:
    """A key of its own."""
    return PlainTextResponse(answers.mark(request.session, request.query_params["k"]))


async def marks(request: Request) -> Response:
    """How many keys."""
    return PlainTextResponse(answers.marks(request.session))


def layers(where: answers.Place) -> list[Middleware]:
    """The session layer that ``--way`` names."""
    if where.way == "starsessions":
        pool = BlockingConnectionPool.from_url(where.store, max_connections=64)
        store = RedisStore(connection=Redis(connection_pool=pool), gc_ttl=answers.HOUR)
        sessions = Middleware(
            SessionMiddleware, store=store, lifetime=answers.HOUR, rolling=False, cookie_https_only=False
        )
        return [sessions, Middleware(SessionAutoloadMiddleware)]
    if where.way == "cookie":
        return [Middleware(SignedCookieMiddleware, secret_key=answers.SECRET)]
    return []


def make_app(where: answers.Place) -> Starlette:
    """Return the application."""
    if not where.way:
        plain = [Route(path, bare, methods=["GET", "POST"]) for path in answers.METHODS]
        return Starlette(routes=plain)
    views = [bare, start, read, count, login, big, mark, marks]
    routes = [Route("/" + view.__name__, view, methods=["GET", "POST"]) for view in views]
    return Starlette(routes=routes, middleware=layers(where))


if __name__ == "__main__":
    here = answers.place()
    uvicorn.run(make_app(here), host="127.0.0.1", port=here.port, access_log=False, log_level="warning")
