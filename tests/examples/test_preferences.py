"""The example of the preferences: set, read and clear two cookies, as in any tutorial's chapter."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from eyewall.testing.client import Browser
from tests.examples.program import EXAMPLES, Program
from tests.servers.process import free_port


@pytest_asyncio.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser that has the example open."""
    program = Program(str(EXAMPLES / "preferences.py"), folder=tmp_path)
    program.port = free_port()
    with program, closing(Browser(program.url)) as browser:
        yield browser


async def home(browser: Browser, **headers: str) -> Any:
    """What the page says."""
    return json.loads((await browser.get("/", headers=headers)).body)


async def test_preferences_are_set_read_and_cleared(browser: Browser) -> None:
    """Harm: the theme is forgotten, or cannot be forgotten."""
    assert await home(browser) == {"theme": "light", "greeting": "Hello"}
    saved = await browser.post_json("/preferences", {"theme": "dark", "language": "pt"})
    assert saved.headers.get_list("Set-Cookie") == [
        "theme=dark; Max-Age=31536000; Path=/; SameSite=Lax",
        "language=pt; Max-Age=31536000; Path=/; HttpOnly; SameSite=Lax",
    ]
    assert await home(browser) == {"theme": "dark", "greeting": "Olá"}
    await browser.post("/clear-preferences")
    assert browser.jar.cookies == []
    assert browser.jar.rejected == []
    assert await home(browser) == {"theme": "light", "greeting": "Hello"}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b'{"theme": "<script>"}', b'{"language": []}', b"[" * 9999]
)
async def test_bad_preferences_set_nothing(browser: Browser, body: bytes) -> None:
    """Harm: whoever sends bytes causes a 500, or chooses what stands in other people's cookies."""
    answer = await browser.post("/preferences", body)
    assert answer.code == 400
    assert browser.jar.cookies == []


async def test_what_the_browser_says_is_not_trusted(browser: Browser) -> None:
    """Harm: a cookie changed by hand is written into the page."""
    said = await home(browser, Cookie="theme=<script>alert(1)</script>; language=xx")
    assert said == {"theme": "light", "greeting": "Hello"}
