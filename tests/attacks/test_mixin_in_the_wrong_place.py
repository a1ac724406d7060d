"""``class Page(RequestHandler, SessionMixin)``: the mixin after the handler has no effect."""

from __future__ import annotations

import pytest
from tornado.web import RequestHandler

from eyewall import SessionMixin
from tests.tornado.site import serving


async def test_the_wrong_order_of_bases_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """The error blames ``uses_session = False``, which nobody has written."""

    class Page(RequestHandler, SessionMixin):  # type: ignore[misc]
        def get(self) -> None:
            self.write(str(self.session.get("k")))  # type: ignore[attr-defined]

    async with serving("mixin", [("/", Page)]) as site:
        assert (await site.fetch("/")).code == 500
    assert "uses_session = False" not in caplog.text
