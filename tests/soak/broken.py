"""Ways to spoil the application, each of which the judge must notice."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any, Final

_EVERY: Final = 25
_LEAKED: Final = 10_000  # bytes a request
_HELD: Final = 0.3  # seconds
_BETWEEN: Final = 2.0

Breaking = Callable[[Any, Any, Any], None]
"""Changes in place: the base class of all handlers, the one of the cart, and the one that signs out."""


def swap_sessions(base: Any, _cart: Any, _sign_out: Any) -> None:
    """Now and then tell somebody what the answer before told somebody else."""
    rightly, turn = base.identity, count()
    told: list[Any] = [{}]

    def identity(self: Any) -> Any:
        told.append(rightly(self))
        return told[-2] if next(turn) % _EVERY == 0 else told[-1]

    base.identity = identity


def leak(base: Any, _cart: Any, _sign_out: Any) -> None:
    """Keep ten kilobytes of every request for ever."""
    kept: list[bytes] = []
    base.prepare = lambda _: kept.append(b"." * _LEAKED)


def hold_the_loop(base: Any, _cart: Any, _sign_out: Any) -> None:
    """Keep everybody waiting for 0.3 s, every other second."""
    held = time.monotonic()

    def prepare(_: Any) -> None:
        nonlocal held
        if time.monotonic() - held > _BETWEEN:
            time.sleep(_HELD)
            held = time.monotonic()

    base.prepare = prepare


def forget_writes(_base: Any, cart: Any, _sign_out: Any) -> None:
    """Acknowledge what was put into a cart, and now and then store nothing."""
    rightly, turn = cart.put, count()

    def put(self: Any, key: str, value: str | None) -> None:
        if next(turn) % _EVERY:
            rightly(self, key, value)

    cart.put = put


def forget_to_sign_out(_base: Any, _cart: Any, sign_out: Any) -> None:
    """Say goodbye, and leave the session where it is."""
    sign_out.post = lambda self: self.write({"principal": None, "marker": None})


def fail(base: Any, _cart: Any, _sign_out: Any) -> None:
    """Raise, now and then, what nobody expects."""
    turn = count(1)

    def prepare(_: Any) -> None:
        if next(turn) % _EVERY == 0:
            raise RuntimeError("as asked for")

    base.prepare = prepare


BREAKING: Final[dict[str, Breaking]] = {
    "swap": swap_sessions,
    "leak": leak,
    "hold": hold_the_loop,
    "forget": forget_writes,
    "stay": forget_to_sign_out,
    "fail": fail,
}
