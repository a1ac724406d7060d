"""``@fresh`` on a handler of an application one does not own: it has a session by install(), and no mixin."""

from __future__ import annotations

from tornado.web import RequestHandler

from eyewall.tornado import session_of
from eyewall.tornado.fresh import fresh
from tests.signin.kit import Deployment


class In(RequestHandler):
    def post(self) -> None:
        session_of(self).sign_in("ann")


class Important(RequestHandler):
    @fresh()
    def get(self) -> None:
        self.write("done")


async def test_who_has_just_proved_it_gets_in(here: Deployment) -> None:
    """Such a handler has no current_user, so asking for one sends everybody to the password page for ever."""
    process = await here.process([("/prove", In), ("/done", Important)])
    process.sessions.install(process.application)
    browser = here.browser(process)
    assert (await browser.post("/prove")).code == 200
    assert (await browser.get("/done")).code == 200
