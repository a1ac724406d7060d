"""An operator sees the sessions of one principal and can end them all."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from eyewall.core.ids import shortened
from eyewall.core.record import Device
from eyewall.core.store import utc_now
from eyewall.testing.check_kit import new_record
from tests.cli.command import eyewall, file_url, fill, kept, sqlite_url


@pytest.fixture(params=[file_url, sqlite_url])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that is not there yet."""
    make: Callable[[Path], str] = request.param
    return make(tmp_path / "sessions")


def test_list_shows_each_session_with_its_times_and_device(url: str, tmp_path: Path) -> None:
    """Who asks "was that me?" needs place and time; the last used comes first."""
    now = utc_now()
    early = new_record(utc_now, principal="alice", seen_at=now - timedelta(minutes=5))
    late = new_record(
        utc_now,
        principal="alice",
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        device=Device("Firefox", "2001:db8::1"),
    )
    marker = new_record(utc_now, principal="alice", successor=secrets.token_bytes(32))
    fill(url, early, late, marker, new_record(utc_now, principal="bob"))
    answer = eyewall("list", "alice", "--url", url, folder=tmp_path)
    assert answer.code == 0, answer.err
    _, first, second = answer.out.splitlines()
    assert first.startswith(f"{shortened(late.digest)}  2026-01-02 03:04:05  {now:%Y-%m-%d}")
    assert first.endswith("Firefox (2001:db8::1)")
    assert second.startswith(shortened(early.digest))


def test_list_prints_nothing_that_could_be_used_as_a_session(url: str, tmp_path: Path) -> None:
    """The whole digest finds the record in a dump; the payload is nobody's business."""
    record = new_record(utc_now, principal="alice", payload=b"s3cr3t-payload")
    fill(url, record)
    answer = eyewall("list", "alice", folder=tmp_path, EYEWALL_URL=url)
    assert answer.code == 0, answer.err
    assert record.digest.hex() not in answer.out
    assert "s3cr3t" not in answer.out + answer.err


def test_user_agent_cannot_command_the_terminal(url: str, tmp_path: Path) -> None:
    """An escape sequence in a header would clear the operator's screen or forge lines of the list."""
    agent = "Evil\x1b[2J\r\n0123456789ab  forged \u202e\u2603" + "x" * 400
    fill(url, new_record(utc_now, principal="alice", device=Device(agent, "")))
    answer = eyewall("list", "alice", "--url", url, folder=tmp_path)
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == 2
    assert "\x1b" not in answer.out
    assert "\\u2603" in answer.out
    assert len(answer.out.splitlines()[1]) < 200


def test_list_of_nobody_says_so(url: str, tmp_path: Path) -> None:
    """Silence would be taken for a failure."""
    fill(url, new_record(utc_now, principal="alice"))
    answer = eyewall("list", "mallory", "--url", url, folder=tmp_path)
    assert (answer.code, answer.out) == (0, "no live session of mallory\n")


def test_revoke_ends_all_sessions_of_one_principal_only(url: str, tmp_path: Path) -> None:
    """A locked account must be out everywhere, and nobody else."""
    hers = [new_record(utc_now, principal="alice") for _ in range(3)]
    his = new_record(utc_now, principal="bob")
    fill(url, *hers, his)
    answer = eyewall("revoke", "alice", "--url", url, folder=tmp_path)
    assert (answer.code, answer.out) == (0, "3 sessions of alice ended\n"), answer.err
    assert kept(url, *hers, his) == [None, None, None, his]


@pytest.mark.parametrize("command", [("list", "alice"), ("revoke", "alice"), ("sweep",)])
def test_wrong_store_is_one_line_and_exit_2(command: tuple[str, ...], tmp_path: Path) -> None:
    """A typing error must not look like "nobody is signed in"."""
    wrong = {
        "memory://": "inside the process",
        "gopher://x": "--url",
        file_url(tmp_path / "typo"): "no folder",
    }
    for url, reason in wrong.items():
        answer = eyewall(*command, "--url", url, folder=tmp_path)
        assert answer.code == 2
        assert reason in answer.err
        assert answer.err.count("\n") == 1
        assert answer.out == ""
    assert not (tmp_path / "typo").exists()


def test_store_that_fails_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """A script must be able to tell an outage from a wrong setting."""
    (tmp_path / "damaged.db").write_bytes(b"this is no database" * 100)
    answer = eyewall("revoke", "alice", "--url", sqlite_url(tmp_path / "damaged.db"), folder=tmp_path)
    assert answer.code == 1, answer
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err
