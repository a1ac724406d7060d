"""The life of a signed-in session over HTTP, on every server-side store: when it begins, changes and ends."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from eyewall.errors import StoreUnavailable
from eyewall.testing.client import Browser
from tests.signin.kit import (
    REMEMBER,
    Deployment,
    Process,
    cookies,
    copied,
    drop,
    me,
    replayed,
    sign_in,
    user,
)

DOWN = StoreUnavailable("connection refused")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
JUST_UNDER = timedelta(minutes=59)


async def records_of(process: Process, name: str) -> list[Any]:
    """What the store has under a principal."""
    return [one for one in await process.store.inner.find_principal(name) if one.successor is None]


async def put(browser: Browser, key: str, value: str) -> None:
    """Keep something in the session."""
    assert (await browser.post_form("/", {"key": key, "value": value})).code == 200


# A new ID at every change of privilege (L01, L03, L07)


async def test_each_change_of_privilege_kills_the_id_before_it(site: Deployment) -> None:
    """Whoever planted or saw the old cookie must be a stranger afterwards (ASVS 7.2.4)."""
    here, there = await site.process(), await site.process()
    browser = site.browser(here)
    await put(browser, "cart", "1")
    old = [copied(browser)]
    for step in ("/in", "/in", "/change/regenerate"):
        await browser.post_form(step, {"name": site.ann})
        assert copied(browser) not in old
        for one in old:
            assert await replayed(site.browser(there), one) is None
        old.append(copied(browser))
    assert await me(browser) == {"user": site.ann, "fresh": True, "data": {"cart": "1"}}
    assert len(await records_of(here, site.ann)) == 1


async def test_signing_in_as_somebody_else_shows_nothing_of_the_first(site: Deployment) -> None:
    """On a shared computer the next one must not find the cart of the last."""
    process = await site.process()
    browser = await site.signed_in(process, site.ann)
    await put(browser, "secret", "of ann")
    old = copied(browser)
    await sign_in(browser, site.bob)
    assert await me(browser) == {"user": site.bob, "fresh": True, "data": {}}
    assert await replayed(site.browser(process), old) is None
    assert await records_of(process, site.ann) == []


async def test_parallel_tabs_survive_a_new_id_and_the_old_one_has_no_grace(site: Deployment) -> None:
    """A tab that was on its way must neither sign the browser out nor keep the old cookie alive."""
    here, there = await site.process(), await site.process()
    browser = await site.signed_in(here, site.ann)
    old = copied(browser)
    tabs = [site.browser((here, there)[number % 2], browser) for number in range(20)]
    await asyncio.gather(
        *(tab.post_form("/", {"key": f"k{number}", "value": "v"}) for number, tab in enumerate(tabs)),
        browser.post("/change/regenerate"),
    )
    assert await user(browser) == site.ann
    assert copied(browser) != old
    assert await replayed(site.browser(there), old) is None
    assert len(await records_of(there, site.ann)) == 1


# The end is the end (L04, L05, L06)


async def test_a_signed_out_cookie_opens_nothing_anywhere(site: Deployment) -> None:
    """Sign-out that only clears the cookie leaves the thief signed in (ASVS 7.4.1)."""
    here, there = await site.process(), await site.process()
    browser = await site.signed_in(here, site.ann, remember="1")
    stolen = copied(browser)
    answer = await browser.post("/out")
    assert answer.body == b'{"user": null}'
    assert cookies(browser) == {}
    for process in (here, there):
        assert await replayed(site.browser(process), stolen) is None
    assert await there.store.inner.find_principal(site.ann) == []


async def test_a_remembered_device_that_signs_out_leaves_no_session_of_its_copies(site: Deployment) -> None:
    """Whoever has copied the token has a session of the same device, and it must end too."""
    process = await site.process()
    browser = await site.signed_in(process, site.ann, remember="1")
    thief = site.browser(process)
    token = f"{REMEMBER}={cookies(browser)[REMEMBER]}"
    assert await replayed(thief, token) == site.ann
    taken = copied(thief)
    await browser.post("/out")
    assert await replayed(site.browser(process), taken) is None
    assert await process.store.inner.find_principal(site.ann) == []


async def _sign_out(_: Deployment, browser: Browser, __: Process) -> None:
    await browser.post("/out")


async def _sign_out_everywhere(site: Deployment, _: Browser, process: Process) -> None:
    other = await site.signed_in(process, site.ann)
    await other.post_form("/out", {"everywhere": "1"})


async def _change_password(site: Deployment, _: Browser, process: Process) -> None:
    other = await site.signed_in(process, site.ann)
    assert (await other.post("/password")).code == 200


async def _revoke_all(site: Deployment, _: Browser, process: Process) -> None:
    assert await process.sessions.revoke_all(site.ann) == 1


async def _revoke_others(site: Deployment, _: Browser, process: Process) -> None:
    other = await site.signed_in(process, site.ann)
    assert (await other.post("/others")).body == b"1"


async def _expire(site: Deployment, _: Browser, __: Process) -> None:
    site.clock.advance(DAY)


@pytest.mark.parametrize(
    "end", [_sign_out, _sign_out_everywhere, _change_password, _revoke_all, _revoke_others, _expire]
)
async def test_a_slow_request_that_ends_later_revives_nobody(site: Deployment, end: Any) -> None:
    """A save that arrives after the end must not undo it (CVE-2025-46336, express-session 632)."""
    here, there = await site.process(), await site.process()
    browser = await site.signed_in(here, site.ann)
    slow, old = site.browser(here, browser), copied(browser)
    request = asyncio.create_task(slow.post("/slow"))
    is_here, may_go = here.slow
    await is_here.wait()
    await end(site, browser, there)
    may_go.set()
    assert (await request).code == 200
    assert await replayed(site.browser(there), old) is None
    left = [record.digest for record in await records_of(there, site.ann)]
    assert len(left) == (end in (_change_password, _revoke_others))


@pytest.mark.parametrize("verb", ["clear", "destroy"])
async def test_emptied_means_empty_and_nobody(site: Deployment, verb: str) -> None:
    """A cleared session that comes back full has signed nobody out (CVE-2023-20862)."""
    process = await site.process()
    browser = await site.signed_in(process, site.ann)
    await put(browser, "k", "v")
    old = copied(browser)
    await browser.post(f"/change/{verb}")
    assert await me(browser) == {"user": None, "fresh": False, "data": {}}
    assert await replayed(site.browser(process), old) is None
    assert await records_of(process, site.ann) == []


# Timeouts: L08, L09, L10


async def test_silence_ends_a_session_whatever_the_browser_keeps(site: Deployment) -> None:
    """A cookie found on a computer hours later must be worth nothing (ASVS 7.3.1)."""
    process = await site.process()
    browser = await site.signed_in(process, site.ann)
    site.clock.advance(JUST_UNDER)
    assert await user(browser) == site.ann
    site.clock.advance(JUST_UNDER)
    assert await user(browser) == site.ann
    site.clock.advance(HOUR)
    assert await replayed(browser, copied(browser)) is None


async def test_nothing_but_a_proof_makes_a_session_older_than_its_absolute_timeout(site: Deployment) -> None:
    """A stolen session kept busy must end all the same; only the password starts it again (ASVS 7.3.2)."""
    process = await site.process()
    browser = await site.signed_in(process, site.ann)

    async def keep_busy(hours: int) -> None:
        for _ in range(hours):
            site.clock.advance(JUST_UNDER)
            await put(browser, "k", str(site.clock()))
            await browser.post("/change/regenerate")

    await keep_busy(12)
    await sign_in(browser, site.ann)
    await keep_busy(24)
    assert await user(browser) == site.ann, "24 h from the second proof are not over"
    site.clock.advance(timedelta(minutes=25))
    assert await user(browser) is None


async def test_a_token_brings_nobody_back_after_its_own_end(site: Deployment) -> None:
    """Being used must not make it last: the password is due every 30 days (NIST SP 800-63B-4, 2.1.3)."""
    process = await site.process()
    browser = await site.signed_in(process, site.ann, remember="1")
    for _ in range(2):
        site.clock.advance(timedelta(days=10))
        assert await me(browser) == {"user": site.ann, "fresh": False, "data": {}}
    site.clock.advance(timedelta(days=10))
    assert await user(browser) is None


@pytest.mark.parametrize(
    ("profile", "idle", "absolute", "remembers"),
    [
        ("aal1", timedelta(days=30), timedelta(days=30), True),
        ("aal2", HOUR, DAY, True),
        ("aal3", timedelta(minutes=15), timedelta(hours=12), False),
    ],
)
async def test_a_profile_holds_to_its_limits(
    here: Deployment, profile: str, idle: timedelta, absolute: timedelta, *, remembers: bool
) -> None:
    """An operator who names a level of NIST SP 800-63B-4 must get its numbers."""
    process = await here.process(profile=profile)
    browser = await here.signed_in(process, here.ann, remember="1")
    assert (REMEMBER in cookies(browser)) is remembers
    drop(browser, REMEMBER)
    began, step = here.clock(), idle * 0.9
    while here.clock() + step < began + absolute:
        here.clock.advance(step)
        assert await user(browser) == here.ann
    here.clock.advance(began + absolute - here.clock())
    assert await user(browser) is None
    silent = await here.signed_in(process, here.ann)
    here.clock.advance(idle)
    assert await user(silent) is None


# Strangers cost nothing (L14)


async def test_strangers_leave_no_row_and_get_no_cookie(here: Deployment) -> None:
    """A crawler must not fill the store, nor sign-outs by nobody (ASVS 7.6.2, Django CVE-2015-5143)."""
    process = await here.process()
    browser = here.browser(process)
    for _ in range(100):
        for path in ("/", "/public", "/flash", "/nowhere"):
            assert "Set-Cookie" not in (await browser.get(path)).headers
        for path in ("/out", "/change/clear", "/change/regenerate", "/change/destroy"):
            assert "Set-Cookie" not in (await browser.post(path)).headers
    assert process.store.calls == []


# What a failing answer keeps (D09 for sign-in)


async def test_a_500_keeps_a_sign_out_and_no_sign_in(site: Deployment) -> None:
    """A sign-out that a bug takes back leaves the user signed in unknown to them."""
    process = await site.process()
    browser = site.browser(process)
    assert (await sign_in(browser, site.ann, remember="1", fail="1")).code == 500
    assert cookies(browser) == {}
    assert await process.store.inner.find_principal(site.ann) == []
    await sign_in(browser, site.ann, remember="1")
    old = copied(browser)
    assert (await browser.post_form("/out", {"fail": "1"})).code == 500
    assert cookies(browser) == {}
    assert await replayed(site.browser(process), old) is None
    assert await process.store.inner.find_principal(site.ann) == []


async def test_a_link_signs_nobody_out_and_is_told_what_would(here: Deployment) -> None:
    """An image elsewhere must not sign anybody out (ASVS 3.5.3); RFC 9110 15.5.6 wants the methods named."""
    process = await here.process()
    browser = await here.signed_in(process, here.ann, remember="1")
    answer = await browser.get("/out")
    assert answer.code == 405
    assert "Set-Cookie" not in answer.headers
    assert await user(browser) == here.ann


async def test_a_405_of_a_sign_out_names_the_method_that_is_allowed(here: Deployment) -> None:
    """An answer that says no and not how sends a developer searching (RFC 9110 15.5.6: MUST)."""
    process = await here.process()
    answer = await (await here.signed_in(process, here.ann)).get("/out")
    assert answer.code == 405
    assert answer.headers.get("Allow") == "POST"
