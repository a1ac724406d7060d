"""Keys and key rings: rotation signs nobody out, and no key does two jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.crypto.key_use import Use
from eyewall.crypto.keyring import Key, KeyRing, hkdf_sha256
from eyewall.errors import ConfigurationError, WeakSecretError

SECRET: Final = b"Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0wE"
OLDER: Final = b"mR8cX2bN6vL0zQ4wE9tY3uI7oP1aS5dF"
OLDEST: Final = b"hK1jL5gF9dS3aP7oI2uY6tR0eW4qZ8xC"


# --- wire format: changing any of these values signs everybody out ---------------------------------------


def test_the_key_id_and_sub_keys_of_a_secret_never_change() -> None:
    """Another derivation would make every cookie out there foreign, and sign everybody out."""
    key = Key(SECRET)
    assert key.id == "r1LqlEjI"
    assert (
        key.derive("session cookie").hex()
        == "e26a2d70c5d0664616fc7bb03112ad06aa97717e88d70de495b4055d103f3f54"
    )
    assert (
        key.derive("sealed session").hex()
        == "6615a739d8742d3f44adcd773b6d86d379c5251fc9b94314c284e68570a271d9"
    )


@pytest.mark.parametrize(
    ("secret", "salt", "info", "length", "output"),
    [
        (
            "0b" * 22,
            "000102030405060708090a0b0c",
            "f0f1f2f3f4f5f6f7f8f9",
            42,
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            bytes(range(0x50)).hex(),
            bytes(range(0x60, 0xB0)).hex(),
            bytes(range(0xB0, 0x100)).hex(),
            82,
            (
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c"
                "59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71"
                "cc30c58179ec3e87c14c01d5c1f3434f1d87"
            ),
        ),
        (
            "0b" * 22,
            "",
            "",
            42,
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ],
)
def test_hkdf_gives_the_outputs_of_rfc_5869(
    secret: str, salt: str, info: str, length: int, output: str
) -> None:
    """A home-made derivation that is almost HKDF has nobody's proof behind it (appendix A.1 to A.3)."""
    made = hkdf_sha256(
        bytes.fromhex(secret), salt=bytes.fromhex(salt), info=bytes.fromhex(info), length=length
    )
    assert made.hex() == output


# --- keys -----------------------------------------------------------------------------------------------


@given(st.text(), st.text())
def test_each_purpose_has_a_sub_key_of_its_own(purpose: str, other: str) -> None:
    """What proves one thing must prove nothing else (Laravel 2020)."""
    key = Key(SECRET)
    assert (key.derive(purpose) == key.derive(other)) == (purpose == other)
    assert key.derive(purpose) != SECRET
    assert len(key.derive(purpose)) == 32


def test_two_secrets_share_neither_id_nor_sub_key() -> None:
    """Old cookies would be checked with the wrong key, or forged with the other one."""
    assert Key(SECRET).id != Key(OLDER).id
    assert Key(SECRET).derive("p") != Key(OLDER).derive("p")


def test_no_text_form_shows_a_secret() -> None:
    """A repr ends up in tracebacks, and tracebacks in tickets."""
    shown = f"{Key(SECRET)!r} {KeyRing.from_secret({1: SECRET, 2: OLDER})!r}"
    assert SECRET.decode() not in shown
    assert OLDER.decode() not in shown
    assert Key(SECRET).id in shown


# --- the ring -------------------------------------------------------------------------------------------


def test_a_key_keeps_its_id_wherever_it_stands_in_the_ring() -> None:
    """IDs by position would make old cookies point at the wrong key after each rotation."""
    before = KeyRing.from_secret(OLDER)
    after = KeyRing.from_secret({1: OLDER, 2: SECRET})
    found = after.find(before.current.id)
    assert found is not None
    assert found.derive("p") == before.current.derive("p")


def test_the_highest_version_is_current_whatever_the_order() -> None:
    """Signing with the oldest key would make dropping it sign everybody out (Flask CVE-2025-47278)."""
    ring = KeyRing.from_secret({2: OLDER, 3: SECRET, 1: OLDEST})
    assert [key.id for key in ring] == [Key(SECRET).id, Key(OLDER).id, Key(OLDEST).id]
    assert ring.current.id == Key(SECRET).id
    assert len(ring) == 3


def test_tornados_key_version_decides_which_key_is_current() -> None:
    """A key is handed to all processes first and signs later; Tornado has a setting for that."""
    ring = KeyRing.from_secret({1: OLDER, 2: SECRET}, key_version=1)
    assert ring.current.id == Key(OLDER).id
    assert ring.find(Key(SECRET).id) is not None


def test_a_key_version_beside_a_single_secret_changes_nothing() -> None:
    """Tornado allows it too: the version then only labels the cookie."""
    assert KeyRing.from_secret(SECRET, key_version=7).current.id == Key(SECRET).id


def test_a_dropped_key_is_not_found() -> None:
    """Dropping a key that leaked must end what was signed with it."""
    assert KeyRing.from_secret(SECRET).find(Key(OLDER).id) is None


def test_text_and_its_bytes_are_one_secret() -> None:
    """The same value from the environment and from a file must not make two keys."""
    assert KeyRing.from_secret(SECRET.decode()).current.id == KeyRing.from_secret(SECRET).current.id


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        ({1: SECRET, 2: SECRET.decode()}, {}, "one secret under two versions"),
        ({}, {}, "at least one secret"),
        ({1: SECRET}, {"key_version": 2}, r"key_version=2 is not in cookie_secret, which has \[1\]"),
        ({"1": SECRET}, {}, "versions must be whole numbers"),
        ({True: SECRET}, {}, "versions must be whole numbers"),
        ({1: SECRET, 2: None}, {}, r"version 2\) must be text or bytes"),
        (None, {}, "must be text or bytes"),
        (7, {}, "must be text or bytes"),
        ([SECRET], {}, "must be text or bytes"),
        ("", {"check": False}, "must be text or bytes and not empty"),
        ("\ud800" * 32, {}, "characters that are not text"),
    ],
)
def test_a_ring_that_makes_no_sense_is_refused(value: Any, options: dict[str, Any], message: str) -> None:
    """A wrong key ring found at the first sign-in is found by a user."""
    with pytest.raises(ConfigurationError, match=message):
        KeyRing.from_secret(value, **options)


def test_a_weak_retired_secret_is_refused_too() -> None:
    """All keys verify, so whoever guesses a retired one can sign."""
    with pytest.raises(WeakSecretError, match=r"version 1"):
        KeyRing.from_secret({1: b"secret" * 8, 2: SECRET})


def test_tests_may_use_a_weak_secret_on_purpose() -> None:
    """An application's own tests need not carry a good secret around."""
    assert len(KeyRing.from_secret("test", check=False)) == 1


# --- which retired keys are still used -------------------------------------------------------------------


def test_uses_of_retired_keys_are_counted_and_nothing_else() -> None:
    """Without a count nobody dares to drop a key; with an entry per unknown ID, strangers fill the memory."""
    moments = iter(datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2))
    ring = KeyRing.from_secret({3: SECRET, 2: OLDER, 1: OLDEST})
    use = ring.count_uses(lambda: next(moments))
    for key_id in (Key(OLDER).id, ring.current.id, "Unknown1", Key(OLDER).id):
        ring.note_use(key_id)
    assert use.by_key() == {
        Key(OLDER).id: Use(2, datetime(2026, 11, 2, tzinfo=UTC)),
        Key(OLDEST).id: Use(0, None),
    }


def test_a_ring_that_nobody_watches_counts_nothing() -> None:
    """A tool that only reads a cookie must not have to care."""
    KeyRing.from_secret(SECRET).note_use(Key(SECRET).id)


def test_lines_of_a_file_are_newest_first() -> None:
    """Signing with the oldest key would make dropping it sign everybody out."""
    ring = KeyRing.from_lines([SECRET, OLDER], place="keys")
    assert [key.id for key in ring] == [Key(SECRET).id, Key(OLDER).id]
    with pytest.raises(WeakSecretError, match="keys, line 2"):
        KeyRing.from_lines([SECRET, b"secret" * 8], place="keys")
