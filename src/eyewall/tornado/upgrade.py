"""Turning the sign-in cookie an application used to have into a session, on first sight.

Most Tornado applications sign in with ``set_signed_cookie("user", ...)``. On the day they move, every user
holds such a cookie and nobody has a session. With an :class:`OldSignIn` they all stay signed in::

    sessions = UpgradingSessions(old_sign_in=OldSignIn("user"), url="redis://...")
    Application(handlers, cookie_secret=the_old_secret, sessions=sessions)

A request that brings the old cookie and nobody signed in gets a session with the principal, before the
handler starts, and its response deletes the old cookie. Take it out again when ``max_age`` has passed since
the last old cookie was set: until then a copy of an old cookie signs in again after a sign-out, as it always
has (which is what sessions are there to end).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from tornado.web import Application

from eyewall.core.cookie import CookieAttributes, cookie_values
from eyewall.core.draft import Draft, Whence
from eyewall.core.events import logger
from eyewall.core.session import Keeper, Session
from eyewall.errors import ConfigurationError
from eyewall.tornado.sessions import Sessions
from eyewall.tornado.signed_values import TORNADO_MAX_AGE, TornadoValues


def _text(value: bytes) -> str | None:
    try:
        return value.decode("utf-8") or None
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True, slots=True)
class OldSignIn:
    """The cookie that used to say who is signed in, written by Tornado's ``set_signed_cookie``.

    Args:
        name: of the cookie.
        principal: makes the principal of the signed bytes, or None for "nobody"; by default they are its
            text. It sees authenticated values only.
        max_age: how old a cookie may be, as it was given to ``get_signed_cookie``; 31 days unless given.
        path: with which it was set.
        domain: with which it was set.
    """

    name: str
    principal: Callable[[bytes], str | None] = _text
    max_age: timedelta = TORNADO_MAX_AGE
    path: str = "/"
    domain: str | None = None
    deletion: str = field(init=False)

    def __post_init__(self) -> None:
        cookie = CookieAttributes(
            self.name, path=self.path, domain=self.domain, secure=self.name.lower().startswith("__")
        )
        object.__setattr__(self, "deletion", cookie.delete())


class UpgradingSessions(Sessions):
    """Sessions that sign in whoever still has the application's old sign-in cookie.

    Args:
        old_sign_in: which cookie that is.
        arguments: as for :class:`~eyewall.tornado.Sessions`.
        options: as for :class:`~eyewall.tornado.Sessions`.

    Raises:
        ConfigurationError: also when the old cookie has the session cookie's name, and, at the first
            request, when the application has no ``cookie_secret``.
    """

    def __init__(self, *arguments: Any, old_sign_in: OldSignIn, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._old = old_sign_in
        self.names_taken_over = frozenset({old_sign_in.name})
        self._values: TornadoValues | None = None
        if old_sign_in.name in {self.settings.cookie_name(https) for https in (True, False)}:
            raise ConfigurationError(
                f"old_sign_in.name={old_sign_in.name!r} is the session cookie's own name; give the session "
                "another one with the setting 'name'"
            )

    def bind(self, application: Application) -> None:
        """Take the secrets: the session's, and the one that signed the old cookies."""
        self._values = TornadoValues(application, self.clock, max_age=self._old.max_age)
        super().bind(application)

    def open(self, cookie_lines: Sequence[str], *, https: bool, whence: Whence | None = None) -> Session:
        """Return the session, signed in by the old cookie if there is nothing to load first."""
        session = super().open(cookie_lines, https=https, whence=whence)
        principal = self._principal_in(cookie_lines)
        if principal is None:
            return session
        session = _Upgradable(self, session.draft, principal)
        if session.draft.session_id is None:
            session.upgrade()
        return session

    async def load(self, session: Session) -> None:
        """Load the session, then sign in by the old cookie if nobody is."""
        await super().load(session)
        if isinstance(session, _Upgradable) and session.failure is None:
            session.upgrade()

    def set_cookie_lines(self, session: Session, *, https: bool) -> list[str]:
        """Return the session's lines; whatever sets or deletes its cookie deletes the old one.

        So the old one goes only when the new one is stored, and never outlives a sign-out, which has no
        session cookie to delete where it is the first request after the move.
        """
        lines = super().set_cookie_lines(session, https=https)
        ended = isinstance(session, _Upgradable) and session.ended
        return [*lines, self._old.deletion] if lines or ended else lines

    def _principal_in(self, cookie_lines: Sequence[str]) -> str | None:
        texts = cookie_values(cookie_lines, self._old.name)
        found = self._values.decode(self._old.name, texts) if self._values and texts else None
        if found is None:
            return None
        try:
            return _checked(self._old.principal(found.value))
        except Exception:  # noqa: BLE001 - the application's bug must not keep the page from its visitor
            logger.exception("old_sign_in.principal failed")
            return None


def _checked(principal: object) -> str | None:
    if principal is None or (type(principal) is str and principal and principal.encode()):
        return principal
    raise TypeError(f"a principal is text that is not empty, or None, not a {type(principal).__name__}")


class _Upgradable(Session):
    """A session whose request brought the old sign-in cookie too."""

    __slots__ = ("_old_principal", "ended")

    def __init__(self, keeper: Keeper, draft: Draft, principal: str) -> None:
        super().__init__(keeper, draft)
        self._old_principal = principal
        self.ended = False

    def upgrade(self) -> None:
        if self.draft.principal is None:
            self.sign_in(self._old_principal)

    def _end(self, *, everywhere: bool = False) -> None:
        super()._end(everywhere=everywhere)
        self.ended = True

    def clear(self) -> None:
        super().clear()
        self.ended = True
