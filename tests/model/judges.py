"""The rules, as judges of one state of one order of calls."""

from __future__ import annotations

import asyncio

from tests.model.scene import THIEF, Performance
from tests.model.visits import SESSION, Answer

ANNS_KEYS = frozenset({"base", "n", "a", "b"})


def judge(world: Performance) -> None:
    """Judge a state; all processes die there, so that what is stored is what counts."""
    over = world.is_over()
    judge_errors(world)
    world.kill()
    if over:
        judge_orphans(world)
    judge_owners(world)
    judge_ended(world)
    judge_bystanders(world)
    judge_limit(world)
    if over:
        judge_answers(world)
        judge_thief(world)
        judge_who_is_signed_in(world)
        judge_data(world)


def is_cut(world: Performance) -> bool:
    """Whether a request was cancelled."""
    return any(actor.was_cut for actor in world.waiting)


def was_stolen(world: Performance) -> bool:
    """Whether a thief may have the session for himself: he came first, and no new password got it back."""
    return bool(world.of(name=THIEF)) and not world.done(name="new password")


def judge_errors(world: Performance) -> None:
    """Nothing but what the rules know: 409 is an answer here, and only who was cancelled has no answer."""
    for actor in world.waiting:
        if isinstance(actor.error, asyncio.CancelledError):
            assert actor.was_cut, f"{actor.name} was cancelled by nobody"
        elif actor.error is not None:
            raise AssertionError(f"{actor.name} failed") from actor.error


def judge_owners(world: Performance) -> None:
    """No cookie that anybody ever had shows one person's session to another (I1)."""
    scene = world.scene
    for browser in (scene.ann, scene.far, scene.bob):
        for pair in sorted(pair for pair in browser.ever if pair.startswith(SESSION + "=")):
            principal, data = scene.seen_by(pair)
            if principal == "bob":
                assert not ANNS_KEYS & data.keys()
                assert browser is not scene.far
            elif principal == "ann":
                assert "bobs" not in data
                assert browser is not scene.bob


def judge_ended(world: Performance) -> None:
    """Once an end is acknowledged, nothing of that session opens again (I3)."""
    scene = world.scene
    if world.done(ends=True):
        old = [pair for pair in (scene.tab or "").split("; ") if pair.startswith(SESSION + "=")]
        for pair in old:
            assert scene.seen_by(pair) == (None, {})
    if world.done(ends_token=True) and scene.remembered:
        tokens = [pair for pair in (scene.tab or "").split("; ") if not pair.startswith(SESSION + "=")]
        for pair in tokens:
            assert scene.seen_by(pair) == (None, {})


def judge_bystanders(world: Performance) -> None:
    """Who has nothing to do with it stays signed in; whom an end reaches is out."""
    if world.of(name="expire"):
        return
    scene = world.scene
    assert scene.seen_by(scene.bob.cookies()) == ("bob", {"bobs": 1})
    if world.done(ends_far=True):
        assert scene.seen_by(scene.far.cookies()) == (None, {})
    elif not world.of(ends_far=True) and not world.of(name="new password from far"):
        assert scene.seen_by(scene.far.cookies()) == ("ann", {})


def judge_limit(world: Performance) -> None:
    """Never more than ``max_sessions`` that anybody can use; a new ID is nobody's until it was told."""
    most = world.scene.options.get("max_sessions")
    if most is not None:
        known = world.scene.known_digests()
        hers = [record for record in world.scene.sessions() if record.principal == "ann"]
        assert sum(record.digest in known for record in hers) <= most


def judge_answers(world: Performance) -> None:
    """A change is refused only when its session ended or moved meanwhile; signing in and out never is."""
    refused = [
        play
        for actor, play in zip(world.waiting, world.plays, strict=True)
        if isinstance(actor.result, Answer) and actor.result.refused
    ]
    if not any(play.ends or play.moves for play in world.plays):
        assert not refused
    for play in refused:
        assert play.principal is None
        assert not (play.ends or play.ends_far) or play.name.startswith("new password")
        if play.name == "new password":  # a new ID is no reason: it goes along
            assert any(other.ends or other.principal == "bob" for other in world.plays)


def judge_thief(world: Performance) -> None:
    """Once a new password is acknowledged, no copy of an ID opens anything, whatever was made of it."""
    if world.of(name=THIEF) and world.done(name="new password"):
        for pair in sorted(world.scene.spare.ever):
            assert world.scene.seen_by(pair) == (None, {})


def judge_who_is_signed_in(world: Performance) -> None:
    """Nobody is signed out, or becomes somebody else, without cause."""
    scene = world.scene
    principal, _ = scene.seen_by(scene.ann.cookies())
    allowed: set[str | None] = set()
    signed_in = {play.principal for play in world.plays if play.principal}
    if world.of(ends=True) or (world.of(name="restore") and world.of(ends_token=True)) or was_stolen(world):
        allowed.add(None)
    if not world.done(ends=True) or world.of(name="expire"):
        allowed.add("ann")
    if "bob" in signed_in and not is_cut(world) and not world.of(ends=True):
        others = [play for play in world.plays if play.moves and play.principal != "bob"]
        allowed = allowed if others else set()
    assert principal in allowed | signed_in


def judge_data(world: Performance) -> None:
    """What was acknowledged is there, once (I2)."""
    if world.of(ends=True) or world.of(principal="bob") or world.of(name="restore") or was_stolen(world):
        return
    scene = world.scene
    _, data = scene.seen_by(scene.ann.cookies())
    assert data["base"] == 1
    for actor, play in zip(world.waiting, world.plays, strict=True):
        if play.writes and is_acknowledged(actor.result):
            assert data[play.writes] == 1
    clicks = [actor for actor in world.of(name="modify") if is_acknowledged(actor.result)]
    uncertain = sum(actor.was_cut for actor in world.of(name="modify"))
    assert len(clicks) <= data["n"] <= len(clicks) + uncertain
    judge_messages(world)


def judge_messages(world: Performance) -> None:
    """A message is given to exactly one."""
    taken = [actor.result.value for actor in world.of(name="take") if isinstance(actor.result, Answer)]
    count = sum(value for value in taken if isinstance(value, int))
    waiting = world.scene.waiting_messages(world.scene.ann)
    assert count + waiting <= 1
    if not is_cut(world):
        assert count + waiting == 1


def judge_orphans(world: Performance) -> None:
    """No session stays that nobody has a cookie of, and so nobody can end."""
    if is_cut(world):
        return
    known = world.scene.known_digests()
    assert [record.digest for record in world.scene.sessions() if record.digest not in known] == []


def is_acknowledged(result: object) -> bool:
    """Whether the browser was told that it is done."""
    return isinstance(result, Answer) and not result.refused
