"""The remember cookie: whatever we did not make is refused before the store is asked."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.ids import new_session_id
from eyewall.core.session_cookie import SessionCookieSigner
from eyewall.crypto.keyring import KeyRing
from eyewall.signin.remember import RememberTokens
from eyewall.signin.remember_cookie import PresentedToken, RememberCookieSigner
from eyewall.testing.clock import ManualClock

COOKIE = "__Host-remember"
LIFE = timedelta(days=30)
SECRET = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"
OLDER = "hT5rW8yU1iO4pA7sD0fG3jK6lZ9xC2vBnMqEwQd"


class Untouchable:
    """A store that nothing may be asked of."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the store was asked to {name}")


def unasked(secret: Any = SECRET) -> RememberTokens:
    """Tokens whose store must not be asked."""
    store: Any = Untouchable()
    return RememberTokens(store, ManualClock(), KeyRing.from_secret(secret), LIFE)


def genuine(cookie_name: str = COOKIE, secret: str = SECRET) -> str:
    """A value with a good MAC."""
    token = PresentedToken(secrets.token_urlsafe(16), secrets.token_urlsafe(32))
    return RememberCookieSigner(KeyRing.from_secret(secret)).issue(cookie_name, token)


def of_another_purpose() -> str:
    """A session's MAC under a token's shape."""
    _, key_id, session_id, mac = (
        SessionCookieSigner(KeyRing.from_secret(SECRET)).issue(COOKIE, new_session_id()).split(".")
    )
    return f"ewr1.{key_id}.{session_id[:22]}.{session_id}.{mac}"


def altered(field: int) -> str:
    """A genuine value with another last character in one of its fields."""
    fields = genuine().split(".")
    fields[field] = fields[field][:-1] + ("A" if fields[field][-1] != "A" else "E")
    return ".".join(fields)


@pytest.mark.parametrize(
    "value",
    [
        genuine(secret=OLDER),
        genuine("remember"),
        of_another_purpose(),
        SessionCookieSigner(KeyRing.from_secret(SECRET)).issue(COOKIE, new_session_id()),
        *(altered(field) for field in range(5)),
        genuine() + " ",
        genuine() + "\n",
        genuine() + "=",
        " " + genuine(),
        genuine().upper(),
        "",
        "ewr1....",
        "\0" * 200,
        "A" * 100_000,
    ],
    ids=lambda value: value[:12].encode("unicode_escape").decode(),
)
def test_value_not_ours_is_refused_without_asking_the_store(value: str) -> None:
    """Made-up cookies must cost microseconds, not a look-up each (ASVS 11.2.4)."""
    assert unasked().read(COOKIE, [value]) is None


def test_one_genuine_value_among_strangers_is_read() -> None:
    """A forged cookie planted beside the real one would sign its owner out."""
    value = genuine()
    assert unasked().read(COOKIE, [altered(3), value, value, "x"]) == unasked().read(COOKIE, [value])
    assert unasked().read(COOKIE, [value]) is not None


def test_of_two_genuine_values_neither_is_used() -> None:
    """An attacker who plants their own token would have the victim work in their account (cookie tossing)."""
    assert unasked().read(COOKIE, [genuine(), genuine()]) is None


@given(st.lists(st.text(st.characters(codec=None, exclude_categories=()))), st.integers(0, 130), st.text())
def test_no_value_makes_reading_raise(values: list[str], place: int, put_in: str) -> None:
    """One odd byte in a cookie must not be a 500 until the browser's user finds out how to delete it."""
    value = genuine()
    spoilt = value[:place] + put_in + value[place + len(put_in) :]
    read = unasked().read(COOKIE, [*values, spoilt])
    assert (read is not None) == (spoilt == value)


def test_cookie_format_is_frozen() -> None:
    """A changed format signs out everybody who asked to be remembered."""
    signer = RememberCookieSigner(KeyRing.from_secret(SECRET))
    token = PresentedToken("s" * 22, "v" * 43)
    value = (
        "ewr1.iyAuHWVU.ssssssssssssssssssssss.vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv"
        ".LgbFU0dWtCGrVUGz3wNL1wPUTxywfkkWUKTHuM4tuAQ"
    )
    assert signer.issue(COOKIE, token) == value
    assert signer.read(COOKIE, [value]) == token
