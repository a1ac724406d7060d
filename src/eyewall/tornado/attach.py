"""Giving a request its session: what both ways in, the mixin and install(), share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal
from weakref import ref

from tornado.httputil import HTTPServerRequest

from eyewall.core.csrf import cross_origin_refusal
from eyewall.core.events import EventKind
from eyewall.core.manager import Manager
from eyewall.core.record import Device
from eyewall.core.session import Session
from eyewall.errors import EyewallError, SessionError
from eyewall.tornado.wire import CommitBarrier

OutagePolicy = Literal["if-used", "required", "anonymous"]
"""What a handler does without its session; see ``SessionMixin.when_store_fails``."""

_LONGEST_AGENT: Final = 512
_LONGEST_ADDRESS: Final = 64


def attach(manager: Manager, request: HTTPServerRequest, cookie_lines: list[str] | None = None) -> Session:
    """Give ``request`` its session, not loaded yet, and put the barrier before its connection.

    Args:
        manager: makes the session.
        request: not answered yet.
        cookie_lines: its ``Cookie`` header lines, where the caller has looked them up already.
    """
    connection = request.connection
    if connection is None:
        raise SessionError("a request without a connection cannot be answered, and so has no session")
    lines = request.headers.get_list("Cookie") if cookie_lines is None else cookie_lines
    session = manager.open(lines, https=request.protocol == "https", whence=Asked(request))
    request.connection = CommitBarrier(connection, session, manager)
    request.session = session  # type: ignore[attr-defined]  # the chapter's name for it; requests are open
    return session


def is_settled(session: Session) -> bool:
    """Whether there is nothing to load, so that only a handshake has to wait."""
    draft = session.draft
    return draft.session_id is None and not draft.remembered


async def save_for_handshake(manager: Manager, session: Session) -> None:
    """Store what a WebSocket's session begins with. Never raises.

    A 101 cannot wait for a save, and a session that an old sign-in cookie was turned into has one to do.
    """
    if session.failure is None and session.draft.has_unsaved_changes():
        try:
            await manager.save(session)
        except EyewallError as error:
            session.failure = error


def meet_outage(session: Session, policy: OutagePolicy) -> None:
    """Let a session that could not be loaded be what the handler asks for.

    Raises:
        Exception: what loading it failed with, where it is required.
    """
    if policy == "required" and session.failure is not None:
        session.used = True
        raise session.failure
    if policy == "anonymous":
        session.go_without()


def session_on(request: HTTPServerRequest) -> Session | None:
    """Return the session that :func:`attach` gave to ``request``, or None."""
    return getattr(request, "session", None)


def cross_origin_problem(
    manager: Manager,
    request: HTTPServerRequest,
    *,
    handshake: bool,
    is_trusted: Callable[[str], bool] | None = None,
) -> str | None:
    """Return why ``request`` must be refused as coming from another site, or None.

    Args:
        manager: knows the settings.
        request: not answered yet, and not a harmless one.
        handshake: whether it wants to become a WebSocket.
        is_trusted: the handler's own opinion of an ``Origin`` that the settings do not trust.
    """
    settings = manager.settings
    if not settings.cross_origin_protection:
        return None
    # A handshake is a GET that no other site may send either: browsers let any page open a WebSocket.
    method = "handshake" if handshake else request.method or ""
    origin = request.headers.get("Origin")
    refusal = cross_origin_refusal(
        method=method,
        sec_fetch_site=request.headers.get("Sec-Fetch-Site"),
        origin=origin,
        scheme=request.protocol,
        host=request.host,
        trusted_origins=settings.senders,
    )
    if refusal is None or (origin and is_trusted is not None and is_trusted(origin)):
        return None
    manager.events.emit(EventKind.CROSS_ORIGIN_REFUSED, detail=refusal)
    return refusal


class Asked(ref[HTTPServerRequest]):
    """What a session may want to know of its request.

    A weak reference to it, because the request has the session: else each would be left to the collector of
    cycles. Not an object that has one: one less is made for each request.
    """

    __slots__ = ()

    def device(self) -> Device:
        """See :meth:`eyewall.core.draft.Whence.device`."""
        request = self()
        if request is None:
            return Device()
        agent, address = request.headers.get("User-Agent", ""), str(request.remote_ip or "")
        return Device(user_agent=agent[:_LONGEST_AGENT], address=address[:_LONGEST_ADDRESS])

    def shows_a_page(self) -> bool:
        """See :meth:`eyewall.core.draft.Whence.shows_a_page`."""
        request = self()
        if request is None or request.method == "HEAD":
            return False
        purpose = request.headers.get("Sec-Purpose") or request.headers.get("Purpose") or ""
        return "prefetch" not in purpose.lower()


def is_handshake(request: HTTPServerRequest) -> bool:
    """Whether ``request`` wants to become a WebSocket."""
    headers = request.headers
    # Nearly no request has the header, and get() of one that is not there costs three times as much.
    if not headers.get_list("Upgrade"):
        return False
    return headers["Upgrade"].lower() == "websocket"
