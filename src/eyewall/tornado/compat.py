"""The way over from the library tornado-auth-sessions: its mixin, over sessions of ours.

Its handlers stay as they are; only the import changes::

    from eyewall.tornado.compat import TornadoAuthSessionMixin

Whoever is signed in stays so. A request that brings the old library's signed cookie ``session_id``, and
nobody signed in to a session of ours, is looked up in the old library's Redis before the handler starts. If
the key ``session:<ID>`` is live, its owner gets a session of ours; then the key is deleted, and the cookie.

Requests that a browser sends at once all arrive at the same session, because its ID is derived from the old
one with our key: one of them creates it, the others join it, also when the old key is gone already.
Where the visitor has a session of ours already (a cart), that one is signed in and gets a new ID; of those
sent at once, the ones that come after it are nobody's for one answer, as after any sign-in.
"""

from __future__ import annotations

import dataclasses
import re
import secrets
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final, Protocol

from tornado.web import Application

from eyewall.core.changes import Changes, Identity
from eyewall.core.cookie import CookieAttributes, cookie_values
from eyewall.core.draft import CookieAction, Draft, Whence
from eyewall.core.events import EventKind
from eyewall.core.ids import digest_of
from eyewall.core.session import MAX_PRINCIPAL_BYTES, Session
from eyewall.core.stored_sessions import SessionMovedError
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.signer import Signer
from eyewall.errors import (
    ConfigurationError,
    DamagedRecordError,
    TooManySessionsError,
    UnstorableValueError,
)
from eyewall.settings import Settings
from eyewall.tornado.mixin import SessionMixin, _instead_of_prepare
from eyewall.tornado.sessions import SETTING, Sessions
from eyewall.tornado.signed_values import TornadoValues

REDIS_SETTING: Final = "redis_host"
"""Key in ``Application.settings`` under which the old library finds its Redis."""

OLD_COOKIE: Final = "session_id"
"""Name of the old library's cookie."""

METHOD: Final = "tornado-auth-sessions"
"""The method of a session that was taken over, as the list of devices shows it."""

_OLD_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_FIELDS: Final = {"host": "host", "port": "port", "db": "database", "password": "password"}
_HARMLESS: Final = frozenset({"decode_responses"})  # not about where Redis is; get_session() heeds it


class OldKeys(Protocol):
    """What is asked of the old library's Redis."""

    async def find(self, old_id: str) -> bytes | None:
        """Return who is signed in under ``old_id``, or None."""

    async def give_up(self, old_id: str, successor: str) -> bool:
        """Delete the key of ``old_id``; False when another sign-in than ``successor`` took its place."""

    async def close(self) -> None:
        """Close the connections."""


class AuthSessions(Sessions):
    """Sessions that take over who is still signed in with tornado-auth-sessions.

    An application without the setting ``sessions`` gets one over its ``redis_host``. To decide more, give it
    one, with any store::

        Application(handlers, redis_host={...}, sessions=AuthSessions(url="postgresql://...", ttl=1800))

    ``redis_host`` then only says where the old keys are. Leave it out when the old sessions are over (seven
    days after the move), and nothing is taken over any more.

    Args:
        arguments: as for :class:`~eyewall.tornado.Sessions`.
        options: as for :class:`~eyewall.tornado.Sessions`.

    Raises:
        ConfigurationError: also, at the first request, for a ``redis_host`` that cannot be understood, and
            when ``redis_host`` is given but no ``cookie_secret``.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._keys: OldKeys | None = None
        self._values: TornadoValues | None = None
        self._deletion = CookieAttributes(OLD_COOKIE).delete()
        if OLD_COOKIE in {self.settings.cookie_name(https) for https in (True, False)}:
            raise ConfigurationError(
                f"{OLD_COOKIE!r} is the old library's cookie; give the session's another 'name'"
            )

    @classmethod
    def prepare(cls, application: Application) -> None:
        """Make sure that ``application`` has sessions that fit its ``redis_host``.

        Raises:
            ConfigurationError: it has neither setting, or its sessions would take nobody over.
        """
        sessions, redis_host = application.settings.get(SETTING), application.settings.get(REDIS_SETTING)
        if isinstance(sessions, cls) or (sessions is not None and redis_host is None):
            return
        if sessions is not None:
            raise ConfigurationError(
                f"the application's {SETTING!r} takes nobody over from its {REDIS_SETTING!r}; give it "
                f"sessions=eyewall.tornado.compat.AuthSessions(...), or drop {REDIS_SETTING!r}"
            )
        application.settings[SETTING] = cls(_settings_from(redis_host))

    def bind(self, application: Application) -> None:
        """Take the secrets: the session's, and the one that signed the old cookies."""
        redis_host = application.settings.get(REDIS_SETTING)
        if redis_host is not None:
            self._values = TornadoValues(application, self.clock)
            self._keys = self._old_keys(_settings_from(redis_host))
        super().bind(application)

    def _old_keys(self, settings: Settings) -> OldKeys:
        if self._in_cookie:
            raise ConfigurationError(
                "a session in its own cookie cannot be ended, so nobody is taken over into one; use a store"
            )
        # Found by name, as every store: only who has a redis_host needs the library redis.
        keys: OldKeys = import_module("eyewall.stores.old_auth_sessions").OldAuthSessions.from_settings(
            dataclasses.replace(settings, store_timeout=self.settings.store_timeout), self.clock
        )
        return keys

    def use_keyring(self, keyring: KeyRing) -> None:
        """Sign with ``keyring``, and derive from its newest key the IDs of sessions that are taken over."""
        super().use_keyring(keyring)
        self._successors = Signer(keyring, "session taken over from tornado-auth-sessions")

    def open(self, cookie_lines: Sequence[str], *, https: bool, whence: Whence | None = None) -> Session:
        """Return the session; where there is no cookie of ours, the one an old cookie leads to."""
        session = super().open(cookie_lines, https=https, whence=whence)
        if session.draft.session_id is None:
            old_id = self._old_id_in(cookie_lines)
            session.draft.session_id = None if old_id is None else self._successor_of(old_id)
        return session

    async def load(self, session: Session) -> None:
        """Load the session, then take over who is signed in with the old library only. Never raises."""
        await super().load(session)
        old_id = self._old_id_in(session.draft.cookie_lines)
        if old_id is None or self._keys is None or session.failure is not None:
            return
        try:
            await self._take_over(session, old_id, self._keys)
        except Exception as error:  # noqa: BLE001 - no error of a store may leave a request unanswered
            self._note_failure(session, error)

    async def aclose(self) -> None:
        """Wait until everything under way is stored, then close the connections."""
        await super().aclose()
        if self._keys is not None:
            await self._keys.close()

    # -- taking over --------------------------------------------------------------------------------------

    def _old_id_in(self, cookie_lines: Sequence[str]) -> str | None:
        """Return the old session's ID; what the old library has not signed costs no question to Redis."""
        texts = cookie_values(cookie_lines, OLD_COOKIE)
        found = self._values.decode(OLD_COOKIE, texts) if self._values and texts else None
        old_id = "" if found is None else found.value.decode("latin-1")
        return old_id if _OLD_ID.fullmatch(old_id) else None

    def _successor_of(self, old_id: str) -> str:
        """Return the ID of the session that takes the place of ``old_id``'s; nobody else can tell it."""
        return self._successors.sign(OLD_COOKIE, old_id)[1]

    async def _take_over(self, session: Session, old_id: str, keys: OldKeys) -> None:
        draft = session.draft
        if draft.moved_from is not None:
            return  # it was taken over and has another ID by now; the browser is about to have that cookie
        session.used = True  # whatever follows, the browser must be told
        draft.send_along(OLD_COOKIE, self._deletion)
        was_signed_in = draft.principal is not None
        if not was_signed_in:
            principal = _principal_in(await keys.find(old_id))
            if principal is not None:
                await self._start_successor(session, old_id, principal)
            elif draft.record is None:  # perhaps a parallel request has taken it over since we looked
                await self._join_successor(draft, self._successor_of(old_id))
        if draft.principal is not None:
            await self._give_up_old(draft, old_id, keys, was_signed_in=was_signed_in)

    async def _start_successor(self, session: Session, old_id: str, principal: str) -> None:
        """Sign ``principal`` in: not fresh, for they have proved nothing now."""
        draft = session.draft
        identity = Identity(principal, None, secrets.token_bytes(16), METHOD)
        session_id = self._successor_of(old_id)
        device = None if draft.whence is None else draft.whence.device()
        try:
            if draft.record is not None:  # an anonymous visitor's: what they have stored is kept
                draft.identify(identity)
                await self.save(session)
                return
            async with self._health.watching(self._timeout), self._admitted(identity, digest_of(session_id)):
                issued = await self._writer.create_as(session_id, Changes(identity=identity).apply_to, device)
        except TooManySessionsError:
            draft.send_along(OLD_COOKIE, None)  # it stays, and the old key, for when there is room
            return
        if issued is None:  # a parallel request was faster
            await self._join_successor(draft, session_id)
            return
        draft.session_id = session_id
        draft.settle(issued.record, issued.payload)
        self.events.emit(
            EventKind.SIGNED_IN, digest=issued.record.digest, principal=principal, detail=f"by {METHOD}"
        )

    async def _join_successor(self, draft: Draft, session_id: str) -> None:
        digest = digest_of(session_id)
        try:
            async with self._health.watching(self._timeout):
                stored = await self._writer.load(digest)
        except SessionMovedError:
            draft.moved_from = digest
        except DamagedRecordError:
            return
        else:
            if stored is not None:
                draft.session_id = session_id
                draft.settle(*stored)

    async def _give_up_old(self, draft: Draft, old_id: str, keys: OldKeys, *, was_signed_in: bool) -> None:
        """Delete the old key, and hand over the cookie of its successor if that is this session."""
        is_first = await keys.give_up(old_id, (draft.identity.device_id or b"").hex())
        record, is_successor = draft.record, draft.session_id == self._successor_of(old_id)
        if record is None or (was_signed_in and not is_successor):
            return  # signed in by other means; the old key just goes
        if is_first:
            draft.cookie = CookieAction.SET
            return
        # Taken over and signed out while this request was on its way: the sign-out wins.
        async with self._health.watching(self._timeout):
            await self._writer.end(record.digest)
        draft.forget()
        draft.cookie = CookieAction.KEEP  # the one of a session that this request has started is not sent


class TornadoAuthSessionMixin(SessionMixin):
    """The old library's mixin, with the same four methods; and everything of SessionMixin.

    ::

        class BaseHandler(TornadoAuthSessionMixin, tornado.web.RequestHandler):
            pass

        Application(handlers, cookie_secret="...", redis_host={"host": "localhost", "decode_responses": True})
    """

    async def _execute(self, transforms: list[Any], *args: bytes, **kwargs: bytes) -> None:
        try:
            AuthSessions.prepare(self.application)
        except Exception as error:  # noqa: BLE001 - Tornado answers none from here, and the client hangs
            _instead_of_prepare(self, error)
            await super(SessionMixin, self)._execute(transforms, *args, **kwargs)
            return
        await super()._execute(transforms, *args, **kwargs)

    def set_session(self, user_id: object, is_secure: object = True) -> None:  # noqa: ARG002, FBT002 - as there
        """Sign ``user_id`` in, under a new session ID. It is stored before the answer leaves.

        Args:
            user_id: text, a whole number, or UTF-8 bytes; kept as text.
            is_secure: accepted so that old calls work. The cookie is Secure exactly when the request came by
                HTTPS, so that http://localhost works too; the setting ``secure`` says otherwise.

        Raises:
            UnstorableValueError: ``user_id`` is something else, empty, or too long.
        """
        self.session.sign_in(_text_of(user_id))
        vars(self).pop("_current_user", None)  # what Tornado has kept for this request is out of date

    def get_session(self) -> str | bytes | None:
        """Return who is signed in, or None.

        Text, also when ``set_session`` was given a number; bytes when there is a ``redis_host`` without
        ``decode_responses``: the old library's types.
        """
        principal = self.session.principal
        redis_host = self.application.settings.get(REDIS_SETTING)
        if principal is None or redis_host is None or redis_host.get("decode_responses"):
            return principal
        return principal.encode()

    def remove_session(self, user_id: object = None) -> None:  # noqa: ARG002 - see below
        """Sign this browser out: its session ends, and neither its cookie nor a copy opens anything more.

        Args:
            user_id: of no effect, as in the old library: this browser's session ends whoever is named, and
                nobody else's. To end all sessions of somebody, see the documentation of devices.
        """
        self.session.sign_out()
        vars(self).pop("_current_user", None)

    def get_current_user(self) -> Any:
        """Return what :meth:`get_session` does; ``@tornado.web.authenticated`` asks it."""
        return self.get_session()


def _settings_from(redis_host: object) -> Settings:
    """Return settings for the Redis that ``redis_host`` describes."""
    if not isinstance(redis_host, Mapping):
        raise ConfigurationError(
            f"the application needs {REDIS_SETTING}={{'host': ..., 'port': ..., 'db': ...}} or {SETTING}=..."
        )
    unknown = sorted(map(repr, set(redis_host) - set(_FIELDS) - _HARMLESS))
    if unknown:
        raise ConfigurationError(
            f"{REDIS_SETTING} has {', '.join(unknown)}, which the old library refused too; known are "
            f"{', '.join([*_FIELDS, *_HARMLESS])}. For anything else give sessions=AuthSessions(url=...)"
        )
    given = {ours: redis_host.get(theirs) for theirs, ours in _FIELDS.items()}
    return Settings.from_mapping(
        {"backend": "redis"} | {name: str(value) for name, value in given.items() if value is not None}
    )


def _text_of(user_id: object) -> str:
    if isinstance(user_id, bytes):
        try:
            return user_id.decode()
        except UnicodeDecodeError:
            raise UnstorableValueError("a user id in bytes is UTF-8") from None
    if isinstance(user_id, bool) or not isinstance(user_id, str | int):
        raise UnstorableValueError(f"a user id is text or a whole number, not a {type(user_id).__name__}")
    return str(user_id)


def _principal_in(value: bytes | None) -> str | None:
    try:
        return value.decode() if value and len(value) <= MAX_PRINCIPAL_BYTES else None
    except UnicodeDecodeError:
        return None
