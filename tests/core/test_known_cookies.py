"""Verified cookies are remembered for speed: what that must not break."""

from __future__ import annotations

from datetime import UTC, datetime

from eyewall.core.ids import new_session_id
from eyewall.core.session_cookie import MOST_KNOWN, SessionCookieSigner
from eyewall.crypto.keyring import KeyRing
from tests.core.world import World

OLD, NEW = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi", "b8Kp2Qw-7Rt4Yx1Zc9Vn6Mh3Jd5Fg0LsAeUiOyT"
NAME = "__Host-session"


def test_a_cookie_remembered_is_nothing_under_another_name() -> None:
    """A value that a sibling application's cookie carries would open a session here."""
    signer = SessionCookieSigner(KeyRing.from_secret(OLD))
    session_id = new_session_id()
    value = signer.issue(NAME, session_id)
    assert signer.read(NAME, value) == signer.read(NAME, value) == session_id
    assert signer.read("session", value) is None


def test_no_forged_value_is_remembered() -> None:
    """A flood of forgeries would push out what honest visitors send, or be believed the second time."""
    signer = SessionCookieSigner(KeyRing.from_secret(OLD))
    value = signer.issue(NAME, new_session_id())
    forged = value[:-1] + ("A" if value[-1] != "A" else "B")
    assert [signer.read(NAME, forged) for _ in range(3)] == [None, None, None]
    assert len(signer._known) == 0


def test_memory_is_bounded_whoever_comes() -> None:
    """A million visitors with good cookies must not fill the process."""
    signer = SessionCookieSigner(KeyRing.from_secret(OLD))
    for _ in range(2 * MOST_KNOWN + 10):
        session_id = new_session_id()
        assert signer.read(NAME, signer.issue(NAME, session_id)) == session_id
    assert len(signer._known) <= MOST_KNOWN


def test_uses_of_a_retired_key_are_counted_each_time() -> None:
    """An operator drops a key that nobody uses any more; one count for a thousand requests would mislead."""
    value = SessionCookieSigner(KeyRing.from_secret(OLD)).issue(NAME, new_session_id())
    ring = KeyRing.from_secret({1: OLD, 2: NEW})
    uses = ring.count_uses(lambda: datetime.now(UTC))
    signer = SessionCookieSigner(ring)
    for _ in range(5):
        assert signer.read(NAME, value) is not None
    assert [use.count for use in uses.by_key().values()] == [5]


async def test_a_session_that_ended_is_over_although_its_cookie_is_remembered() -> None:
    """What is remembered is that we signed it, never that it is good for anything."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    cookie = browser.cookie
    assert await browser.data() == {"k": "v"}
    session = await browser.open()
    session.destroy()
    await browser.end(session)
    browser.cookie = cookie
    assert await browser.data() == {}


async def test_a_key_that_was_dropped_opens_nothing_although_its_cookie_was_remembered() -> None:
    """After a leak the old key is dropped at once, and with it everything that it has signed."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    assert await browser.data() == {"k": "v"}
    world.manager.use_keyring(KeyRing.from_secret(NEW))
    assert await browser.data() == {}
