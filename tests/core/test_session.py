"""The session as handlers use it: a mapping that keeps its promises across requests."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.codec import MAX_DEPTH
from eyewall.core.payload import decode_payload, encode_payload
from eyewall.errors import SessionTooLargeError, UnstorableValueError
from tests.core.world import Browser, World


async def test_the_chapters_api_works_as_printed() -> None:
    """Every line of the seed's table."""
    browser = World().browser()
    session = await browser.open()
    session.set("user_id", 42)
    session.set("user_name", "Alice")
    assert session.get("user_id") == 42
    assert session.get("missing") is None
    assert session.get("missing", "default") == "default"
    assert session.has("user_name")
    session.delete("user_name")
    session.delete("never there")
    assert not session.has("user_name")
    assert session.all() == {"user_id": 42}
    session.flash("message", "hello")
    await browser.end(session)
    session = await browser.open()
    assert session.flash("message") == "hello"
    assert session.flash("message") is None
    session.clear()
    assert session.all() == {}
    await browser.end(session)
    assert await browser.data() == {}


async def test_the_session_is_a_mapping() -> None:
    """What works on a dict works here."""
    browser = World().browser()
    session = await browser.open()
    session["a"] = 1
    session.update(b=2, c=None)
    assert (len(session), list(session), "c" in session) == (3, ["a", "b", "c"], True)
    assert session.pop("b") == 2
    assert session.setdefault("l", []) == []
    session["l"].append(1)
    with pytest.raises(KeyError):
        session["nope"]
    with pytest.raises(KeyError):
        del session["nope"]
    await browser.end(session)
    assert await browser.data() == {"a": 1, "c": None, "l": [1]}


async def test_every_type_survives_the_store() -> None:
    """The promise of the README, end to end."""
    stored = {
        "none": None,
        "bool": True,
        "int": 2**70,
        "float": 0.1,
        "text": "é\0",
        "bytes": b"\x00",
        "list": [1, [2]],
        "tuple": (1, (2,)),
        "dict": {1: {"a": (2,)}},
        "set": {1, "a"},
        "aware": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
        "naive": datetime(2026, 1, 2),  # noqa: DTZ001 - naive ones must survive too
        "date": date(2026, 1, 2),
        "delta": timedelta(microseconds=-1),
        "uuid": uuid4(),
        "decimal": Decimal("1.10"),
    }
    browser = World().browser()
    await browser.put(**stored)
    found = await browser.data()
    assert found == stored
    assert [type(value) for value in found.values()] == [type(value) for value in stored.values()]


@pytest.mark.parametrize(
    "change", [lambda v: v["l"].append(1), lambda v: v["d"].update(x=1), lambda v: v["s"].add(1)]
)
async def test_a_change_inside_a_nested_value_is_saved(change: Any) -> None:
    """Most systems lose it, and say so in their documentation (starlette 3474)."""
    browser = World().browser()
    await browser.put(deep={"l": [], "d": {}, "s": set()})
    session = await browser.open()
    change(session["deep"])
    expected = session["deep"]
    await browser.end(session)
    assert (await browser.data())["deep"] == expected


async def test_a_value_that_nobody_can_read_is_not_there() -> None:
    """One bad value, written by somebody else, is a 500 on every page, or reads as an odd object."""
    world = World()
    browser = world.browser()
    await browser.put(good=1)
    (record,) = await world.records()
    payload = decode_payload(record.payload, record.digest)
    payload.data["bad"] = msgspec.Raw(msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b"x")))
    planted = msgspec.structs.replace(
        record, version=record.version + 1, payload=encode_payload(payload, record.digest)
    )
    assert await world.store.replace(planted, version=record.version)
    session = await browser.open()
    assert session.get("bad") is None
    assert session.get("bad", "default") == "default"
    assert session.all() == {"good": 1}
    with pytest.raises(KeyError):
        session["bad"]


async def planted_too_deep(world: World, browser: Browser) -> None:
    """Store lists inside lists, deeper than we would, as whoever writes to the store by other means."""
    await browser.put(kept=1)
    (record,) = await world.records()
    deep = msgspec.Raw(msgspec.msgpack.encode(float("nan")))
    for _ in range(MAX_DEPTH + 2):
        deep = msgspec.Raw(msgspec.msgpack.encode([deep]))
    payload = decode_payload(record.payload, record.digest)
    payload.data["deep"] = deep
    planted = msgspec.structs.replace(
        record, version=record.version + 1, payload=encode_payload(payload, record.digest)
    )
    assert await world.store.replace(planted, version=record.version)


async def test_what_nests_too_deep_in_the_store_stays_there_when_it_is_only_looked_at() -> None:
    """A page that reads it, and saves something else, is answered with a 500 for ever."""
    world = World()
    browser = world.browser()
    await planted_too_deep(world, browser)
    session = await browser.open()
    assert type(session["deep"]) is list
    session["n"] = 1
    await browser.end(session)
    found = await browser.data()
    assert (found["kept"], found["n"]) == (1, 1)
    assert repr(found["deep"]).count("[") == MAX_DEPTH + 2


async def test_what_nests_too_deep_in_the_store_cannot_be_changed_there() -> None:
    """A change that is dropped without a word is a lost one."""
    world = World()
    browser = world.browser()
    await planted_too_deep(world, browser)
    session = await browser.open()
    session["deep"].append(1)
    with pytest.raises(UnstorableValueError, match="nests deeper than 64 levels"):
        await browser.end(session)


async def test_a_value_changed_after_it_was_set_is_saved_as_it_is_at_the_end() -> None:
    """``session["cart"] = cart`` and then ``cart.append``."""
    browser = World().browser()
    session = await browser.open()
    cart: list[int] = []
    session["cart"] = cart
    cart.append(1)
    await browser.end(session)
    assert await browser.data() == {"cart": [1]}


async def test_reading_writes_nothing() -> None:
    """Reading is free, also of lists, dicts, sets and tuples."""
    world = World()
    browser = world.browser()
    await browser.put(l=[1], d={"a": {2, 3}}, t=(1, [2]))
    before = await world.records()
    for _ in range(3):
        await browser.data()
    assert await world.records() == before


async def test_setting_a_value_to_what_it_is_writes_nothing() -> None:
    """Middleware that sets the language on every request."""
    world = World()
    browser = world.browser()
    await browser.put(lang="en")
    before = await world.records()
    await browser.put(lang="en")
    assert await world.records() == before


async def test_an_unstorable_value_is_refused_at_once_and_nothing_is_lost() -> None:
    """The stack trace points at the assignment, not at the end of the request."""
    browser = World().browser()
    session = await browser.open()
    session["k"] = "good"
    with pytest.raises(UnstorableValueError, match=r"session\['k'\].*object"):
        session["k"] = object()
    with pytest.raises(UnstorableValueError, match="text"):
        session[1] = "x"  # type: ignore[index]
    with pytest.raises(UnstorableValueError):
        session["\ud800"] = "x"
    with pytest.raises(UnstorableValueError):
        await session.modify("\ud800", lambda value: value)
    with pytest.raises(UnstorableValueError, match="text"):
        await session.modify(1, lambda value: value)  # type: ignore[arg-type]
    await browser.end(session)
    assert await browser.data() == {"k": "good"}


async def test_a_session_beyond_its_size_is_refused_at_once_and_the_old_data_stays() -> None:
    """64 KiB by default: what grows without bound fails before it hurts."""
    browser = World(max_size=2000).browser()
    await browser.put(old="kept")
    session = await browser.open()
    session["fits"] = "x" * 1500
    with pytest.raises(SessionTooLargeError, match="max_size is 2000"):
        session["too_much"] = "x" * 600
    with pytest.raises(SessionTooLargeError):
        session.flash("too_much", "x" * 600)
    del session["fits"]
    session["now_it_fits"] = "x" * 1500
    await browser.end(session)
    assert set(await browser.data()) == {"old", "now_it_fits"}


@pytest.mark.parametrize(
    "grow",
    [
        lambda s: s.set("k" * 3000, 1),
        lambda s: s.flash("k" * 3000, 1),
        lambda s: s.flash("k", 1, category="c" * 3000),
        lambda s: s.set("v", "é" * 1100),
    ],
    ids=["key", "flash key", "category", "two-byte text"],
)
async def test_whatever_makes_a_session_grow_counts(grow: Any) -> None:
    """Names come from strangers as often as values do; at the save it is too late for a clear answer."""
    session = await World(max_size=2000).browser().open()
    with pytest.raises(SessionTooLargeError):
        grow(session)


async def test_a_principal_is_an_identifier_not_a_document() -> None:
    """It is kept with every session and in the index of every store."""
    session = await World().browser().open()
    with pytest.raises(UnstorableValueError, match="1024"):
        session.sign_in("u" * 2000)


async def test_growth_inside_a_list_is_bounded_too() -> None:
    """It is only noticed at the save; the stored session must stay whole."""
    browser = World(max_size=2000).browser()
    await browser.put(items=[])
    session = await browser.open()
    session["items"].extend(["x" * 100] * 50)
    with pytest.raises(SessionTooLargeError):
        await browser.end(session)
    assert await browser.data() == {"items": []}


async def test_a_repr_shows_no_id_and_no_data(caplog: pytest.LogCaptureFixture) -> None:
    """Reprs end up in logs and tracebacks."""
    caplog.set_level(logging.DEBUG)
    browser = World().browser()
    await browser.put(secret="canary-value", principal="x")
    session = await browser.open()
    assert browser.cookie is not None
    session_id = browser.cookie.split(".")[2]
    for text in (repr(session), str(session), repr(session.draft), caplog.text):
        assert "canary-value" not in text
        assert session_id not in text


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "delete", "clear", "read", "nest"]), st.sampled_from("abc"), st.integers()
        ),
        max_size=25,
    )
)
async def test_a_session_behaves_as_a_dict_does(steps: list[tuple[str, str, int]]) -> None:
    """Any sequence of operations, with a save after every third."""
    browser = World().browser()
    model: dict[str, Any] = {}
    session = await browser.open()
    for number, (verb, key, value) in enumerate(steps):
        if verb == "set":
            session[key] = model[key] = value
        elif verb == "delete":
            session.delete(key)
            model.pop(key, None)
        elif verb == "clear":
            session.clear()
            model.clear()
        elif verb == "read":
            assert session.get(key) == model.get(key)
        else:
            session[key] = [value]
            session[key].append(value)
            model[key] = [value, value]
        if number % 3 == 2:
            await browser.end(session)
            session = await browser.open()
        assert session.all() == model
        assert len(session) == len(model)
