"""A sign-out has looked at the record, and the session gets a new ID before it deletes that record."""

from __future__ import annotations

import asyncio

from tests.signin.kit import SESSION, Deployment, cookies, copied, replayed, sign_in, user


async def test_the_session_is_over_under_its_new_id_too(here: Deployment) -> None:
    """Whoever holds the cookie, a thief too, would go on after a sign-out that was answered with 200."""
    process, other = await here.process(), await here.process()
    browser = await here.signed_in(process, here.ann)
    cookie, beside = copied(browser), here.browser(other)
    arrived, go_on = process.store.hold("replace")
    sign_out = asyncio.create_task(browser.post("/out"))
    await arrived.wait()
    assert (await beside.post("/change/regenerate", headers={"Cookie": cookie})).code == 200
    go_on.set()
    assert (await sign_out).code == 200
    moved = f"{SESSION}={cookies(beside)[SESSION]}"
    assert await replayed(here.browser(other), moved) is None
    assert await process.store.inner.find_principal(here.ann) == []


async def test_everywhere_means_everywhere_in_a_tab_whose_cookie_is_a_moment_old(here: Deployment) -> None:
    """The answer is 200 and a tablet stays signed in: only this session ended."""
    process = await here.process()
    browser, tablet = [await here.signed_in(process, here.ann) for _ in range(2)]
    late = copied(browser)
    await sign_in(browser, here.ann)  # proven again in another tab: a new ID
    answer = await here.browser(process).post(
        "/out",
        body="everywhere=1",
        headers={"Cookie": late, "Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.code != 200 or await user(tablet) is None
