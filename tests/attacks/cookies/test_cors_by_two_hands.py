"""CORS headers of a handler beside those of the settings, and preflights that meet its on_finish()."""

from __future__ import annotations

import pytest

from eyewall import SessionMixin, Settings
from tests.tornado.conftest import serve, way  # noqa: F401 - pytest finds fixtures by their names here
from tests.tornado.site import SECRET, Handler, ServeSite

FRONTEND = "http://localhost:3000"
CORS = Settings(backend="memory", cookie_secret=SECRET, cors_origins=(FRONTEND,))


class Partner(Handler):
    """Lets another origin read with cookies, by hand."""

    def get(self) -> None:
        self.set_header("Access-Control-Allow-Origin", "https://partner.example")
        self.set_header("Access-Control-Allow-Credentials", "true")


async def test_credentials_for_one_origin_are_none_for_another(serve: ServeSite) -> None:  # noqa: F811
    """Harm: the handler's "true" beside our origin lets a page read with cookies that was never to."""
    site = await serve([("/", Partner)], settings=CORS)
    ours = (await site.fetch("/", headers={"Origin": FRONTEND})).headers
    assert ours["Access-Control-Allow-Origin"] == FRONTEND
    assert "Access-Control-Allow-Credentials" not in ours
    theirs = (await site.fetch("/", headers={"Origin": "https://partner.example"})).headers
    assert theirs["Access-Control-Allow-Credentials"] == "true"


class Counting(SessionMixin, Handler):
    """Looks at the session when all is done, as many do for their log."""

    def get(self) -> None:
        self.write("hi")

    def on_finish(self) -> None:
        self.session.get("n")


async def test_a_preflight_writes_no_traceback(
    serve: ServeSite,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Harm: anybody fills the log, a traceback for each OPTIONS, with an error that misleads."""
    site = await serve([("/", Counting)], settings=CORS)
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    assert (await site.fetch("/", "OPTIONS", headers=asked)).code == 204
    assert (await site.fetch("/")).code == 200
    assert caplog.text == ""
