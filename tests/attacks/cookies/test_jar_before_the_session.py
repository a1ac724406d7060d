"""A jar that is used in initialize(), before the session has its place on the connection."""

from __future__ import annotations

import asyncio

import pytest

from eyewall import Settings
from eyewall.stores.memory import MemoryStore
from eyewall.tornado.cookies import jar_of
from tests.tornado.conftest import serve  # noqa: F401 - pytest finds fixtures by their names here
from tests.tornado.site import SECRET, Handler, ServeSite


class Early(Handler):
    """Sets a cookie as early as can be."""

    def initialize(self) -> None:
        jar_of(self).set("ordered", "yes")

    def get(self) -> None:
        self.s["order"] = 1


@pytest.fixture(params=["mixin"])
def way(request: pytest.FixtureRequest) -> str:
    """By install() the session is there before initialize()."""
    return str(request.param)


async def test_an_answer_that_was_replaced_has_none_of_the_cookies(serve: ServeSite) -> None:  # noqa: F811
    """Harm: "ordered=yes" beside "409: may not have been saved"."""
    strict = Settings(backend="memory", cookie_secret=SECRET, strict=True)
    site = await serve([("/", Early)], settings=strict)
    await site.sign_on()
    entered, gate = site.store.gate("replace")
    asked = asyncio.ensure_future(site.fetch("/"))
    await entered.wait()
    for record in await site.store.live():
        await MemoryStore.delete(site.store, record.digest)
    gate.set()
    answer = await asked
    assert (answer.code, answer.headers.get_list("Set-Cookie")) == (409, [])
