"""The example of the signed cookie: the walk of client and forger, as printed and by other hands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.examples.program import EXAMPLES, Program, environment

EXAMPLE = EXAMPLES / "signed_cookie.py"


def test_the_walk_recognises_the_client_and_no_forgery(tmp_path: Path) -> None:
    """Harm: the page that teaches signed cookies shows one that can be forged, or is not recognised."""
    done = subprocess.run(
        [sys.executable, EXAMPLE], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert re.search(r"1\. first visit: +Hello, stranger\.", done.stdout)
    assert re.search(
        r"Set-Cookie: +technobeans=ew1s\.[\w-]{8}\.[\w-]+\.[\w-]{43}; Max-Age=2592000;", done.stdout
    )
    assert re.search(r"2\. cookie back: +Welcome back, known since 20\d\d-", done.stdout)
    tried = re.search(r"(\d+) of (\d+) changed characters made a stranger", done.stdout)
    assert tried is not None
    assert tried[1] == tried[2]
    assert int(tried[1]) > 100


def test_other_changes_to_the_value_make_strangers_too(tmp_path: Path) -> None:
    """Harm: the forger of the example tries one change per character, and another one would have passed."""
    with Program(str(EXAMPLE), "--serve", folder=tmp_path) as program, httpx2.Client() as client:
        url = f"{program.url}/user/"
        client.get(url)
        assert client.get(url).text.startswith("Welcome back")
        value = client.cookies["technobeans"]
        assert visit(client, url, value).startswith("Welcome back")
        for position, character in enumerate(value):
            for bent in {chr(ord(character) ^ 1), "_", ""} - {character}:
                changed = value[:position] + bent + value[position + 1 :]
                assert visit(client, url, changed) == "Hello, stranger.", (position, bent)


def visit(client: httpx2.Client, url: str, value: str) -> str:
    """Send ``value`` as the only cookie and return the answer."""
    client.cookies.clear()
    return client.get(url, headers={"Cookie": f"technobeans={value}"}).text


@pytest.mark.parametrize("missing", ["", "technobeans=", "technobeans", "Technobeans=ew1s.a.b.c"])
def test_no_cookie_is_a_stranger_too(missing: str, tmp_path: Path) -> None:
    """Harm: absence is an error, or somebody."""
    with Program(str(EXAMPLE), "--serve", folder=tmp_path) as program:
        answer = httpx2.get(f"{program.url}/user/", headers={"Cookie": missing})
    assert answer.text == "Hello, stranger."
