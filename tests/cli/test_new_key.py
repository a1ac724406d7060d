"""``eyewall new-key`` and ``eyewall keys``: keys change, nobody is signed out, no secret is shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from eyewall import Sessions
from eyewall.cli.main import main
from eyewall.core.opening import keyring_for
from eyewall.crypto.key_file import load_keys
from eyewall.crypto.keyring import Key
from eyewall.settings import Settings
from eyewall.stores.memory import MemoryStore


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "EYEWALL_COOKIE_SECRET",
        "EYEWALL_SECRET_FILE",
        "EYEWALL_BACKEND",
        "EYEWALL_PATH",
        "EYEWALL_URL",
    ):
        monkeypatch.delenv(name, raising=False)


def ids_in(path: Path) -> list[str]:
    """The IDs of the keys in a file, newest first."""
    return [Key(key.secret).id for key in load_keys(path)]


# --- rotation from end to end ----------------------------------------------------------------------------


def started(path: Path, store: MemoryStore) -> Sessions:
    """A server that has just started: it reads the file now, and never again."""
    settings = Settings(backend="memory", secret_file=path)
    sessions = Sessions(settings, store=store)
    sessions.use_keyring(keyring_for(settings))
    return sessions


async def cookie_of_a_new_visitor(sessions: Sessions) -> str:
    """What the browser of somebody who stored something holds."""
    session = sessions.open([], https=False)
    session["n"] = 1
    await sessions.save(session)
    (line,) = sessions.set_cookie_lines(session, https=False)
    return line.partition(";")[0]


async def is_known(sessions: Sessions, cookie: str) -> bool:
    """Whether a browser with this cookie finds its session."""
    session = sessions.open([cookie], https=False)
    await sessions.load(session)
    return bool(session.get("n") == 1)


async def test_rotation_signs_nobody_out_until_the_key_is_dropped(tmp_path: Path) -> None:
    """Whoever fears that a new key signs everybody out keeps one that leaked."""
    path, store = tmp_path / "keys", MemoryStore()
    assert main(["new-key", "--file", str(path)]) == 0
    running = started(path, store)
    old = await cookie_of_a_new_visitor(running)

    assert main(["new-key", "--file", str(path), "--keep", "1"]) == 0
    newest, retired = ids_in(path)
    assert await is_known(running, old)  # not restarted yet
    restarted = started(path, store)
    new = await cookie_of_a_new_visitor(restarted)
    assert f"ew1.{retired}." in old
    assert f"ew1.{newest}." in new
    assert await is_known(restarted, old)
    assert await is_known(restarted, new)

    assert main(["new-key", "--file", str(path), "--keep", "1"]) == 0
    assert retired not in ids_in(path)
    last = started(path, store)
    assert not await is_known(last, old)
    assert await is_known(last, new)


async def test_a_leaked_key_can_be_dropped_at_once(tmp_path: Path) -> None:
    """Whoever has the key can sign in as anybody until it is gone."""
    path, store = tmp_path / "keys", MemoryStore()
    main(["new-key", "--file", str(path)])
    leaked = await cookie_of_a_new_visitor(started(path, store))
    main(["new-key", "--file", str(path), "--keep", "0"])
    assert not await is_known(started(path, store), leaked)


async def test_a_server_knows_its_retired_keys(tmp_path: Path) -> None:
    """An operator asks the server which keys are still in use, by the IDs the command prints."""
    path = tmp_path / "keys"
    for _ in range(3):
        main(["new-key", "--file", str(path)])
    sessions = started(path, MemoryStore())
    assert list(sessions.key_use()) == ids_in(path)[1:]


# --- the commands ----------------------------------------------------------------------------------------


def test_ids_are_printed_and_never_a_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A terminal's scrollback and a CI log are read by many."""
    path = tmp_path / "keys"
    rotation = ["new-key", "--keep", "1"]
    ever: set[str] = set()
    printed = ""
    for words in (rotation, rotation, ["keys"], rotation):
        assert main([*words, "--file", str(path)]) == 0
        shown = capsys.readouterr().out
        assert all(key_id in shown for key_id in ids_in(path))
        ever |= {key.secret.decode() for key in load_keys(path)}
        printed += shown
    assert not any(secret in printed for secret in ever)
    assert len(ever) == 3
    for phrase in ("newest: signs", "retired 20", "dropped ", "restart"):
        assert phrase in printed


def test_the_file_is_the_one_the_server_would_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotating another file than the server's changes nothing, and looks as if it did."""
    assert main(["new-key"]) == 0
    assert keyring_for(Settings()).current.id == ids_in(tmp_path / ".eyewall" / "secret")[0]
    assert stat.S_IMODE((tmp_path / ".eyewall").stat().st_mode) == 0o700
    monkeypatch.setenv("EYEWALL_SECRET_FILE", str(tmp_path / "keys"))
    assert main(["new-key"]) == 0
    assert len(ids_in(tmp_path / "keys")) == len(ids_in(tmp_path / ".eyewall" / "secret")) == 1


def test_the_secret_of_a_first_start_is_rotated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever began without deciding anything must not sign everybody out by deciding."""
    first = keyring_for(Settings()).current.id
    assert main(["new-key"]) == 0
    assert ids_in(tmp_path / ".eyewall" / "secret")[1] == first
    assert "not noted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"EYEWALL_COOKIE_SECRET": "Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0wE"},
            "put a new secret and a comma",
        ),
        (
            {"EYEWALL_BACKEND": "redis"},
            "redis backend has no secret file of its own; name one with --file",
        ),
    ],
)
def test_where_no_file_is_read_none_is_made(
    variables: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A key in a file that nobody reads looks like a rotation."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for command in ("new-key", "keys"):
        assert main([command]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("keys",), "there is no secret file"),
        (("new-key", "--keep", "-1"), "keep=-1 is out of range"),
        (("new-key", "--file", "/dev/null/keys"), "cannot be made or read"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A traceback where a sentence would do."""
    assert main(words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
