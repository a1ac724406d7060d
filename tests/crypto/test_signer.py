"""The signer: what we did not sign, or signed for something else, never verifies."""

from __future__ import annotations

import string
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.crypto.keyring import Key, KeyRing
from eyewall.crypto.signer import Signer

SECRET: Final = b"Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0wE"
OLDER: Final = b"mR8cX2bN6vL0zQ4wE9tY3uI7oP1aS5dF"
PURPOSE: Final = "session cookie"
FIELDS: Final = ("__Host-session", "x" * 43)
BASE64URL: Final = string.ascii_letters + string.digits + "-_"

SIGNER: Final = Signer(KeyRing.from_secret(SECRET), PURPOSE)
any_text: Final = st.text(st.characters(exclude_categories=()))  # lone surrogates too


def test_the_signature_of_a_session_cookie_never_changes() -> None:
    """Wire format: another MAC for the same secret would sign everybody out."""
    assert SIGNER.sign(*FIELDS) == ("r1LqlEjI", "RUdO2c3juABqOn2Gl05OuGPWxsWEuGpLd6WipDGwcRM")
    assert SIGNER.verify("r1LqlEjI", "RUdO2c3juABqOn2Gl05OuGPWxsWEuGpLd6WipDGwcRM", *FIELDS)
    assert SIGNER.sign("naïve", "", "\N{SNOWMAN}") == (
        "r1LqlEjI",
        "rzAx7nUnHRwCxCyHwAM-DEsv37fErAO1f_VLVwt0TJ4",
    )


@given(st.lists(any_text, max_size=4))
def test_what_was_signed_verifies(fields: list[str]) -> None:
    """A signer that refuses its own signature signs everybody out."""
    key_id, mac = SIGNER.sign(*fields)
    assert SIGNER.verify(key_id, mac, *fields)
    assert len(mac) == 43
    assert set(mac) <= set(BASE64URL)


def test_no_character_of_a_mac_can_be_changed() -> None:
    """A position that is not compared makes forging that much cheaper; the last one has spare bits."""
    key_id, mac = SIGNER.sign(*FIELDS)
    for place in range(len(mac)):
        for other in BASE64URL + "+/= \0é":
            forged = mac[:place] + other + mac[place + 1 :]
            assert SIGNER.verify(key_id, forged, *FIELDS) == (other == mac[place])


def test_no_bit_of_a_field_can_be_changed() -> None:
    """A changed ID would be somebody else's session."""
    key_id, mac = SIGNER.sign(*FIELDS)
    name, session_id = FIELDS
    for place in range(len(session_id)):
        for bit in range(7):
            changed = chr(ord(session_id[place]) ^ 1 << bit)
            assert not SIGNER.verify(
                key_id, mac, name, session_id[:place] + changed + session_id[place + 1 :]
            )


@pytest.mark.parametrize("change", ["{}=", "={}", " {}", "{}\n", "{}A", "{}{}"])
def test_a_mac_has_one_spelling(change: str) -> None:
    """A lenient decoder accepts many texts for one MAC, and whoever compares texts is fooled."""
    key_id, mac = SIGNER.sign(*FIELDS)
    assert not SIGNER.verify(key_id, change.replace("{}", mac), *FIELDS)
    assert not SIGNER.verify(key_id, mac[:-1], *FIELDS)


@pytest.mark.parametrize(
    "spliced",
    [
        ("ab", "c"),
        ("a", "bc", ""),
        ("", "a", "bc"),
        ("abc",),
        ("a", "b", "c"),
        ("a2:bc",),
        ("1:a2:bc",),
        ("a", "2:bc"),
        ("bc", "a"),
        (),
    ],
)
def test_no_character_moves_between_fields(spliced: tuple[str, ...]) -> None:
    """Without lengths digits could move between value and time (Tornado 1.0.1, 3.2.1)."""
    key_id, mac = SIGNER.sign("a", "bc")
    assert not SIGNER.verify(key_id, mac, *spliced)


@given(st.lists(st.text("a1:", max_size=4), max_size=4), st.lists(st.text("a1:", max_size=4), max_size=4))
def test_two_different_lists_of_fields_never_share_a_mac(one: list[str], other: list[str]) -> None:
    """As above, with fields made of the framing's own characters."""
    assert (SIGNER.sign(*one) == SIGNER.sign(*other)) == (one == other)


def test_a_signature_for_another_purpose_is_refused() -> None:
    """A value the application signed for a link must not become a session cookie (Laravel 2020)."""
    other = Signer(KeyRing.from_secret(SECRET), "password reset")
    assert not SIGNER.verify(*other.sign(*FIELDS), *FIELDS)


def test_a_signature_with_another_secret_is_refused_under_any_key_id() -> None:
    """The key's ID is public; naming ours proves nothing."""
    _, mac = Signer(KeyRing.from_secret(OLDER), PURPOSE).sign(*FIELDS)
    for key_id in (Key(SECRET).id, Key(OLDER).id, "", "AAAAAAAA"):
        assert not SIGNER.verify(key_id, mac, *FIELDS)


def test_rotation_signs_nobody_out_until_the_old_key_is_dropped() -> None:
    """Changing the secret must be routine, or nobody does it (Flask CVE-2025-47278)."""
    before = Signer(KeyRing.from_secret(OLDER), PURPOSE)
    during = Signer(KeyRing.from_secret({1: OLDER, 2: SECRET}), PURPOSE)
    after = Signer(KeyRing.from_secret({2: SECRET}), PURPOSE)
    old, new = before.sign(*FIELDS), during.sign(*FIELDS)
    assert during.verify(*old, *FIELDS)
    assert not during.is_current(old[0])
    assert during.verify(*new, *FIELDS)
    assert during.is_current(new[0])
    assert after.verify(*new, *FIELDS)
    assert not after.verify(*old, *FIELDS)


def test_the_parts_of_two_signatures_do_not_mix() -> None:
    """The old key's MAC under the new key's name must not pass."""
    ring = Signer(KeyRing.from_secret({1: OLDER, 2: SECRET}), PURPOSE)
    _, old_mac = Signer(KeyRing.from_secret(OLDER), PURPOSE).sign(*FIELDS)
    assert not ring.verify(Key(SECRET).id, old_mac, *FIELDS)


@given(any_text, any_text, st.lists(any_text, max_size=3))
def test_no_text_a_client_sends_raises_or_verifies(key_id: str, mac: str, fields: list[str]) -> None:
    """An exception here is a 500 that any visitor can cause."""
    assert not SIGNER.verify(key_id, mac, *fields)
    assert not SIGNER.verify("r1LqlEjI", mac, *fields)
    assert not SIGNER.is_current(mac)


@pytest.mark.parametrize("odd", ["", "\0", "\ud800", "é" * 43, "\N{SNOWMAN}", "A" * 100_000])
def test_odd_text_in_any_place_is_simply_not_ours(odd: str) -> None:
    """As above, with the texts that break comparing, encoding and decoding."""
    key_id, mac = SIGNER.sign(*FIELDS)
    assert not SIGNER.verify(odd, mac, *FIELDS)
    assert not SIGNER.verify(key_id, odd, *FIELDS)
    assert not SIGNER.verify(key_id, mac, FIELDS[0], odd)
