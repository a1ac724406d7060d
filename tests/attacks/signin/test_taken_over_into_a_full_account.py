"""An old library's cookie, and an account that has all the sessions it may have."""

from __future__ import annotations

from typing import Any

from tornado.web import Application, create_signed_value

from eyewall import Settings
from eyewall.tornado.compat import OLD_COOKIE, AuthSessions
from tests.signin import kit
from tests.signin.kit import Deployment, Meddled
from tests.signin.pages import ROUTES
from tests.tornado.site import SECRET


class Old:
    """The old library's Redis with one key."""

    def __init__(self, principal: str) -> None:
        self._principal = principal

    async def find(self, _: str) -> bytes:
        return self._principal.encode()

    async def give_up(self, _: str, __: str) -> bool:
        return True

    async def close(self) -> None:
        pass


async def test_a_refused_take_over_is_no_outage(here: Deployment) -> None:
    """Every page answers 503 while the old cookie lasts, the sign-in page too: the user is locked out."""

    class Taking(AuthSessions):
        def _old_keys(self, settings: Any) -> Old:
            return Old(here.ann)

    store = here._open()
    sessions = Taking(
        Settings(backend="memory", cookie_secret=SECRET, max_sessions=1, when_full="refuse"),
        store=store,
        clock=here.clock,
    )
    site = Application(
        ROUTES, sessions=sessions, disabled=set(), redis_host={"host": "localhost"}, cookie_secret=SECRET
    )
    process = await here._stack.enter_async_context(kit._serving(sessions, Meddled(store), site))
    await here.signed_in(process, here.ann)
    old = create_signed_value(SECRET, OLD_COOKIE, "A" * 43, clock=lambda: here.clock().timestamp())
    headers = {"Cookie": f"{OLD_COOKIE}={old.decode()}"}
    assert (await here.browser(process).get("/", headers=headers)).code == 200
