"""The same promises on every store, seen from outside: two server processes that share it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.examples.pair import SECRET, Visitor, two_labs
from tests.examples.program import DEMO, Program

SERVERS = ("postgres", "mariadb", "redis7", "valkey9", "cluster", "sentinel", "mongodb")
STORES = ("file", "sqlite", *SERVERS)
IN_COOKIE = "cookie"
SOAK = "EYEWALL_TEST_SOAK" in os.environ
TOKEN = "session-remember"
NUMBERS = count(1)
Labs = tuple[Program, Program]
INCREMENTS = 10_000 if SOAK else 1_000
PATIENCE = {"EYEWALL_STORE_TIMEOUT": "10"}  # these are no tests of deadlines, and the machine may be busy


def settings_for(name: str, folder: Path, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the environment that keeps sessions in the store ``name``."""
    if name == "file":
        return PATIENCE | {"EYEWALL_PATH": str(folder / "data")}
    if name == IN_COOKIE:
        return {"EYEWALL_BACKEND": "cookie", "EYEWALL_COOKIE_SECRET": SECRET}
    url = f"sqlite:///{folder}/s.db" if name == "sqlite" else request.getfixturevalue(name).url
    return PATIENCE | {"EYEWALL_URL": url, "EYEWALL_COOKIE_SECRET": SECRET}


@pytest.fixture(scope="module", params=STORES)
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment for each store; its server runs."""
    return settings_for(request.param, tmp_path_factory.mktemp("store"), request)


@pytest.fixture(scope="module")
def labs(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    """Two labs for all tests of a store. They have nothing to complain about."""
    with two_labs(tmp_path_factory.mktemp("labs"), **settings) as running:
        yield running
    assert [lab.errors for lab in running] == ["", ""]


@pytest_asyncio.fixture
async def visitor(labs: Labs) -> AsyncIterator[Visitor]:
    """Somebody who has a session already."""
    visitor = Visitor(labs)
    assert (await visitor.post(0, "/kv", k="start", v=1)).code == 204
    yield visitor
    visitor.close()


async def test_a_hundred_parallel_writers_lose_no_key(visitor: Visitor) -> None:
    """Harm: the requests of one page load overwrite each other."""
    writes = (visitor.post(number % 2, "/kv", k=f"k{number}", v=number) for number in range(100))
    assert [answer.code for answer in await asyncio.gather(*writes)] == [204] * 100
    reads = (visitor.value(f"k{number}", lab=(number + 1) % 2) for number in range(100))
    assert await asyncio.gather(*reads) == list(range(100))


async def test_parallel_increments_are_all_counted(visitor: Visitor) -> None:
    """Harm: a stock, a quota or an attempt counter that is wrong under load."""
    answers = await visitor.both("/incr?k=n", "POST", INCREMENTS)
    assert {answer.code for answer in answers} == {200}
    told = sorted(json.loads(answer.body)["value"] for answer in answers)
    assert told == list(range(1, INCREMENTS + 1))
    assert await visitor.value("n", lab=1) == INCREMENTS


async def test_signing_out_ends_a_slow_request_elsewhere(visitor: Visitor) -> None:
    """Harm: a slow request signs somebody in again."""
    stolen = dict(visitor.cookies)
    slow = asyncio.ensure_future(visitor.fetch(0, "/slow?ms=400&write=late"))
    await asyncio.sleep(0.1)
    assert (await visitor.post(1, "/logout")).code == 204
    await slow
    visitor.cookies = stolen
    assert await visitor.value("start", lab=1) is None
    assert await visitor.value("late", lab=1) is None


async def test_a_new_id_keeps_the_data_and_the_old_one_is_dead(visitor: Visitor) -> None:
    """Harm: an ID that leaked before works after."""
    old = dict(visitor.cookies)
    assert (await visitor.post(0, "/regenerate")).code == 204
    assert visitor.cookies != old
    assert await visitor.value("start", lab=1) == 1
    visitor.cookies = old
    assert await visitor.value("start", lab=1) is None


async def test_a_flash_message_is_read_once(visitor: Visitor) -> None:
    """Harm: a message appears twice, or never."""
    await visitor.post(0, "/flash", message="Saved")
    answers = await visitor.both("/flash", "GET", 10)
    read = [json.loads(answer.body)["messages"] for answer in answers]
    assert [["info", "Saved"]] in read, "it was never shown"
    assert await visitor.told(1, "/flash") == {"messages": []}


async def test_signing_in_as_somebody_else_shows_nothing_of_the_first(visitor: Visitor) -> None:
    """Harm: the next user of a browser sees what the last one left."""
    assert (await visitor.post(0, "/login", user="ann")).code == 200
    await visitor.post(1, "/kv", k="secret", v="ann's")
    assert await visitor.value("start", lab=1) == 1
    assert (await visitor.post(1, "/login", user="bob")).code == 200
    assert (await visitor.told(0, "/whoami"))["principal"] == "bob"
    assert await visitor.value("secret", lab=0) is None


# Signing in: two browsers of one user, each of whose requests go to another process


@pytest_asyncio.fixture
async def two_browsers(labs: Labs) -> AsyncIterator[tuple[Visitor, Visitor]]:
    """One user, remembered in two browsers, and with nothing else in the store."""
    user = f"user {next(NUMBERS)}"
    browsers = Visitor(labs), Visitor(labs)
    for lab, browser in enumerate(browsers):
        assert (await browser.post(lab, "/login", user=user, remember=True)).code == 200
    yield browsers
    for browser in browsers:
        browser.close()


async def principal_of(visitor: Visitor, lab: int) -> str | None:
    """Who the visitor is signed in as."""
    principal: str | None = (await visitor.told(lab, "/whoami"))["principal"]
    return principal


async def devices_of(visitor: Visitor, lab: int) -> list[dict[str, Any]]:
    """The visitor's list of devices."""
    found: list[dict[str, Any]] = (await visitor.told(lab, "/devices"))["devices"]
    return found


async def test_a_device_is_ended_from_another_one(two_browsers: tuple[Visitor, Visitor]) -> None:
    """Harm: a lost phone stays signed in, or its remember token brings it back."""
    here, there = two_browsers
    (other,) = [device["id"] for device in await devices_of(here, 1) if not device["current"]]
    assert (await here.post(0, "/devices/revoke", id=other)).code == 204
    assert [await principal_of(there, lab) for lab in (1, 0, 1)] == [None] * 3
    (left,) = await devices_of(here, 1)
    assert left["current"]


@pytest.mark.parametrize("route", ["/logout-others", "/password"])
async def test_all_others_are_ended_and_none_comes_back(
    two_browsers: tuple[Visitor, Visitor], route: str
) -> None:
    """Harm: whoever has the old password, or its remember token, stays."""
    here, there = two_browsers
    before = dict(here.cookies)
    assert json.loads((await here.post(0, route)).body) == {"ended": 1}
    assert await principal_of(there, 1) is None
    assert await principal_of(here, 1) is not None
    thief = Visitor(here.labs)
    thief.cookies = {TOKEN: before[TOKEN]}
    assert await principal_of(thief, 1) is None
    thief.close()


async def test_signing_out_everywhere_ends_all(two_browsers: tuple[Visitor, Visitor]) -> None:
    """Harm: somebody believes to be signed out."""
    here = two_browsers[0]
    kept = dict(here.cookies)
    assert (await here.post(0, "/logout-everywhere")).code == 204
    assert here.cookies == {}
    here.cookies = kept
    assert [await principal_of(browser, 1) for browser in two_browsers] == [None, None]


async def test_a_remember_token_restores_once_for_twenty_requests(
    two_browsers: tuple[Visitor, Visitor],
) -> None:
    """Harm: the tabs of a browser that starts again look like a theft, or become twenty devices."""
    here, _ = two_browsers
    user = await principal_of(here, 0)
    used = here.cookies.pop("session")
    answers = await here.both("/whoami", "GET", 20)
    assert [json.loads(answer.body) for answer in answers] == [{"principal": user, "fresh": False}] * 20
    assert here.cookies["session"] != used
    assert await principal_of(here, 1) == user
    assert len(await devices_of(here, 1)) == 2
    del here.cookies["session"]
    assert await principal_of(here, 1) == user, "the token they were all given is good"


def line(product_id: int, quantity: int) -> dict[str, int]:
    """What a cart's line is known by."""
    return {"product_id": product_id, "quantity": quantity}


async def cart_of(visitor: Visitor) -> list[dict[str, Any]]:
    """What is in the cart, and how much of it."""
    cart = (await visitor.told(0, "/cart/api"))["cart"]
    return [line(entry["product_id"], entry["quantity"]) for entry in cart]


async def test_the_cart_survives_a_restart(settings: dict[str, str], tmp_path: Path) -> None:
    """Harm: a deployment empties everybody's cart."""
    with Program(*DEMO, folder=tmp_path, **settings) as shop:
        visitor = Visitor([shop])
        await visitor.post(0, "/cart/add", product_id=1, quantity=2)
        await visitor.post(0, "/cart/add", product_id=3)
        await visitor.post(0, "/cart/update", product_id=1, quantity=3)
        assert await cart_of(visitor) == [line(1, 3), line(3, 1)]
        shop.kill()
        shop.start()
        assert await cart_of(visitor) == [line(1, 3), line(3, 1)]
        await visitor.post(0, "/cart/remove", product_id=3)
        assert await cart_of(visitor) == [line(1, 3)]
        await visitor.post(0, "/cart/clear")
        assert await cart_of(visitor) == []
        visitor.close()


# Client-side sessions: what they can promise, and that they do not promise more


@pytest.mark.parametrize("settings", [IN_COOKIE], indirect=True)
async def test_a_client_side_session_is_understood_by_every_process(visitor: Visitor) -> None:
    """Harm: a session that works on the server that made it only."""
    assert await visitor.value("start", lab=1) == 1
    assert (await visitor.post(1, "/login", user="ann")).code == 200
    assert (await visitor.told(0, "/whoami"))["principal"] == "ann"
    assert (await visitor.post(0, "/regenerate")).code == 204
    assert await visitor.value("start", lab=1) == 1
    await visitor.post(0, "/flash", message="Saved")
    assert await visitor.told(1, "/flash") == {"messages": [["info", "Saved"]]}
    assert await visitor.told(0, "/flash") == {"messages": []}
    for number in range(10):
        assert json.loads((await visitor.post(number % 2, "/incr?k=n")).body) == {"value": number + 1}


@pytest.mark.parametrize("settings", [IN_COOKIE], indirect=True)
async def test_signing_out_deletes_a_client_side_session_in_the_browser_only(visitor: Visitor) -> None:
    """Harm: somebody relies on more than the page on client-side sessions says."""
    stolen = dict(visitor.cookies)
    assert (await visitor.post(0, "/logout")).code == 204
    assert visitor.cookies == {}
    assert await visitor.value("start") is None
    visitor.cookies = stolen
    assert await visitor.value("start") == 1, "if this is so no longer, the page must say so"
