"""The cart's page in a real browser: on a desk and on a phone, with scripts and without."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.examples.chromium import PATIENCE_MS, running_chromium
from tests.examples.program import DEMO, Program

pytestmark = pytest.mark.browser

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SMALL: dict[str, Any] = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
WITHOUT_SCRIPTS = {"java_script_enabled": False}

Visit = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser process for the whole file."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One running shop for the whole file."""
    with Program(*DEMO, folder=tmp_path_factory.mktemp("shop")) as program:
        yield program


@pytest.fixture
def visit(chromium: Browser, shop: Program) -> Iterator[Visit]:
    """Open the cart as a new visitor; whatever the page complains about fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def visit(**device: Any) -> Page:
        contexts.append(chromium.new_context(**device))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.goto(f"{shop.url}/cart")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def click(page: Page, name: str) -> None:
    """Press the button with this name, as a screen reader says it."""
    page.get_by_role("button", name=name, exact=True).click()


def quantity_of(page: Page, product: str) -> Any:
    """The field with a product's quantity."""
    return page.get_by_role("spinbutton", name=f"Quantity of {product}")


def total(page: Page) -> Any:
    """The grand total."""
    return page.locator("#grand-total")


@pytest.mark.parametrize("scripts", [{}, WITHOUT_SCRIPTS], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
def test_a_customer_can_do_everything(visit: Visit, device: dict[str, Any], scripts: dict[str, Any]) -> None:
    """Harm: somebody cannot use the cart on the device they have."""
    page = visit(**device, **scripts)
    message = page.get_by_role("status")
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()

    click(page, "Add Wireless Keyboard to cart")
    expect(message).to_have_text("Added Wireless Keyboard to cart")
    click(page, "Add Monitor Stand to cart")
    click(page, "One Wireless Keyboard more")
    expect(message).to_have_text("Updated Wireless Keyboard quantity")
    expect(total(page)).to_have_text("$289.97")
    expect(page.get_by_role("link", name="Cart 3 items")).to_be_visible()

    quantity_of(page, "Monitor Stand").fill("10")
    quantity_of(page, "Monitor Stand").press("Enter")
    expect(message).to_have_text("Updated Monitor Stand quantity to 10")
    expect(total(page)).to_have_text("$1,459.88")
    click(page, "One Monitor Stand less")
    expect(quantity_of(page, "Monitor Stand")).to_have_value("9")

    click(page, "Remove Monitor Stand")
    expect(message).to_have_text("Removed Monitor Stand from cart")
    expect(total(page)).to_have_text("$159.98")
    click(page, "Clear cart")
    expect(message).to_have_text("Cart cleared")
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    assert page.url.endswith("/cart")


def test_a_message_is_shown_once(visit: Visit) -> None:
    """Harm: a reload tells of something that did not happen again."""
    page = visit(**WITHOUT_SCRIPTS)
    click(page, "Add Desk Lamp to cart")
    expect(page.get_by_role("status")).to_have_text("Added Desk Lamp to cart")
    page.reload()
    expect(page.get_by_role("status")).to_be_empty()
    expect(total(page)).to_have_text("$39.99")


def test_with_scripts_the_page_is_not_reloaded_and_focus_stays(visit: Visit) -> None:
    """Harm: whoever uses the keyboard starts from the top after every click."""
    page = visit(**DESK)
    click(page, "Add USB-C Hub to cart")
    expect(total(page)).to_have_text("$49.99")
    page.evaluate("window.wasHere = true")
    page.get_by_role("button", name="One USB-C Hub more").focus()
    page.keyboard.press("Enter")
    expect(total(page)).to_have_text("$99.98")
    expect(page.get_by_role("button", name="One USB-C Hub more")).to_be_focused()
    page.get_by_role("button", name="Remove USB-C Hub").press("Enter")
    expect(page.get_by_role("heading", name="Your cart")).to_be_focused()
    assert page.evaluate("window.wasHere")


def test_quick_clicks_all_count(visit: Visit) -> None:
    """Harm: a customer clicks quickly and gets fewer than they asked for."""
    page = visit(**DESK)
    page.evaluate("for (let i = 0; i < 15; i++) document.getElementById('add-4').click()")
    expect(quantity_of(page, "Mechanical Mouse")).to_have_value("15")


def test_an_outage_is_told_and_changes_nothing(chromium: Browser, tmp_path: Path) -> None:
    """Harm: the page pretends that something was saved."""
    with Program(*DEMO, folder=tmp_path) as shop:
        page = chromium.new_page()
        page.goto(f"{shop.url}/cart")
        click(page, "Add Desk Lamp to cart")
        expect(total(page)).to_have_text("$39.99")
        shop.kill()
        click(page, "One Desk Lamp more")
        expect(page.get_by_role("status")).to_contain_text("Please try again")
        expect(total(page)).to_have_text("$39.99")
        shop.start()
        click(page, "One Desk Lamp more")
        expect(total(page)).to_have_text("$79.98")
        page.close()


def test_the_cart_survives_a_restart_of_the_server(chromium: Browser, tmp_path: Path) -> None:
    """Harm: a deployment empties every cart."""
    with Program(*DEMO, folder=tmp_path) as shop:
        page = chromium.new_page()
        page.goto(f"{shop.url}/cart")
        click(page, "Add Desk Lamp to cart")
        expect(total(page)).to_have_text("$39.99")
        assert shop.end() == 0
        shop.start()
        page.reload()
        expect(total(page)).to_have_text("$39.99")
        page.close()


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(visit: Visit) -> None:
    """Harm: a script that was smuggled in carries the session away."""
    page = visit(**DESK)
    assert page.context.cookies() == []
    click(page, "Add Desk Lamp to cart")
    expect(total(page)).to_have_text("$39.99")
    (cookie,) = page.context.cookies()
    assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == ("session", True, "Lax")
    assert page.evaluate("document.cookie") == ""


def test_another_visitor_sees_nothing_of_it(visit: Visit) -> None:
    """Harm: carts are mixed up."""
    click(visit(), "Add Desk Lamp to cart")
    expect(visit().get_by_text("Nothing here yet.")).to_be_visible()


# --- looks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripts", [{}, WITHOUT_SCRIPTS], ids=["scripts", "no scripts"])
@pytest.mark.parametrize("device", [SMALL, PHONE, DESK], ids=["360", "390", "1280"])
def test_nothing_sticks_out_sideways(visit: Visit, device: dict[str, Any], scripts: dict[str, Any]) -> None:
    """Harm: on a phone one has to scroll sideways to reach a button."""
    page = visit(**device, **scripts)
    fill_the_cart(page)
    width = device["viewport"]["width"]
    for control in page.locator("button:visible, input:visible, section, .total, #grand-total").all():
        box = control.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_controls_are_large_enough_for_a_thumb(visit: Visit) -> None:
    """Harm: one hits the wrong button (WCAG 2.5.5)."""
    page = visit(**PHONE)
    fill_the_cart(page)
    for control in page.locator("button:visible, input:visible").all():
        box = control.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44


CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => channels(color).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return (channels(color)[3] ?? 1) === 0 ? behind(element.parentElement) : color;
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) => !element.disabled &&
    [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return texts.map((element) => {
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
    return [element.textContent.trim(), (a + 0.05) / (b + 0.05)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(visit: Visit, scheme: str) -> None:
    """Harm: people with weak eyes, or in the sun, cannot read it (WCAG 1.4.3, AA)."""
    page = visit(color_scheme=scheme, **DESK)
    fill_the_cart(page)
    measured = page.evaluate(CONTRASTS)
    assert len(measured) > 20
    assert [(text, ratio) for text, ratio in measured if ratio < 4.5] == []


def fill_the_cart(page: Page) -> None:
    """Put the widest things there are into the cart."""
    click(page, "Add Wireless Keyboard to cart")
    expect(total(page)).to_have_text("$79.99")
    quantity_of(page, "Wireless Keyboard").fill("998")
    quantity_of(page, "Wireless Keyboard").press("Enter")
    expect(total(page)).to_have_text("$79,830.02")
    click(page, "Add Monitor Stand to cart")
    expect(total(page)).to_have_text("$79,960.01")


# --- attacks ---------------------------------------------------------------------------------------------


@pytest.fixture
def evil_site(shop: Program) -> Iterator[str]:
    """Another site, with pages that send forms to the shop as soon as they are opened."""

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = f"""<form id=f method=post action="{shop.url}{self.path}">
                <input name=product_id value=1><input name=quantity value=7></form>
                <script>document.getElementById("f").submit()</script>"""
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("path", ["/cart/add", "/cart/update", "/cart/remove", "/cart/clear"])
def test_a_form_of_another_site_changes_nothing(
    chromium: Browser, shop: Program, evil_site: str, path: str
) -> None:
    """Harm: a page elsewhere fills or empties a visitor's cart."""
    page = chromium.new_page()
    page.goto(f"{shop.url}/cart")
    click(page, "Add Wireless Keyboard to cart")
    expect(total(page)).to_have_text("$79.99")
    with page.expect_response(f"{shop.url}{path}") as answer:
        page.goto(evil_site + path)
    assert answer.value.status == 403
    page.goto(f"{shop.url}/cart")
    expect(total(page)).to_have_text("$79.99")
    page.close()
