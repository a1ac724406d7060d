"""The memory store makes room by dropping what is nobody's: visitors' carts, and the counts of attempts."""

from __future__ import annotations

from eyewall.stores.memory import MemoryStore
from tests.signin.kit import Deployment

LIMIT = 5


async def test_strangers_who_fill_the_store_buy_no_guesses(here: Deployment) -> None:
    """A guesser who also posts carts starts again at zero, as often as the store can be filled."""
    small = MemoryStore(clock=here.clock, max_records=50)
    here._open = lambda: small
    process = await here.process()
    guess = {"name": "victim", "password": "wrong"}
    guesser = here.browser(process)
    for _ in range(LIMIT):
        await guesser.post_form("/attempt", guess)
    assert (await guesser.post_form("/attempt", guess)).code == 429
    for _ in range(60):
        await here.browser(process).post_form("/", {"key": "cart", "value": "1"})
    assert (await guesser.post_form("/attempt", guess)).code == 429
