"""Runs programs over stores in every possible order of their calls, and stops them at every point.

Programs are coroutines that do nothing but call stores. Each call is one step, as it is for a server that
carries out one command after the other. Two ways to a state are one when the stores hold the same and every
program has seen the same answers; so the number of states stays small, though that of orders does not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from eyewall.core.record import Record
from eyewall.stores.memory import MemoryStore

T = TypeVar("T")
Program = Coroutine[Any, Any, object]


def finished(program: Coroutine[Any, Any, T]) -> T:
    """Run ``program`` to its end, alone."""
    try:
        while True:
            program.send(None)
    except StopIteration as end:
        result: T = end.value
        return result


class _Step:
    def __await__(self) -> Generator[None, None, None]:
        yield


class SteppedStore(MemoryStore):
    """A memory store whose calls wait for their turn, and write their answers down."""

    answers: list[object]
    """Of the program whose turn it is."""

    async def _step(self, call: Callable[..., Coroutine[Any, Any, T]], *args: Any, **options: Any) -> T:
        await _Step()
        answer = await call(*args, **options)
        self.answers.append(answer)
        return answer

    async def create(self, record: Record) -> bool:
        return await self._step(super().create, record)

    async def load(self, digest: bytes) -> Record | None:
        return await self._step(super().load, digest)

    async def replace(self, record: Record, *, version: int) -> bool:
        return await self._step(super().replace, record, version=version)

    async def touch(self, digest: bytes, seen_at: datetime, expires_at: datetime) -> bool:
        return await self._step(super().touch, digest, seen_at, expires_at)

    async def delete(self, digest: bytes) -> bool:
        return await self._step(super().delete, digest)

    async def delete_principal(self, principal: str) -> int:
        return await self._step(super().delete_principal, principal)

    def held(self) -> dict[bytes, Record]:
        """Everything that is there, dead or alive."""
        return {**self._anonymous, **self._signed_in}


@dataclass
class Actor:
    """One program, as far as it has come."""

    program: Program
    kind: object = None
    """Programs of one kind do the same, so it does not matter which of them begins."""
    answers: list[object] = field(default_factory=list)
    result: object = None
    done: bool = False

    @property
    def begun(self) -> bool:
        """Whether any store has heard of it."""
        return bool(self.answers)


@dataclass
class World:
    """The stores and the programs at one point of one order."""

    stores: Sequence[SteppedStore]
    actors: Sequence[Actor]

    def advance(self, index: int) -> None:
        """Let one program make its next call and see the answer."""
        actor = self.actors[index]
        self.write_answers_to(actor.answers)
        try:
            actor.program.send(None)
        except StopIteration as end:
            actor.done, actor.result = True, end.value

    def next_ones(self) -> list[int]:
        """Whose call may be next; of twins that have not begun only the first."""
        fresh: set[object] = set()
        found = []
        for index, actor in enumerate(self.actors):
            if actor.done or (not actor.begun and actor.kind in fresh):
                continue
            if not actor.begun:
                fresh.add(actor.kind)
            found.append(index)
        return found

    def write_answers_to(self, answers: list[object]) -> None:
        """Whoever calls a store from now on, its answers go there."""
        for store in self.stores:
            store.answers = answers

    def key(self) -> object:
        """Two worlds with one key have one future."""
        held = tuple(frozenset(store.held().items()) for store in self.stores)
        return held, tuple((tuple(actor.answers), actor.done) for actor in self.actors)

    def stop(self) -> None:
        """Kill what still runs."""
        for actor in self.actors:
            actor.program.close()


def explore(build: Callable[[], World], judge: Callable[[World], None]) -> int:
    """Call ``judge`` on every state that ``build()``'s programs can come to; return how many there are.

    The world that ``judge`` gets is its own: it may change it, for instance to see what happens next if all
    programs are killed here.
    """
    seen: set[object] = set()
    orders: list[tuple[int, ...]] = [()]
    while orders:
        order = orders.pop()
        world = _replayed(build, order)
        key = world.key()
        if key not in seen:
            seen.add(key)
            orders += [(*order, i) for i in world.next_ones()]
            world.write_answers_to([])
            judge(world)
        world.stop()
    return len(seen)


def _replayed(build: Callable[[], World], order: Sequence[int]) -> World:
    world = build()
    for index in range(len(world.actors)):
        world.advance(index)  # up to the first call, which is not made yet
    for index in order:
        world.advance(index)
    return world
