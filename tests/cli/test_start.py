"""What a program of ours does when the store that it is told to use is not right, or not there."""

from __future__ import annotations

import http.client
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.examples.pair import SECRET
from tests.examples.program import DEMO, LAB, Program, environment
from tests.servers.process import free_port

PROGRAMS = {"demo": ("eyewall", DEMO), "lab": ("lab", LAB)}


def start_in_vain(words: tuple[str, ...], folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Start a program that is to end by itself."""
    return subprocess.run(
        [sys.executable, *words, "--port", "0"],
        cwd=folder,
        env=environment(EYEWALL_URL=url, EYEWALL_COOKIE_SECRET=SECRET),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def wrong_urls(redis: Any, postgres: Any) -> dict[str, str]:
    """Return addresses that a person must mend, by what is wrong with them."""
    return {
        "turns us away": f"redis://127.0.0.1:{redis.port}/99",
        "create the database": f"{postgres.url.rpartition('/')[0]}/nowhere",
        "check its name": "mongodb://no-such-host.invalid/",
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_wrong_address_is_one_line_and_exit_2(
    name: str, tmp_path: Path, valkey9: Any, postgres: Any
) -> None:
    """Harm: the program starts, and the first visitor finds out."""
    speaker, words = PROGRAMS[name]
    for said, url in wrong_urls(valkey9, postgres).items():
        done = start_in_vain(words, tmp_path, url)
        assert done.returncode == 2
        assert said in done.stderr
        assert done.stderr.startswith(f"{speaker}: ")
        assert done.stderr.count("\n") == 1
        assert done.stdout == "", "it must not say that it listens"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_server_that_is_not_up_yet_is_warned_of_in_one_line(name: str, tmp_path: Path) -> None:
    """Harm: after a power cut the database comes up second, and the application not at all."""
    url = f"redis://127.0.0.1:{free_port()}/0"
    _, words = PROGRAMS[name]
    with Program(*words, folder=tmp_path, EYEWALL_URL=url, EYEWALL_COOKIE_SECRET=SECRET) as program:
        assert program.errors.startswith("eyewall: serving without sessions until the store answers: Redis")
        assert program.errors.count("\n") == 1
        connection = http.client.HTTPConnection("127.0.0.1", program.port)
        connection.request("GET", "/public")
        assert connection.getresponse().status in (200, 404)  # it serves; the shop has no such page
        connection.close()
