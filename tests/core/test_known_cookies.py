"""Verified cookies are remembered for speed: what that must not break."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from eyewall.core.browser_cookie import LONGEST_KNOWN, MOST_KNOWN, IdCookie
from eyewall.core.draft import Draft
from eyewall.core.ids import new_session_id
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.crypto.keyring import KeyRing
from eyewall.settings import Settings
from tests.core.world import World

OLD, NEW = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi", "b8Kp2Qw-7Rt4Yx1Zc9Vn6Mh3Jd5Fg0LsAeUiOyT"


class Reader:
    """The session cookie of an application, its lines and what is found in them."""

    def __init__(self, secret: str | dict[int, str] = OLD, name: str = "__Host-shop") -> None:
        self.ring = KeyRing.from_secret(secret)
        settings = Settings.from_mapping({"backend": "memory", "name": name, "cookie_secret": OLD})
        self.cookie = IdCookie(settings, self.ring, https=True)

    def line(self, session_id: str, name: str | None = None) -> str:
        """What a browser sends that holds ``session_id``, under this or another name."""
        value = SessionCookieSigner(self.ring).issue(self.cookie.name, session_id)
        return f"{name or self.cookie.name}={value}"

    def read(self, *lines: str) -> str | None:
        """The session ID in the lines."""
        draft = Draft(1000, cookie_lines=lines, https=True)
        self.cookie.read(lines, draft)
        return draft.session_id

    @property
    def known(self) -> dict[str, tuple[str, bool]]:
        """What is remembered."""
        return self.cookie._known


def test_a_cookie_remembered_is_nothing_under_another_name() -> None:
    """A value that a sibling application's cookie carries would open a session here."""
    reader, session_id = Reader(), new_session_id()
    line = reader.line(session_id)
    assert reader.read(line) == reader.read(line) == session_id
    assert reader.read(reader.line(session_id, "__Host-other")) is None


def test_a_cookie_remembered_alone_is_not_taken_beside_a_planted_one() -> None:
    """Two good cookies mean that one was planted; a remembered one must not win for being remembered."""
    reader = Reader()
    mine, planted = reader.line(new_session_id()), reader.line(new_session_id())
    assert reader.read(mine) is not None
    assert reader.read(f"{mine}; {planted}") is None
    assert reader.read(mine, planted) is None


@pytest.mark.parametrize("times", [1, 3])
def test_no_forged_value_is_remembered(times: int) -> None:
    """A flood of forgeries would push out what honest visitors send, or be believed the second time."""
    reader = Reader()
    line = reader.line(new_session_id())
    forged = line[:-1] + ("A" if line[-1] != "A" else "B")
    assert [reader.read(forged) for _ in range(times)] == [None] * times
    assert reader.known == {}


def test_memory_is_bounded_whoever_comes() -> None:
    """A million visitors with good cookies must not fill the process, nor one with cookies of any length."""
    reader = Reader()
    for _ in range(2 * MOST_KNOWN + 10):
        session_id = new_session_id()
        assert reader.read(reader.line(session_id)) == session_id
    assert len(reader.known) <= MOST_KNOWN
    reader.known.clear()
    session_id = new_session_id()
    assert reader.read(f"{reader.line(session_id)}; other={'x' * LONGEST_KNOWN}") == session_id
    assert reader.known == {}


def test_uses_of_a_retired_key_are_counted_each_time() -> None:
    """An operator drops a key that nobody uses any more; one count for a thousand requests would mislead."""
    line = Reader(OLD).line(new_session_id())
    reader = Reader({1: OLD, 2: NEW})
    uses = reader.ring.count_uses(lambda: datetime.now(UTC))
    for _ in range(5):
        assert reader.read(line) is not None
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
