"""``current_user`` over HTTP: loaded once, before anything runs, and true within the request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tornado.web import HTTPError, RequestHandler

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


async def test_a_user_that_cannot_be_loaded_is_one_500_and_no_hang(
    here: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """An error before prepare() is where Tornado answers nothing, and the browser waits for ever."""
    process, order = await _watching(here)
    browser = await here.signed_in(process, here.ann)
    process.application.settings["broken"] = True
    async with asyncio.timeout(2):
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
