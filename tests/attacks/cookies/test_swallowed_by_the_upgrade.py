"""A cookie of the old sign-in cookie's name, set by the jar, in an application that upgrades it."""

from __future__ import annotations

import pytest

from eyewall import CookieError, SessionMixin
from eyewall.tornado.cookies import jar_of
from tests.tornado.site import Handler, Way
from tests.tornado.test_upgrade import moving


class Again(Handler):
    """Sets the old name by the jar."""

    def get(self) -> None:
        with pytest.raises(CookieError, match=r"self\.session"):
            jar_of(self).set("user", "bob")
        self.write("refused")


@pytest.mark.parametrize("way", ["mixin", "install"])
async def test_the_old_name_is_not_the_jars(way: Way) -> None:
    """Harm: the deletion of the old cookie takes the jar's place in silence, now and then."""
    async with moving(way) as app:
        handler = Again if way == "install" else type("Again", (SessionMixin, Again), {})
        app.application.add_handlers(".*", [("/again", handler)])
        assert (await app.browser.get("/again")).body == b"refused"
