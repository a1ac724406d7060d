"""Secrets: the guessable are refused, and every random one is taken."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.crypto.secret import check_secret
from eyewall.errors import WeakSecretError

PUBLISHED: Final = (
    "__TODO:_GENERATE_YOUR_OWN_RANDOM_VALUE_HERE__",
    "61oETzKXQAGaYdkL5gEmGeJJFuYh7EQnp2XdTP1o/Vo=",
    "11oETzKXQAGaYdkL5gEmGeJJFuYh7EQnp2XdTP1o/Vo=",
    "61oETzKXQAGaYdkL5gEmGeJJFuYh7EQnp2XdTP1o",
    "L8LwECiNRxq2N0N2eGxx9MZlrpmuMEimlydNX/vt1LM=",
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "django-insecure-8x!k2v)q7w@m4z^r1t#y6u&i9o(p3a*s5d+f0g-h",
    "CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET",
    "YOUR_OWN_RANDOM_GENERATED_SECRET_KEY",
    "\x02\x01thisismyscretkey\x01\x02\\e\\y\\y\\h\\\\\\\\\\\\\\\\",
    "a-string-secret-at-least-256-bits-long",
    "your-256-bit-secret your-256-bit-secret",
    "my-super-secret-cookie-secret-key-please-change",
    "super-secret-key-super-secret-key",
    "CorrectHorseBatteryStaple-CorrectHorse",
    "correct horse battery staple 12345",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "qwertyuiopasdfghjklzxcvbnm1234567890",
)


@pytest.mark.parametrize("value", PUBLISHED)
def test_a_published_secret_is_refused(value: str) -> None:
    """Attackers try the printed examples first: two of three public Superset servers used theirs."""
    with pytest.raises(WeakSecretError, match=r"secrets\.token_urlsafe"):
        check_secret(value.encode())


@pytest.mark.parametrize("word", ["super-secret-key", "changeme", "keyboard cat", "tornado", "hunter2"])
@pytest.mark.parametrize(
    "stretch",
    [
        lambda word: word * 32,
        lambda word: f"{word}-" * 8,
        lambda word: word.ljust(48, "x"),
        lambda word: word.rjust(48, "0"),
        lambda word: word.ljust(48, "\0"),
        lambda word: word + "1234567890" * 4,
        lambda word: word.upper() + "!" * 40,
    ],
)
def test_a_weak_word_stretched_to_length_is_refused(word: str, stretch: Callable[[str], str]) -> None:
    """Padding satisfies a length check and adds nothing to guess."""
    with pytest.raises(WeakSecretError):
        check_secret(stretch(word).encode())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "0 bytes, 32 are needed"),
        (b"Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0w", "31 bytes, 32 are needed"),
        (bytes(64), "repeats"),
        (b"\xff" * 32, "repeats"),
        (b"ab" * 40, "repeats"),
        (b"a8Kx2mQ" * 10, "repeats"),
        (b"Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0w" * 3, "repeats"),
        (b"Zq3vT7yB1nM5" + b"x" * 30, "repeats"),
        (b"01" * 10 + b"0011010111001010110010101", "repeats"),
        (bytes(range(64)), "counts"),
        (bytes(range(255, 100, -1)), "counts"),
        (b"!\"#$%&'()*+,-./0123456:;<=>?@ABCDEFGHIJ", "counts"),
    ],
)
def test_a_secret_with_little_to_guess_is_refused(value: bytes, reason: str) -> None:
    """Whoever guesses the secret can sign in as anybody, and it leaves no trace."""
    with pytest.raises(WeakSecretError, match=reason):
        check_secret(value)


@pytest.mark.parametrize(
    "form",
    [
        lambda raw: raw,
        base64.urlsafe_b64encode,
        base64.b64encode,
        lambda raw: raw.hex().encode(),
        lambda raw: raw[:16].hex().encode(),
        lambda raw: b"my-super-secret-cookie-key-" + base64.b64encode(raw),
    ],
)
def test_random_secrets_in_every_usual_form_are_accepted(form: Callable[[bytes], bytes]) -> None:
    """A good secret refused once in a thousand starts would teach people to turn the check off."""
    generator = random.Random(20261120)
    for _ in range(2000):
        check_secret(form(generator.randbytes(32)))


@given(st.binary(max_size=80))
def test_the_check_gives_a_verdict_on_any_bytes_and_never_shows_them(value: bytes) -> None:
    """The message of a start that failed is pasted into tickets."""
    try:
        check_secret(value)
    except WeakSecretError as error:
        assert len(value) < 8 or repr(value)[2:-1] not in str(error)  # noqa: PT017 - some values are good
