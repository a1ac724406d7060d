"""How a session begins, how long it lives, and how it ends."""

from __future__ import annotations

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec
import pytest

from eyewall.core.ids import digest_of, new_session_id
from eyewall.core.payload import PREDECESSOR_BYTES
from eyewall.core.record import encode_record
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.crypto.keyring import KeyRing
from tests.core.world import SECRET, Browser, World


async def test_a_visitor_who_stores_nothing_gets_no_cookie_and_makes_no_record() -> None:
    """Bots and health checks must not fill the store (flask-session 181)."""
    world = World()
    for _ in range(100):
        browser = world.browser()
        session = await browser.open()
        session.get("k")
        session.delete("k")
        session.clear()
        session.regenerate()
        session.destroy()
        assert await browser.end(session) is None
        session = await browser.open()
        session["k"] = 1
        del session["k"]
        assert await browser.end(session) is None
    assert await world.records() == []


async def test_session_ids_are_256_random_bits_and_never_repeat() -> None:
    """ASVS 7.2.3 asks for 128; UUIDs do not count."""
    ids = [new_session_id() for _ in range(2000)]
    assert len(set(ids)) == 2000
    assert {len(i) for i in ids} == {43}
    raw = [int.from_bytes(urlsafe_b64decode(i + "="), "big") for i in ids]
    for bit in range(256):
        ones = sum(number >> bit & 1 for number in raw)
        assert 800 < ones < 1200, f"bit {bit} is not random"


async def test_the_id_is_nowhere_in_the_store_in_any_encoding() -> None:
    """A dump of the store must be useless as cookies (CVE-2019-16782)."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    assert browser.cookie is not None
    session_id = browser.cookie.split(".")[2]
    raw = urlsafe_b64decode(session_id + "=")
    (record,) = await world.records()
    blob = encode_record(record)
    for form in (session_id.encode(), raw, raw.hex().encode(), urlsafe_b64encode(raw)):
        assert form not in blob
    stolen = urlsafe_b64encode(record.digest).rstrip(b"=").decode()
    forged = f"__Host-session=ew1.{'A' * 8}.{stolen}.{'A' * 43}"
    assert await Browser(world.manager, forged).data() == {}


async def test_an_id_we_did_not_issue_is_never_adopted() -> None:
    """Session fixation: even one that was signed with our key (CVE-2024-38513)."""
    world = World()
    signer = SessionCookieSigner(KeyRing.from_secret(SECRET))
    planted = new_session_id()
    browser = Browser(world.manager, f"__Host-session={signer.issue('__Host-session', planted)}")
    await browser.put(k="v")
    assert browser.cookie is not None
    assert planted not in browser.cookie
    assert [r.digest for r in await world.records()] != [digest_of(planted)]


def mangled(value: str) -> list[str]:
    """Shapes that are almost a cookie of ours."""
    _version, key, session_id, mac = value.split(".")
    made_up = new_session_id()
    return [
        "",
        "x",
        value[:-1],
        value + "A",
        value.upper(),
        value.replace("ew1", "ew2"),
        value.replace("ew1", "EW1"),
        f"ew1.{key}.{made_up}.{mac}",
        f"ew1.{'A' * 8}.{session_id}.{mac}",
        f"ew1.{key}.{session_id}.{'A' * 43}",
        f"ew1.{key}.{session_id}.",
        f"ew1.{key}.{session_id}",
        f"{session_id}",
        f"ew1.{key}.{session_id}.{mac}.",
        f"ew1.{key}..{mac}",
        "../" * 20,
        "\0",
        "'; drop table --",
        "A" * 15000,
        f'"{value}"',
        f"ew1.{key}.{session_id}.{mac}\r\nx: y",
    ]


async def test_malformed_and_forged_values_cost_no_store_call_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Made-up cookies must be cheaper for us than for whoever makes them up."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    assert browser.cookie is not None
    name, _, value = browser.cookie.partition("=")
    calls: list[bytes] = []
    real = world.store.load

    async def load(digest: bytes) -> Any:
        calls.append(digest)
        return await real(digest)

    monkeypatch.setattr(world.store, "load", load)
    for shape in mangled(value):
        assert await Browser(world.manager, f"{name}={shape}").data() == {}
    assert calls == []


async def test_every_flipped_character_of_the_cookie_makes_a_stranger() -> None:
    """All positions, also the last of each part."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    assert browser.cookie is not None
    name, _, value = browser.cookie.partition("=")
    for position, character in enumerate(value):
        for other in "AB.":
            if other != character:
                bent = value[:position] + other + value[position + 1 :]
                assert await Browser(world.manager, f"{name}={bent}").data() == {}, position


async def test_a_value_moved_to_another_cookie_name_is_refused() -> None:
    """The name is inside the MAC: a plain-http cookie is no __Host- cookie."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    assert browser.cookie is not None
    value = browser.cookie.partition("=")[2]
    session = world.manager.open([f"session={value}"], https=False)
    await world.manager.load(session)
    assert session.all() == {}


async def test_one_valid_cookie_among_junk_is_used_and_two_valid_are_refused() -> None:
    """A sibling subdomain can toss cookies; two valid ones mean one was planted."""
    world = World()
    mine, theirs = world.browser(), world.browser()
    await mine.put(who="mine")
    await theirs.put(who="theirs")
    junk = "__Host-session=junk; __Host-session=ew1.a.b.c; x=y; "
    assert (await Browser(world.manager, f"{junk}{mine.cookie}").data())["who"] == "mine"
    assert (await Browser(world.manager, f"{mine.cookie}; {junk}").data())["who"] == "mine"
    assert (await Browser(world.manager, f"{mine.cookie}; {mine.cookie}").data())["who"] == "mine"
    assert await Browser(world.manager, f"{mine.cookie}; {theirs.cookie}").data() == {}
    assert "AMBIGUOUS_COOKIE" in world.kinds()


async def test_forged_cookies_cannot_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """One line a minute, however many come; callbacks hear of each."""
    world = World()
    for _ in range(500):
        await Browser(world.manager, "__Host-session=forged").data()
    assert len([r for r in caplog.records if r.name == "eyewall"]) == 1
    assert world.kinds().count("FORGED_ID") == 500
    world.pass_time(minutes=2)
    await Browser(world.manager, "__Host-session=forged").data()
    assert "499 more" in caplog.records[-1].message


async def test_the_idle_timeout_ends_a_session_on_the_server() -> None:
    """Whatever cookie the browser keeps."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    world.pass_time(minutes=59)
    assert await browser.data() == {"k": "v"}
    world.pass_time(minutes=59)
    assert await browser.data() == {"k": "v"}, "the read before has moved the end"
    world.pass_time(minutes=61)
    assert await browser.data() == {}


async def test_the_absolute_timeout_ends_even_a_busy_session() -> None:
    """No activity, touch, write or new ID moves it (CVE-2024-35220)."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    for minute in range(0, 23 * 60 + 30, 30):
        session = await browser.open()
        assert session["k"] == "v", minute
        if minute % 120 == 0:
            session.regenerate()
        session["n"] = minute
        await browser.end(session)
        world.pass_time(minutes=30)
    world.pass_time(minutes=31)
    assert await browser.data() == {}


async def test_signing_in_starts_both_timeouts_again() -> None:
    """NIST SP 800-63B-4: re-authentication resets both, activity only the idle one."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    for _ in range(46):
        world.pass_time(minutes=30)
        await browser.data()
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    for _ in range(46):
        world.pass_time(minutes=30)
        assert (await browser.open()).principal == "alice"
        await browser.data()
    world.pass_time(minutes=90)
    assert (await browser.open()).principal is None


async def test_lowered_limits_apply_to_sessions_that_exist() -> None:
    """A policy that starts next week is none."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    strict = World(ttl=600, absolute_ttl=600)
    strict.manager = type(world.manager)(strict.settings, world.store, world.clock)
    strict.manager.use_keyring(KeyRing.from_secret(SECRET))
    world.pass_time(minutes=20)
    session = await browser.open()
    await browser.end(session)
    world.pass_time(minutes=3)
    assert await Browser(strict.manager, browser.cookie).data() == {}


async def test_touching_is_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred reads are not a hundred writes; at most one a five minutes by default."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    touches: list[Any] = []
    real = world.store.touch

    async def touch(*args: Any) -> bool:
        touches.append(args)
        return await real(*args)

    monkeypatch.setattr(world.store, "touch", touch)
    for _ in range(100):
        await browser.data()
        world.pass_time(seconds=6)
    assert len(touches) == 1
    world.pass_time(minutes=5)
    await browser.data()
    assert len(touches) == 2


async def test_a_regenerated_id_is_new_and_the_old_one_is_dead() -> None:
    """Same data, another secret, no grace."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    old = browser.cookie
    session = await browser.open()
    session.regenerate()
    await browser.end(session)
    assert browser.cookie != old
    assert await browser.data() == {"k": "v"}
    assert await Browser(world.manager, old).data() == {}


async def test_signing_in_as_somebody_else_drops_the_first_ones_data() -> None:
    """Alice's cart is not Bob's (Django CVE-2014-0482)."""
    world = World()
    browser = world.browser()
    await browser.put(cart="anonymous")
    session = await browser.open()
    session.sign_in("alice")
    session["secret"] = "alice's"
    await browser.end(session)
    alice = browser.cookie
    session = await browser.open()
    assert session.all() == {"cart": "anonymous", "secret": "alice's"}
    session.flash("m", "for alice")
    session.sign_in("bob")
    await browser.end(session)
    session = await browser.open()
    assert (session.principal, session.all(), session.flash("m")) == ("bob", {}, None)
    assert (await Browser(world.manager, alice).open()).principal is None


@pytest.mark.parametrize("verb", ["destroy", "sign_out", "clear"])
async def test_every_way_to_log_out_logs_out(verb: str) -> None:
    """Also clear(), which chapters and tutorials print as the way to do it."""
    world = World()
    browser = world.browser()
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    stolen = browser.cookie
    session = await browser.open()
    getattr(session, verb)()
    assert session.principal is None
    await browser.end(session)
    assert (await Browser(world.manager, stolen).open()).principal is None
    assert (await browser.open()).principal is None


async def test_what_is_set_after_destroy_starts_a_new_session() -> None:
    """A farewell message."""
    world = World()
    browser = world.browser()
    await browser.put(k="secret")
    old = browser.cookie
    session = await browser.open()
    session.destroy()
    session.flash("m", "bye")
    line = await browser.end(session)
    assert line is not None
    assert "Max-Age=0" not in line
    assert browser.cookie != old
    session = await browser.open()
    assert (session.all(), session.flash("m")) == ({}, "bye")
    assert len(await world.records()) == 1


async def test_clear_keeps_the_session_and_its_emptiness() -> None:
    """An emptied session that comes back full is a vulnerability (Spring CVE-2023-20862)."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    cookie = browser.cookie
    session = await browser.open()
    session.clear()
    await browser.end(session)
    assert browser.cookie == cookie
    assert await browser.data() == {}


async def test_a_failed_answer_keeps_no_sign_in_but_a_sign_out() -> None:
    """With a 500 nobody is signed in who was not, and nobody stays signed in who left."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session, 500)
    assert (await browser.open()).principal is None
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    session = await browser.open()
    session.clear()
    await browser.end(session, 500)
    assert (await browser.open()).principal is None


async def test_a_damaged_record_is_a_new_visitor_and_an_event() -> None:
    """Never a 500, never code."""
    world = World()
    browser = world.browser()
    await browser.put(k="v")
    (record,) = await world.records()
    for payload in (b"", record.payload[:-1], secrets.token_bytes(40)):
        await world.store.delete(record.digest)
        await world.store.create(msgspec.structs.replace(record, payload=payload))
        assert await Browser(world.manager, browser.cookie).data() == {}
    assert world.kinds().count("DAMAGED_RECORD") == 3


async def test_records_whose_contents_were_swapped_serve_nobody() -> None:
    """Each payload is bound to its own record, each principal to its payload."""
    world = World()
    alice, bob = world.browser(), world.browser()
    for browser, name in ((alice, "alice"), (bob, "bob")):
        session = await browser.open()
        session.sign_in(name)
        await browser.end(session)
    one, two = await world.records()
    for record, other in ((one, two), (two, one)):
        await world.store.delete(record.digest)
        swapped = msgspec.structs.replace(record, payload=other.payload, principal=other.principal)
        await world.store.create(swapped)
    assert (await alice.open()).principal is None
    assert (await bob.open()).principal is None


async def test_the_cookie_has_the_attributes_of_the_standards() -> None:
    """ASVS 3.3, NIST 5.1.1; and deletion matches."""
    world = World()
    browser = world.browser()
    session = await browser.open()
    session["k"] = 1
    line = await browser.end(session)
    assert line is not None
    name_value, *attributes = line.split("; ")
    assert name_value.startswith("__Host-session=ew1.")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]
    session = await browser.open()
    session.destroy()
    line = await browser.end(session)
    assert line is not None
    assert set(attributes) < set(line.split("; "))
    assert line.startswith("__Host-session=; Max-Age=0")


def test_the_cookie_format_is_frozen() -> None:
    """Changing it signs everybody out."""
    signer = SessionCookieSigner(KeyRing.from_secret(SECRET))
    assert signer.issue("session", "A" * 43) == FROZEN
    assert signer.read("session", FROZEN) == "A" * 43


FROZEN = f"ew1.iyAuHWVU.{'A' * 43}.WkpQVb4oIjAVLQXa4LBgQC_blZIr2Kj88-XOBqKYvEc"


async def test_with_encryption_the_store_holds_nothing_readable() -> None:
    """A stolen backup tells no more than how many sessions a principal has."""
    world = World(encrypt=True)
    inner = world.store
    browser = world.browser()
    await browser.put(secret="canary-value")
    blobs = [encode_record(record) async for record in inner.scan()]
    assert len(blobs) == 1
    assert b"canary" not in blobs[0]
    assert await browser.data() == {"secret": "canary-value"}


async def test_a_full_session_can_still_get_a_new_id() -> None:
    """What the record of a new ID keeps for itself would make the change of privilege a 500."""
    world = World(max_size=2000)
    browser = world.browser()
    session = await browser.open()
    session.sign_in("alice")
    await browser.end(session)
    await browser.put(k="")
    (record,) = await world.records()
    await browser.put(k="x" * (2000 - len(record.payload) - 2))  # a long text has two bytes more of length
    (record,) = await world.records()
    assert len(record.payload) == 2000
    for _ in range(2):
        session = await browser.open()
        session.regenerate()
        await browser.end(session)
    (moved,) = await world.records()
    assert len(moved.payload) == 2000 + PREDECESSOR_BYTES
    assert "k" in await browser.data()
