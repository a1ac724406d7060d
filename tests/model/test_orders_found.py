"""Orders of calls that the exploration once found to break a promise, each by itself.

The numbers are steps of :class:`~tests.model.stepping.RequestWorld`: 0 is the next store call of the first
request, 1 of the second, and 4 the next call of the first, which is cancelled the moment it was carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.model.scene import PLAYS, Performance, Scene
from tests.model.stepping import repeatable_randomness

Played = Callable[[str, str, Sequence[int]], Scene]


@pytest.fixture
def played() -> Iterator[Played]:
    """What lets two requests go on in an order, to their ends, and returns what is there then."""
    worlds: list[Performance] = []

    def play(first: str, second: str, order: Sequence[int]) -> Scene:
        worlds.append(performed(first, second, order))
        return worlds[-1].scene

    with repeatable_randomness():
        yield play
        for world in worlds:
            world.stop()


def performed(first: str, second: str, order: Sequence[int]) -> Performance:
    """Carry out ``order``, and then what is left."""
    world = Performance(Scene({}, remembered=False), [PLAYS[first], PLAYS[second]], cuts=True, shared=False)
    for index in (0, 1):
        world.advance(index)
    for index in order:
        if index in world.next_ones():  # whoever was slow when this order was found may be done sooner today
            world.advance(index)
    while waiting := [index for index in world.next_ones() if index < len(world.plays)]:
        world.advance(waiting[0])
    world.kill()
    return world


def test_a_new_id_that_is_taken_back_keeps_what_was_acknowledged_meanwhile(played: Played) -> None:
    """The page said "saved"; a request of another tab ran into its deadline, and it was not."""
    scene = played("regenerate", "write a", [1, 0, 1, 0, 4])
    assert scene.seen_by(scene.ann.cookies())[1]["a"] == 1


def test_a_new_id_that_is_taken_back_revives_no_device_that_was_revoked_meanwhile(played: Played) -> None:
    """The owner was told that the stolen phone is out, and its cookie opens the account again."""
    scene = played("regenerate", "revoke", [0, 0, 4, 1, 1, 1, 1])
    assert scene.seen_by(scene.tab) == (None, {})


def test_signing_in_twice_at_once_keeps_the_cart(played: Played) -> None:
    """A double click on "sign in" empties what the visitor had chosen."""
    scene = played("sign in same", "sign in same", [1, 1, 1, 0, 0])
    assert scene.seen_by(scene.ann.cookies())[1]["base"] == 1


def test_an_old_cookie_signs_nobody_else_out_everywhere(played: Played) -> None:
    """Ann's old cookie ends what bob has on his own devices, because he signed in in her browser since."""
    scene = played("sign in other", "everywhere", [0, 0, 0])
    assert scene.seen_by(scene.bob.cookies()) == ("bob", {"bobs": 1})


def test_ending_the_others_beside_a_new_id_keeps_its_own_session(played: Played) -> None:
    """Whoever asks to stay, and for the others to go, is signed out with them."""
    scene = played("regenerate", "revoke others", [1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0])
    assert scene.seen_by(scene.ann.cookies())[0] == "ann"


def test_ending_the_others_does_not_end_who_signs_in_in_the_same_browser(played: Played) -> None:
    """Bob is signed in, and at once is not: a request of the one before him followed to his session."""
    scene = played("sign in other", "revoke others", [1, 1, 0, 0, 0])
    assert scene.seen_by(scene.ann.cookies())[0] == "bob"


@pytest.mark.parametrize("calls", range(8))
def test_a_sign_in_cancelled_at_any_call_leaves_no_lock_behind(calls: int) -> None:
    """Whoever lost patience and tries again at once is answered with a 503, for as long as the lease runs."""
    with repeatable_randomness():
        start = Scene({"max_sessions": 2}, remembered=False)
        world = Performance(start, [PLAYS["sign in same"]], cuts=True, shared=False)
        for index in (0, *[0] * calls, 2):  # 2: the next call, and cancelled when it was carried out
            world.advance(index)
        while world.next_ones():
            world.advance(0)
        try:
            assert world.scene.signs_in()
        finally:
            world.stop()
