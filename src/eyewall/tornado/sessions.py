"""``Sessions``: the one object a Tornado application makes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from tornado.web import Application

from eyewall.core.events import logger
from eyewall.core.opening import keyring_for, open_store
from eyewall.core.session import Session
from eyewall.core.store import Clock, Store, utc_now
from eyewall.errors import ConfigurationError, SessionEndedError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.settings_sources import is_setting
from eyewall.signin.service import SignInManager
from eyewall.tornado.http_errors import SessionEndedResponse, SessionUnavailableResponse
from eyewall.tornado.install import install, uninstall

SETTING = "sessions"
"""Key in ``Application.settings`` under which an application's Sessions is found."""


class Sessions(SignInManager):
    """The sessions of a Tornado application: settings, store, key ring and clock.

    ::

        sessions = Sessions()                                    # EYEWALL_… and .env, else a folder
        sessions = Sessions(url="redis://cache/0", ttl=1800)     # keyword arguments
        app = tornado.web.Application(handlers, sessions=sessions)

    An application that passes none gets ``Sessions()`` at its first request.

    Args:
        settings: checked settings; without them, ``options`` are used, and without options the
            environment and ``.env``.
        store: a store of your own, instead of the one the settings name.
        clock: returns the current time in UTC; tests pass their own.
        cut_off: for ``backend="cookie"``: given a principal, returns the time (UTC) before which none of
            their sessions counts, or None. Sealed cookies end before their expiry by nothing else.
        options: fields of :class:`~eyewall.settings.Settings`.

    Raises:
        ConfigurationError: a setting is unknown, contradictory or unsafe.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        store: Store | None = None,
        clock: Clock = utc_now,
        cut_off: Callable[[str], datetime | None] | None = None,
        **options: Any,
    ) -> None:
        if settings is None:
            settings = Settings.from_mapping(options) if options else Settings.from_environment()
            if options:
                _warn_of_ignored_variables()
        elif options:
            raise TypeError("pass either settings or single options, not both")
        super().__init__(
            settings, store if store is not None else open_store(settings, clock), clock, cut_off
        )
        self.is_bound = False
        if settings.cookie_secret is not None or settings.secret_file is not None:
            self.use_keyring(keyring_for(settings))  # now, so that a secret that is not safe is told at start

    @classmethod
    def serving(cls, application: Application) -> Sessions:
        """Return the sessions of ``application``, making them from the environment when it has none.

        Raises:
            ConfigurationError: a setting or the secret is missing or unsafe.
        """
        sessions = application.settings.get(SETTING)
        if isinstance(sessions, Sessions) and sessions.is_bound:
            return sessions  # always but once
        if sessions is None:
            sessions = application.settings[SETTING] = cls()
        if not isinstance(sessions, Sessions):
            given = type(sessions).__name__
            raise ConfigurationError(f"the application setting {SETTING!r} must be a Sessions, not a {given}")
        sessions.bind(application)
        return sessions

    def bind(self, application: Application) -> None:
        """Take the secret for the cookies: our own setting, else the application's ``cookie_secret``.

        Raises:
            ConfigurationError: there is no secret and none can be made, or it is unsafe.
        """
        ours = self.settings.cookie_secret is not None or self.settings.secret_file is not None
        self.use_keyring(
            keyring_for(
                self.settings,
                cookie_secret=None if ours else application.settings.get("cookie_secret"),
                key_version=None if ours else application.settings.get("key_version"),
            )
        )
        self.is_bound = True

    def install(self, application: Application) -> None:
        """Give every handler of ``application`` a session, without touching the handlers.

        Find it as ``self.request.session`` or by :func:`~eyewall.tornado.session_of`. Handlers of static
        files, redirects and unknown paths are left out, and so is any handler class with
        ``uses_session = False``.
        """
        application.settings[SETTING] = self
        self.bind(application)
        install(application, self)

    def uninstall(self, application: Application) -> None:
        """Undo :meth:`install`."""
        uninstall(application)

    # What the manager raises, as Tornado can answer it.

    def _as_answer(self, failure: StoreUnavailable) -> Exception:
        """Answer 503 where the session is used."""
        return SessionUnavailableResponse(str(failure))

    async def save(self, session: Session) -> None:
        """``await session.save()``: 503 when the store does not answer, 409 when the session has ended."""
        try:
            await super().save(session)
        except (StoreUnavailable, SessionEndedError) as error:
            raise _as_response(error, session) from error

    async def modify(self, session: Session, key: str, function: Callable[[Any], Any], default: Any) -> Any:
        """``await session.modify()``: 503 when the store does not answer, 409 when the session has ended."""
        try:
            return await super().modify(session, key, function, default)
        except (StoreUnavailable, SessionEndedError) as error:
            raise _as_response(error, session) from error

    @asynccontextmanager
    async def _within(self, times: int) -> AsyncIterator[None]:
        try:
            async with super()._within(times):
                yield
        except StoreUnavailable as error:
            raise SessionUnavailableResponse(str(error)) from error


def _warn_of_ignored_variables() -> None:
    """A variable that is set and has no effect is a store nobody meant."""
    ignored = [name for name in os.environ if is_setting(name, "EYEWALL_")]
    if ignored:
        logger.warning(
            "Sessions(...) was given its settings in the program, so these variables have no effect: %s",
            ", ".join(sorted(ignored)),
        )


def _as_response(error: StoreUnavailable | SessionEndedError, session: Session) -> Exception:
    if isinstance(error, StoreUnavailable):
        session.store_failed = True  # the answer is to say when to retry
        return SessionUnavailableResponse(str(error))
    return SessionEndedResponse(str(error))
