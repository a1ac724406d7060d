"""A store that fails in the middle of signing in and out: it can be tried again, nothing is lost."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from eyewall.errors import StoreUnavailable
from tests.signin.kit import (
    REMEMBER,
    SESSION,
    Deployment,
    cookies,
    copied,
    drop,
    is_clean_503,
    me,
    sign_in,
    user,
)

DOWN = StoreUnavailable("connection refused")


@pytest.mark.parametrize("verb", ["load", "replace", "create", "delete", "find_principal"])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_signing_out_everywhere_can_be_tried_again_after_any_failure(
    here: Deployment, verb: str, after: int
) -> None:
    """A 503 says "try again"; if the second try then finds nobody signed in, the thief stays in."""
    process = await here.process()
    await here.signed_in(process, here.ann, remember="1")
    browser = await here.signed_in(process, here.ann, remember="1")
    process.store.fail(verb, DOWN, after=after)
    first = await browser.post_form("/out", {"everywhere": "1"})
    process.store.meddle = None
    if first.code != 200:
        assert first.code == 503
        assert (await browser.post_form("/out", {"everywhere": "1"})).code == 200
    assert await process.store.inner.find_principal(here.ann) == []
    assert cookies(browser) == {}


@pytest.mark.parametrize("verb", ["create", "replace", "load", "delete"])
@pytest.mark.parametrize("after", range(5))
async def test_signing_in_with_a_token_fails_into_something_that_works(
    here: Deployment, verb: str, after: int
) -> None:
    """A store that fails between session and token must leave neither a locked door nor a wrong alarm."""
    process = await here.process()
    browser = here.browser(process)
    await browser.post_form("/", {"key": "cart", "value": "1"})
    process.store.fail(verb, DOWN, after=after)
    answer = await sign_in(browser, here.ann, remember="1")
    process.store.meddle = None
    assert answer.code in (200, 503)
    assert answer.code == 200 or int(answer.headers["Retry-After"]) > 0
    assert (await me(browser))["data"] == {"cart": "1"}
    assert (await sign_in(browser, here.ann, remember="1")).code == 200
    assert set(cookies(browser)) == {SESSION, REMEMBER}
    drop(browser, SESSION)
    assert await user(browser) == here.ann
    records = await process.store.inner.find_principal(here.ann)
    assert sum(record.successor is None for record in records) <= 2


REQUESTS = {
    "sign in": ("/in", {"name": "ann"}),
    "remember": ("/in", {"name": "ann", "remember": "1"}),
    "sign out": ("/out", {}),
    "everywhere": ("/out", {"everywhere": "1"}),
    "revoke": ("/devices", {"handle": "a" * 26}),
    "others": ("/others", {}),
    "password": ("/password", {}),
    "attempt": ("/attempt", {"name": "ann", "password": "right"}),
}
VERBS = ("load", "create", "replace", "delete", "find_principal")


@pytest.mark.parametrize("how", ["fails", "hangs"])
@pytest.mark.parametrize("what", REQUESTS)
async def test_a_dead_store_is_a_503_in_time_and_costs_no_cookie(
    here: Deployment, what: str, how: str
) -> None:
    """An outage must not become a hang, nor sign anybody out (alkem-io/server 6332)."""
    process = await here.process(store_timeout=timedelta(seconds=0.2))
    browser = await here.signed_in(process, here.ann, remember="1")
    before = copied(browser)
    for dead in (VERBS, ("create", "replace", "delete", "find_principal")):  # from the start; after loading

        async def meddle(called: str, dead: tuple[str, ...] = dead) -> None:
            if called in dead and how == "hangs":
                await asyncio.Event().wait()
            if called in dead:
                raise DOWN

        process.store.meddle = meddle
        path, fields = REQUESTS[what]
        async with asyncio.timeout(5):
            assert is_clean_503(await browser.post_form(path, {**fields, "name": here.ann})), dead
        process.store.meddle = None
        assert copied(browser) == before
        assert await user(browser) == here.ann


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_hung_store_holds_the_page_of_devices_no_longer_than_any_other(
    here: Deployment, method: str
) -> None:
    """A request has twice the store's timeout (2 s by default); five times it is a page that hangs."""
    process = await here.process(store_timeout=timedelta(seconds=0.5))
    browser = await here.signed_in(process, here.ann)
    process.store.hang("find_principal")
    async with asyncio.timeout(2.4):
        answer = await browser.request(method, "/devices?handle=x")
    assert is_clean_503(answer)
