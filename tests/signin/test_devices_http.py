"""Devices, limits and flash over HTTP, on every server-side store: who is ended, and at which moment."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse

from eyewall.core.events import EventKind
from eyewall.core.ids import digest_of
from eyewall.testing.client import Browser
from tests.signin.kit import (
    REMEMBER,
    SESSION,
    Deployment,
    cookies,
    copied,
    drop,
    replayed,
    sign_in,
    user,
)
from tests.signin.pages import Page

LIMIT, AT_ONCE = 5, 50


async def listed(browser: Browser) -> list[list[Any]]:
    """The page of devices: handle, label, whether it is this one, whether it is remembered."""
    found: list[list[Any]] = json.loads((await browser.get("/devices")).body)
    return found


async def handle_of_own(browser: Browser) -> str:
    """The handle of the device that asks."""
    (handle,) = [str(one[0]) for one in await listed(browser) if one[2]]
    return handle


# The list, and ending one (U01, U02)


async def test_the_list_shows_ones_own_devices_and_opens_none(site: Deployment) -> None:
    """A list with other people's devices, or with anything that opens a session, is a leak (ASVS 8.2.2)."""
    process = await site.process()
    laptop = await site.signed_in(process, site.ann, remember="1")
    phone = await site.signed_in(process, site.ann)
    stranger = await site.signed_in(process, site.bob)
    body = (await laptop.get("/devices")).body.decode()
    assert Counter(tuple(one[2:]) for one in json.loads(body)) == {(True, True): 1, (False, False): 1}
    assert {one[0] for one in await listed(phone)} == {one[0] for one in json.loads(body)}
    assert len(await listed(stranger)) == 1
    for browser in (laptop, phone):
        for value in cookies(browser).values():
            for part in value.split("."):
                assert part not in body
            assert digest_of(value.split(".")[2]).hex() not in body
    for handle, *_ in json.loads(body):
        for name in (SESSION, REMEMBER):
            assert await replayed(site.browser(process), f"{name}={handle}") is None


async def test_somebody_elses_device_is_not_found_and_stays(site: Deployment) -> None:
    """A handle seen over a shoulder must end nothing (ASVS 7.5.2)."""
    process = await site.process()
    ann, bob = await site.signed_in(process, site.ann), await site.signed_in(process, site.bob)
    wrong = [await handle_of_own(bob), "", "a" * 26, "\x00", "../..", "ä" * 5_000]
    codes = {(await ann.post_form("/devices", {"handle": handle})).code for handle in wrong}
    assert codes == {404}
    assert (await user(ann), await user(bob)) == (site.ann, site.bob)


async def test_a_revoked_device_is_out_at_its_next_request_and_stays_out(site: Deployment) -> None:
    """A lost phone whose token brings it back was never signed out."""
    here, there = await site.process(), await site.process()
    laptop = await site.signed_in(here, site.ann)
    phone = await site.signed_in(there, site.ann, remember="1")
    stolen = copied(phone)
    handle = await handle_of_own(phone)
    assert (await laptop.post_form("/devices", {"handle": handle})).code == 200
    assert await user(phone) is None
    assert REMEMBER not in cookies(phone), "the browser is told that its token is of no use"
    for process in (here, there):
        assert await replayed(site.browser(process), stolen) is None
    assert (await user(laptop), len(await listed(laptop))) == (site.ann, 1)
    assert (await laptop.post_form("/devices", {"handle": handle})).code == 404
    assert there.count(EventKind.THEFT) == 0


async def test_a_revocation_beside_a_restore_wins_whenever_it_comes(here: Deployment) -> None:
    """A restore that overtakes the owner's "end it" leaves the thief inside (deterministic: every pause)."""
    process, other = await here.process(), await here.process()
    for number in range(12):
        browser = await here.signed_in(process, here.ann, remember="1")
        (device,) = await other.sessions.of(here.ann)
        drop(browser, SESSION)
        verb, after = ("load", "create", "replace")[number % 3], number // 3
        arrived, go_on = process.store.hold(verb, after=after)
        restoring = asyncio.create_task(user(browser))
        waiting = asyncio.create_task(arrived.wait())
        await asyncio.wait([restoring, waiting], return_when=asyncio.FIRST_COMPLETED)
        assert await other.sessions.revoke(device.handle, principal=here.ann)
        go_on.set()
        process.store.meddle = None
        # It may have been let in before the revocation came; but never after it.
        await restoring
        waiting.cancel()
        assert await user(browser) is None, (verb, after)
        assert await process.store.inner.find_principal(here.ann) == [], (verb, after)


async def test_a_revocation_beside_restores_wins_on_every_store(site: Deployment) -> None:
    """As above, left to chance, where every store answers in its own time."""
    here, there = await site.process(), await site.process()
    owner = await site.signed_in(there, site.ann)
    for _ in range(3):
        browser = await site.signed_in(here, site.ann, remember="1")
        handle = await handle_of_own(browser)
        drop(browser, SESSION)
        tabs = [site.browser((here, there)[n % 2], browser) for n in range(4)]
        restoring = asyncio.gather(*(user(tab) for tab in tabs))
        assert (await owner.post_form("/devices", {"handle": handle})).code == 200
        await restoring
        assert await user(browser) is None
        assert [one[2] for one in await listed(owner)] == [True]


# Ending many (U03, U04)


async def test_a_new_password_ends_all_others_and_every_token(site: Deployment) -> None:
    """Whoever knew the old one must be out, and this browser's copied cookies too (ASVS 7.4.3)."""
    here, there = await site.process(), await site.process()
    thief = await site.signed_in(there, site.ann, remember="1")
    browser = await site.signed_in(here, site.ann, remember="1")
    stranger = await site.signed_in(there, site.bob, remember="1")
    before, stolen = copied(browser), copied(thief)
    answer = await browser.post("/password")
    assert (answer.code, answer.body) == (200, b"1")
    assert await user(browser) == site.ann
    assert set(cookies(browser)) == {SESSION}
    for old in (before, stolen):
        assert await replayed(site.browser(there), old) is None
    assert (await user(thief), await user(stranger)) == (None, site.bob)
    drop(browser, SESSION)
    assert await user(browser) is None


async def test_signing_out_everywhere_spares_nothing_of_ones_own(site: Deployment) -> None:
    """A tablet that stays signed in makes "everywhere" a lie; so does a stranger who is taken along."""
    here, there = await site.process(), await site.process()
    browsers = [await site.signed_in(p, site.ann, remember="1") for p in (here, there, here)]
    stranger = await site.signed_in(there, site.bob)
    stolen = [copied(browser) for browser in browsers]
    assert (await browsers[0].post_form("/out", {"everywhere": "1"})).code == 200
    assert [await user(browser) for browser in browsers] == [None] * 3
    assert [await replayed(site.browser(there), one) for one in stolen] == [None] * 3
    assert await there.store.inner.find_principal(site.ann) == []
    assert await user(stranger) == site.bob


async def test_a_disabled_account_is_nobody_at_once_and_ended_when_told(site: Deployment) -> None:
    """An account that was closed must not go on until its sessions expire (ASVS 7.4.2)."""
    process = await site.process()
    browsers = [await site.signed_in(process, site.ann, remember="1") for _ in range(2)]
    process.application.settings["disabled"].add(site.ann)
    assert await user(browsers[0]) is None
    assert await process.sessions.revoke_all(site.ann) == 2
    process.application.settings["disabled"].clear()
    assert [await user(browser) for browser in browsers] == [None, None]
    assert await process.store.inner.find_principal(site.ann) == []


# At most so many (U05)


async def answered_sign_in(browser: Browser, name: str) -> HTTPResponse:
    """Sign in, again after each 503: a busy machine may keep one of fifty from a lock for too long."""
    while (answer := await sign_in(browser, name)).code == 503:
        pass
    return answer


@pytest.mark.parametrize("when_full", ["end-oldest", "refuse"])
async def test_of_fifty_parallel_sign_ins_five_sessions_are_left(site: Deployment, when_full: str) -> None:
    """Counting and then creating lets fifty in at once (ASVS 7.1.2)."""
    options: dict[str, Any] = {"max_sessions": LIMIT, "when_full": when_full}
    processes = [await site.process(**options) for _ in range(2)]
    browsers = [site.browser(processes[number % 2]) for number in range(AT_ONCE)]
    answers = await asyncio.gather(*(answered_sign_in(browser, site.ann) for browser in browsers))
    inside = [browser for browser in browsers if await user(browser) == site.ann]
    assert len(inside) == LIMIT
    records = await processes[0].store.inner.find_principal(site.ann)
    assert sum(record.successor is None for record in records) == LIMIT
    refused = AT_ONCE - LIMIT if when_full == "refuse" else 0
    assert Counter(answer.code for answer in answers) == Counter({200: AT_ONCE - refused, 403: refused})
    if refused:
        assert sum(bool(cookies(browser)) for browser in browsers) == LIMIT


async def test_who_comes_back_to_a_full_account_is_a_stranger_and_no_thief(here: Deployment) -> None:
    """With the limit reached a remembered browser got 503s, and half a minute later was called a thief."""
    process = await here.process(max_sessions=1, when_full="refuse")
    remembered = await here.signed_in(process, here.ann, remember="1")
    here.clock.advance(timedelta(hours=2))
    other = await here.signed_in(process, here.ann)
    answer = await remembered.get("/")
    assert answer.code in (200, 403)
    here.clock.advance(timedelta(minutes=1))
    await remembered.get("/")
    assert process.count(EventKind.THEFT) == 0
    await other.post("/out")
    assert (await sign_in(remembered, here.ann)).code == 200


# Too many attempts


async def test_too_many_attempts_are_a_429_with_a_time_and_one_line(
    here: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger who guesses must learn when to come back, and fill no log with tracebacks (ASVS 6.3.1)."""
    process = await here.process()
    browser = here.browser(process)

    async def guess(password: str) -> Any:
        return await browser.post_form("/attempt", {"name": here.ann, "password": password})

    assert [(await guess("wrong")).code for _ in range(5)] == [403] * 5
    caplog.clear()
    answers = [await guess("wrong") for _ in range(20)] + [await guess("right")]
    assert {answer.code for answer in answers} == {429}
    assert {answer.headers["Retry-After"] for answer in answers} == {"900"}
    (line,) = [record for record in caplog.records if record.name != "tornado.access"]
    assert line.exc_info is None
    assert process.count(EventKind.ATTEMPTS_LIMITED) == 21
    here.clock.advance(900)
    assert (await guess("right")).code == 200


async def test_unknown_wrong_and_disabled_are_answered_alike(here: Deployment) -> None:
    """A status or a page that differs tells which accounts exist (ASVS 6.3.8)."""

    class Login(Page):
        async def post(self) -> None:
            await self.count_attempt(self.get_argument("name"))
            self.set_status(403)
            self.write("wrong name or password")

    process = await here.process([("/login", Login)])
    names = [here.ann, here.bob, "nobody-at-all", "", "\x00", "a" * 10_000]
    answers = [await here.browser(process).post_form("/login", {"name": name}) for name in names]
    assert len({(a.code, a.body, a.headers.get("Content-Length")) for a in answers}) == 1
    fields = {tuple(sorted(name for name in a.headers if name != "Date")) for a in answers}
    assert len(fields) == 1


# Flash messages (U10)


async def test_fifty_parallel_messages_are_each_shown_once(site: Deployment) -> None:
    """A message lost or shown twice: "payment received" is no decoration."""
    processes = [await site.process() for _ in range(2)]
    browser = await site.signed_in(processes[0], site.ann)
    tabs = [site.browser(processes[number % 2], browser) for number in range(AT_ONCE)]
    answers = await asyncio.gather(
        *(tab.post_form("/flash", {"text": str(number)}) for number, tab in enumerate(tabs))
    )
    assert {answer.code for answer in answers} == {302}
    seen: list[str] = []
    for _ in range(2):
        seen += json.loads((await browser.get("/flash")).body)
    assert sorted(seen, key=int) == [str(number) for number in range(AT_ONCE)]
