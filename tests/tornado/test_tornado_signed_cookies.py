"""Tornado's own signed cookies by the jar: an application can move cookie by cookie."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from eyewall.errors import CookieError
from eyewall.testing.clock import ManualClock
from eyewall.tornado.cookies import jar_of
from tests.tornado.site import SECRET, Handler, ServeSite
from tests.tornado.test_cookies import cookies_of, through


class Ours(Handler):
    """Reads and writes Tornado's format by the jar."""

    def get(self) -> None:
        days = float(self.get_query_argument("days", "31"))
        self.write(jar_of(self).signed.tornado(max_age=timedelta(days=days)).get("user", b"nobody"))

    def post(self) -> None:
        jar_of(self).tornado().set("user", "böb", max_age=60)


class Theirs(Handler):
    """As ever."""

    def get(self) -> None:
        self.write(self.get_signed_cookie("user", min_version=2) or b"nobody")

    def post(self) -> None:
        self.set_signed_cookie("user", "böb", version=int(self.get_query_argument("version", "2")))


HANDLERS = [("/ours", Ours), ("/theirs", Theirs)]


@pytest.mark.parametrize(
    "secrets", [{"cookie_secret": SECRET}, {"cookie_secret": {4: SECRET, 5: SECRET[::-1]}, "key_version": 5}]
)
async def test_tornados_signed_cookies_are_read_and_written(
    serve: ServeSite, secrets: dict[str, Any]
) -> None:
    """Harm: an application cannot move cookie by cookie, so it does not move."""
    site = await serve(HANDLERS, **secrets)
    for writer in ("/ours", "/theirs"):
        with closing(through(site)) as browser:
            await browser.post(writer)
            assert (await browser.get("/ours")).body.decode() == "böb", writer
            assert (await browser.get("/theirs")).body.decode() == "böb", writer


async def test_a_key_version_that_was_dropped_is_dead_and_an_older_one_read(serve: ServeSite) -> None:
    """Harm: rolling Tornado's keys over works on one of two ways to read only."""
    before = await serve(HANDLERS, cookie_secret=SECRET)  # counts as version 0
    token = cookies_of(await before.fetch("/ours", "POST"))[0].partition(";")[0]
    during = await serve(HANDLERS, cookie_secret={0: SECRET, 1: SECRET[::-1]}, key_version=1)
    after = await serve(HANDLERS, cookie_secret={1: SECRET[::-1]}, key_version=1)
    assert await during.text("/ours", headers={"Cookie": token}) == "böb"
    assert await after.text("/ours", headers={"Cookie": token}) == "nobody"


async def test_tornados_format_1_is_never_accepted(serve: ServeSite) -> None:
    """Harm: its SHA-1 over fields without lengths lets the end of one become the start of another."""
    site = await serve(HANDLERS, cookie_secret=SECRET)
    token = cookies_of(await site.fetch("/theirs?version=1", "POST"))[0].partition(";")[0]
    assert await site.text("/ours", headers={"Cookie": token}) == "nobody"
    assert await site.text("/ours", headers={"Cookie": token.replace('"', "")}) == "nobody"


async def test_tornados_value_with_any_byte_flipped_moved_or_aged_is_nobody(serve: ServeSite) -> None:
    """Harm: the way out of Tornado's cookies is softer than they were."""
    clock = ManualClock()
    site = await serve(HANDLERS, cookie_secret=SECRET, clock=clock)
    name, _, token = cookies_of(await site.fetch("/ours", "POST"))[0].partition(";")[0].partition("=")
    for position in range(0, len(token), 3):
        bent = token[:position] + chr(ord(token[position]) ^ 1) + token[position + 1 :]
        assert await site.text("/ours", headers={"Cookie": f"user={bent}"}) == "nobody", position
    assert await site.text("/ours", headers={"Cookie": f"user={token}; user={token}"}) == "böb"
    clock.advance(timedelta(days=32))
    assert await site.text("/ours", headers={"Cookie": f"{name}={token}"}) == "nobody"
    assert await site.text("/ours?days=33", headers={"Cookie": f"{name}={token}"}) == "böb"


@pytest.mark.parametrize(
    "junk",
    [
        "2|",
        "2|1:0|",
        "2|99999999999:0|x",
        "2|1:0|10:1|4:user|0:|",
        '"',
        '""',
        "2|1:x|1:x|4:user|4:eHg=|" + "0" * 64,
        "||||",
        "3|1:0|",
    ],
)
async def test_no_junk_in_tornados_format_is_an_error(serve: ServeSite, junk: str) -> None:
    """Harm: whoever sends bytes causes a 500 or fills the log."""
    site = await serve(HANDLERS, cookie_secret=SECRET)
    assert await site.text("/ours", headers={"Cookie": f"user={junk}"}) == "nobody"


async def test_without_tornados_secret_its_format_is_refused_with_the_fix(
    serve: ServeSite, caplog: pytest.LogCaptureFixture
) -> None:
    """Harm: values are signed with no secret, or with the wrong one."""
    site = await serve(HANDLERS)
    assert (await site.fetch("/ours")).code == 500
    assert "Application(cookie_secret=" in caplog.text
    site = await serve(HANDLERS, cookie_secret={1: SECRET, 2: SECRET[::-1]})
    assert (await site.fetch("/ours")).code == 500
    assert "Application(key_version=" in caplog.text


async def test_only_text_and_bytes_go_into_tornados_format(serve: ServeSite) -> None:
    """Harm: an int is signed as something else than it was."""

    class Number(Handler):
        def get(self) -> None:
            with pytest.raises(CookieError, match=r"jar\.signed keeps types"):
                jar_of(self).tornado().set("n", 5)
            self.write("refused")

    site = await serve([("/", Number)], cookie_secret=SECRET)
    assert await site.text("/") == "refused"
