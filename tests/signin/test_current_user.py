"""``current_user`` over HTTP: loaded once, before anything runs, and true within the request."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from tornado.web import HTTPError, RequestHandler

from eyewall.errors import TooManySessionsError
from eyewall.testing.client import Browser
from tests.signin.kit import SESSION, Deployment, Process, drop, me, user
from tests.signin.pages import Page


class Watching(Page):
    """Notes in which order Tornado and we call what."""

    async def load_user(self, principal: str) -> Any:
        self.settings["order"].append("load_user")
        if self.settings["broken"]:
            raise RuntimeError("the table of users is gone")
        return {"name": principal}

    def prepare(self) -> None:
        self.settings["order"].append(f"prepare {self.current_user}")

    def get(self) -> None:
        assert self.current_user == self.current_user
        self.write(str(self.current_user))

    def post(self) -> None:
        who = [str(self.current_user)]
        self.sign_in("carol", user={"name": "carol", "fresh": True})
        who.append(str(self.current_user))
        self.sign_out()
        who.append(str(self.current_user))
        self.sign_in("dora")
        who.append(str(self.current_user))
        self.write(json.dumps(who))


async def _watching(here: Deployment) -> tuple[Process, list[str]]:
    order: list[str] = []
    settings = {"order": order, "broken": False}
    return await here.process([("/watch", Watching)], settings), order


async def test_the_user_is_loaded_once_and_before_prepare(here: Deployment) -> None:
    """Loaded twice it doubles the load of the user table; loaded late, prepare() lets strangers pass."""
    process, order = await _watching(here)
    browser = await here.signed_in(process, here.ann)
    assert (await browser.get("/watch")).body.decode() == str({"name": here.ann})
    assert order == ["load_user", f"prepare {{'name': '{here.ann}'}}"]
    order.clear()
    assert (await here.browser(process).get("/watch")).body == b"None"
    assert order == ["prepare None"], "nobody is signed in, so nobody is looked up"


async def test_current_user_follows_within_the_request(here: Deployment) -> None:
    """A page that greets the last user after a sign-out shows one person's data to the next."""
    process, _ = await _watching(here)
    browser = await here.signed_in(process, here.ann)
    answer = await browser.post("/watch")
    expected = [{"name": here.ann}, {"name": "carol", "fresh": True}, None, "dora"]
    assert json.loads(answer.body) == [str(one) for one in expected]
    assert await user(browser) == "dora"
    assert (await me(browser))["data"] == {}


class Trying(Page):
    """Signs in as one after the other, and notes each time who it is then."""

    async def load_user(self, principal: str) -> Any:
        return f"loaded {principal}"

    async def post(self) -> None:
        noted: list[list[str | None]] = []
        for name in self.get_argument("names").split():
            self.sign_in(name.strip("!"), user=f"given {name.strip('!')}")
            if name.endswith("!"):  # not without having been asked to
                continue
            with suppress(TooManySessionsError):
                await self.session.save()
            noted.append([self.current_user, self.session.principal])
        self.write(json.dumps(noted))


async def _trying(here: Deployment, *full: str) -> Process:
    process = await here.process([("/try", Trying)], max_sessions=1, when_full="refuse")
    for name in full:
        await here.signed_in(process, name)
    return process


async def _tried(browser: Browser, *names: str) -> Any:
    answer = await browser.post_form("/try", {"names": " ".join(names)})
    assert answer.code == 200
    return json.loads(answer.body)


async def test_whoever_is_refused_is_nobody(here: Deployment) -> None:
    """The page that says "too many devices" greets whoever typed the name, and shows what is theirs."""
    process = await _trying(here, here.ann)
    assert await _tried(here.browser(process), here.ann) == [[None, None]]
    assert await _tried(here.browser(process), here.ann, here.ann) == [[None, None]] * 2


async def test_whoever_was_signed_in_before_a_refusal_still_is(here: Deployment) -> None:
    """A failed change of account takes the account away that was there, or mixes the two."""
    process = await _trying(here, here.ann)
    browser = await here.signed_in(process, here.bob)
    bob = [f"loaded {here.bob}", here.bob]
    assert await _tried(browser, here.ann) == [bob]
    assert await _tried(browser, f"{here.ann}!", here.ann) == [bob], "two were asked for at once"
    given = [f"given {here.bob}", here.bob]
    assert await _tried(browser, here.bob, here.ann) == [given, given], "what was let in before counts"
    assert await user(browser) == here.bob


async def test_a_user_that_cannot_be_loaded_is_one_500_and_no_hang(
    here: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """An error before prepare() is where Tornado answers nothing, and the browser waits for ever."""
    process, order = await _watching(here)
    browser = await here.signed_in(process, here.ann)
    process.application.settings["broken"] = True
    async with asyncio.timeout(10):
        answer = await browser.get("/watch")
    assert answer.code == 500
    assert "Set-Cookie" not in answer.headers
    assert order == ["load_user"], "neither prepare() nor the method ran"
    assert sum(record.exc_info is not None for record in caplog.records) == 1
    process.application.settings["broken"] = False
    assert (await browser.get("/watch")).code == 200


async def test_another_way_of_knowing_who_asks_still_works(here: Deployment) -> None:
    """An API with bearer tokens beside sessions must not be locked out by the mixin."""

    class ByToken(RequestHandler):
        def get_current_user(self) -> Any:
            return "machine" if self.request.headers.get("Authorization") else None

    class Api(Page, ByToken):
        def get(self) -> None:
            self.write(str(self.current_user))

    process = await here.process([("/api", Api)])
    assert (await here.browser(process).get("/api", headers={"Authorization": "x"})).body == b"machine"
    browser = await here.signed_in(process, here.ann)
    assert (await browser.get("/api")).body.decode() == here.ann


# What caches may keep: H01, H02


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize("path", ["/public", "/nothing-there", "/moved"])
async def test_whoever_is_known_gets_a_page_of_their_own(here: Deployment, path: str, method: str) -> None:
    """A shared cache that keeps a page with a restored session's cookie gives that session away."""

    class Moved(Page):
        def get(self) -> None:
            self.redirect("/public", permanent=True)

        head = get

    process = await here.process([("/moved", Moved)], {"default_handler_class": NothingThere})
    browser = await here.signed_in(process, here.ann, remember="1")
    for how in ("signed in", "brought back"):
        if how == "brought back":
            drop(browser, SESSION)
        answer = await browser.request(method, path)
        assert ("Set-Cookie" in answer.headers) == (how == "brought back")
        assert answer.headers["Vary"] == "Cookie", how
        assert answer.headers["Cache-Control"] == "private, no-store", how
    stranger = await here.browser(process).request(method, path)
    assert not {"Vary", "Cache-Control", "Set-Cookie"} & set(stranger.headers)


class NothingThere(Page):
    def prepare(self) -> None:
        raise HTTPError(404)
