"""Every order of the store calls of two or three requests on one session keeps the rules.

Each request is whole: it loads, does one thing and saves, in a process of its own or in one with the others.
Every state on the way is judged as if all processes died there; every end as what the browsers see then. With
*cuts*, one request is cancelled, before or after any of its calls, and what it started to put things right
goes on in any order, too.

What takes seconds by itself runs with ``make soak``; the rest, a minute altogether, with ``make faults``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import Any, Final

import pytest

from tests.model.judges import judge
from tests.model.scene import ELSEWHERE, PLAYS, THIEF, Performance, Scene
from tests.model.stepping import repeatable_randomness
from tests.stores.interleaving import World, explore

SOAK: Final = bool(os.environ.get("EYEWALL_TEST_SOAK"))

LONG: Final = (
    "everywhere",
    "revoke all",
    "revoke others",
    "revoked by far",
    "new password",
    "new password from far",
)
"""They look through the store several times, so two of them have thousands of orders."""

LOOKING: Final = (*LONG, "revoke")
"""They look through it at least once."""

APART: Final = ("restore", THIEF, ELSEWHERE)
"""They are not for everybody: each has a test of its own."""

SHORT: Final = tuple(name for name in PLAYS if name not in (*LONG, *APART))
MOVES: Final = tuple(name for name in SHORT if PLAYS[name].moves)
CHANGES: Final = ("write a", "modify", "take")
ENDS: Final = ("sign out", "revoke", "expire")

Names = tuple[str, ...]


def pairs() -> list[Names]:
    """Two at once, in two processes; of those that take long only one."""
    found = combinations_with_replacement([*SHORT, *LONG], 2)
    return [pair for pair in found if SOAK or not set(pair) <= set(LOOKING)]


def pairs_with_token() -> list[Names]:
    """A remember token is there, and brings ann back meanwhile."""
    return [(name, "restore") for name in (*SHORT, *LONG, "restore")]


def pairs_cut() -> list[Names]:
    """One of them is cancelled."""
    others = [name for name in (*SHORT, *LONG) if name not in ("write b", "sign in other")]
    return [(move, other) for move in MOVES for other in others if SOAK or other not in LOOKING]


def pairs_in_one_process() -> list[Names]:
    """They wait for each other in memory, and are written together.

    What they have in memory is not looked into, so no two orders are known to come to the same.
    """
    changes = combinations_with_replacement(["write a", "write b", "modify", "take"], 2)
    others = [name for name in (*CHANGES, *ENDS) if SOAK or name != "revoke"]
    return [*changes, *((move, other) for move in MOVES for other in others)]


def pairs_at_the_limit() -> list[Names]:
    """No more than two sessions, and ann has two."""
    return [(name, "sign in same") for name in SHORT]


def pairs_below_the_limit() -> list[Names]:
    """There is room for one more, and ann's session is getting a new ID."""
    return [(name, ELSEWHERE) for name in MOVES]


TRIPLES: Final[list[Names]] = [
    ("modify", "modify", "modify"),
    ("write a", "write b", "regenerate"),
    ("write a", "modify", "sign out"),
    ("take", "take", "modify"),
    ("regenerate", "regenerate", "write a"),
]
LONG_TRIPLES: Final[list[Names]] = [
    ("regenerate", "regenerate", "sign out"),
    ("write a", "regenerate", "revoke"),
]


@pytest.fixture(scope="module", autouse=True)
def _repeatable() -> Iterator[None]:
    with repeatable_randomness():
        yield


_starts: dict[tuple[bool, int | None], Scene] = {}


def start(*, remembered: bool = False, limit: int | None = None) -> Scene:
    """The moment at which the plays begin; made once."""
    key = (remembered, limit)
    if key not in _starts:
        options: dict[str, Any] = {} if limit is None else {"max_sessions": limit}
        _starts[key] = Scene(options, remembered=remembered)
    return _starts[key]


def explored(scene: Scene, names: Names, *, cuts: bool = False, shared: bool = False) -> int:
    """Explore what ``names`` can come to; return how many states there are."""
    plays = [PLAYS[name] for name in names]

    def judged(world: World) -> None:
        assert isinstance(world, Performance)
        trace = list(world.trace)
        try:
            judge(world)
        except Exception as error:
            error.add_note(f"after the calls {trace} of {list(names)}")
            world.stop()
            raise

    return explore(lambda: Performance(scene, plays, cuts=cuts, shared=shared), judged)


def named(names: Names) -> str:
    """How a test is called."""
    return " + ".join(names)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", pairs(), ids=named)
def test_two_requests_in_two_processes_keep_the_rules_in_every_order(names: Names) -> None:
    """What is lost, revived or shown to the wrong person in one order of a thousand is so every day."""
    assert explored(start(), names) > 5


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", pairs_with_token(), ids=named)
def test_a_remember_token_brings_back_nobody_who_is_out_in_every_order(names: Names) -> None:
    """A device that was revoked, and comes back by a token that was just being used, was not revoked."""
    assert explored(start(remembered=True), names) > 5


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", pairs_cut(), ids=named)
def test_a_request_cancelled_at_any_call_takes_nothing_from_others_in_every_order(names: Names) -> None:
    """Deadlines and impatient users cut requests at any point; what others were told must stay true."""
    assert explored(start(), names, cuts=True) > 20


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", pairs_in_one_process(), ids=named)
def test_two_requests_in_one_process_keep_the_rules_in_every_order(names: Names) -> None:
    """Changes that wait for each other are written together, which must not make them less."""
    assert explored(start(), names, shared=True) > 5


@pytest.mark.timeout(600)
def test_a_new_password_shuts_out_a_copied_id_in_every_order() -> None:
    """A thief who has just given the stolen session a new ID stays signed in, beside the new password."""
    assert explored(start(), (THIEF, "new password")) > 50


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", pairs_at_the_limit(), ids=named)
def test_a_limit_of_sessions_holds_in_every_order(names: Names) -> None:
    """A limit that parallel sign-ins pass, or that ends a device without need, is none."""
    assert explored(start(limit=2), names) > 5


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", pairs_below_the_limit(), ids=named)
def test_a_session_that_gets_a_new_id_takes_one_place_in_every_order(names: Names) -> None:
    """It has two records for a moment: another device would be signed out for that."""
    assert explored(start(limit=3), names) > 5


@pytest.mark.timeout(600)
@pytest.mark.parametrize("names", [*TRIPLES, *(LONG_TRIPLES if SOAK else ())], ids=named)
def test_three_requests_in_three_processes_keep_the_rules_in_every_order(names: Names) -> None:
    """Two that fit each other may still not fit a third."""
    assert explored(start(), names) > 50
