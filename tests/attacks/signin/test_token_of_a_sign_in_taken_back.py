"""A handler signs in with remember=True, saves, and thinks better of it within the same request."""

from __future__ import annotations

from datetime import timedelta

from tests.signin.kit import REMEMBER, Deployment, cookies, user
from tests.signin.pages import Page


async def test_signed_out_again_leaves_no_token_behind(here: Deployment) -> None:
    """The account turns out to be locked; the browser is sent a live token and comes back for 30 days."""

    class Locked(Page):
        async def post(self) -> None:
            self.sign_in(here.ann, remember=True)
            await self.session.save()
            self.sign_out()

    browser = here.browser(await here.process([("/locked", Locked)]))
    assert (await browser.post("/locked")).code == 200
    assert REMEMBER not in cookies(browser)
    assert await user(browser) is None


async def test_signed_in_as_somebody_else_brings_back_nobody_else(here: Deployment) -> None:
    """Bob's browser is sent Ann's token with his session: two hours later he is Ann."""

    class Switch(Page):
        async def post(self) -> None:
            self.sign_in(here.ann, remember=True)
            await self.session.save()
            self.sign_in(here.bob)

    browser = here.browser(await here.process([("/switch", Switch)]))
    assert (await browser.post("/switch")).code == 200
    assert await user(browser) == here.bob
    here.clock.advance(timedelta(hours=2))
    assert await user(browser) != here.ann
