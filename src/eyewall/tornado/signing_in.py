"""Signing in and out, in Tornado's own terms: ``current_user``, ``@authenticated``, ``login_url``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from tornado.web import HTTPError, RequestHandler

from eyewall.core.csrf import SAFE_METHODS
from eyewall.core.session import Session
from eyewall.errors import SessionError
from eyewall.tornado.attach import session_on
from eyewall.tornado.next_url import next_of
from eyewall.tornado.sessions import Sessions

if TYPE_CHECKING:
    _Handler = RequestHandler
else:
    _Handler = object


class SignInMixin(_Handler):
    """Signs in and out; :class:`~eyewall.tornado.SessionMixin` has it already.

    ::

        class SignIn(SessionMixin, tornado.web.RequestHandler):
            async def post(self):
                name = self.get_body_argument("name")
                await self.count_attempt(name)
                if await verify_password(self.get_body_argument("password"), hash_of(name)):
                    await self.attempt_succeeded(name)
                    self.sign_in(name, remember=True)
                    self.redirect(self.next_url())

    ``@tornado.web.authenticated``, ``login_url`` and ``self.current_user`` work as ever.
    """

    async def load_user(self, principal: str) -> Any:
        """Return the user object of ``principal`` for ``self.current_user``; override it.

        Awaited once per request, before Tornado's checks and ``prepare()``, when somebody is signed in.
        Return None for an account that is gone or disabled: then nobody is signed in for this request. The
        default returns ``principal`` itself, without awaiting anything.
        """
        return principal

    def get_current_user(self) -> Any:
        """Return the principal, or None: what ``self.current_user`` is unless :meth:`load_user` says more.

        When nobody is signed in to the session, a base class that knows other ways (a token) is asked.
        """
        session = session_on(self.request)
        principal = None if session is None else session.principal
        return super().get_current_user() if principal is None else principal

    def sign_in(
        self, principal: str, *, user: Any = None, remember: bool = False, method: str = "password"
    ) -> None:
        """Sign ``principal`` in: a new session ID, timeouts from the start, before the first byte leaves.

        What an anonymous visitor has stored is kept; what belonged to somebody else is dropped. Called for
        who is signed in already, it says that they have proved it again. It costs no awaiting.

        Args:
            principal: the stable identifier of who it is; not a name that another account may get later.
            user: what ``self.current_user`` is for the rest of this request; ``principal`` unless given. When
                the sign-in is refused (``max_sessions``), it is again what it was before.
            remember: bring them back without asking after the session has ended, for ``remember_ttl``.
            method: how they proved it; the list of devices shows it.

        Raises:
            UnstorableValueError: ``principal`` or ``method`` is not text, is empty, or too long.
            HeadersSentError: the response's headers have left.
            StoreUnavailable: the session could not be loaded (answered as 503).
        """
        session = _session(self)
        is_pending = session.draft.restart  # then it is known already what would have to be put back
        session.sign_in(principal, remember=remember, method=method)
        if not is_pending:
            session.draft.if_refused = _keeping_user(self)
        self.current_user = principal if user is None else user

    def sign_out(self, *, everywhere: bool = False) -> None:
        """End the session and the remember token of this browser, before the first byte leaves.

        Args:
            everywhere: end those of all other devices too.

        Raises:
            HTTPError: 405 for GET and HEAD: a link or an image elsewhere must sign nobody out (ASVS 3.5.3).
            StoreUnavailable: the session could not be loaded (answered as 503).
        """
        if _session(self).stays_open:  # a message over a WebSocket: its handshake was checked for its origin
            _session(self).sign_out(everywhere=everywhere)
            self.current_user = None
            return
        if self.request.method in SAFE_METHODS:
            _session(self).refuse_with({"Allow": "POST"})
            raise HTTPError(405, "sign out by POST; a GET must change nothing")
        _session(self).sign_out(everywhere=everywhere)
        self.current_user = None
        if Sessions.serving(self.application).settings.clear_site_data:
            self.set_header("Clear-Site-Data", '"cache", "cookies", "storage"')

    async def count_attempt(self, account: str) -> None:
        """Count one attempt to sign in as ``account``; await it before the password is looked at.

        Args:
            account: the name as typed, whether or not there is such an account.

        Raises:
            TooManyAttemptsError: answered as 429 with ``Retry-After``. Nobody can lock the account's owner
                out with it; see :class:`~eyewall.signin.attempts.Attempts`.
            StoreUnavailable: answered as 503.
        """
        await Sessions.serving(self.application).count_attempt(account, self.request.remote_ip)

    async def attempt_succeeded(self, account: str) -> None:
        """Take the attempts on ``account`` back: the password was right.

        Raises:
            StoreUnavailable: answered as 503.
        """
        await Sessions.serving(self.application).attempt_succeeded(account, self.request.remote_ip)

    def next_url(self, default: str = "/") -> str:
        """Return where to go after signing in: the argument ``next`` if it is a path of this host.

        See :func:`~eyewall.tornado.next_url.safe_next`. Never raises.
        """
        return next_of(self, default)


def _session(handler: RequestHandler) -> Session:
    session = session_on(handler.request)
    if session is None:
        raise SessionError(f"{type(handler).__name__} has no session: use SessionMixin, or install()")
    return session


def _keeping_user(handler: RequestHandler) -> Callable[[], None]:
    """Return what makes ``current_user`` again what it is now. It does not hold on to the handler."""
    weak = ref(handler)
    known = {name: user for name, user in vars(handler).items() if name == "_current_user"}

    def put_back() -> None:
        handler = weak()
        if handler is not None:
            vars(handler).pop("_current_user", None)  # Tornado asks get_current_user() where it has none
            vars(handler).update(known)

    return put_back


def has_own_loader(handler: SignInMixin) -> bool:
    """Whether the handler says more about its users than their principal."""
    return type(handler).load_user is not SignInMixin.load_user


async def load_current_user(handler: SignInMixin, session: Session) -> None:
    """Set ``current_user`` by the handler's own ``load_user``, if somebody is signed in."""
    principal = None if session.failure is not None else session.draft.principal
    if principal is not None:
        session.used = True  # what this page shows depends on who asks
        handler.current_user = await handler.load_user(principal)
