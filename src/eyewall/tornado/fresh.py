"""``@fresh``: what only those may do who have proved lately who they are."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

from tornado.web import HTTPError, RequestHandler

from eyewall.core.csrf import SAFE_METHODS
from eyewall.tornado.mixin import session_of
from eyewall.tornado.signing_in import SignInMixin

_P = ParamSpec("_P")
_H = TypeVar("_H", bound=RequestHandler)
_Method = Callable[Concatenate[_H, _P], Awaitable[None] | None]

SETTING = "reauthenticate_url"
"""Key in ``Application.settings``: where one proves again who one is. Default: the ``login_url``."""


def fresh(*, minutes: float = 10) -> Callable[[_Method[_H, _P]], _Method[_H, _P]]:
    """Let a handler's method run only for who has proved within ``minutes`` who they are (ASVS 7.5.1, 7.5.3).

    ::

        @fresh(minutes=10)
        def post(self):
            delete_account(self.current_user)

    A browser that asks for a page is sent to the application setting ``reauthenticate_url`` (else
    ``login_url``) with ``next`` in the query; everything else is answered with 401. Whoever was brought back
    by a remember token is not fresh, however lately. The page there checks the password and calls
    ``self.sign_in()`` again.

    Args:
        minutes: how long a proof is good for.
    """
    within = timedelta(minutes=minutes)

    def decorate(method: _Method[_H, _P]) -> _Method[_H, _P]:
        @functools.wraps(method)
        def checked(self: _H, /, *args: _P.args, **kwargs: _P.kwargs) -> Awaitable[None] | None:
            # An account that load_user() no longer knows is nobody, however fresh the session.
            known = not isinstance(self, SignInMixin) or self.current_user
            if session_of(self).is_fresh(within) and known:
                return method(self, *args, **kwargs)
            _send_to_prove(self)
            return None

        return checked

    return decorate


def _send_to_prove(handler: RequestHandler) -> None:
    place = handler.settings.get(SETTING) or handler.settings.get("login_url")
    if place is None or not _wants_a_page(handler):
        # No challenge of RFC 9110 11.6.1 fits: browsers would ask for a password of their own.
        raise HTTPError(401, "who is signed in has not proved it lately; ask for the password again")
    # Only a GET can be repeated by a redirect; a form is shown again by its own page.
    back = handler.request.uri if handler.request.method in SAFE_METHODS else handler.request.path
    handler.redirect(f"{place}{'&' if '?' in place else '?'}{urlencode({'next': back})}", status=303)


def _wants_a_page(handler: RequestHandler) -> bool:
    """Whether a browser navigates; a script's request would follow the redirect and not know."""
    mode = handler.request.headers.get("Sec-Fetch-Mode")
    return mode == "navigate" if mode else "text/html" in handler.request.headers.get("Accept", "")
