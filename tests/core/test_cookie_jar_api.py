"""The jar's values come back as they were set, or not at all."""

from __future__ import annotations

import string
from base64 import urlsafe_b64decode
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from time import process_time
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyewall.core.cookie_values import PLAIN_MARK
from eyewall.core.signed_envelope import SignedEnvelope
from eyewall.core.stamped_values import StampedValues
from eyewall.crypto.keyring import KeyRing
from tests.core.exchange import MANNERS, NEW, OTHER, TEXTS, TOKENS, Exchange, value_of

TYPED = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=10)
    | st.binary(max_size=10)
    | st.decimals(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


# -- plain values -----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(name=TOKENS, value=TEXTS)
def test_any_text_is_read_back_exactly_as_it_was_set(name: str, value: str) -> None:
    """Harm: a city called São Paulo, or a value with a percent sign, comes back as something else."""
    exchange = Exchange()
    exchange.end(exchange.jar().set(name, value))
    assert exchange.jar().get(name) == value


@settings(deadline=None)
@given(value=st.text(string.ascii_letters + string.digits + string.punctuation.replace(";", ""), max_size=40))
def test_what_others_set_is_read_as_it_is(value: str) -> None:
    """Harm: a script's cookie 100%25, or one in quotes, is bent by a decoding it never asked for."""
    if value.startswith(PLAIN_MARK):
        return
    assert Exchange().jar(f"a={value}").get("a") == value


def test_text_a_script_set_beyond_ascii_is_read_as_utf8() -> None:
    """Harm: document.cookie = "city=São" arrives as mojibake."""
    as_tornado_shows_it = "city=São".encode().decode("latin-1")
    assert Exchange().jar(as_tornado_shows_it).get("city") == "São"
    assert Exchange().jar("city=\xe3\xff").get("city") == "\xe3\xff"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("dark", "dark"),
        ("", ""),
        ("a=b&c:d/100%25", "a=b&c:d/100%25"),
        ("São Paulo", "ew1p.S%C3%A3o%20Paulo"),
        ('say "hi"; go, now\\', "ew1p.say%20%22hi%22%3B%20go%2C%20now%5C"),
        ("100% sure", "ew1p.100%25%20sure"),
        ("ew1p.dark", "ew1p.ew1p.dark"),
        ("\r\nSet-Cookie: a=b\0", "ew1p.%0D%0ASet-Cookie:%20a=b%00"),
    ],
)
def test_the_plain_format_is_frozen(value: str, sent: str) -> None:
    """Harm: a new version of Eyewall no longer understands the cookies that browsers hold."""
    exchange = Exchange()
    (line,) = exchange.end(exchange.jar().set("c", value))
    assert line == f"c={sent}; Path=/; Secure; HttpOnly; SameSite=Lax"


@pytest.mark.parametrize(
    "foreign", ["ew1p.%zz", "ew1p.%2", "ew1p.%ff", "ew1p.%61", "ew1p.a,b", "ew1p.%c3%a3"]
)
def test_a_marked_value_we_would_not_have_written_is_left_as_it_is(foreign: str) -> None:
    """Harm: a planted value raises in every request of its victim, or has two spellings."""
    assert Exchange().jar(f"c={foreign}").get("c") == foreign


def test_of_several_plain_cookies_of_a_name_the_most_specific_is_read() -> None:
    """Harm: the cookie of / hides the one of /shop; browsers send the longest path first."""
    assert Exchange().jar("theme=shop; theme=site").get("theme") == "shop"
    assert Exchange().jar("theme=one", "theme=two").get("theme") == "one"


def test_a_missing_cookie_is_the_default() -> None:
    """Harm: a first visit fails."""
    jar = Exchange().jar("Theme=dark; xtheme=dark; theme ")
    assert jar.get("theme") is None
    assert jar.get("theme", "light") == "light"
    assert jar.signed.get("theme", "light") == "light"
    assert jar.encrypted.get("theme", 1) == 1


def test_reading_sees_what_the_request_brought() -> None:
    """Harm: half of a handler works with a value that no browser has confirmed yet."""
    jar = Exchange().jar("theme=dark")
    assert jar.set("theme", "light").get("theme") == "dark"


# -- signed and encrypted values --------------------------------------------------------------------------


@pytest.mark.parametrize("manner", MANNERS)
@settings(max_examples=40, deadline=None)
@given(name=TOKENS, value=TYPED)
def test_typed_values_come_back_equal_and_of_the_same_type(manner: str, name: str, value: Any) -> None:
    """Harm: a number comes back as text, a Decimal price as a float."""
    exchange = Exchange()
    exchange.end(getattr(exchange.jar(), manner).set(name, value))
    found = getattr(exchange.jar(), manner).get(name, "nothing")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        date(2026, 1, 2),
        datetime(2026, 1, 2, tzinfo=UTC),
        timedelta(1),
        UUID(int=5),
        Decimal("1.10"),
        {1},
        (1, "a"),
    ],
)
def test_the_types_of_session_data_are_kept(value: object) -> None:
    """Harm: what a session can hold, a cookie cannot."""
    exchange = Exchange()
    exchange.end(exchange.jar().signed.set("v", value).encrypted.set("w", value))
    assert exchange.jar().signed.get("v") == exchange.jar().encrypted.get("w") == value


def test_the_signed_format_is_frozen() -> None:
    """Harm: an update voids every signed cookie in the world."""
    exchange = Exchange()
    (line,) = exchange.end(exchange.jar().signed.set("visit", {"n": 1}, max_age=60))
    assert line == SIGNED_LINE
    assert Exchange().jar(line.partition(";")[0]).signed.get("visit") == {"n": 1}


def test_the_signed_format_keeps_what_is_not_the_default() -> None:
    """Harm: a re-issued cookie is another one than the browser has, and both are sent from then on."""
    exchange = Exchange()
    jar = exchange.jar().signed.set(
        "v", 1, path="/a", domain="shop.example", httponly=False, samesite="Strict"
    )
    (line,) = exchange.end(jar)
    assert line == SIGNED_LINE_WITH_OPTIONS


def test_an_encrypted_value_of_today_still_opens() -> None:
    """Harm: an update voids every encrypted cookie in the world."""
    assert Exchange().jar(f"price={ENCRYPTED_VALUE}").encrypted.get("price") == Decimal("12.50")


def test_the_browser_can_read_a_signed_value_and_not_an_encrypted_one() -> None:
    """Harm: a cost price is in plain sight, or a signed cookie is sold as a secret."""
    exchange = Exchange()
    signed, encrypted = exchange.end(
        exchange.jar().signed.set("a", "cost price 17").encrypted.set("b", "cost price 17")
    )
    assert b"cost price 17" in _decoded(value_of(signed))
    assert b"cost price 17" not in _decoded(value_of(encrypted))


@pytest.mark.parametrize("manner", MANNERS)
def test_every_byte_of_a_token_flipped_makes_it_nothing(manner: str) -> None:
    """Harm: one bent character is accepted, and with luck and time so is another one."""
    exchange = Exchange()
    (line,) = exchange.end(getattr(exchange.jar(), manner).set("v", 7))
    token = value_of(line)
    for position, character in enumerate(token):
        for bent in {chr(ord(character) ^ 1), chr(ord(character) ^ 32), "A", ""} - {character}:
            changed = token[:position] + bent + token[position + 1 :]
            assert getattr(exchange.jar(f"v={changed}"), manner).get("v") is None, (position, bent)


@pytest.mark.parametrize("manner", MANNERS)
@settings(deadline=None)
@given(noise=st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_noise_is_a_value_or_an_error(manner: str, noise: str) -> None:
    """Harm: whoever sends bytes causes a 500."""
    exchange = Exchange()
    prefix = {"signed": "ew1s", "encrypted": "ewx1"}[manner]
    for text in (
        noise,
        f"{prefix}.{noise}",
        f"{prefix}.{NEW.id}.{noise}",
        f"{prefix}.{NEW.id}.{noise}.{'A' * 43}",
    ):
        assert getattr(exchange.jar(f"v={text}"), manner).get("v") is None


@pytest.mark.parametrize("manner", MANNERS)
def test_a_value_moved_to_another_cookie_manner_or_application_is_nothing(manner: str) -> None:
    """Harm: "newsletter=yes" is moved to the cookie "admin"."""
    exchange = Exchange()
    (line,) = exchange.end(getattr(exchange.jar(), manner).set("newsletter", "yes"))
    token = value_of(line)
    other = {"signed": "encrypted", "encrypted": "signed"}[manner]
    assert getattr(exchange.jar(f"admin={token}"), manner).get("admin") is None
    assert getattr(exchange.jar(f"newsletter={token}"), other).get("newsletter") is None
    exchange.use(OTHER)
    assert getattr(exchange.jar(f"newsletter={token}"), manner).get("newsletter") is None


def test_a_value_signed_for_another_purpose_is_nothing() -> None:
    """Harm: any text the application ever signed under a cookie's name can be replayed as that cookie."""
    exchange = Exchange()
    foreign = StampedValues(SignedEnvelope(KeyRing([NEW]), "confirmation"), exchange.clock)
    token = foreign.encode("user", "root", 60, {})
    assert exchange.jar(f"user={token}").signed.get("user") is None


def test_a_plain_value_is_never_taken_for_a_signed_or_encrypted_one() -> None:
    """Harm: turning signing on changes nothing for whoever goes on sending plain text."""
    jar = Exchange().jar("user=root; user2=cm9vdA")
    assert jar.signed.get("user") is None
    assert jar.encrypted.get("user2") is None


def test_two_valid_values_of_a_name_are_none_and_junk_beside_one_is_passed_over() -> None:
    """Harm: a sibling subdomain plants its own valid value, or hides ours behind a bad one."""
    exchange = Exchange()
    tokens = [value_of(exchange.end(exchange.jar().signed.set("u", user))[0]) for user in ("ann", "bob")]
    assert exchange.jar(f"u=junk; u={tokens[0]}; u={tokens[0]}").signed.get("u") == "ann"
    assert exchange.jar(f"u={tokens[0]}; u={tokens[1]}").signed.get("u") is None


def test_a_long_header_full_of_near_tokens_costs_linear_time() -> None:
    """Harm: 64 KB of cookies buys a second of our time (CVE-2026-52804's kind)."""
    exchange = Exchange()
    pair = f"v=ew1s.{NEW.id}.AAAA.{'A' * 43}; "

    def seconds(size: int) -> float:
        line = pair * (size // len(pair))
        began = process_time()
        assert exchange.jar(line).signed.get("v") is None
        assert exchange.jar(line).encrypted.get("v") is None
        return process_time() - began

    times = [min(seconds(size) for _ in range(5)) for size in (16_000, 32_000, 64_000)]
    assert times[-1] < 0.05
    assert all(later < 4 * earlier + 0.002 for earlier, later in pairwise(times))


def _decoded(token: str) -> bytes:
    body = token.split(".")[2]
    return urlsafe_b64decode(body + "=" * (-len(body) % 4))


SIGNED_LINE = (
    "visit=ew1s.Dp2ezNgK.hKFpzmlWYcChZc5pVmH8oXaBoW4BoW3D.2ilcnZko89DRpbvy5qkWV60LuFL3AqnORjs3OVT8phc; "
    "Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"
)
SIGNED_LINE_WITH_OPTIONS = (
    "v=ew1s.Dp2ezNgK.h6FpzmlWYcChZc5pf0BAoXYBoXCiL2GhZKxzaG9wLmV4YW1wbGWhaMKheKZTdHJpY3Q."
    "2wzbBS0ou6A02mcIrEHCwaZKb5hwBB9ae7RhAhuAdMY; Path=/a; Domain=shop.example; Secure; SameSite=Strict"
)
ENCRYPTED_VALUE = "ewx1.Dp2ezNgK.vgOPIM9XjiQqp6CqpxwlGV8LW5C175N8bdIXcSm6fAt43ejgUIOwszR02g8pmhEKwaHDp-39UAk"
