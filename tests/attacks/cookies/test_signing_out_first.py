"""Signing out in the first request after the move to sessions, when there is only the old cookie."""

from __future__ import annotations

import pytest

from eyewall import SessionMixin
from tests.tornado.site import Handler, Way
from tests.tornado.test_upgrade import moving


class Leave(Handler):
    """Ends the session in one of three ways."""

    def get(self, verb: str) -> None:
        getattr(self.s, verb)()


@pytest.mark.parametrize("way", ["mixin", "install"])
@pytest.mark.parametrize("verb", ["sign_out", "destroy", "clear"])
async def test_signing_out_before_there_is_a_session_ends_the_old_sign_in(way: Way, verb: str) -> None:
    """Harm: a click on "sign out" does nothing; whoever sits down next is signed in as the one who left."""
    async with moving(way) as app:
        handler = Leave if way == "install" else type("Leave", (SessionMixin, Leave), {})
        app.application.add_handlers(".*", [("/by/(.*)", handler)])
        app.bring_old_cookie()
        await app.browser.get(f"/by/{verb}")
        assert app.cookies == []
        assert await app.who() == "None None"
        assert await app.store.live() == []
