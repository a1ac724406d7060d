"""Secrets: refuses those that could be guessed."""

from __future__ import annotations

import re
from itertools import groupby, pairwise
from typing import Final

from eyewall.errors import WeakSecretError

MINIMUM_BYTES: Final = 32
"""256 bits, the key length HMAC-SHA256 is made for (RFC 2104 section 3, ASVS 11.2.3)."""

FIX: Final = 'make one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'

# Fragments of secrets that are printed somewhere, in lower case: attackers try these first (two of three
# public Superset servers used its printed default, CVE-2023-27524). A fragment that is a common word must
# be harmless inside a longer good secret, so only what remains beside all fragments counts.
_PUBLISHED: Final = tuple(
    fragment.encode()
    for fragment in (
        # Tornado's documentation, demos, and the tutorials that vary their first digits
        "__todo:_generate_your_own_random_value_here__",
        "__fill_in_random_data_here__",
        "__generate_random_value__",
        "generate_your_own_random_value",
        "oetzkxqagaydkl5gemgejjfuyh7eqnp2xdtp1o/vo=",
        "oetzkxqagaydkl5gemgejjfuyh7eqnp2xdtp1o",
        "l8lwecinrxq2n0n2egxx9mzlrpmumeimlydnx/vt1lm=",
        "bzjc2swbqlkos6gkhn/vb9oxwqt8s0r0krvj5/xj89e=",
        # Flask, Django, FastAPI, Superset, Redash, jwt.io, Express
        "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
        '_5#y2l"f4q8z\n\\xec]/',
        '_5#y2l"f4q8z\\n\\xec]/',
        "a0zr98j/3yx r~xhh!jmn]lwx/,?rt",
        "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
        "thisismyscretkey",
        "change_me_to_a_complex_random_secret",
        "change_me_secret_key",
        "your_own_random_generated_secret_key",
        "thisisasecret_1234",
        "test_non_dev_secret",
        "c292a0a3aa32397cdb050e233733900f",
        "a-string-secret-at-least-256-bits-long",
        "your-256-bit-secret",
        "keyboard cat",
        # What people type
        "correct horse battery staple",
        "correcthorsebatterystaple",
        "qwertyuiop",
        "asdfghjkl",
        "zxcvbnm",
        "abcdefghijklmnopqrstuvwxyz",
        "0123456789abcdef",
        "1234567890",
        "0123456789",
        "replace",
        "insecure",
        "development",
        "production",
        "password",
        "changeme",
        "change",
        "example",
        "default",
        "session",
        "tornado",
        "eyewall",
        "cookie",
        "secret",
        "random",
        "super",
        "value",
        "string",
        "please",
        "your",
        "this",
        "key",
        "my",
        "me",
    )
)
_SEPARATORS: Final = re.compile(rb"[\s_.,:;!?+*#/=-]+")
_COMMITTED: Final = b"django-insecure-"
"""Random, but ``startproject`` wrote it into a file that is under version control (Django's check W009)."""

_UNKNOWN_BYTES: Final = 16
_DISTINCT_BYTES: Final = 8
_FEWEST_RUNS: Final = 24
_TELLING_OVERLAP: Final = 8


def check_secret(value: bytes) -> None:
    """Refuse a secret that could be guessed.

    Args:
        value: the secret. It never appears in the error.

    Raises:
        WeakSecretError: it is shorter than 32 bytes, repetitive, sequential, or published somewhere (also
            when it was repeated or padded to length). The message says how to make a good one.
    """
    if len(value) < MINIMUM_BYTES:
        raise WeakSecretError(f"the secret has {len(value)} bytes, {MINIMUM_BYTES} are needed; {FIX}")
    if _is_published(value):
        raise WeakSecretError(f"the secret is made of published examples or common words; {FIX}")
    if _is_repetitive(value):
        raise WeakSecretError(f"the secret repeats itself, so few of its bytes are unknown; {FIX}")
    if _is_sequential(value):
        raise WeakSecretError(f"the secret counts up or down, so it is easily guessed; {FIX}")


def _is_published(value: bytes) -> bool:
    rest = value.lower()
    for fragment in _PUBLISHED:
        rest = rest.replace(fragment, b"")
    unknown = _SEPARATORS.sub(b"", rest)
    touched = rest != value.lower()
    return value.startswith(_COMMITTED) or (
        touched and (len(unknown) < _UNKNOWN_BYTES or len(set(unknown)) < _DISTINCT_BYTES)
    )


def _is_repetitive(value: bytes) -> bool:
    """Few different bytes, long runs of one byte (padding), or a short pattern again and again."""
    runs = sum(1 for _ in groupby(value))
    longest_period = min(MINIMUM_BYTES, len(value) - _TELLING_OVERLAP)
    periodic = any(value[period:] == value[:-period] for period in range(1, longest_period))
    return len(set(value)) < _DISTINCT_BYTES or runs < _FEWEST_RUNS or periodic


def _is_sequential(value: bytes) -> bool:
    """Three of four neighbours differ by at most one; in random text fewer than one of three do."""
    steps = sum(1 for left, right in pairwise(value) if abs(left - right) <= 1)
    return steps * 4 > (len(value) - 1) * 3
