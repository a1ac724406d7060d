"""A revocation beside a restore, and a store that fails at the restore's last look."""

from __future__ import annotations

import asyncio

from eyewall.errors import StoreUnavailable
from tests.signin.kit import SESSION, Deployment, drop, user


async def test_a_503_hands_out_no_session_that_was_not_looked_at_again(here: Deployment) -> None:
    """The revocation has answered, and the browser it was aimed at is signed in by the cookie of a 503."""
    process, other = await here.process(), await here.process()
    browser = await here.signed_in(process, here.ann, remember="1")
    drop(browser, SESSION)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def meddle(verb: str) -> None:
        if verb == "create":
            arrived.set()
            await go_on.wait()
            process.store.fail("load", StoreUnavailable("connection refused"))

    process.store.meddle = meddle
    restore = asyncio.create_task(browser.get("/"))
    await arrived.wait()
    await other.sessions.revoke_all(here.ann)
    go_on.set()
    answer = await restore
    process.store.meddle = None
    assert answer.code == 503
    assert not [line for line in answer.headers.get_list("Set-Cookie") if line.startswith(f"{SESSION}=")]
    assert await user(browser) is None
