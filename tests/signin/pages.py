"""The pages of the site that people sign in to."""

from __future__ import annotations

import json
from typing import Any, Final

from tornado.web import HTTPError, RequestHandler

from eyewall import SessionMixin, Sessions
from eyewall.tornado.fresh import fresh


class Page(SessionMixin, RequestHandler):
    """Base of the site's pages."""

    async def load_user(self, principal: str) -> Any:
        return None if principal in self.settings["disabled"] else principal

    @property
    def sessions(self) -> Sessions:
        """The application's."""
        return Sessions.serving(self.application)

    def fail_if_asked(self) -> None:
        """End in a 500, as a bug after the work would."""
        if self.get_argument("fail", ""):
            raise HTTPError(500)


class Me(Page):
    """Who is asking."""

    def get(self) -> None:
        self.write({"user": self.current_user, "fresh": self.session.is_fresh(), "data": self.session.all()})

    def post(self) -> None:
        self.session[self.get_argument("key")] = self.get_argument("value")


class Public(Page):
    """A page that uses no session."""

    def get(self) -> None:
        self.write("public")


class SignIn(Page):
    async def post(self) -> None:
        name = self.get_argument("name")
        self.sign_in(name, remember=bool(self.get_argument("remember", "")))
        self.fail_if_asked()
        self.write({"user": self.current_user})


class SignOut(Page):
    def get(self) -> None:
        self.sign_out()

    def post(self) -> None:
        self.sign_out(everywhere=bool(self.get_argument("everywhere", "")))
        self.fail_if_asked()
        self.write({"user": self.current_user})


class Change(Page):
    """The verbs that change what a session is."""

    def post(self, verb: str) -> None:
        {"regenerate": self.session.regenerate, "clear": self.session.clear, "destroy": self.session.destroy}[
            verb
        ]()


class Slow(Page):
    """Loads the session, waits until the test says so, then changes it."""

    async def post(self) -> None:
        self.session.get("k")
        self.settings["slow_is_here"].set()
        await self.settings["slow_may_go"].wait()
        self.session["late"] = "yes"


class Flash(Page):
    def get(self) -> None:
        self.write(json.dumps([message.value for message in self.session.flash.messages()]))

    def post(self) -> None:
        self.session.flash("message", self.get_argument("text"))
        self.redirect("/flash")


class Devices(Page):
    async def get(self) -> None:
        session = self.session
        found = await self.sessions.of(session.principal or "", current=session)
        self.write(json.dumps([[one.handle, one.label, one.current, one.remembered] for one in found]))

    async def post(self) -> None:
        if not await self.sessions.revoke(
            self.get_argument("handle"), principal=self.session.principal or ""
        ):
            raise HTTPError(404)


class Others(Page):
    async def post(self) -> None:
        self.write(str(await self.sessions.revoke_others(self.session)))


class Password(Page):
    async def post(self) -> None:
        changed = await self.sessions.credentials_changed(self.session.principal or "", keep=self.session)
        self.write(str(changed))


class Attempt(Page):
    async def post(self) -> None:
        account = self.get_argument("name")
        await self.count_attempt(account)
        if self.get_argument("password") != "right":
            raise HTTPError(403)
        await self.attempt_succeeded(account)


class Important(Page):
    @fresh(minutes=10)
    def get(self) -> None:
        self.write("done")

    @fresh(minutes=10)
    def post(self) -> None:
        self.write("done")


ROUTES: Final = [
    ("/", Me),
    ("/public", Public),
    ("/in", SignIn),
    ("/out", SignOut),
    ("/change/(.*)", Change),
    ("/slow", Slow),
    ("/flash", Flash),
    ("/devices", Devices),
    ("/others", Others),
    ("/password", Password),
    ("/attempt", Attempt),
    ("/important", Important),
]
