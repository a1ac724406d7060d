"""Ending everything and signing in anew in one request, as the end of a password reset does."""

from __future__ import annotations

from tests.signin.kit import Deployment, user
from tests.signin.pages import Page


async def test_the_new_session_is_not_ended_with_the_old_ones(here: Deployment) -> None:
    """The user has just proved who they are, gets a cookie, and it is dead already."""

    class Reset(Page):
        async def post(self) -> None:
            self.sign_out(everywhere=True)
            self.sign_in(here.ann)

    process = await here.process([("/reset", Reset)])
    browser, other = [await here.signed_in(process, here.ann) for _ in range(2)]
    assert (await browser.post("/reset")).code == 200
    assert await user(other) is None
    assert await user(browser) == here.ann
