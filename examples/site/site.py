"""A site with accounts: register, sign in with "remember me", see and end your devices, change the password.

    make setup                                     (or: pip install '.[sqlite,passwords,devices]')
    .venv/bin/python examples/site/site.py         then open http://localhost:7149

Sessions and accounts are kept in SQLite, in ``.eyewall/site``; EYEWALL_URL puts the sessions elsewhere. The
pages need no JavaScript. Eyewall's in here are ``sign_in``, ``sign_out``, ``@fresh``, the list of devices,
the limit of attempts, and how passwords are hashed. The accounts are the application's own, as ever.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sqlite3
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tornado.web import Application, ErrorHandler, RequestHandler, StaticFileHandler, authenticated

from eyewall import (
    ConfigurationError,
    DevicePage,
    SessionMixin,
    Sessions,
    Settings,
    TooManyAttemptsError,
    UnusablePasswordError,
    device_pages,
    fresh,
)
from eyewall.cli.serving import serve
from eyewall.crypto.key_file import load_or_make_keys
from eyewall.signin.passwords import hash_password, needs_rehash, verify_password

FOLDER = Path(".eyewall") / "site"
NAME = re.compile(r"[a-z0-9._-]{2,32}")
SHORTEST_PASSWORD = 15  # characters, where nothing but the password is asked for (NIST SP 800-63B-4, 3.1.1.2)
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
WHAT_TO_DO = {
    403: "This form is too old, or did not come from this site. Go back, load the page again, and try again.",
    404: "There is no such thing here, or not any more.",
    503: "We are busy or being repaired. Please try again in a moment; nothing was lost.",
}


@dataclass(frozen=True)
class User:
    """An account; ``id`` is the principal of its sessions, ``password`` is a hash."""

    id: str
    name: str
    password: str


class Users:
    """The accounts, in a table. SQLite is asked in a thread, so that nobody else waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # AUTOINCREMENT: the ID of a deleted account is never given to another one.
        self._run_now(
            "CREATE TABLE IF NOT EXISTS users "
            "(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, password TEXT NOT NULL)"
        )

    async def by_id(self, user_id: str) -> User | None:
        return await self._one("SELECT CAST(id AS TEXT), name, password FROM users WHERE id = ?", user_id)

    async def by_name(self, name: str) -> User | None:
        return await self._one("SELECT CAST(id AS TEXT), name, password FROM users WHERE name = ?", name)

    async def add(self, name: str, password: str) -> User | None:
        """Return the new account, or None when the name is taken."""
        return await self._one(
            "INSERT INTO users (name, password) VALUES (?, ?) ON CONFLICT DO NOTHING "
            "RETURNING CAST(id AS TEXT), name, password",
            name,
            password,
        )

    async def set_password(self, user: User, password: str) -> None:
        statement = "UPDATE users SET password = ? WHERE id = ?"
        await asyncio.to_thread(self._run_now, statement, password, user.id)

    async def rehash_password(self, user: User, password: str) -> None:
        """Store a better hash of the same password; never over one that was changed meanwhile."""
        statement = "UPDATE users SET password = ? WHERE id = ? AND password = ?"
        await asyncio.to_thread(self._run_now, statement, password, user.id, user.password)

    async def _one(self, statement: str, *values: str) -> User | None:
        rows = await asyncio.to_thread(self._run_now, statement, *values)
        return User(*rows[0]) if rows else None

    def _run_now(self, statement: str, *values: str) -> list[Any]:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            return connection.execute(statement, values).fetchall()


class Page(RequestHandler):
    """What pages with and without a session share."""

    def set_default_headers(self) -> None:
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        advice = WHAT_TO_DO.get(status_code, "That did not work.")
        if isinstance(error, TooManyAttemptsError):
            minutes = int(error.retry_after.total_seconds()) // 60 + 1
            advice = f"Too many attempts. Please try again in {minutes} min."
        self.render("problem.html", title=self._reason, advice=advice)


class Static(Page, StaticFileHandler):
    pass


class NotFound(Page, ErrorHandler):
    pass


class SitePage(SessionMixin, Page):
    """A page that knows who is signed in: ``self.current_user`` is a :class:`User` or None."""

    @property
    def users(self) -> Users:
        users: Users = self.settings["users"]
        return users

    @property
    def sessions(self) -> Sessions:
        return Sessions.serving(self.application)

    async def load_user(self, principal: str) -> User | None:
        return await self.users.by_id(principal)

    def show(self, template: str, *, problem: str = "", **values: Any) -> None:
        """Show a page, with what is wrong with the form that was sent, if it was."""
        if problem:
            self.set_status(422)
        self.render(template, problem=problem, **values)

    def name_typed(self) -> str:
        return self.get_body_argument("name", "").lower()

    def password_typed(self) -> str:
        return self.get_body_argument("password", "", strip=False)

    async def user_with(self, name: str, password: str) -> User | None:
        """Return the account if the password is right.

        An unknown name takes as long as a wrong password. Too many attempts end here, with a 429.
        """
        await self.count_attempt(name)
        user = await self.users.by_name(name)
        right = await verify_password(password, user.password if user else None)
        if user is None or not right:
            return None
        await self.attempt_succeeded(name)
        if needs_rehash(user.password):  # made with weaker parameters, or by the application before this one
            await self.users.rehash_password(user, await hash_password(password))
        return user


class Home(SitePage):
    @authenticated
    def get(self) -> None:
        self.show("home.html", messages=self.session.flash.messages("message"), fresh=self.session.is_fresh())


class Register(SitePage):
    def get(self) -> None:
        self.show("register.html", name="", shortest=SHORTEST_PASSWORD)

    async def post(self) -> None:
        name = self.name_typed()
        try:
            user = await self.users.add(checked(name), await new_hash(self.password_typed()))
        except ValueError as error:
            self.show("register.html", name=name, shortest=SHORTEST_PASSWORD, problem=str(error))
            return
        if user is None:
            problem = "This name is taken."
            self.show("register.html", name=name, shortest=SHORTEST_PASSWORD, problem=problem)
            return
        self.sign_in(user.id, user=user)
        self.redirect("/", status=303)


class SignIn(SitePage):
    def get(self) -> None:
        if self.current_user is None:
            self.show("sign_in.html", name="", next=self.next_url())
        else:
            self.redirect(self.next_url())

    async def post(self) -> None:
        name = self.name_typed()
        user = await self.user_with(name, self.password_typed())
        if user is None:  # which of the two was wrong is nobody's business
            problem = "Name or password is wrong."
            self.show("sign_in.html", name=name, next=self.next_url(), problem=problem)
            return
        self.sign_in(user.id, user=user, remember=self.get_body_argument("remember", "") == "yes")
        self.redirect(self.next_url(), status=303)


class Confirm(SitePage):
    """Where ``@fresh`` sends who has not typed the password lately, be it that a token brought them back."""

    @authenticated
    def get(self) -> None:
        self.show("confirm.html", next=self.next_url())

    @authenticated
    async def post(self) -> None:
        user = await self.user_with(self.current_user.name, self.password_typed())
        if user is None:
            self.show("confirm.html", next=self.next_url(), problem="The password is wrong.")
            return
        self.sign_in(user.id, user=user)
        self.redirect(self.next_url(), status=303)


class ChangePassword(SitePage):
    @authenticated
    @fresh(minutes=10)
    def get(self) -> None:
        self.show("password.html", shortest=SHORTEST_PASSWORD)

    @authenticated
    @fresh(minutes=10)
    async def post(self) -> None:
        try:
            password = await new_hash(self.password_typed())
        except ValueError as error:
            self.show("password.html", shortest=SHORTEST_PASSWORD, problem=str(error))
            return
        await self.users.set_password(self.current_user, password)
        # After the new password is stored: nobody gets in with the old one any more.
        ended = await self.sessions.credentials_changed(self.current_user.id, keep=self.session)
        self.session.flash("message", f"Password changed. Other devices signed out: {ended}.")
        self.redirect("/", status=303)


class Devices(DevicePage, SitePage):
    """The ready page of Eyewall, with a template of ours."""

    devices_template = "devices.html"


class SignOut(SitePage):
    """By POST only: an image of another site must sign nobody out."""

    def post(self) -> None:
        self.sign_out(everywhere=self.get_body_argument("everywhere", "") == "yes")
        self.redirect("/sign-in", status=303)


def checked(name: str) -> str:
    """Return ``name`` if it may be the name of an account, else raise ValueError, which says what may."""
    if NAME.fullmatch(name) is None:
        raise ValueError("A name has 2 to 32 letters a to z, digits, dots, hyphens and underscores.")
    return name


async def new_hash(password: str) -> str:
    """Return what to store for a new password, or raise ValueError, which says what is wrong with it.

    A site of yours looks it up in a list of leaked passwords too (ASVS 5.0, 6.2.4 and 6.2.12).
    """
    if len(password) < SHORTEST_PASSWORD:
        raise ValueError(f"A password has at least {SHORTEST_PASSWORD} characters; take a few words.")
    try:
        return await hash_password(password)
    except UnusablePasswordError as error:
        raise ValueError(f"Sorry, {error}.") from None


def make_app(sessions: Sessions, users: Users) -> Application:
    """Return the site."""
    here = Path(__file__).parent
    return Application(
        [
            ("/", Home),
            ("/register", Register),
            ("/sign-in", SignIn),
            ("/confirm", Confirm),
            ("/password", ChangePassword),
            ("/sign-out", SignOut),
            *device_pages("/devices", base=Devices),
        ],
        sessions=sessions,
        users=users,
        login_url="/sign-in",
        reauthenticate_url="/confirm",
        xsrf_cookies=True,
        template_path=here / "templates",
        static_path=here / "static",
        static_handler_class=Static,
        default_handler_class=NotFound,
        default_handler_args={"status_code": 404},
    )


def settings_from(environ: Mapping[str, str], folder: Path) -> Settings:
    """Return what the environment says; what it leaves open is SQLite and a secret in ``folder``."""
    variables = {"EYEWALL_URL": f"sqlite:///{folder / 'sessions.db'}", **environ}
    if not variables.keys() & {"EYEWALL_COOKIE_SECRET", "EYEWALL_SECRET_FILE"}:
        variables["EYEWALL_SECRET_FILE"] = str(folder / "secret")
        load_or_make_keys(folder / "secret")  # fine for one server; several must be given the same one
    return Settings.from_environment(environ=variables, dotenv=None)


async def main(host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM."""
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    site = make_app(Sessions(settings_from(os.environ, FOLDER)), Users(FOLDER / "users.db"))
    await serve(site, host, port, lambda chosen: print(f"Site at http://{host}:{chosen}/", flush=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A site with accounts.")
    parser.add_argument("--port", type=int, default=7149, help="port to listen on; 0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.host, arguments.port))
    except ConfigurationError as wrong:
        print(f"site: {wrong}", file=sys.stderr)
        sys.exit(2)
