"""The secret file: private, whole, agreed upon, and rotated without signing anybody out."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import pytest

from eyewall.crypto.key_file import MAX_KEYS, FileKey, load_keys, load_or_make_keys, rotate_keys
from eyewall.crypto.secret import check_secret
from eyewall.errors import ConfigurationError
from eyewall.settings import Settings

NOW: Final = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
DAY: Final = timedelta(days=1)

# --- a first start ---------------------------------------------------------------------------------------


def test_a_first_start_makes_a_private_secret_that_later_starts_find(tmp_path: Path) -> None:
    """A new secret at each restart signs everybody out; one that others can read signs anybody in."""
    path = tmp_path / "state" / "secret"
    (key,) = load_or_make_keys(path)
    check_secret(key.secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert load_or_make_keys(path) == [key]
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


def test_the_file_is_private_also_under_a_careless_umask(tmp_path: Path) -> None:
    """Some services start with umask 000, and a file is readable from its first moment."""
    before = os.umask(0)
    try:
        load_or_make_keys(tmp_path / "state" / "secret")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state" / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_two_places_have_two_secrets(tmp_path: Path) -> None:
    """A constant that only looks random would be everybody's secret."""
    assert load_or_make_keys(tmp_path / "a") != load_or_make_keys(tmp_path / "b")


def test_the_file_s_text_works_as_the_setting(tmp_path: Path) -> None:
    """Moving to a second machine means copying the text; it must make the same key."""
    (key,) = load_or_make_keys(tmp_path / "secret")
    copied = (tmp_path / "secret").read_text().strip()
    assert Settings(cookie_secret=copied).cookie_secret == key.secret.decode()


RACER: Final = """
import sys
from pathlib import Path
from eyewall.crypto.key_file import load_or_make_keys
sys.stdout.write("ready\\n"); sys.stdout.flush()
for folder in sys.stdin.readline().split():
    (key,) = load_or_make_keys(Path(folder) / "secret")
    print(key.secret.decode())
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
            assert len({keys[0] for keys in pool.map(load_or_make_keys, [path] * 8)}) == 1
        assert [entry.name for entry in path.parent.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    """Any account on the machine could sign in as anybody."""
    path = tmp_path / "secret"
    load_or_make_keys(path)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"chmod 600 {path}"):
        load_or_make_keys(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_secret_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """Its owner planted it, knows it, and could change it."""
    path = tmp_path / "secret"
    load_or_make_keys(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigurationError, match="belongs to user 65534"):
        load_or_make_keys(path)


def test_a_symbolic_link_is_refused_and_not_followed(tmp_path: Path) -> None:
    """A planted link could make us trust, or overwrite, a file somewhere else."""
    load_or_make_keys(tmp_path / "elsewhere")
    for target in ("elsewhere", "nowhere"):
        link = tmp_path / f"to-{target}"
        link.symlink_to(tmp_path / target)
        with pytest.raises(ConfigurationError, match="is a symbolic link; replace it"):
            load_or_make_keys(link)
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
        load_or_make_keys(path)
    assert path.read_bytes() == content


def test_what_is_not_a_file_is_refused_without_waiting(tmp_path: Path) -> None:
    """Opening a FIFO waits for a writer: the application would hang at start."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(ConfigurationError, match=name):
            load_or_make_keys(tmp_path / name)


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """A traceback from the depths does not say that there is a setting instead."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="set EYEWALL_COOKIE_SECRET instead"):
        load_or_make_keys(tmp_path / "file" / "secret")


def test_a_file_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    """An OSError at start tells nobody which setting to mend."""
    (tmp_path / "file").write_text("")
    for act in (load_or_make_keys, lambda path: rotate_keys(path, now=NOW)):
        with pytest.raises(ConfigurationError, match="cannot be made or read"):
            act(tmp_path / "file" / "secret")


# --- rotation --------------------------------------------------------------------------------------------


def test_the_format_of_the_file_never_changes(tmp_path: Path) -> None:
    """A file that an update cannot read signs everybody out."""
    path = tmp_path / "secret"
    newer = "kY7-wq0Zr4Bn_81xTfLs3vHd6GmCe5Ju9pQaWzRt2Xo"
    older = "Tn4vB8cM1xZ6qL0wE3rY7uI2oP5aS9dFgHjK-_kQ1Zs"
    path.write_text(f"{newer} # made 2026-11-20T09:30:00Z\n{older}\n")
    path.chmod(0o600)
    assert load_keys(path) == [FileKey(newer.encode(), NOW), FileKey(older.encode(), None)]


def test_a_rotation_puts_a_new_key_in_front_and_keeps_the_old_ones(tmp_path: Path) -> None:
    """A key that vanishes signs out whoever holds its cookies."""
    path = tmp_path / "state" / "secret"
    (first,) = load_or_make_keys(path)
    second, *rest = rotate_keys(path, now=NOW).keys
    assert rest == [first]
    third = rotate_keys(path, now=NOW + DAY).keys[0]
    assert load_keys(path) == [third, second, first]
    assert [key.made for key in load_keys(path)] == [NOW + DAY, NOW, None]
    assert len({first.secret, second.secret, third.secret}) == 3
    check_secret(third.secret)
    assert load_or_make_keys(path) == load_keys(path)


def test_dates_are_kept_in_utc(tmp_path: Path) -> None:
    """A date an hour off retires a key an hour early."""
    there = timezone(timedelta(hours=5))
    rotate_keys(tmp_path / "secret", now=NOW.astimezone(there))
    assert load_keys(tmp_path / "secret")[0].made == NOW


@pytest.mark.parametrize(("keep", "held"), [(0, 1), (1, 2), (3, 4)])
def test_only_so_many_retired_keys_are_kept(tmp_path: Path, keep: int, held: int) -> None:
    """Every key that verifies is one more that may have leaked; with 0 a leaked one is gone at once."""
    path = tmp_path / "secret"
    for day in range(6):
        before = load_keys(path) if path.exists() else []
        rotation = rotate_keys(path, now=NOW + day * DAY, keep=keep)
        assert [*rotation.keys[1:], *rotation.dropped] == before
    assert len(load_keys(path)) == held


@pytest.mark.parametrize("keep", [-1, MAX_KEYS])
def test_a_number_of_kept_keys_that_makes_no_sense_is_refused(tmp_path: Path, keep: int) -> None:
    """A negative slice would drop the keys that were to stay; too many could not be read back."""
    with pytest.raises(ConfigurationError, match=f"keep={keep} is out of range"):
        rotate_keys(tmp_path / "secret", now=NOW, keep=keep)
    for _ in range(MAX_KEYS + 2):
        rotate_keys(tmp_path / "secret", now=NOW, keep=MAX_KEYS - 1)
    assert len(load_keys(tmp_path / "secret")) == MAX_KEYS


def test_a_rotated_file_is_as_private_as_the_first(tmp_path: Path) -> None:
    """A careless umask must not open the keys at the second writing."""
    path = tmp_path / "secret"
    before = os.umask(0)
    try:
        for _ in range(2):
            rotate_keys(path, now=NOW)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_rotation_refuses_what_a_start_refuses_and_changes_nothing(tmp_path: Path) -> None:
    """Rotating a file somebody planted would make its keys ours."""
    path = tmp_path / "secret"
    rotate_keys(path, now=NOW)
    content = path.read_bytes()
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        rotate_keys(path, now=NOW)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        rotate_keys(tmp_path / "link", now=NOW)
    assert path.read_bytes() == content
    path.chmod(0o600)
    path.write_bytes(b"short\n")
    with pytest.raises(ConfigurationError, match="damaged"):
        rotate_keys(path, now=NOW)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["link", "secret"]


def test_an_interrupted_rotation_leaves_the_old_keys_and_says_so(tmp_path: Path) -> None:
    """A machine that stops half way must not lose keys, and the next rotation must not guess."""
    path = tmp_path / "secret"
    rotate_keys(path, now=NOW)
    content = path.read_bytes()
    (tmp_path / "secret.lock").touch()
    with pytest.raises(ConfigurationError, match=r"secret\.lock exists: another rotation is under way"):
        rotate_keys(path, now=NOW)
    assert path.read_bytes() == content
    (tmp_path / "secret.lock").unlink()
    rotate_keys(path, now=NOW)
    assert len(load_keys(path)) == 2


def test_rotations_at_once_lose_no_key(tmp_path: Path) -> None:
    """A key that signed and then vanished signs out whoever got a cookie meanwhile."""
    path = tmp_path / "secret"
    made: list[FileKey] = []

    def rotate(_: int) -> None:
        try:
            made.append(rotate_keys(path, now=NOW, keep=MAX_KEYS - 1).keys[0])
        except ConfigurationError as error:
            assert "under way" in str(error) or "has just made" in str(error)  # noqa: PT017 - one may win

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rotate, range(12)))
    assert made
    assert {key.secret for key in made} == {key.secret for key in load_keys(path)}


def test_a_secret_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Deleting one of the two lines would retire nothing."""
    path = tmp_path / "secret"
    rotate_keys(path, now=NOW)
    path.write_text(path.read_text() * 2)
    with pytest.raises(ConfigurationError, match="one secret twice"):
        load_keys(path)


@pytest.mark.parametrize("date", ["2026-13-01T00:00:00Z", "yesterday", "2026-11-20"])
def test_a_date_that_is_none_is_refused_by_its_line(tmp_path: Path, date: str) -> None:
    """An operator who edits by hand finds the line, and the message repeats no secret."""
    path = tmp_path / "secret"
    rotate_keys(path, now=NOW)
    path.write_text(path.read_text().replace("2026-11-20T09:30:00Z", date))
    with pytest.raises(ConfigurationError, match="line 1 has a date") as caught:
        load_keys(path)
    assert path.read_text()[:43] not in str(caught.value)


def test_no_text_form_of_a_key_shows_its_secret(tmp_path: Path) -> None:
    """A repr ends up in tracebacks, and tracebacks in tickets."""
    rotation = rotate_keys(tmp_path / "secret", now=NOW)
    assert rotation.keys[0].secret.decode() not in repr(rotation)


def test_a_file_that_is_missing_is_not_made_by_reading(tmp_path: Path) -> None:
    """Each server of a group would make one of its own, and refuse the others' cookies."""
    with pytest.raises(ConfigurationError, match="make it with: eyewall new-key --file"):
        load_keys(tmp_path / "secret")
    assert list(tmp_path.iterdir()) == []
