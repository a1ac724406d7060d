"""A session key with a lone surrogate: JSON text can carry one, as an escape."""

from __future__ import annotations

import asyncio
import json

import pytest

from eyewall.core.session import Session
from eyewall.errors import UnstorableValueError
from tests.core.world import World

KEY = next(iter(json.loads('{"\\ud800": 1}')))


async def _use(session: Session, verb: str) -> None:
    if verb == "set":
        session[KEY] = 1
    elif verb == "modify":
        await session.modify(KEY, lambda _: 1)
    else:
        session.flash(KEY, 1)


@pytest.mark.parametrize("verb", ["set", "modify", "flash"])
async def test_a_key_that_cannot_be_stored_is_refused_at_once(verb: str) -> None:
    """It failed at the save instead: an unexpected 500 with a traceback, for one line of JSON."""
    browser = World().browser()
    session = await browser.open()
    with pytest.raises(UnstorableValueError):
        await _use(session, verb)


async def test_a_key_that_cannot_be_stored_fails_no_other_request() -> None:
    """Changes that are written together failed together."""
    browser = World().browser()
    await browser.put(started=True)
    sessions = [await browser.open() for _ in range(3)]
    sessions[0]["a"] = 1
    with pytest.raises(UnstorableValueError):
        sessions[1][KEY] = 1
    sessions[2]["b"] = 1
    await asyncio.gather(*(browser.end(session) for session in sessions))
    assert set(await browser.data()) == {"started", "a", "b"}
