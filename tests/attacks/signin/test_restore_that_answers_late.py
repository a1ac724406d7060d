"""A browser is brought back by two requests at once, and one of them is slow.

Meanwhile the other one's page gives the session a new ID, or ends it. The slow answer, which comes last, must
not put the dead ID and the used token back into the browser, nor take the new ones away.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from eyewall.errors import StoreUnavailable
from eyewall.signin.remember import GRACE
from tests.signin.kit import REMEMBER, SESSION, Deployment, Process, cookies, drop, sign_in, user
from tests.signin.pages import Page


class Late(Page):
    """Takes its time, and may change something in the end."""

    async def post(self) -> None:
        assert self.current_user is not None
        self.settings["slow_is_here"].set()
        await self.settings["slow_may_go"].wait()
        if self.get_argument("write", ""):
            self.session["late"] = "yes"
        if self.get_argument("regenerate", ""):
            self.session.regenerate()
        self.fail_if_asked()


async def _start(here: Deployment) -> Process:
    return await here.process([("/late", Late)])


@pytest.mark.parametrize("how", ["read", "write", "fail"])
@pytest.mark.parametrize("meanwhile", ["regenerate", "proof", "sign in", "somebody else", "sign out"])
async def test_a_late_answer_leaves_the_cookies_of_the_newer_one_alone(
    here: Deployment, meanwhile: str, how: str
) -> None:
    """A slow picture signs a user out, minutes after they have signed in."""
    slow_one, other = await _start(here), await _start(here)
    browser = await here.signed_in(slow_one, here.ann, remember="1")
    drop(browser, SESSION)
    arrived, go_on = slow_one.slow
    late = asyncio.ensure_future(here.browser(slow_one, browser).post_form("/late", {how: "1"}))
    await arrived.wait()
    tab = here.browser(other, browser)
    assert await user(tab) == here.ann, "brought back into the same session"
    match meanwhile:
        case "regenerate":
            await tab.post("/change/regenerate")
        case "proof":
            await sign_in(tab, here.ann)
        case "sign in":
            await sign_in(tab, here.ann, remember="1")
        case "somebody else":
            await sign_in(tab, here.bob)
        case "sign out":
            await tab.post("/out")
    newer = cookies(browser)
    go_on.set()
    await late
    assert cookies(browser) == newer
    expected = {"sign out": None, "somebody else": here.bob}.get(meanwhile, here.ann)
    assert await user(tab) == expected
    here.clock.advance(GRACE + timedelta(minutes=2))
    assert await user(tab) == expected


@pytest.mark.parametrize("how", ["read", "write", "regenerate", "fail"])
async def test_a_late_answer_alone_brings_its_cookies(here: Deployment, how: str) -> None:
    """Nobody else told the browser: without them it would bring its used token again, and ring the alarm."""
    process = await _start(here)
    browser = await here.signed_in(process, here.ann, remember="1")
    before = cookies(browser)
    drop(browser, SESSION)
    process.slow[1].set()
    await browser.post_form("/late", {how: "1"})
    assert cookies(browser).keys() == before.keys()
    assert cookies(browser)[REMEMBER] != before[REMEMBER]
    here.clock.advance(GRACE + timedelta(minutes=2))
    assert await user(browser) == here.ann


async def test_when_nobody_can_tell_the_browser_gets_its_cookies(here: Deployment) -> None:
    """A store that fails at the last moment must not make a thief of its owner."""
    process = await _start(here)
    browser = await here.signed_in(process, here.ann, remember="1")
    drop(browser, SESSION)
    arrived, go_on = process.slow
    late = asyncio.ensure_future(browser.post("/late"))
    await arrived.wait()
    process.store.fail("load", StoreUnavailable("connection refused"))
    go_on.set()
    assert (await late).code == 200
    process.store.meddle = None
    here.clock.advance(GRACE + timedelta(seconds=1))
    assert await user(browser) == here.ann
