"""A signed-in page, read from the browser's cache after the sign-out."""

from __future__ import annotations

from eyewall.tornado.cookies import jar_of
from tests.tornado.conftest import serve, way  # noqa: F401 - pytest finds fixtures by their names here
from tests.tornado.site import Handler, ServeSite


class Page(Handler):
    """Signs in, or shows a page, which may look into the jar."""

    def get(self, what: str) -> None:
        if what == "in":
            self.s.sign_in("ann")
            return
        if what == "jar":
            jar_of(self).get("theme")
        self.write(str(self.s.principal))


async def test_reading_a_cookie_does_not_let_a_signed_in_page_be_kept(serve: ServeSite) -> None:  # noqa: F811
    """Harm: one look at a preference turns no-store into no-cache; "back" after a sign-out shows the page."""
    site = await serve([("/(.*)", Page)])
    await site.fetch("/in")
    for what in ("page", "jar"):
        headers = (await site.fetch(f"/{what}")).headers
        assert (what, headers["Cache-Control"], headers["Vary"]) == (what, "private, no-store", "Cookie")
