"""Client-side sessions: what a browser brings is exactly what we sent it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyewall.core.client_side import MAX_LINE_BYTES, PURPOSE, ClientSideSessions, is_cut_off
from eyewall.core.cookie import CookieAttributes, cookie_values
from eyewall.core.record import Device, Record, encode_record
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.sealer import Sealer
from eyewall.errors import ConfigurationError, SessionTooLargeError
from eyewall.testing.cookie_jar import StrictCookieJar

SECRET: Final = b"Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0wE"
OLDER: Final = b"mR8cX2bN6vL0zQ4wE9tY3uI7oP1aS5dF"
NOW: Final = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
URL: Final = "https://shop.example/cart"

HOST: Final = CookieAttributes("__Host-session", secure=True)
SEALER: Final = Sealer(KeyRing.from_secret(SECRET), PURPOSE)
SESSIONS: Final = ClientSideSessions(SEALER, HOST)
FROZEN: Final = (
    "1.ewx1.r1LqlEjI.AAECAwQFBgcICQoLJ8yTWfRLXuzIq6BcTh0pQhUI8rFHI3hur9c6Pj_ZTBDQw85_iFD9phQtoULAXp8"
    "sMFFyhYlQUjnnwgSitXVJJ0_ZVq23iqdfB0W9fJf_vtUWU0qc8lIx1YSfbB7xytiB7zTWw1QdTgPYP_EKD_X2yg"
)

Cookies = dict[str, list[str]]


def new_record(payload: bytes = b"canary", **changes: Any) -> Record:
    """A record made now that lives for an hour."""
    plain = Record(
        digest=bytes(range(32)),
        version=1,
        payload=payload,
        created_at=NOW,
        seen_at=NOW,
        expires_at=NOW + HOUR,
        principal="alice",
        device=Device("Mozilla/5.0", "2001:db8::1"),
    )
    return msgspec.structs.replace(plain, **changes)


def sent_as(lines: Sequence[str]) -> Cookies:
    """What a browser that had no cookie sends back after receiving ``lines``."""
    pairs = (line.partition(";")[0].partition("=") for line in lines)
    return {name: [value] for name, _, value in pairs}


def read(cookies: Cookies, now: datetime = NOW, sessions: ClientSideSessions = SESSIONS) -> Record | None:
    """Read a request with these cookies."""
    return sessions.read(lambda name: cookies.get(name, []), now)


def in_chunks(chunks: int, filler: bytes = b"x") -> Record:
    """A record that takes this many cookies."""
    return new_record(filler * (1000, 4500, 7500)[chunks - 1])


def largest(sessions: ClientSideSessions) -> int:
    """The largest payload that fits (bytes), found by trying."""
    fits, too_large = 0, 40_000
    while too_large - fits > 1:
        size = (fits + too_large) // 2
        try:
            sessions.to_lines(new_record(bytes(size)), NOW)
            fits = size
        except SessionTooLargeError:
            too_large = size
    return fits


# What comes back


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_a_browser_keeps_every_line_and_brings_back_the_record(chunks: int) -> None:
    """A cookie that a browser silently drops is a session that silently never starts."""
    jar, record = StrictCookieJar(), in_chunks(chunks)
    jar.receive(URL, SESSIONS.to_lines(record, NOW), NOW)
    assert (jar.rejected, jar.ignored) == ([], [])
    assert len(jar.cookies) == chunks
    header = jar.header_for(URL, NOW)
    assert header is not None
    assert SESSIONS.read(partial(cookie_values, [header]), NOW) == record


@settings(max_examples=50)
@given(
    st.binary(max_size=8000),
    st.none() | st.text(max_size=50),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_every_record_comes_back_as_it_was(payload: bytes, principal: str | None, now: datetime) -> None:
    """Data lost or bent between two requests."""
    times = {"created_at": now, "seen_at": now, "expires_at": now + HOUR}
    record = new_record(payload, principal=principal, **times)
    assert read(sent_as(SESSIONS.to_lines(record, now)), now) == record


def test_a_cookie_sent_by_the_first_release_is_still_read() -> None:
    """Wire format: another layout would sign everybody out."""
    assert read({"__Host-session": [FROZEN]}) == new_record()


def test_nothing_of_the_record_can_be_read_from_the_cookies() -> None:
    """The browser's owner, and whoever copies the cookie, must not read what the session holds."""
    text = "".join(SESSIONS.to_lines(new_record(b"canary" * 100), NOW))
    for secret in ("canary", "alice", "Mozilla", "2001:db8"):
        assert secret not in text


def test_equal_sessions_give_different_cookies_of_equal_length() -> None:
    """Compression would make the length tell what is inside (CRIME, BREACH)."""
    one, other = (sum(map(len, SESSIONS.to_lines(new_record(p), NOW))) for p in (b"aaaaaa", b"k3Zq9v"))
    assert one == other
    assert SESSIONS.to_lines(new_record(), NOW) != SESSIONS.to_lines(new_record(), NOW)


# What is refused


@pytest.mark.parametrize("chunks", [1, 2])
def test_no_byte_of_any_cookie_can_be_changed(chunks: int) -> None:
    """One position that is not covered is a place to change the principal."""
    cookies = sent_as(SESSIONS.to_lines(in_chunks(chunks), NOW))
    for name, (value,) in cookies.items():
        for place, own in enumerate(value):
            other = "B" if own == "A" else "A"
            assert read(cookies | {name: [value[:place] + other + value[place + 1 :]]}) is None


def test_every_truncation_is_refused() -> None:
    """A proxy that cuts headers must not make half a session."""
    (value,) = sent_as(SESSIONS.to_lines(new_record(), NOW))["__Host-session"]
    for end in range(len(value)):
        assert read({"__Host-session": [value[:end]]}) is None


@pytest.mark.parametrize("claimed", ["0", "1", "3", "4", "", "02", "2.2", "-2", "\N{ARABIC-INDIC DIGIT TWO}"])
def test_the_number_of_chunks_cannot_be_changed(claimed: str) -> None:
    """A count that is not authenticated lets the attacker choose where the text ends."""
    cookies = sent_as(SESSIONS.to_lines(in_chunks(2), NOW))
    bent = claimed + cookies["__Host-session"][0][1:]
    assert read(cookies | {"__Host-session": [bent], "__Host-session.2": ["AAAA"]}) is None


@pytest.mark.parametrize(
    "beginning", ["1,", "1", "1..", "01.", " 1.", "\N{ARABIC-INDIC DIGIT ONE}.", "2.", "0.", "."]
)
def test_a_session_in_one_cookie_begins_in_one_way(beginning: str) -> None:
    """Two spellings of one session are two keys for whatever counts, limits or remembers cookies."""
    (value,) = sent_as(SESSIONS.to_lines(new_record(), NOW))["__Host-session"]
    assert read({"__Host-session": [value]}) == new_record()
    assert read({"__Host-session": [beginning + value.removeprefix("1.")]}) is None


def test_one_chunk_cannot_stand_for_two() -> None:
    """The whole token in one value is not what we sent when we said two."""
    cookies = sent_as(SESSIONS.to_lines(in_chunks(2), NOW))
    whole = cookies["__Host-session"][0] + cookies["__Host-session.1"][0]
    assert read({"__Host-session": [whole]}) is None
    assert read({"__Host-session": ["1" + whole[1:]]}) is None


@pytest.mark.parametrize("missing", ["__Host-session", "__Host-session.1", "__Host-session.2"])
def test_a_missing_chunk_is_no_session(missing: str) -> None:
    """Half a session must be none, not an error and not the other half."""
    cookies = sent_as(SESSIONS.to_lines(in_chunks(3), NOW))
    del cookies[missing]
    assert read(cookies) is None


def test_chunks_of_two_answers_do_not_mix() -> None:
    """Half of yesterday's session and half of today's would be a session that never was."""
    one = sent_as(SESSIONS.to_lines(in_chunks(3, b"x"), NOW))
    other = sent_as(SESSIONS.to_lines(in_chunks(3, b"y"), NOW))
    for name in one:
        assert read(one | {name: other[name]}) is None
    assert read(dict(zip(one, reversed(list(one.values())), strict=True))) is None


def test_a_cookie_of_another_name_is_refused() -> None:
    """A sealed cookie renamed must not become a session."""
    other = ClientSideSessions(SEALER, CookieAttributes("__Host-admin", secure=True))
    (value,) = sent_as(other.to_lines(new_record(), NOW))["__Host-admin"]
    assert read({"__Host-session": [value]}) is None


def test_a_value_sealed_for_another_purpose_or_with_another_key_is_refused() -> None:
    """Nor may another application's, or another feature's, sealed value."""
    for sealer in (
        Sealer(KeyRing.from_secret(SECRET), "record at rest"),
        Sealer(KeyRing.from_secret(OLDER), PURPOSE),
    ):
        assert read(sent_as(ClientSideSessions(sealer, HOST).to_lines(new_record(), NOW))) is None


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "1.",
        "ew1.Z92083ew." + "A" * 43 + "." + "A" * 43,
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.",
        "2|1:0|10:1700000000|7:session|4:cm9vdA==|" + "0" * 64,
        encode_record(new_record()).hex(),
        SEALER.seal(encode_record(new_record()), "__Host-session", "1"),
        "1." + SEALER.seal(b"not a record", "__Host-session", "1"),
        "1." + SEALER.seal(b"", "__Host-session", "1"),
        "1.\ud800",
    ],
    ids=[
        "nothing",
        "only a number",
        "a server-side session",
        "an unsigned JWT",
        "a Tornado signed cookie",
        "a plain record",
        "a token without its number",
        "sealed, but no record",
        "sealed, but empty",
        "not ASCII",
    ],
)
def test_no_other_format_is_accepted(foreign: str) -> None:
    """A fallback after a failed decryption lets everybody write their own (Rack CVE-2026-39324)."""
    assert read({"__Host-session": [foreign]}) is None


@given(st.lists(st.text(max_size=40), max_size=4), st.lists(st.text(max_size=40), max_size=4))
def test_no_values_raise_or_are_read(firsts: list[str], seconds: list[str]) -> None:
    """An exception here is a 500 that any visitor can cause."""
    assert read({"__Host-session": firsts, "__Host-session.1": seconds}) is None
    prefixed = [f"2.ewx1.Z92083ew.{value}" for value in firsts]
    assert read({"__Host-session": prefixed, "__Host-session.1": seconds}) is None


# Time


def test_an_expired_session_is_refused_at_its_very_end() -> None:
    """The browser's own expiry is the browser's business; a copied cookie must die by our clock."""
    cookies = sent_as(SESSIONS.to_lines(new_record(), NOW))
    assert read(cookies, NOW + HOUR - timedelta(microseconds=1)) is not None
    assert read(cookies, NOW + HOUR) is None


@pytest.mark.parametrize("when", ["created_at", "seen_at"])
def test_a_session_from_the_future_is_refused(when: str) -> None:
    """A server whose clock ran ahead would have made sessions that live too long."""
    for ahead, accepted in ((60, True), (60.000001, False)):
        record = msgspec.structs.replace(new_record(), **{when: NOW + timedelta(seconds=ahead)})
        assert (read(sent_as(SESSIONS.to_lines(record, NOW))) == record) is accepted


def test_a_dead_record_is_never_sealed() -> None:
    """It only removes what the browser has."""
    dead = new_record(expires_at=NOW)
    assert SESSIONS.to_lines(dead, NOW) == []
    assert SESSIONS.to_lines(dead, NOW, ["__Host-session.1"]) == SESSIONS.delete_lines(["__Host-session.1"])


def test_a_cut_off_ends_what_began_before_it() -> None:
    """A copied cookie must die when its owner signs out everywhere."""
    moment = timedelta(microseconds=1)
    assert not is_cut_off(new_record(), None)
    assert not is_cut_off(new_record(), NOW - moment)
    assert not is_cut_off(new_record(), NOW)
    assert is_cut_off(new_record(), NOW + moment)


# Duplicates


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_planted_duplicates_do_not_hide_the_real_cookie(chunks: int) -> None:
    """A sibling subdomain that plants cookies of our name must not sign anybody out so easily."""
    cookies = sent_as(SESSIONS.to_lines(in_chunks(chunks), NOW))
    planted = {name: [f"{value[:20]}AAAA", value, value, "junk;"] for name, (value,) in cookies.items()}
    assert read(planted) == in_chunks(chunks)
    junk = {"__Host-session": ["junk"] * 500 + [f"junk{i}" for i in range(500)]}
    assert read(cookies | {"__Host-session": junk["__Host-session"] + cookies["__Host-session"]})


def test_two_valid_sessions_are_none() -> None:
    """One of them was planted, and there is no telling which (session fixation)."""
    one, other = (sent_as(SESSIONS.to_lines(new_record(p), NOW))["__Host-session"] for p in (b"1", b"2"))
    assert read({"__Host-session": one + other}) is None


def test_a_flood_of_duplicates_costs_no_more_than_a_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every combination of a hundred chunks would be a million decryptions for one request."""
    tries = 0

    class Counting(Sealer):
        def open(self, token: str, *context: str) -> bytes | None:
            nonlocal tries
            tries += 1
            return super().open(token, *context)

    sessions = ClientSideSessions(Counting(KeyRing.from_secret(SECRET), PURPOSE), HOST)
    many = [f"A{number}" for number in range(100)]
    for first_count, more in ((1, many), (100, many), (100, ["A"]), (2, ["A", "B"])):
        firsts = [f"3.ewx1.Z92083ew.{number}" for number in range(first_count)]
        cookies = {"__Host-session": firsts, "__Host-session.1": more, "__Host-session.2": more}
        tries = 0
        assert read(cookies, sessions=sessions) is None
        assert tries <= 8


# Sizes

ALL_ATTRIBUTES: Final = CookieAttributes(
    "__Secure-" + "n" * 200,
    path="/" + "p" * 1000,
    domain="d" * 60 + ".example",
    secure=True,
    samesite="None",
    partitioned=True,
)


@pytest.mark.parametrize("attributes", [HOST, CookieAttributes("s", httponly=False), ALL_ATTRIBUTES])
@pytest.mark.parametrize("max_chunks", [1, 2, 3])
def test_a_line_has_4096_bytes_and_never_one_more(attributes: CookieAttributes, max_chunks: int) -> None:
    """One byte over the limit and the browser drops the cookie without a word."""
    sessions = ClientSideSessions(SEALER, attributes, max_chunks=max_chunks)
    fullest = 0
    for size in range(largest(sessions) - 3, largest(sessions) + 1):
        lines = sessions.to_lines(new_record(bytes(size)), NOW)
        assert len(lines) == max_chunks
        assert max(map(len, lines)) <= MAX_LINE_BYTES == 4096
        assert all(len(line) == 4096 for line in lines[:-1])
        fullest = max(fullest, len(lines[-1]))
        assert read(sent_as(lines), sessions=sessions) == new_record(bytes(size))
    assert fullest >= 4095  # base64 has no text of 4n + 1 characters, so one byte may stay unused
    with pytest.raises(SessionTooLargeError, match=r"bytes of cookies; \d+ fit into .* on the server"):
        sessions.to_lines(new_record(bytes(largest(sessions) + 1)), NOW)


def test_one_more_cookie_is_begun_at_the_very_byte() -> None:
    """An empty or missing last chunk would be a session that never opens."""
    edge = largest(ClientSideSessions(SEALER, HOST, max_chunks=1))
    for size, chunks in ((edge, 1), (edge + 1, 2)):
        lines = SESSIONS.to_lines(new_record(bytes(size)), NOW)
        assert len(lines) == chunks
        assert read(sent_as(lines)) == new_record(bytes(size))


def test_a_full_browser_accepts_the_largest_session_with_all_attributes() -> None:
    """The limit we compute must be the one browsers keep to."""
    sessions = ClientSideSessions(SEALER, ALL_ATTRIBUTES)
    jar, url = StrictCookieJar(), f"https://{ALL_ATTRIBUTES.domain}/{'p' * 1000}"
    jar.receive(url, sessions.to_lines(new_record(bytes(largest(sessions))), NOW), NOW)
    assert (jar.rejected, jar.ignored) == ([], [])
    header = jar.header_for(url, NOW)
    assert header is not None
    assert sessions.read(partial(cookie_values, [header]), NOW) is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClientSideSessions(SEALER, HOST, max_chunks=0),
        lambda: ClientSideSessions(SEALER, HOST, max_chunks=4),
        lambda: ClientSideSessions(SEALER, CookieAttributes("n" * 3900)),
        lambda: ClientSideSessions(SEALER, CookieAttributes("n" * 4096)),
    ],
)
def test_what_can_never_work_is_refused_at_the_start(make: Callable[[], object]) -> None:
    """Else the first visitor finds out."""
    with pytest.raises(ConfigurationError):
        make()


# Deleting


def test_chunks_no_longer_needed_are_deleted() -> None:
    """A session that has shrunk must not leave 8 KB of old data in every request."""
    jar = StrictCookieJar()
    for chunks in (3, 1, 2, 3, 2, 1):
        names = [cookie.name for cookie in jar.cookies]
        jar.receive(URL, SESSIONS.to_lines(in_chunks(chunks), NOW, names), NOW)
        assert len(jar.cookies) == chunks
        header = jar.header_for(URL, NOW)
        assert header is not None
        assert SESSIONS.read(partial(cookie_values, [header]), NOW) == in_chunks(chunks)
    assert jar.rejected == []


def test_chunks_are_deleted_even_where_fewer_are_allowed_now() -> None:
    """Lowering ``max_chunks`` must not strand what was sent before; it is still read once."""
    one = ClientSideSessions(SEALER, HOST, max_chunks=1)
    old = SESSIONS.to_lines(in_chunks(3), NOW)
    assert read(sent_as(old), sessions=one) == in_chunks(3)
    assert len(one.to_lines(new_record(), NOW, sent_as(old))) == 3


def test_deleting_removes_every_cookie_of_ours_and_no_other() -> None:
    """Signing out that leaves a chunk behind, or takes the shop's language cookie with it."""
    jar = StrictCookieJar()
    jar.receive(URL, [*SESSIONS.to_lines(in_chunks(3), NOW), "lang=en"], NOW)
    jar.receive(URL, SESSIONS.delete_lines([cookie.name for cookie in jar.cookies]), NOW)
    assert [cookie.name for cookie in jar.cookies] == ["lang"]
    assert SESSIONS.delete_lines(["lang", "__Host-session.3", "session"]) == []
    assert SESSIONS.names == ("__Host-session", "__Host-session.1", "__Host-session.2")


def test_rotation_signs_nobody_out_until_the_old_key_is_dropped() -> None:
    """Changing the secret must be routine, or nobody does it."""
    before = ClientSideSessions(Sealer(KeyRing.from_secret(OLDER), PURPOSE), HOST)
    during = ClientSideSessions(Sealer(KeyRing.from_secret({1: OLDER, 2: SECRET}), PURPOSE), HOST)
    old = sent_as(before.to_lines(new_record(), NOW))
    assert read(old, sessions=during) == new_record()
    assert read(sent_as(during.to_lines(new_record(), NOW))) == new_record()
    assert read(old) is None
