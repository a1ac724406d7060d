"""The shopping cart as a client without a page sees it, as a real process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from eyewall.testing.client import Browser
from tests.examples.program import DEMO, Program

KEYBOARD = {"product_id": 1, "name": "Wireless Keyboard", "price": 79.99}
STAND = {"product_id": 3, "name": "Monitor Stand", "price": 129.99}

# The commands as the chapter prints them; only the port is replaced.
ADD_KEYBOARDS = """curl -X POST http://localhost:7145/cart/add \\
-H "Content-Type: application/json" \\
-d '{"product_id": 1, "quantity": 2}' \\
-c cookies.txt -b cookies.txt"""
ADD_STAND = """curl -X POST http://localhost:7145/cart/add \\
-H "Content-Type: application/json" \\
-d '{"product_id": 3, "quantity": 1}' \\
-c cookies.txt -b cookies.txt"""
VIEW = "curl http://localhost:7145/cart/api -b cookies.txt"
UPDATE = """curl -X POST http://localhost:7145/cart/update \\
-H "Content-Type: application/json" \\
-d '{"product_id": 1, "quantity": 3}' \\
-c cookies.txt -b cookies.txt"""
REMOVE = """curl -X POST http://localhost:7145/cart/remove \\
-H "Content-Type: application/json" \\
-d '{"product_id": 3}' \\
-c cookies.txt -b cookies.txt"""
CLEAR = "curl -X POST http://localhost:7145/cart/clear -c cookies.txt -b cookies.txt"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One running shop for the whole file; each test is a visitor of its own."""
    with Program(*DEMO, folder=tmp_path_factory.mktemp("shop")) as program:
        yield program


@pytest.fixture
async def visitor(shop: Program) -> AsyncIterator[Browser]:
    """A browser nobody has seen before."""
    browser = Browser(shop.url)
    yield browser
    browser.close()


def curl(command: str, shop: Program, folder: Path) -> tuple[int, Any]:
    """Run a curl command; return the status and the JSON that came."""
    (folder / ".curlrc").write_text('write-out = "\\n%{http_code}"\n')
    done = subprocess.run(
        ["sh", "-c", command.replace(":7145", f":{shop.port}")],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "CURL_HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


async def cart_of(visitor: Browser) -> Any:
    """Return what /cart/api says."""
    return json.loads((await visitor.get("/cart/api")).body)


def test_the_chapters_commands_work_as_printed(shop: Program, tmp_path: Path) -> None:
    """Harm: what the chapter teaches does not work here."""
    assert curl(ADD_KEYBOARDS, shop, tmp_path) == (
        201,
        {"message": "Added Wireless Keyboard", "cart": [{**KEYBOARD, "quantity": 2}]},
    )
    assert curl(ADD_STAND, shop, tmp_path) == (
        201,
        {
            "message": "Added Monitor Stand",
            "cart": [{**KEYBOARD, "quantity": 2}, {**STAND, "quantity": 1}],
        },
    )
    assert curl(VIEW, shop, tmp_path) == (
        200,
        {
            "cart": [
                {**KEYBOARD, "quantity": 2, "line_total": 159.98},
                {**STAND, "quantity": 1, "line_total": 129.99},
            ],
            "grand_total": 289.97,
            "item_count": 3,
        },
    )
    assert curl(UPDATE, shop, tmp_path) == (
        200,
        {"message": "Cart updated", "cart": [{**KEYBOARD, "quantity": 3}, {**STAND, "quantity": 1}]},
    )
    assert curl(REMOVE, shop, tmp_path) == (
        200,
        {"message": "Removed Monitor Stand", "cart": [{**KEYBOARD, "quantity": 3}]},
    )
    assert curl(CLEAR, shop, tmp_path) == (200, {"message": "Cart cleared", "cart": []})
    assert curl(VIEW, shop, tmp_path) == (200, {"cart": [], "grand_total": 0, "item_count": 0})


def test_adding_again_increments_and_says_so(shop: Program, tmp_path: Path) -> None:
    """Harm: a second line for the same product."""
    curl(ADD_KEYBOARDS, shop, tmp_path)
    status, answer = curl(ADD_KEYBOARDS, shop, tmp_path)
    assert status == 200
    assert answer == {"message": "Updated Wireless Keyboard quantity", "cart": [{**KEYBOARD, "quantity": 4}]}


async def test_update_to_zero_removes_the_line(visitor: Browser) -> None:
    """Harm: a line of nothing stays in the cart."""
    await visitor.post_json("/cart/add", {"product_id": 2})
    answer = await visitor.post_json("/cart/update", {"product_id": 2, "quantity": 0})
    assert (answer.code, json.loads(answer.body)) == (200, {"message": "Cart updated", "cart": []})


async def test_whole_numbers_may_come_as_text(visitor: Browser) -> None:
    """Harm: a client that quotes its numbers, as the chapter allowed, is turned away."""
    answer = await visitor.post_json("/cart/add", {"product_id": "2", "quantity": "3"})
    assert answer.code == 201
    assert (await cart_of(visitor))["item_count"] == 3


JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def _product(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


BAD = {
    "unknown product": ("/cart/add", JSON, _product(product_id=99), 404),
    "no product": ("/cart/add", JSON, b"{}", 404),
    "no body": ("/cart/add", JSON, b"", 404),
    "not in the cart": ("/cart/update", JSON, _product(product_id=2, quantity=1), 404),
    "remove what is not there": ("/cart/remove", JSON, _product(product_id=2), 404),
    "remove without a product": ("/cart/remove", JSON, b"{}", 404),
    "nothing of it": ("/cart/add", JSON, _product(product_id=1, quantity=0), 400),
    "less than nothing": ("/cart/add", JSON, _product(product_id=1, quantity=-5), 400),
    "too many": ("/cart/add", JSON, _product(product_id=1, quantity=1000), 400),
    "too many with what is there": ("/cart/add", JSON, _product(product_id=1, quantity=999), 400),
    "update to too many": ("/cart/update", JSON, _product(product_id=1, quantity=1000), 400),
    "not JSON": ("/cart/add", JSON, b"{product_id: 1}", 400),
    "half of it": ("/cart/add", JSON, b'{"product_id": 1', 400),
    "a list": ("/cart/add", JSON, b'[{"product_id": 1}]', 400),
    "null": ("/cart/add", JSON, b"null", 400),
    "text": ("/cart/add", JSON, b'"product_id"', 400),
    "true": ("/cart/add", JSON, _product(product_id=True), 400),
    "true many": ("/cart/add", JSON, _product(product_id=1, quantity=True), 400),
    "list of products": ("/cart/add", JSON, _product(product_id=[1]), 400),
    "object as product": ("/cart/add", JSON, _product(product_id={"a": 1}), 400),
    "null as product": ("/cart/add", JSON, _product(product_id=None), 400),
    "words": ("/cart/add", JSON, _product(product_id=1, quantity="two"), 400),
    "empty text": ("/cart/add", JSON, _product(product_id=1, quantity=""), 400),
    "foreign digits": ("/cart/add", JSON, _product(product_id=1, quantity="²"), 400),
    "digits without end": ("/cart/add", JSON, _product(product_id=1, quantity="9" * 5000), 400),
    "half a piece": ("/cart/add", JSON, _product(product_id=1, quantity=1.5), 400),
    "NaN": ("/cart/add", JSON, b'{"product_id": 1, "quantity": NaN}', 400),
    "infinite": ("/cart/add", JSON, b'{"product_id": 1, "quantity": 1e999}', 400),
    "infinite product": ("/cart/add", JSON, b'{"product_id": -Infinity}', 400),
    "huge": ("/cart/add", JSON, b'{"product_id": 1, "quantity": 1' + b"0" * 4000 + b"}", 400),
    "huger": ("/cart/add", JSON, b'{"product_id": 1, "quantity": 1' + b"0" * 9000 + b"}", 400),
    "huge product": ("/cart/add", JSON, b'{"product_id": 1' + b"0" * 4000 + b"}", 404),
    "deep": ("/cart/add", JSON, b'{"product_id": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    "deep objects": ("/cart/add", JSON, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400),
    "invalid UTF-8": ("/cart/add", JSON, b'{"product_id": "\xff\xfe\x80"}', 400),
    "NUL": ("/cart/add", JSON, b"\0\0\0\0", 400),
    "plain text": ("/cart/add", "text/plain", _product(product_id=1), 415),
    "no type": ("/cart/add", "", _product(product_id=1), 415),
    "XML": ("/cart/add", "application/xml", b"<product>1</product>", 415),
    "JSON said to be a form": ("/cart/add", FORM, _product(product_id=1), 404),
    "form with words": ("/cart/add", FORM, b"product_id=one", 400),
    "form of invalid UTF-8": ("/cart/add", FORM, b"product_id=%ff", 400),
    "broken multipart": ("/cart/add", "multipart/form-data; boundary=x", b"--x\r\nnonsense\r\n--x--", 400),
    "multipart without boundary": ("/cart/add", "multipart/form-data", b"--x--", 400),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
async def test_bad_input_is_refused_and_the_cart_stays(
    visitor: Browser, case: tuple[str, str, bytes, int]
) -> None:
    """Harm: bytes of a stranger cause a 500, or change the cart."""
    path, kind, body, status = case
    accepted = (400, 404) if "multipart" in kind else (status,)  # Tornado before 6.5 reads those as empty
    await visitor.post_json("/cart/add", {"product_id": 1})
    before = await cart_of(visitor)
    answer = await visitor.post(path, body, headers={"Content-Type": kind})
    assert answer.code in accepted
    assert answer.headers["Content-Type"].startswith(JSON)
    assert list(json.loads(answer.body)) == ["error"]
    assert await cart_of(visitor) == before


async def test_a_body_without_end_is_cut(shop: Program, visitor: Browser) -> None:
    """Harm: one request fills the memory."""
    await visitor.post_json("/cart/add", {"product_id": 1})
    with contextlib.suppress(OSError, HTTPClientError):  # cut while we were sending
        answer = await visitor.post("/cart/add", b" " * 2_000_000, headers={"Content-Type": JSON})
        assert 400 <= answer.code < 500 or answer.code == 599  # cut before the answer came
    assert (await cart_of(visitor))["item_count"] == 1


def test_bad_input_leaves_no_traceback(shop: Program) -> None:
    """Harm: a stranger fills the log."""
    assert "Traceback" not in shop.errors


async def test_bad_input_of_a_stranger_stores_nothing(visitor: Browser) -> None:
    """Harm: senders of nonsense fill the store with sessions."""
    for accept in ("*/*", "text/html"):
        answer = await visitor.post_json("/cart/add", {"product_id": 99}, headers={"Accept": accept})
        assert (answer.code, answer.headers.get_list("Set-Cookie")) == (404, [])


async def test_looking_stores_nothing(visitor: Browser) -> None:
    """Harm: every crawler leaves a session behind."""
    for path in ("/", "/cart", "/cart/api"):
        answer = await visitor.get(path, follow=True)
        assert (answer.code, answer.headers.get_list("Set-Cookie")) == (200, [])


@pytest.mark.parametrize("path", ["/cart/add", "/cart/update", "/cart/remove", "/cart/clear"])
async def test_a_link_changes_nothing(visitor: Browser, path: str) -> None:
    """Harm: an image of another site empties the cart."""
    assert (await visitor.get(path)).code == 405


async def test_thirty_parallel_adds_lose_none(shop: Program, visitor: Browser) -> None:
    """Harm: a customer clicks quickly and gets fewer than they asked for."""
    assert (await visitor.post_json("/cart/add", {"product_id": 4, "quantity": 1})).code == 201
    tabs = [Browser(shop.url, jar=visitor.jar) for _ in range(29)]
    answers = await asyncio.gather(*[tab.post_json("/cart/add", {"product_id": 4}) for tab in tabs])
    assert {answer.code for answer in answers} == {200}
    assert (await cart_of(visitor))["item_count"] == 30
    for tab in tabs:
        tab.close()


async def test_parallel_adds_through_two_processes_lose_none(tmp_path: Path) -> None:
    """Harm: what holds in one process breaks behind a load balancer."""
    data = ("--data", str(tmp_path / "shared"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        Program(*DEMO, *data, folder=tmp_path / "one") as one,
        Program(*DEMO, *data, folder=tmp_path / "two") as two,
    ):
        visitor = Browser(one.url)
        await visitor.post_json("/cart/add", {"product_id": 5})
        tabs = [Browser(shop.url, jar=visitor.jar) for shop in (one, two) for _ in range(10)]
        answers = await asyncio.gather(*[tab.post_json("/cart/add", {"product_id": 5}) for tab in tabs])
        assert {answer.code for answer in answers} == {200}
        assert (await cart_of(visitor))["item_count"] == 21
        for browser in (visitor, *tabs):
            browser.close()


async def test_what_was_answered_survives_kill_9(tmp_path: Path) -> None:
    """Harm: a crash empties carts that customers were told were filled."""
    with Program(*DEMO, folder=tmp_path) as shop:
        visitor = Browser(shop.url)
        await visitor.post_json("/cart/add", {"product_id": 1, "quantity": 2})
        shop.kill()
        shop.start()
        assert (await cart_of(visitor))["item_count"] == 2
        visitor.close()


async def test_many_changes_by_api_pile_up_nothing(visitor: Browser) -> None:
    """Harm: messages nobody reads fill the session until it is too large to save."""
    for turn in range(120):
        answer = await visitor.post_json("/cart/add", {"product_id": 1 + turn % 5})
        assert answer.code in (200, 201)
    page = (await visitor.get("/cart")).body.decode()
    assert page.count('class="message') == 1


@pytest.mark.parametrize("accept", ["text/html,*/*;q=0.8", "*/*"])
async def test_a_plain_form_is_sent_back_to_the_page(visitor: Browser, accept: str) -> None:
    """Harm: without JavaScript the customer sees raw JSON, and a reload adds once more."""
    sent = {"product_id": "1", "quantity": "2"}
    answer = await visitor.post_form("/cart/add", sent, headers={"Accept": accept})
    assert (answer.code, answer.headers["Location"], answer.body) == (303, "/cart", b"")
    assert "Added Wireless Keyboard to cart" in (await visitor.get("/cart")).body.decode()
    assert "Added Wireless Keyboard to cart" not in (await visitor.get("/cart")).body.decode()


async def test_a_refused_form_is_answered_with_the_page(visitor: Browser) -> None:
    """Harm: a mistake in a form leads to a dead end."""
    answer = await visitor.post_form("/cart/remove", {"product_id": "1"}, headers={"Accept": "text/html"})
    page = answer.body.decode()
    assert answer.code == 404
    assert "Product not in cart" in page
    assert "<h1" in page


@pytest.mark.parametrize("path", ["/cart/add", "/cart/update", "/cart/remove", "/cart/clear"])
@pytest.mark.parametrize("metadata", [True, False], ids=["today's browser", "browser of 2022"])
async def test_forms_of_other_sites_are_refused(shop: Program, path: str, metadata: bool) -> None:
    """Harm: a page elsewhere fills or empties a visitor's cart."""
    visitor = Browser(shop.url, fetch_metadata=metadata)
    await visitor.post_json("/cart/add", {"product_id": 1})
    fields = {"product_id": "1", "quantity": "7"}
    answer = await visitor.post_form(path, fields, from_origin="http://evil.example")
    assert answer.code == 403
    assert (await cart_of(visitor))["item_count"] == 1
    visitor.close()


async def test_every_answer_carries_the_safety_headers(visitor: Browser) -> None:
    """Harm: the page is framed, sniffed, or runs a stranger's script."""
    for path in ("/cart", "/cart/api", "/static/cart.js", "/static/cart.css"):
        headers = (await visitor.get(path)).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
