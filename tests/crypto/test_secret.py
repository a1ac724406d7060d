"""Secrets: the guessable are refused, and the made one is private, whole and agreed upon."""

from __future__ import annotations

import base64
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.secret import check_secret, load_or_create_secret
from eyewall.errors import ConfigurationError, WeakSecretError

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


# --- the secret file ------------------------------------------------------------------------------------


def test_a_first_start_makes_a_private_secret_that_later_starts_find(tmp_path: Path) -> None:
    """A new secret at each restart signs everybody out; one that others can read signs anybody in."""
    path = tmp_path / "state" / "secret"
    secret = load_or_create_secret(path)
    check_secret(secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_or_create_secret(path) == secret
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_the_file_is_private_also_under_a_careless_umask(tmp_path: Path) -> None:
    """Some services start with umask 000, and a file is readable from its first moment."""
    before = os.umask(0)
    try:
        load_or_create_secret(tmp_path / "state" / "secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_two_places_have_two_secrets(tmp_path: Path) -> None:
    """A constant that only looks random would be everybody's secret."""
    assert load_or_create_secret(tmp_path / "a") != load_or_create_secret(tmp_path / "b")


def test_the_file_s_text_works_as_the_setting(tmp_path: Path) -> None:
    """Moving to a second machine means copying the text; it must make the same key."""
    secret = load_or_create_secret(tmp_path / "secret")
    copied = (tmp_path / "secret").read_text().strip()
    assert KeyRing.from_secret(copied).current.id == KeyRing.from_secret(secret).current.id


RACER: Final = """
import sys
from pathlib import Path
from eyewall.crypto.secret import load_or_create_secret
sys.stdout.write("ready\\n"); sys.stdout.flush()
for folder in sys.stdin.readline().split():
    print(load_or_create_secret(Path(folder) / "secret").decode())
"""


def test_processes_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    """With two secrets every other request would find its visitor signed out."""
    folders = [str(tmp_path / str(number)) for number in range(100)]
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    with ThreadPoolExecutor(2) as starters:
        outputs = list(starters.map(lambda racer: racer.communicate(" ".join(folders))[0], racers))
    first, second = (output.split() for output in outputs)
    assert first == second
    assert len(set(first)) == len(folders)


def test_threads_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    """As with processes; and nobody may ever read a half-written secret."""
    for number in range(50):
        path = tmp_path / str(number) / "secret"
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(load_or_create_secret, [path] * 8))) == 1
        assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Any account on the machine could sign in as anybody."""
    path = tmp_path / "secret"
    load_or_create_secret(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        load_or_create_secret(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_secret_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Its owner planted it, knows it, and could change it."""
    path = tmp_path / "secret"
    load_or_create_secret(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to user 65534"):
        load_or_create_secret(path)


def test_a_symbolic_link_is_refused_and_not_followed(tmp_path: Path) -> None:
    """A planted link could make us trust, or overwrite, a file somewhere else."""
    load_or_create_secret(tmp_path / "elsewhere")
    for target in ("elsewhere", "nowhere"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(ConfigurationError, match="is a symbolic link; replace it"):
            load_or_create_secret(link)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"short",
        b"A" * 42,
        b"A" * 44,
        b"\0" * 43,
        b"A" * 43 + b"\nmore",
        "ä".encode() * 43,
        b"x" * 9999,
    ],
)
def test_a_damaged_secret_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    """Replacing it in silence would sign everybody out; half of it could be guessed."""
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="empty or damaged; restore it"):
        load_or_create_secret(path)
    assert path.read_bytes() == content


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """Opening a FIFO waits for a writer: the application would hang at start."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(ConfigurationError, match=name):
            load_or_create_secret(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """A traceback from the depths does not say that there is a setting instead."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="set EYEWALL_COOKIE_SECRET instead"):
        load_or_create_secret(tmp_path / "file" / "secret")
