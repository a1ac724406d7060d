"""The sealer: what we did not seal, or sealed for something else, never opens, and nothing can be read."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import urlsafe_b64encode
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.crypto.keyring import Key, KeyRing
from eyewall.crypto.sealer import Sealer, _decoded, token_length
from eyewall.crypto.signer import Signer

SECRET: Final = b"Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0wE"
OLDER: Final = b"mR8cX2bN6vL0zQ4wE9tY3uI7oP1aS5dF"
PURPOSE: Final = "test values"
CONTEXT: Final = ("__Host-session", "1")
PLAIN: Final = b"the cart holds 3 canaries"

SEALER: Final = Sealer(KeyRing.from_secret(SECRET), PURPOSE)
FROZEN: Final = "ewx1.r1LqlEjI.AAECAwQFBgcICQoLUlphKsbXPhBVsbHZhDXBKYd1xBpJq0-bGpAA8WKllIPXwxsprJJL3I0"
FROZEN_BYTES: Final = bytes.fromhex(
    "657778312e72314c716c456a492e000102030405060708090a0b525a612ac6d73e1055b1b1d98435"
    "c1298775c41a49ab4f9b1a9000f162a59483d7c31b29ac924bdc8d"
)

any_text: Final = st.text(st.characters(exclude_categories=()))  # lone surrogates too
any_context: Final = st.lists(any_text, max_size=4)


def test_a_token_sealed_by_the_first_release_still_opens() -> None:
    """Wire format: another layout, associated data or sub-key would sign everybody out."""
    assert SEALER.open(FROZEN, *CONTEXT) == PLAIN
    assert SEALER.open_bytes(FROZEN_BYTES, *CONTEXT) == PLAIN


def test_a_token_is_laid_out_as_documented() -> None:
    """Secret scanners look for the prefix, and cookies are cut by the length foretold."""
    token = SEALER.seal(PLAIN, *CONTEXT)
    form, key_id, body = token.split(".")
    assert (form, key_id) == ("ewx1", Key(SECRET).id)
    assert body.replace("-", "").replace("_", "").isalnum()
    assert len(SEALER.seal_bytes(PLAIN)) == len(PLAIN) + 42


@given(st.binary(max_size=300), any_context)
def test_what_was_sealed_opens(plaintext: bytes, context: list[str]) -> None:
    """A sealer that refuses its own token signs everybody out."""
    token = SEALER.seal(plaintext, *context)
    assert SEALER.open(token, *context) == plaintext
    assert len(token) == token_length(len(plaintext))
    assert SEALER.open_bytes(SEALER.seal_bytes(plaintext, *context), *context) == plaintext


def test_no_bit_of_a_sealed_value_can_be_changed() -> None:
    """One position that is not covered is a place to change somebody's principal."""
    blob = SEALER.seal_bytes(PLAIN, *CONTEXT)
    for place in range(len(blob)):
        for bit in range(8):
            bent = bytearray(blob)
            bent[place] ^= 1 << bit
            assert SEALER.open_bytes(bytes(bent), *CONTEXT) is None


def test_no_character_of_a_token_can_be_changed() -> None:
    """As above, for the text; its last character has bits to spare, which must not give a second spelling."""
    token = SEALER.seal(PLAIN, *CONTEXT)
    for place, own in enumerate(token):
        for other in "AQgw-_9 +/=.\0é\ud800".replace(own, ""):
            assert SEALER.open(token[:place] + other + token[place + 1 :], *CONTEXT) is None


def test_every_truncation_and_extension_is_refused() -> None:
    """A proxy that cuts headers must not make half a session."""
    token, blob = SEALER.seal(PLAIN, *CONTEXT), SEALER.seal_bytes(PLAIN, *CONTEXT)
    for end in range(len(token)):
        assert SEALER.open(token[:end], *CONTEXT) is None
    for end in range(len(blob)):
        assert SEALER.open_bytes(blob[:end], *CONTEXT) is None
    for more in ("A", "=", "==", " ", "\n", "\0", ".", "AAAA", token):
        assert SEALER.open(token + more, *CONTEXT) is None
        assert SEALER.open(more + token, *CONTEXT) is None
    assert SEALER.open_bytes(blob + b"\0", *CONTEXT) is None


@given(st.binary(max_size=9), st.text("AQgwBEz09-_+/= \n\0é", max_size=12))
def test_base64_has_one_spelling(body: bytes, text: str) -> None:
    """Padding, the other alphabet, stray bits and line ends would give a token any number of spellings."""
    spelt = urlsafe_b64encode(body).rstrip(b"=").decode()
    assert _decoded(spelt) == body
    decoded = _decoded(text)
    assert decoded is None or urlsafe_b64encode(decoded).rstrip(b"=").decode() == text
    for end in range(len(spelt)):
        bent = spelt[:end] + text + spelt[end:]
        assert (_decoded(bent) != body) or bent == spelt


def test_nothing_of_the_plaintext_shows() -> None:
    """The reason to seal: neither a dump, a log nor the browser's owner reads what is inside."""
    canary = b"canary-7f3a" * 20
    blob, token = SEALER.seal_bytes(canary, *CONTEXT), SEALER.seal(canary, *CONTEXT)
    for start in range(len(canary) - 4):
        piece = canary[start : start + 4]
        assert piece not in blob
        assert piece.decode() not in token
        assert urlsafe_b64encode(canary[start : start + 6]).decode() not in token
    assert CONTEXT[0] not in token


def test_a_nonce_never_comes_twice() -> None:
    """Two messages under one nonce can be told to be equal; 100 000 draws would show a poor generator."""
    nonces = {SEALER.seal_bytes(b"")[14:26] for _ in range(100_000)}
    assert len(nonces) == 100_000
    for place in range(12):  # and every byte of it varies
        assert len({nonce[place] for nonce in nonces}) == 256


@pytest.mark.parametrize(
    "context",
    [(), ("session", "1"), ("__Host-session",), ("__Host-session", "2"), ("__Host-session1", ""), ("1",) * 3],
)
def test_a_value_of_another_cookie_is_refused(context: tuple[str, ...]) -> None:
    """A preference cookie renamed to the session's must not sign anybody in (Laravel 2020)."""
    assert SEALER.open(SEALER.seal(PLAIN, *CONTEXT), *context) is None
    assert SEALER.open(SEALER.seal(PLAIN, *context), *CONTEXT) is None


@given(st.lists(st.text("a1:", max_size=4), max_size=4), st.lists(st.text("a1:", max_size=4), max_size=4))
def test_no_character_moves_between_context_fields(one: list[str], other: list[str]) -> None:
    """Without lengths ("ab", "c") would be ("a", "bc"); made of the framing's own characters."""
    assert (SEALER.open(SEALER.seal(PLAIN, *one), *other) == PLAIN) == (one == other)


def test_a_value_sealed_for_another_purpose_is_refused() -> None:
    """A sealed link must not become a session, nor a purpose slip into the context."""
    for purpose, context in (("links", CONTEXT), ("test", (" values", *CONTEXT)), ("", (PURPOSE, *CONTEXT))):
        other = Sealer(KeyRing.from_secret(SECRET), purpose)
        assert SEALER.open(other.seal(PLAIN, *context), *CONTEXT) is None
        assert other.open(SEALER.seal(PLAIN, *CONTEXT), *context) is None


def test_a_value_sealed_with_another_secret_is_refused_under_any_key_id() -> None:
    """The key's ID is public; naming ours proves nothing."""
    foreign = Sealer(KeyRing.from_secret(OLDER), PURPOSE).seal(PLAIN, *CONTEXT)
    assert SEALER.open(foreign, *CONTEXT) is None
    for key_id in (Key(SECRET).id, "", "AAAAAAAA"):
        assert SEALER.open(f"ewx1.{key_id}.{foreign.split('.')[2]}", *CONTEXT) is None


def test_rotation_loses_nothing_until_the_old_key_is_dropped() -> None:
    """Changing the secret must be routine, or nobody does it (Flask CVE-2025-47278)."""
    before = Sealer(KeyRing.from_secret(OLDER), PURPOSE)
    during = Sealer(KeyRing.from_secret({1: OLDER, 2: SECRET}), PURPOSE)
    old, new = before.seal(PLAIN), during.seal(PLAIN)
    assert (during.open(old), during.open(new)) == (PLAIN, PLAIN)
    assert (during.is_current(old), during.is_current(new)) == (False, True)
    assert (SEALER.open(old), SEALER.open(new)) == (None, PLAIN)
    assert not during.is_current(before.seal_bytes(PLAIN))
    assert during.is_current(during.seal_bytes(PLAIN))


def test_the_old_keys_value_under_the_new_keys_name_is_refused() -> None:
    """Else a leaked old key would be as good as the new one."""
    ring = Sealer(KeyRing.from_secret({1: OLDER, 2: SECRET}), PURPOSE)
    old = Sealer(KeyRing.from_secret(OLDER), PURPOSE).seal(PLAIN)
    assert ring.open(old.replace(Key(OLDER).id, Key(SECRET).id)) is None


@pytest.mark.parametrize(
    "foreign",
    [
        json.dumps({"principal": "root"}),
        urlsafe_b64encode(PLAIN).decode(),
        "2|1:0|10:1700000000|7:session|4:cm9vdA==|" + "0" * 64,
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0.",
        "gAAAAABh" + "A" * 92,
        f"ew1.{Key(SECRET).id}.{'A' * 43}.{'A' * 43}",
        f"ewx0.{Key(SECRET).id}.{'A' * 80}",
        f"ewx1.{Key(SECRET).id}.{'A' * 80}",
        f"EWX1.{Key(SECRET).id}.{'A' * 80}",
        PLAIN.decode(),
    ],
)
def test_no_other_format_is_accepted(foreign: str) -> None:
    """A fallback after a failed decryption lets everybody write their own (Rack CVE-2026-39324)."""
    assert SEALER.open(foreign, *CONTEXT) is None
    assert SEALER.open_bytes(foreign.encode(), *CONTEXT) is None


def test_a_signature_is_not_made_with_the_sealing_key() -> None:
    """One key under two algorithms is what proofs of either do not cover."""
    ring = KeyRing.from_secret(SECRET)
    key_id, mac = Signer(ring, PURPOSE).sign("x")
    assert (key_id, mac) != Signer(ring, f"sealer/{PURPOSE}").sign("x")
    assert SEALER.open(f"ewx1.{key_id}.{mac}") is None


@given(any_text, any_context)
def test_no_text_a_client_sends_raises_or_opens(text: str, context: list[str]) -> None:
    """An exception here is a 500 that any visitor can cause."""
    assert SEALER.open(text, *context) is None
    assert SEALER.open(FROZEN[:14] + text, *context) is None
    assert SEALER.open_bytes(text.encode("utf-8", "surrogatepass"), *context) is None
    assert not SEALER.is_current(text.removeprefix("ewx1"))


@pytest.mark.parametrize("odd", ["", "\0", "\ud800", "é" * 43, "\N{SNOWMAN}", "A" * 100_000])
def test_odd_text_in_any_place_is_simply_text(odd: str) -> None:
    """As above, with the texts that break comparing, encoding and decoding."""
    token = SEALER.seal(PLAIN, odd)
    assert SEALER.open(token, odd) == PLAIN
    assert SEALER.open(token, odd + "?") is None
    assert SEALER.open(odd, *CONTEXT) is None
    assert SEALER.open(token[:14] + odd, odd) is None


@given(st.binary(max_size=200))
def test_no_bytes_a_store_returns_raise_or_open(blob: bytes) -> None:
    """As above, for whoever writes to the store."""
    assert SEALER.open_bytes(blob) is None
    assert SEALER.open_bytes(FROZEN_BYTES[:14] + blob) is None


def test_a_missing_library_is_named_with_its_extra() -> None:
    """Whoever turns encryption on must read what to install, at start and not at the first visitor."""
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from eyewall.crypto.keyring import Key, KeyRing\n"
        "from eyewall.crypto.sealer import Sealer\n"
        "from eyewall.errors import MissingDriverError\n"
        "try: Sealer(KeyRing([Key(bytes(32))]), 'x')\n"
        "except MissingDriverError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pip install 'eyewall[encryption]'" in done.stdout
