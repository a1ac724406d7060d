"""Opened cookies are remembered, and records sealed once, for speed: what that must not break."""

from __future__ import annotations

import tracemalloc
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from eyewall.core.draft import Draft
from eyewall.core.manager import Manager
from eyewall.core.sealed_cookie import MOST_KNOWN_BYTES, KnownLines, SealedCookie
from eyewall.core.session import Session
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.sealer import Sealer
from eyewall.settings import Settings
from eyewall.stores.in_cookie import InCookie
from eyewall.testing.clock import ManualClock
from tests.core.world import Browser

OLD: Final = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"
NEW: Final = "b8Kp2Qw-7Rt4Yx1Zc9Vn6Mh3Jd5Fg0LsAeUiOyT"
NOTHING: Final[dict[str, Any]] = {}


class Place:
    """An application whose sessions are in their cookies."""

    def __init__(self, secret: str | dict[int, str] = OLD, **options: Any) -> None:
        self.clock = ManualClock()
        self.cut_off: dict[str, datetime] = {}
        settings = Settings(backend="cookie", cookie_secret=secret, **options)
        self.manager = Manager(settings, InCookie(), self.clock, self.cut_off.get)
        self.manager.use_keyring(KeyRing.from_secret(secret))
        self.events: list[str] = []
        self.manager.events.subscribe(lambda event: self.events.append(event.kind.name))

    async def line(self, **data: Any) -> str:
        """What a browser sends whose session holds ``data``."""
        browser = Browser(self.manager)
        await browser.put(**data)
        assert browser.cookie is not None
        return browser.cookie

    def open(self, *lines: str) -> Session:
        """Begin a request."""
        return self.manager.open(lines, https=True)

    def read(self, *lines: str) -> dict[str, Any]:
        """One request that reads everything."""
        return self.open(*lines).all()

    @property
    def known(self) -> KnownLines:
        """What is remembered of encrypted connections."""
        cookie = self.manager._cookies[True]
        assert isinstance(cookie, SealedCookie)
        return cookie._known


# Requests that share what was opened


async def test_a_nested_change_is_seen_by_no_other_request_with_the_same_cookie() -> None:
    """Two requests of one page share what was opened; one's basket in the other's answer is a leak."""
    place = Place()
    line = await place.line(cart={"items": ["tea"]}, n=1)
    place.read(line)
    one, other = place.open(line), place.open(line)
    one["cart"]["items"].append("rum")
    one["cart"]["gone"] = one.pop("n")
    assert other["cart"] == {"items": ["tea"]}
    await one.save()
    assert other.all() == {"cart": {"items": ["tea"]}, "n": 1}
    assert place.read(line) == {"cart": {"items": ["tea"]}, "n": 1}
    saved = place.manager.set_cookie_lines(one, https=True)[0].partition(";")[0]
    assert place.read(saved) == {"cart": {"items": ["tea", "rum"], "gone": 1}}


async def test_a_message_read_or_added_by_one_request_leaves_the_others_theirs() -> None:
    """The list of messages is shared as well."""
    place = Place()
    browser = Browser(place.manager)
    session = await browser.open()
    session.flash("saved", "yes")
    await browser.end(session)
    assert browser.cookie is not None
    for _ in range(3):
        session = place.open(browser.cookie)
        assert (session.flash("saved"), session.flash("more")) == ("yes", None)
        session.flash("more", "words")
        await place.manager.commit(session)


async def test_signing_in_or_clearing_in_one_request_changes_no_other() -> None:
    """A principal in what is shared would sign in whoever sends the old cookie."""
    place = Place()
    line = await place.line(k="v")
    for _ in range(2):
        session = place.open(line)
        session.clear()
        session["principal"] = "alice"
        await place.manager.commit(session)
    assert place.read(line) == {"k": "v"}
    assert place.open(line).principal is None


# Asked at every request all the same


async def test_a_remembered_session_ends_when_it_ends() -> None:
    """A copied cookie must die by our clock although it was good a moment ago."""
    place = Place(ttl=600)
    line = await place.line(k="v")
    place.clock.advance(timedelta(seconds=599))
    assert place.read(line) == {"k": "v"}
    place.clock.advance(timedelta(seconds=1))
    assert place.read(line) == NOTHING
    assert place.events[-1] == "UNKNOWN_ID"


async def test_a_remembered_session_from_the_future_is_refused() -> None:
    """A server whose clock was set right must not honour what it made while it ran ahead."""
    place = Place()
    line = await place.line(k="v")
    assert place.read(line) == {"k": "v"}
    place.clock.advance(-timedelta(seconds=60))
    assert place.read(line) == {"k": "v"}
    place.clock.advance(-timedelta(microseconds=1))
    assert place.read(line) == NOTHING


async def test_a_cut_off_ends_remembered_sessions_at_once() -> None:
    """Signing out everywhere must reach the thief who has just been served."""
    place = Place()
    browser = Browser(place.manager)
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    assert browser.cookie is not None
    assert place.open(browser.cookie).principal == "alice"
    place.clock.advance(timedelta(seconds=1))
    place.cut_off["alice"] = place.clock()
    assert place.open(browser.cookie).principal is None


async def test_a_key_that_was_dropped_opens_nothing_although_its_cookie_was_remembered() -> None:
    """After a leak the old key is dropped at once, and with it everything that it has sealed."""
    place = Place()
    line = await place.line(k="v")
    assert place.read(line) == {"k": "v"}
    place.manager.use_keyring(KeyRing.from_secret(NEW))
    assert place.read(line) == NOTHING


async def test_uses_of_a_retired_key_are_counted_each_time() -> None:
    """An operator drops a key that nobody uses any more; one count for a thousand requests would mislead."""
    line = await Place(OLD).line(k="v")
    place = Place({1: OLD, 2: NEW})
    for _ in range(5):
        assert place.read(line) == {"k": "v"}
    assert [use.count for use in place.manager.key_use().values()] == [5]


async def test_a_cookie_remembered_alone_is_not_taken_beside_a_planted_one() -> None:
    """Two good cookies mean that one was planted; a remembered one must not win for being remembered."""
    place = Place()
    mine, planted = await place.line(k="mine"), await place.line(k="planted")
    assert place.read(mine) == {"k": "mine"}
    assert place.read(f"{mine}; {planted}") == place.read(f"{planted}; {mine}") == NOTHING
    assert place.read(mine, planted) == place.read(planted, mine) == NOTHING


async def test_a_line_without_a_session_is_nobodys_although_one_came_beside_it() -> None:
    """Proxies may split cookies over lines; whoever sends the same language cookie must not be signed in."""
    place = Place()
    mine = await place.line(k="mine")
    assert place.read("lang=de", mine) == place.read(mine, "lang=de") == {"k": "mine"}
    assert place.read("lang=de") == NOTHING


async def test_a_cookie_remembered_on_https_is_nothing_on_plain_http() -> None:
    """Whoever reads plain traffic must not use there what was sent encrypted."""
    place = Place()
    line = await place.line(k="v")
    assert place.read(line) == {"k": "v"}
    assert place.manager.open([line], https=False).all() == NOTHING


async def test_chunks_no_longer_needed_are_deleted_although_the_line_is_remembered() -> None:
    """What was sent is told with the session: else 8 KB of old data would go along for ever."""
    place = Place()
    session = place.open()
    session["k"] = "x" * 7500
    await place.manager.commit(session)
    pairs = [line.partition(";")[0] for line in place.manager.set_cookie_lines(session, https=True)]
    for _ in range(2):
        session = place.open("; ".join(pairs))
        session["k"] = "short"
        await place.manager.commit(session)
        _, *deletions = place.manager.set_cookie_lines(session, https=True)
        assert ["Max-Age=0" in line for line in deletions] == [True, True]


# What is remembered


async def test_nothing_is_remembered_that_did_not_open_or_is_over() -> None:
    """A flood of forgeries would push out what honest visitors send, or be believed the second time."""
    place = Place(ttl=600)
    line = await place.line(k="v")
    forged = line[:-9] + ("A" if line[-9] != "A" else "B") + line[-8:]
    for bad in (forged, line[:-1], line.replace("1.ewx1", "2.ewx1"), "k=v", line.split("=")[0] + "="):
        for _ in range(3):
            assert place.read(bad) == NOTHING
    place.clock.advance(timedelta(seconds=600))
    assert place.read(line) == NOTHING
    assert place.known._opened == {}


async def test_memory_is_bounded_whoever_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One good cookie beside ever new ones, or long lines, must not fill the process."""
    monkeypatch.setattr("eyewall.core.sealed_cookie.MOST_KNOWN_BYTES", 100_000)
    place = Place()
    line = await place.line(k="v" * 500)
    largest, most = 0, [0, 0, 0]
    for number in range(150):
        padded = f"{line}; other={number}{'x' * (60_000 if number % 50 == 49 else 0)}"
        assert place.read(padded) == {"k": "v" * 500}
        known = place.known._opened
        largest = max(largest, sum(len(one) + opened.memory() for one, opened in known.items()))
        most[number // 50] = max(most[number // 50], len(known))
    assert 60_000 < largest <= 100_000
    assert min(most) > 10, "after all was forgotten, remembering goes on"


@pytest.mark.parametrize(("values", "size"), [(1, 1), (1, 7000), (40, 5), (400, 1)])
async def test_sessions_take_no_more_memory_than_is_reckoned(values: int, size: int) -> None:
    """A bound on a number that is too small is no bound."""
    place = Place()
    session = place.open()
    for number in range(values):
        session[str(number)] = "x" * size
    await place.manager.commit(session)
    pairs = [line.partition(";")[0] for line in place.manager.set_cookie_lines(session, https=True)]
    lines = [f"{'; '.join(pairs)}; n={number}" for number in range(50)]
    place.read(lines[0])
    tracemalloc.start()
    for line in lines[1:]:
        place.manager._cookies[True].read([line.encode().decode()], Draft(10_000, in_cookie=True, https=True))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reckoned = sum(len(line) + one.memory() for line, one in place.known._opened.items())
    assert len(place.known._opened) == 50
    assert taken < reckoned < MOST_KNOWN_BYTES


# Sealing once


@pytest.mark.parametrize("https", [True, False])
async def test_an_answer_carries_what_was_saved_last_and_seals_it_once(
    monkeypatch: pytest.MonkeyPatch, https: bool
) -> None:
    """An older record in the answer would undo what the visitor was told."""
    sealed = 0
    seal = Sealer.seal

    def counting(sealer: Sealer, plaintext: bytes, *context: str) -> str:
        nonlocal sealed
        sealed += 1
        return seal(sealer, plaintext, *context)

    monkeypatch.setattr(Sealer, "seal", counting)
    place = Place()
    session, line = place.manager.open([], https=https), ""
    for saves in (1, 2, 3):
        session["n"] = saves
        await place.manager.commit(session)
        (line,) = place.manager.set_cookie_lines(session, https=https)
        assert place.manager.set_cookie_lines(session, https=https) == [line]
        assert sealed == saves
        assert line.startswith("__Host-session=" if https else "session=")
        assert place.manager.open([line.partition(";")[0]], https=https).all() == {"n": saves}
    (other,) = place.manager.set_cookie_lines(session, https=not https)
    assert other.partition("=")[0] != line.partition("=")[0]


async def test_a_session_destroyed_after_it_was_sealed_is_deleted() -> None:
    """What was sealed for an answer must not leave with it once the session is over."""
    place = Place()
    session = place.open(await place.line(k="v"))
    session["k"] = "w"
    await place.manager.commit(session)
    session.destroy()
    await place.manager.commit(session)
    (line,) = place.manager.set_cookie_lines(session, https=True)
    assert line.startswith("__Host-session=; Max-Age=0")
