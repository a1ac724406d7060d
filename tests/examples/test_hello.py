"""The example of the README: it must work as printed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eyewall.testing.client import Browser
from tests.examples.program import EXAMPLES, environment
from tests.servers.process import free_port

HELLO = EXAMPLES / "hello.py"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Where the example runs; only its port is another one."""
    port = free_port()
    program = tmp_path / "hello.py"
    program.write_text(HELLO.read_text().replace("8888", str(port)))
    with subprocess.Popen([sys.executable, program], cwd=tmp_path, env=environment()) as process:
        yield f"http://127.0.0.1:{port}"
        process.kill()


async def test_it_counts_each_visitor_on_their_own(url: str, tmp_path: Path) -> None:
    """Harm: the first program a newcomer tries does not work."""
    one, other = Browser(url), Browser(url)
    assert await _first_answer(one) == "Visits: 1\n"
    assert (await one.get("/")).body == b"Visits: 2\n"
    assert (await other.get("/")).body == b"Visits: 1\n"
    assert (tmp_path / ".eyewall").is_dir()
    one.close()
    other.close()


async def _first_answer(browser: Browser) -> str:
    """Ask until it listens: this program says nothing when it does."""
    end = time.monotonic() + 20
    while True:
        try:
            return (await browser.get("/")).body.decode()
        except OSError:
            assert time.monotonic() < end


def test_it_is_twenty_lines_or_so() -> None:
    """Harm: the README's promise of a small start grows out of hand."""
    lines = [line for line in HELLO.read_text().splitlines() if line.strip()]
    assert len(lines) <= 20
