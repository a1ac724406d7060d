"""The servers' own fixtures: an overlooked skip, or a server left behind, spoils every other test."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers import fixtures
from tests.servers.process import MissingServerError
from tests.servers.resp import Valkey9

DIES_WITH_A_SERVER_RUNNING = """
import os, signal
from tests.servers.resp import Valkey9
print(Valkey9().start().pids[0], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


class Missing(Valkey9):
    """A server that nobody has."""

    brought_by = "apt-get install -y nothing"

    def prepare(self) -> None:
        raise MissingServerError(self.name, self.brought_by)


@pytest.fixture(autouse=True)
def missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a kind of server that is not installed, and forget what the environment says."""
    monkeypatch.setitem(fixtures.KINDS, "missing", Missing)
    monkeypatch.delenv("EYEWALL_REQUIRE_SERVERS", raising=False)


def test_a_missing_server_skips_and_says_what_would_bring_it() -> None:
    """A skip without a reason is taken for a pass."""
    with pytest.raises(pytest.skip.Exception, match="apt-get install -y nothing"):
        fixtures.started("missing")


def test_a_missing_server_fails_where_all_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the release run nothing may go untested."""
    monkeypatch.setenv("EYEWALL_REQUIRE_SERVERS", "all")
    with pytest.raises(pytest.fail.Exception, match="apt-get install -y nothing"):
        fixtures.started("missing")


def test_a_server_can_be_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the server already need not install another, and does not want it killed."""
    monkeypatch.setenv("EYEWALL_TEST_MISSING_URL", "redis://somewhere")
    server = fixtures.started("missing")
    assert server.url == "redis://somewhere"
    for use in ("kill", "port", "ask"):
        with pytest.raises(pytest.skip.Exception, match="lent"):
            getattr(server, use)()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child when its parent dies")
def test_a_killed_test_run_leaves_no_server_behind(valkey9: Valkey9, tmp_path: Path) -> None:
    """Servers that outlive their tests fill the machine."""
    assert valkey9.pids
    program = [sys.executable, "-c", DIES_WITH_A_SERVER_RUNNING]
    surroundings = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(program, env=surroundings, capture_output=True, check=False, timeout=30)
    status = Path(f"/proc/{int(done.stdout)}/status")
    deadline = time.monotonic() + 5
    while status.exists() and "State:\tZ" not in status.read_text():
        assert time.monotonic() < deadline, "the server lives on"
        time.sleep(0.01)
