"""The session cookie's value: one spelling, and nothing else costs more than a look at its length."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.signer import Signer

NAME: Final = "__Host-session"
SIGNER: Final = SessionCookieSigner(KeyRing.from_secret("Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"))
SESSION_ID: Final = "q4_xLxxSUSpSBe-tDetjLZ1ZyLFc81qORWsq6wkFi0s"
VALUE: Final = SIGNER.issue(NAME, SESSION_ID)


def test_no_character_of_a_value_can_be_another() -> None:
    """A second spelling of a cookie passes for another one, wherever cookies are compared or counted."""
    assert SIGNER.read(NAME, VALUE) == SESSION_ID
    for place, character in enumerate(VALUE):
        for other in "Aa0-_.=+/ \0\x7f\xa0é\u2000\ud800":
            if other != character:
                assert SIGNER.read(NAME, f"{VALUE[:place]}{other}{VALUE[place + 1 :]}") is None


def test_no_dot_can_stand_elsewhere() -> None:
    """Characters that move from one field to the next make an ID that nobody has issued."""
    _, key_id, session_id, mac = VALUE.split(".")
    for moved in (
        f"ew1.{key_id}{session_id[0]}.{session_id[1:]}.{mac}",
        f"ew1.{key_id[:-1]}.{key_id[-1]}{session_id}.{mac}",
        f"ew1.{key_id}.{session_id}{mac[0]}.{mac[1:]}",
        f"ew1.{key_id}.{session_id[:-1]}.{session_id[-1]}{mac}",
        f"ew1{key_id[0]}.{key_id[1:]}.{session_id}.{mac}",
        "." * len(VALUE),
        f"{VALUE[:-3]}...",
        "ew1." * (len(VALUE) // 4),
    ):
        assert len(moved) == len(VALUE)
        assert SIGNER.read(NAME, moved) is None


@given(st.text(st.characters(exclude_categories=()), min_size=100, max_size=100))
def test_any_text_of_the_right_length_is_simply_not_ours(text: str) -> None:
    """An exception here is a 500 that any visitor can cause."""
    assert SIGNER.read(NAME, text) is None
    assert SIGNER.read(NAME, f"ew1.{text[:8]}.{text[8:51]}.{text[51:94]}") is None


@pytest.mark.parametrize(
    "wrong",
    [VALUE[:-1], f"{VALUE}A", "", f"ew1.{'A' * 8}.{'A' * 60_000}.{'A' * 43}"],
    ids=["shorter", "longer", "empty", "huge"],
)
def test_a_value_of_another_length_costs_no_mac(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of long values in one request hold the event loop."""
    signed: list[object] = []
    monkeypatch.setattr(Signer, "verify", lambda *asked: signed.append(asked))
    assert SIGNER.read(NAME, wrong) is None
    assert signed == []
