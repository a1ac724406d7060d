"""A thief redeems a copy of the remember token, and so has a session of the owner's own device."""

from __future__ import annotations

import pytest

from eyewall.testing.client import Browser
from tests.signin.kit import REMEMBER, Deployment, Process, cookies, replayed, sign_in, user


async def robbed(here: Deployment) -> tuple[Process, Browser, Browser]:
    """An owner who is signed in, and a thief whom a copy of the owner's token has brought in."""
    process = await here.process()
    owner = await here.signed_in(process, here.ann, remember="1")
    thief = here.browser(process)
    assert await replayed(thief, f"{REMEMBER}={cookies(owner)[REMEMBER]}") == here.ann
    return process, owner, thief


@pytest.mark.parametrize("path", ["/password", "/others"])
async def test_a_new_password_and_ending_all_others_end_the_copys_session(
    here: Deployment, path: str
) -> None:
    """The owner changes the password because of the thief, who stays, and is in no list (ASVS 7.4.3)."""
    _, owner, thief = await robbed(here)
    assert (await owner.post(path)).code == 200
    assert await user(owner) == here.ann
    assert await user(thief) is None


async def test_a_cleared_session_leaves_no_session_of_its_copies(here: Deployment) -> None:
    """clear() signs out as sign_out() does, so it must not be the weaker of the two."""
    _, owner, thief = await robbed(here)
    await owner.post("/change/clear")
    assert await user(thief) is None


async def test_the_next_user_of_the_browser_leaves_no_session_of_the_lasts_copies(here: Deployment) -> None:
    """Somebody else signs in: the first is signed out, and so must be who holds a copy."""
    _, owner, thief = await robbed(here)
    await sign_in(owner, here.bob)
    assert await user(owner) == here.bob
    assert await user(thief) is None


async def test_signing_out_of_a_session_that_just_moved_leaves_no_session_of_its_copies(
    here: Deployment,
) -> None:
    """A click in a tab whose cookie is a moment old says 200, and the thief stays."""
    process, owner, thief = await robbed(here)
    late = "; ".join(f"{name}={value}" for name, value in cookies(owner).items())
    await owner.post("/change/regenerate")
    assert (await here.browser(process).post("/out", headers={"Cookie": late})).code == 200
    assert await user(thief) is None
