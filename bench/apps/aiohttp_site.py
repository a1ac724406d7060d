"""aiohttp: bare, or with aiohttp-session on Redis (redis-py's asyncio client with hiredis).

Served by aiohttp's own server in one process, as its documentation starts it, without an access log.
"""

from __future__ import annotations

import aiohttp_session
from aiohttp import web
from aiohttp_session.redis_storage import RedisStorage
from redis.asyncio import BlockingConnectionPool, Redis

from bench.apps import answers


async def bare(_: web.Request) -> web.Response:
    """Touch no session."""
    return web.Response(text=answers.BARE)


async def start(request: web.Request) -> web.Response:
    """A first write."""
    session = await aiohttp_session.get_session(request)
    return web.Response(text=answers.start(session, await request.read()))


async def read(request: web.Request) -> web.Response:
    """Two values."""
    return web.Response(text=answers.read(await aiohttp_session.get_session(request)))


async def count(request: web.Request) -> web.Response:
    """Read, add one, save."""
    return web.Response(text=answers.count(await aiohttp_session.get_session(request)))


async def login(request: web.Request) -> web.Response:
    """A new ID, as the documentation says for a sign-in."""
    old = await aiohttp_session.get_session(request)
    session = await aiohttp_session.new_session(request)
    session.update(old)
    session["user"] = user = await request.text()
    return web.Response(text=user)


async def big(request: web.Request) -> web.Response:
    """A large value."""
    session = await aiohttp_session.get_session(request)
    if request.method == "POST":
        return web.Response(text=answers.store_big(session, await request.read()))
    return web.Response(text=answers.big(session))


async def mark(request: web.Request) -> web.Response:
    """A key of its own."""
    return web.Response(text=answers.mark(await aiohttp_session.get_session(request), request.query["k"]))


async def marks(request: web.Request) -> web.Response:
    """How many keys."""
    return web.Response(text=answers.marks(await aiohttp_session.get_session(request)))


async def make_app(where: answers.Place) -> web.Application:
    """Return the application; aiohttp calls this inside its event loop."""
    app = web.Application()
    if not where.store:
        app.add_routes([web.route("*", path, bare) for path in answers.METHODS])
        return app
    client = Redis(connection_pool=BlockingConnectionPool.from_url(where.store, max_connections=64))
    aiohttp_session.setup(app, RedisStorage(client, max_age=answers.HOUR))
    views = [bare, start, read, count, login, big, mark, marks]
    app.add_routes([web.route("*", "/" + view.__name__, view) for view in views])
    return app


if __name__ == "__main__":
    here = answers.place()
    web.run_app(make_app(here), host="127.0.0.1", port=here.port, access_log=None, print=None)
