"""The example of the price: the browser carries what it cannot read."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest_asyncio

from eyewall.testing.client import Browser
from tests.examples.program import EXAMPLES, Program
from tests.servers.process import free_port


@pytest_asyncio.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    """A browser that has the example open."""
    program = Program(str(EXAMPLES / "price.py"), folder=tmp_path)
    program.port = free_port()
    with program, closing(Browser(program.url)) as browser:
        yield browser


async def basket(browser: Browser, **headers: str) -> Any:
    """What the page says."""
    return json.loads((await browser.get("/basket", headers=headers)).body)


async def add(browser: Browser, product: str) -> int:
    """Add one product; return the status."""
    return (await browser.post_form("/basket", {"product": product}, navigate=False)).code


async def test_the_basket_is_priced_from_what_only_the_server_can_read(browser: Browser) -> None:
    """Harm: the margin of the shop is in plain sight."""
    assert [await add(browser, product) for product in ("keyboard", "lamp")] == [201, 201]
    assert await basket(browser) == {
        "items": [{"product": "keyboard", "price": "49.92"}, {"product": "lamp", "price": "14.24"}],
        "total": "64.16",
    }
    (cookie,) = browser.jar.cookies
    body = cookie.value.split(".")[2]
    carried = urlsafe_b64decode(body + "=" * (-len(body) % 4)) + cookie.value.encode()
    for secret in (b"31.20", b"8.90", b"keyboard"):
        assert secret not in carried


async def test_a_changed_basket_is_an_empty_one(browser: Browser) -> None:
    """Harm: a customer bends the price, if not by reading then by luck."""
    await add(browser, "hub")
    (cookie,) = browser.jar.cookies
    for position in range(len(cookie.value)):
        bent = "B" if cookie.value[position] == "A" else "A"
        changed = cookie.value[:position] + bent + cookie.value[position + 1 :]
        assert (await basket(browser, Cookie=f"basket={changed}"))["items"] == []


async def test_a_full_basket_says_so_and_keeps_what_it_held(browser: Browser) -> None:
    """Harm: the browser drops a cookie over 4 KB, and the basket with it."""
    while await add(browser, "keyboard") == 201:
        pass
    assert await add(browser, "keyboard") == 413
    assert len((await basket(browser))["items"]) > 50
    assert browser.jar.rejected == []


async def test_the_basket_can_be_emptied(browser: Browser) -> None:
    """Harm: it cannot."""
    await add(browser, "hub")
    await browser.request("DELETE", "/basket")
    assert browser.jar.cookies == []


async def test_an_unknown_product_is_refused(browser: Browser) -> None:
    """Harm: a 500 for whoever edits the form."""
    assert await add(browser, "yacht") == 400
