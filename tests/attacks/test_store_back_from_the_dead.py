"""A forged remember cookie costs no store call, and must not pass for an answer of the store."""

from __future__ import annotations

from eyewall.core.events import Event, EventKind
from eyewall.core.store_health import FAILED_READS
from eyewall.errors import StoreUnavailable
from tests.tornado.site import Handler, Site, serving


class Page(Handler):
    def get(self) -> None:
        self.write("page")


def _forged(site: Site) -> dict[str, str]:
    return {"Cookie": f"{site.sessions._token_cookies[False].name}=made-up"}


async def test_a_stranger_reports_a_dead_store_as_back() -> None:
    """Operators hear that the outage is over, and has begun again, as often as a stranger likes."""
    async with serving("mixin", [("/", Page)]) as site:
        await site.sign_on()
        seen: list[Event] = []
        site.sessions.events.subscribe(seen.append)
        site.store.failures["load"] = StoreUnavailable("gone")
        for _ in range(10):
            await site.fetch("/")
            await site.fetch("/", headers=_forged(site))
    kinds = [event.kind for event in seen]
    assert kinds.count(EventKind.STORE_DOWN) == 1
    assert EventKind.STORE_BACK not in kinds


async def test_a_stranger_keeps_a_dead_store_from_being_left_alone() -> None:
    """Every request waits for a store that hangs, because forged cookies say that it answers."""
    async with serving("mixin", [("/", Page)]) as site:
        await site.sign_on()
        site.store.failures["load"] = StoreUnavailable("gone")
        for _ in range(4 * FAILED_READS):
            await site.fetch("/")
            await site.fetch("/", headers=_forged(site))
        assert site.store.calls.count("load") <= FAILED_READS + 1


async def test_a_stranger_does_not_use_up_the_one_question_that_a_dead_store_is_asked() -> None:
    """Else the store is back, and whoever sends forged cookies keeps everybody from finding out."""
    async with serving("mixin", [("/", Page)]) as site:
        await site.sign_on()
        health = site.sessions._health
        site.store.failures["load"] = StoreUnavailable("gone")
        for _ in range(FAILED_READS):
            await site.fetch("/")
        health.left_alone, health._ask_at = 60.0, 0.0
        site.store.failures.clear()
        site.store.calls.clear()
        await site.fetch("/", headers=_forged(site))
        await site.fetch("/")
        assert site.store.calls == ["load"]
