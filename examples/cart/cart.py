"""A shopping cart in the session: a page that works without JavaScript, and a JSON API on the same routes.

    python examples/cart/cart.py        then open http://localhost:7145/cart

Parallel requests of one visitor lose nothing, in one process or in many, because every change of the cart
goes through ``session.modify``. Forms of other sites are refused by SessionMixin.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

from tornado.web import Application, HTTPError, RedirectHandler, RequestHandler, StaticFileHandler

from eyewall import SessionMixin, Sessions

PRODUCTS: dict[int, dict[str, Any]] = {
    1: {"name": "Wireless Keyboard", "price": 79.99},
    2: {"name": "USB-C Hub", "price": 49.99},
    3: {"name": "Monitor Stand", "price": 129.99},
    4: {"name": "Mechanical Mouse", "price": 59.99},
    5: {"name": "Desk Lamp", "price": 39.99},
}
MOST = 999  # of one product
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Cart = list[dict[str, Any]]


class SafeHandler(RequestHandler):
    def set_default_headers(self) -> None:
        for name, value in SECURITY_HEADERS.items():
            self.set_header(name, value)


class StaticHandler(SafeHandler, StaticFileHandler):
    pass


class CartHandler(SessionMixin, SafeHandler):
    """What all routes share: reading a form or JSON, answering with a page or JSON."""

    def prepare(self) -> None:
        self.kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.is_form = self.kind in ("application/x-www-form-urlencoded", "multipart/form-data")
        self.fields = self.read_fields() if self.request.method == "POST" else {}

    def read_fields(self) -> dict[str, Any]:
        if self.is_form:
            return {name: self.get_body_argument(name) for name in self.request.body_arguments}
        if not self.request.body:
            return {}
        if self.kind != "application/json":
            raise HTTPError(415, reason="Send JSON or a form")
        try:
            fields = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise HTTPError(400, reason="The body is not JSON") from None
        if not isinstance(fields, dict):
            raise HTTPError(400, reason="The body must be a JSON object")
        return fields

    def whole_number(self, name: str, default: int) -> int:
        value = self.fields.get(name, default)
        if isinstance(value, str) and re.fullmatch("-?[0-9]{1,9}", value):
            value = int(value)
        if type(value) is not int:  # True is an int to isinstance
            raise HTTPError(400, reason=f"{name} must be a whole number")
        return value

    def answer(
        self, message: str, cart: Cart, *, flash: str = "", category: str = "success", status: int = 200
    ) -> None:
        self.session.flash("message")  # read, so that a client that never shows the page piles up none
        self.session.flash("message", flash or message, category=category)
        if self.is_form or self.wants_page:
            self.redirect("/cart", status=303)
        else:
            self.set_status(status)
            self.write({"message": message, "cart": cart})

    @property
    def wants_page(self) -> bool:
        return "text/html" in self.request.headers.get("Accept", "")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        if not self.wants_page:
            self.write({"error": self._reason})
        elif status_code in (400, 404, 415):
            self.session.flash.now("message", self._reason, category="error")
            self.show_page()
        else:
            super().write_error(status_code, **kwargs)

    def totals(self) -> dict[str, Any]:
        cart: Cart = self.session.get("cart", [])
        lines = [{**line, "line_total": round(line["price"] * line["quantity"], 2)} for line in cart]
        return {
            "cart": lines,
            "grand_total": round(sum(line["line_total"] for line in lines), 2),
            "item_count": sum(line["quantity"] for line in lines),
        }

    def show_page(self) -> None:
        messages = self.session.flash.messages("message")
        self.render("cart.html", **self.totals(), products=PRODUCTS, most=MOST, messages=messages)


class ViewCart(CartHandler):
    def get(self) -> None:
        self.show_page()


class CartApi(CartHandler):
    def get(self) -> None:
        self.write(self.totals())


class AddToCart(CartHandler):
    async def post(self) -> None:
        product_id, quantity = self.whole_number("product_id", 0), self.whole_number("quantity", 1)
        if product_id not in PRODUCTS:
            raise HTTPError(404, reason="Product not found")
        check_quantity(quantity)
        product = PRODUCTS[product_id]

        def add(cart: Cart) -> Cart:
            line = line_of(product_id, cart)
            if line is None:
                return [*cart, {"product_id": product_id, **product, "quantity": quantity}]
            line["quantity"] += quantity
            check_quantity(line["quantity"])
            return cart

        cart: Cart = await self.session.modify("cart", add, default=[])
        name, line = product["name"], line_of(product_id, cart)
        if line and line["quantity"] == quantity:  # only a new line holds just what was added
            self.answer(f"Added {name}", cart, flash=f"Added {name} to cart", status=201)
        else:
            self.answer(f"Updated {name} quantity", cart)


class UpdateCart(CartHandler):
    async def post(self) -> None:
        product_id, quantity = self.whole_number("product_id", 0), self.whole_number("quantity", 1)

        def update(cart: Cart) -> Cart:
            line = line_in_cart(product_id, cart)
            if quantity < 1:
                cart.remove(line)
            else:
                check_quantity(quantity)
                line["quantity"] = quantity
            return cart

        cart: Cart = await self.session.modify("cart", update, default=[])
        name = PRODUCTS[product_id]["name"]
        done = f"Removed {name} from cart" if quantity < 1 else f"Updated {name} quantity to {quantity}"
        self.answer("Cart updated", cart, flash=done)


class RemoveFromCart(CartHandler):
    async def post(self) -> None:
        product_id = self.whole_number("product_id", 0)

        def remove(cart: Cart) -> Cart:
            cart.remove(line_in_cart(product_id, cart))
            return cart

        cart: Cart = await self.session.modify("cart", remove, default=[])
        name = PRODUCTS[product_id]["name"]
        self.answer(f"Removed {name}", cart, flash=f"Removed {name} from cart")


class ClearCart(CartHandler):
    def post(self) -> None:
        self.session["cart"] = []
        self.answer("Cart cleared", [], category="info")


def check_quantity(quantity: int) -> None:
    """Answer 400 unless a line may have ``quantity``."""
    if quantity < 1:
        raise HTTPError(400, reason="Quantity must be at least 1")
    if quantity > MOST:
        raise HTTPError(400, reason=f"Quantity must be at most {MOST}")


def line_of(product_id: int, cart: Cart) -> dict[str, Any] | None:
    """Return the line of a product, if the cart has one."""
    return next((line for line in cart if line["product_id"] == product_id), None)


def line_in_cart(product_id: int, cart: Cart) -> dict[str, Any]:
    """Return the line of a product, or answer 404."""
    line = line_of(product_id, cart)
    if line is None:
        raise HTTPError(404, reason="Product not in cart")
    return line


def make_app(sessions: Sessions) -> Application:
    """Return the shop."""
    here = Path(__file__).parent
    routes = [
        ("/", RedirectHandler, {"url": "/cart", "permanent": False}),
        ("/cart", ViewCart),
        ("/cart/api", CartApi),
        ("/cart/add", AddToCart),
        ("/cart/update", UpdateCart),
        ("/cart/remove", RemoveFromCart),
        ("/cart/clear", ClearCart),
    ]
    return Application(
        routes,  # type: ignore[arg-type]  # a list of tuples of two lengths
        sessions=sessions,
        template_path=here / "templates",
        static_path=here / "static",
        static_handler_class=StaticHandler,
    )


async def main() -> None:
    """Serve until Ctrl-C; sessions are kept where the environment says, else in ``.eyewall``."""
    make_app(Sessions()).listen(7145, "localhost", max_body_size=64 * 1024)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
