"""``session.clear()`` is how many people sign out; a new ID of the same moment must not undo it."""

from __future__ import annotations

from tests.core.world import World


async def test_signing_out_by_clear_beside_a_new_id_leaves_the_session_signed_in() -> None:
    """The page says goodbye, and the ID that another request has got meanwhile opens the account still."""
    world = World()
    browser = world.browser()
    session = await browser.open()
    session.sign_in("ada")
    await browser.end(session)

    leaving = await browser.open()
    other = await browser.open()
    other.regenerate()
    await browser.end(other)
    leaving.clear()
    await browser.end(leaving)

    assert [record for record in await world.records() if record.principal == "ada"] == []


async def test_signing_out_by_clear_after_new_credentials_spares_a_thiefs_new_id() -> None:
    """A new password and a sign-out in one request end nothing where the thief has asked for a new ID."""
    world = World()
    owner = world.browser()
    session = await owner.open()
    session.sign_in("ada")
    await owner.end(session)
    thief = world.browser()
    thief.cookie = owner.cookie

    changing = await owner.open()
    stolen = await thief.open()
    stolen.regenerate()
    changing.regenerate()  # as credentials_changed() does at its end
    changing.draft.pending.goes_along = True
    changing.clear()
    await thief.end(stolen)
    await owner.end(changing)

    assert (await thief.open()).principal is None
