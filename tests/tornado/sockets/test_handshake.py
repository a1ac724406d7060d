"""W01: who gets a WebSocket is decided before the 101."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from eyewall.tornado.websocket import authenticated_socket
from tests.signin.kit import Deployment, Process, copied
from tests.tornado.sockets.kit import Told, connect, is_empty, refused, start


async def test_a_stranger_is_refused_before_the_101(here: Deployment, process: Process) -> None:
    """A client that is let in first believes that it is connected, and reconnects for ever."""
    browser = await here.signed_in(process, here.ann)
    stale = copied(browser)
    assert await (await connect(here, process, browser, "/members")).ask("who") == here.ann
    await browser.post("/out")
    assert await refused(here, process, path="/members") == 401
    assert await refused(here, process, path="/members", headers={"Cookie": stale}) == 401
    assert await refused(here, process, path="/members", headers={"Cookie": "session=ew1.a.b.c"}) == 401


async def test_an_expired_session_is_refused_before_the_101(here: Deployment, process: Process) -> None:
    """A cookie lives longer than its session."""
    browser = await here.signed_in(process, here.ann)
    here.clock.advance(timedelta(days=400))
    assert await refused(here, process, path="/members", headers={"Cookie": copied(browser)}) == 401


async def test_a_disabled_account_is_refused_before_the_101(here: Deployment, process: Process) -> None:
    """The session lives, its owner is not to come in."""
    browser = await here.signed_in(process, here.ann)
    process.application.settings["disabled"].add(here.ann)

    @authenticated_socket
    class Strict(Told):
        async def load_user(self, principal: str) -> Any:
            return None if principal in self.settings["disabled"] else principal

    process.application.add_handlers(".*", [("/strict", Strict)])
    assert await refused(here, process, browser, "/strict") == 401


async def test_nobody_is_called_a_stranger_while_the_store_is_down(
    here: Deployment, process: Process
) -> None:
    """A client that is told 401 signs its user out."""
    browser = await here.signed_in(process, here.ann)
    process.store.fail("load", OSError("gone"))
    assert await refused(here, process, browser, "/members") == 503


async def test_other_origins_open_no_socket(here: Deployment, process: Process) -> None:
    """Browsers let any page open a WebSocket, and send the cookies along."""
    browser = await here.signed_in(process, here.ann)
    host = process.url.removeprefix("http://")
    name, port = host.split(":")
    for origin in (
        "http://evil.example",
        f"http://{host}.evil.example",
        f"http://{name}:{int(port) + 1}",
        f"http://evil.example/{host}",
        f"http://{name}",
        "null",
        "",
        f"http://{host}@evil.example",
        f"ftp://{host}",
    ):
        assert await refused(here, process, browser, headers={"Origin": origin}) == 403, origin
    for site in ("cross-site", "same-site", "odd"):
        headers = {"Origin": process.url, "Sec-Fetch-Site": site}
        assert await refused(here, process, browser, headers=headers) == 403, site
    assert is_empty(process.sessions)


async def test_our_own_origin_opens_a_socket(here: Deployment, process: Process) -> None:
    """A check that refuses everybody protects nothing."""
    browser = await here.signed_in(process, here.ann)
    for headers in ({"Origin": process.url}, {"Origin": process.url, "Sec-Fetch-Site": "same-origin"}, {}):
        assert await (await connect(here, process, browser, headers=headers)).ask("who") == here.ann


async def test_a_trusted_origin_opens_a_socket(here: Deployment) -> None:
    """An application on two hosts needs it, and Tornado's own check must not undo it."""
    process = await start(here, trusted_origins=("https://app.example",))
    browser = await here.signed_in(process, here.ann)
    assert await (await connect(here, process, browser, headers={"Origin": "https://app.example"})).is_open()
    assert await refused(here, process, browser, headers={"Origin": "https://app.example:444"}) == 403


async def test_a_handlers_own_check_of_the_origin_still_counts(here: Deployment, process: Process) -> None:
    """Whoever has made the check stricter has a reason."""

    class Closed(Told):
        def check_origin(self, origin: str) -> bool:
            return origin == "https://elsewhere.example"

    process.application.add_handlers(".*", [("/closed", Closed)])
    browser = await here.signed_in(process, here.ann)
    headers = {"Origin": "http://evil.example"}
    assert await refused(here, process, browser, "/closed", headers=headers) == 403


async def test_without_our_protection_tornados_own_check_decides(here: Deployment, process: Process) -> None:
    """Turning one check off must open no door that Tornado keeps shut, nor shut the door on our own pages."""

    class Open(Told):
        cross_origin_protection = False

    process.application.add_handlers(".*", [("/open", Open)])
    browser = await here.signed_in(process, here.ann)
    headers = {"Origin": "http://evil.example"}
    assert await refused(here, process, browser, "/open", headers=headers) == 403
    assert await (await connect(here, process, browser, "/open", headers={"Origin": process.url})).is_open()


async def test_the_setting_that_turns_our_protection_off_leaves_tornados(here: Deployment) -> None:
    """Tornado keeps it on for WebSockets whatever the settings: any page could read a user's messages."""
    process = await start(here, cross_origin_protection=False)
    browser = await here.signed_in(process, here.ann)
    headers = {"Origin": "http://evil.example"}
    assert await refused(here, process, browser, headers=headers) == 403
