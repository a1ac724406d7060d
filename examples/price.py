"""A basket in an encrypted cookie: the browser carries the cost price and cannot read it.

    python examples/price.py --port 7148

"You might want to store the cost price and markup of the products in the user's basket; clearly a plaintext
cookie that the user can read is not appropriate here." Signing would not help: a signed cookie can be read.
Encrypting does, and the servers share nothing but the secret. (Needs the extra "encryption".)

Mind what encryption does not do: the browser can send back a basket it had *earlier*. Nothing here is harmed
by that, because the total is computed from the basket that is sent; credit to be used once would be, and
belongs into a session.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from decimal import Decimal

from tornado.web import Application, HTTPError, RequestHandler

from eyewall import CookieError, Sessions
from eyewall.tornado.cookies import CookieMixin

Line = tuple[str, Decimal, Decimal]  # product, cost price, markup

COSTS = {"keyboard": Decimal("31.20"), "hub": Decimal("17.45"), "lamp": Decimal("8.90")}
MARKUP = Decimal("1.6")
BASKET = "basket"
WEEK = 7 * 24 * 60 * 60


class Basket(CookieMixin, RequestHandler):
    def get(self) -> None:
        basket: list[Line] = self.jar.encrypted.get(BASKET, [])
        prices = [(product, price(cost, markup)) for product, cost, markup in basket]
        self.write(
            {
                "items": [{"product": product, "price": str(amount)} for product, amount in prices],
                "total": str(sum((amount for _, amount in prices), Decimal("0.00"))),
            }
        )

    def post(self) -> None:
        product = self.get_argument("product")
        if product not in COSTS:
            raise HTTPError(400, "no such product")
        basket: list[Line] = self.jar.encrypted.get(BASKET, [])
        basket.append((product, COSTS[product], MARKUP))
        try:
            self.jar.encrypted.set(BASKET, basket, max_age=WEEK)
        except CookieError:
            raise HTTPError(413, "the basket is full") from None  # a cookie holds 4 KB
        self.set_status(201)

    def delete(self) -> None:
        self.jar.delete(BASKET)


def price(cost: Decimal, markup: Decimal) -> Decimal:
    """Return what the customer pays."""
    return (cost * markup).quantize(Decimal("0.01"))


def make_app() -> Application:
    """Return the application; a shop with two servers gives both the same `cookie_secret`."""
    return Application([("/basket", Basket)], sessions=Sessions(backend="memory"))


async def main(port: int) -> None:
    """Serve until Ctrl-C."""
    make_app().listen(port, "127.0.0.1")
    print(f"Serving on http://127.0.0.1:{port}/basket")
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--port", type=int, default=7148)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().port))
