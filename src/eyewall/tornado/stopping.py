"""Stopping a server in an orderly way: what stays open is closed, and every answer gets its time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, Final
from weakref import WeakSet

from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import IOStream
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from eyewall.tornado.sessions import SETTING

_POLL: Final = 0.02


class UnderWay:
    """The answers of an application that are not out yet, so that its server can stop without cutting one.

    ::

        under_way = UnderWay(application)               # before it serves
        server = application.listen(8888)
        ...
        server.stop()                                   # nobody new
        await under_way.finished(timedelta(seconds=10))
        await sessions.aclose()

    It notes requests by two methods of this one application object; no class is touched.

    Args:
        application: whose sessions, if it has any, are drained too.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        # Weak, because a client that goes away in the middle of its request is never answered.
        self._requests: WeakSet[HTTPServerRequest] = WeakSet()
        self._streams: WeakSet[IOStream] = WeakSet()
        self._is_stopping = False
        started, answered = application.get_handler_delegate, application.log_request

        def get_handler_delegate(
            request: HTTPServerRequest, target_class: type[RequestHandler], *args: Any, **kwargs: Any
        ) -> HTTPMessageDelegate:
            self._begin(request, target_class)
            return started(request, target_class, *args, **kwargs)

        def log_request(handler: RequestHandler) -> None:
            self._requests.discard(handler.request)
            answered(handler)

        application.__dict__.update(get_handler_delegate=get_handler_delegate, log_request=log_request)

    def _begin(self, request: HTTPServerRequest, target_class: type[RequestHandler]) -> None:
        self._requests.add(request)
        stream = getattr(request.connection, "stream", None)
        if stream is None:
            return
        if self._is_stopping:
            # Of the whole server: later answers say "Connection: close", or a busy proxy would never end.
            request.connection.params.no_keep_alive = True  # type: ignore[union-attr]  # HTTP/1 has it
        if issubclass(target_class, WebSocketHandler):
            self._streams.discard(stream)  # a socket is no answer
        else:
            self._streams.add(stream)

    async def finished(self, patience: timedelta) -> None:
        """Close WebSockets (1001) and streams; wait until every answer is out, and what it told is stored.

        Call it when the server takes no new connection. Requests that arrive over those that are there are
        answered too.

        Args:
            patience: the longest wait.
        """
        self._is_stopping = True
        now = asyncio.get_running_loop().time
        end = now() + patience.total_seconds()
        sessions = self._application.settings.get(SETTING)
        if sessions is not None:
            await sessions.drain(patience)
        while self._requests and now() < end:  # noqa: ASYNC110 - nothing tells that a client has left
            await asyncio.sleep(_POLL)
        if sessions is not None:
            await sessions.drain(timedelta(seconds=max(0.0, end - now())))  # answers that wait for their save
        while self._is_sending() and now() < end:  # noqa: ASYNC110 - as above
            await asyncio.sleep(_POLL)

    def _is_sending(self) -> bool:
        return any(stream.writing() for stream in self._streams if not stream.closed())
