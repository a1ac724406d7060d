"""Runs whole requests in any order of their store calls: an event loop that stands still between calls.

The explorer of :mod:`tests.stores.interleaving` drives bare coroutines. Requests need an event loop
(deadlines, locks, tasks in the background), so here is one that runs until nothing can go on by itself, and
whose time passes only when everybody sleeps. Nothing here depends on the speed of the machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar
from unittest import mock

from eyewall.core.record import Record
from tests.stores.interleaving import Actor, SteppedStore, World

T = TypeVar("T")

MOST_NAPS: Final = 20_000
"""So often may time pass before somebody must have gone on; a deadline is looked for every 50 ms."""


class _Resting(selectors.DefaultSelector):
    """Instead of waiting for the network it says that there is nothing to do."""

    def __init__(self) -> None:
        super().__init__()
        self.at_rest: Callable[[float | None], None] = lambda _: None

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout != 0:
            self.at_rest(timeout)
        return []


class SteppingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is its own."""

    def __init__(self) -> None:
        self._now = 0.0
        self._next_timer: float | None = None
        selector = _Resting()
        super().__init__(selector)
        selector.at_rest = self._rest

    def time(self) -> float:
        return self._now

    def run_until_rest(self) -> None:
        """Run until every task waits."""
        self._next_timer = None
        self.run_forever()

    def pass_time(self) -> bool:
        """Let time pass until the next timer, and run; False when there is none."""
        if self._next_timer is None:
            return False
        self._now += self._next_timer
        self.run_until_rest()
        return True

    def finished(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end, with all the time it wants."""
        task = self.create_task(work)
        self.run_until_rest()
        for _ in range(MOST_NAPS):
            if task.done() or not self.pass_time():
                break
        return task.result()

    def _rest(self, timeout: float | None) -> None:
        self._next_timer = timeout
        self.stop()


@dataclass
class Waiting(Actor):
    """A program whose calls wait in a queue until it is their turn."""

    name: str = ""
    calls: deque[asyncio.Future[bool]] = field(default_factory=deque)
    task: asyncio.Task[Any] | None = None
    was_cut: bool = False
    is_dead: bool = False
    drawn: int = 0
    error: BaseException | None = None

    def random_bytes(self, size: int) -> bytes:
        """The same in every order in which this program is run."""
        self.drawn += 1
        return hashlib.shake_128(f"{self.name} {self.drawn}".encode()).digest(size)


_running: ContextVar[Waiting | None] = ContextVar("_running", default=None)
_before: Final = Waiting(mock.Mock(), name="before")


@contextmanager
def repeatable_randomness() -> Iterator[None]:
    """Let each program draw the same secrets in every order, so that equal states are known as equal."""
    _before.drawn = 0

    def token_bytes(size: int = 32) -> bytes:
        return (_running.get() or _before).random_bytes(size)

    with (
        mock.patch.object(secrets, "token_bytes", token_bytes),
        mock.patch.object(random, "uniform", lambda low, high: (low + high) / 2),
    ):
        yield


class WaitingStore(SteppedStore):
    """A memory store whose calls wait for their turn; it sees to it that versions grow by one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    async def _step(self, call: Callable[..., Coroutine[Any, Any, T]], *args: Any, **options: Any) -> T:
        actor = _running.get()
        if actor is None:
            return await call(*args, **options)
        if actor.is_dead:
            raise asyncio.CancelledError
        turn = asyncio.get_running_loop().create_future()
        actor.calls.append(turn)
        cut_after: bool = await turn
        answer = await call(*args, **options)
        actor.answers.append(tuple(answer) if isinstance(answer, list) else answer)
        if cut_after and actor.task is not None:
            actor.task.cancel()
            await asyncio.sleep(0)
        return answer

    async def replace(self, record: Record, *, version: int) -> bool:
        assert record.version == version + 1, "a version grows by one"
        return await super().replace(record, version=version)

    async def find_principal(self, principal: str) -> list[Record]:
        return await self._step(super().find_principal, principal)

    async def sweep(self, now: datetime, limit: int) -> int:
        return await self._step(super().sweep, now, limit)


class RequestWorld(World):
    """Requests on one store, each advanced by one store call at a time.

    With ``cuts``, each may also be cancelled, once in an order: before its next call, or after the store has
    carried that call out. The steps are numbers, as the explorer wants them: for ``n`` programs, ``i`` is the
    next call of one, ``n + i`` cancels it before that call, ``2 * n + i`` after.

    Args:
        store: that all of them use.
        programs: what they do, by name.
        cuts: whether they may be cancelled.
        shared: whether they share more than the store, so that equal answers do not make equal states.
    """

    def __init__(
        self,
        store: WaitingStore,
        loop: SteppingLoop,
        programs: Sequence[tuple[str, Coroutine[Any, Any, object]]],
        *,
        cuts: bool = False,
        shared: bool = False,
    ) -> None:
        self.store = store
        self.loop = loop
        self.waiting = [Waiting(program, name=f"{n} {name}") for n, (name, program) in enumerate(programs)]
        super().__init__((store,), self.waiting)
        self.trace: list[int] = []
        self.cuts = cuts
        self.shared = shared

    def advance(self, index: int) -> None:
        count = len(self.waiting)
        actor = self.waiting[index % count]
        if actor.task is None:
            self._begin(actor)
        else:
            self.trace.append(index)
            self._go_on(actor, index // count)
        self.loop.run_until_rest()
        self._settle()

    def _begin(self, actor: Waiting) -> None:
        context = copy_context()
        context.run(_running.set, actor)
        actor.task = self.loop.create_task(actor.program, context=context)

    def _go_on(self, actor: Waiting, cut: int) -> None:
        assert actor.task is not None
        if cut:
            actor.was_cut = True
        if cut == 1:
            actor.task.cancel()
        else:
            actor.calls.popleft().set_result(cut == 2)

    def _settle(self) -> None:
        """Let time pass while everybody who is not done sleeps; then note who is done."""
        for _ in range(MOST_NAPS):
            for actor in self.waiting:
                actor.calls = deque(call for call in actor.calls if not call.done())
            if any(actor.calls for actor in self.waiting) or self._are_all_done():
                break
            if not self.loop.pass_time():
                raise AssertionError("they wait for each other for ever")
        else:
            raise AssertionError("nobody goes on, however much time passes")
        for actor in self.waiting:
            self._note(actor)

    def _are_all_done(self) -> bool:
        others = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        return not others

    def _note(self, actor: Waiting) -> None:
        if actor.task is not None and actor.task.done() and not actor.done:
            actor.done = True
            if actor.task.cancelled():
                actor.error = asyncio.CancelledError()
            elif (error := actor.task.exception()) is not None:
                actor.error = error
            else:
                actor.result = actor.task.result()

    def next_ones(self) -> list[int]:
        count = len(self.waiting)
        found = [index for index, actor in enumerate(self.waiting) if actor.calls]
        if self.cuts and not any(actor.was_cut for actor in self.waiting):
            cuttable = [index for index in found if not self.waiting[index].done]
            found += [kind * count + index for index in cuttable for kind in (1, 2)]
        return found

    def is_over(self) -> bool:
        """Whether everything has been done, also what goes on in the background."""
        return all(actor.done and not actor.calls for actor in self.waiting)

    def key(self) -> object:
        held = frozenset(self.store.held().items())
        seen = tuple((tuple(one.answers), one.done, one.was_cut, len(one.calls)) for one in self.waiting)
        return held, seen, tuple(self.trace) if self.shared else ()

    def write_answers_to(self, answers: list[object]) -> None:
        """Each program has its own, whoever goes on."""

    def kill(self) -> None:
        """Let the processes of all programs die here: none of their calls is carried out any more."""
        for actor in self.waiting:
            actor.is_dead = True
        for _ in range(100):
            left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            self.loop.run_until_rest()
        raise AssertionError("a task that cannot be cancelled")

    def stop(self) -> None:
        self.kill()
        for actor in self.waiting:
            if actor.task is None:
                actor.program.close()
        self.loop.close()


def draw_from_the_start() -> None:
    """Let what comes before the programs draw the same secrets again."""
    _before.drawn = 0
