"""Calls that are asked for at about the same time go to a thread together.

Handing one call to a thread, and its answer back, costs more than what the thread does for it; and what many
calls force to disk together is forced there sooner than one by one. So calls that are made in one turn of the
event loop are handed over at its end, and a thread takes all that wait by the time it begins. Nobody waits
longer in order that there be more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

Call = TypeVar("Call")
Answer = TypeVar("Answer")


class ThreadBatches(Generic[Call, Answer]):
    """Gathers calls of one kind for the threads of one process.

    Args:
        work: does several calls in a thread, and returns what came of each, in their order: an answer, or
            an exception for this one alone.
        threads: where it is done.
        at_once: how many calls a thread takes at most.
    """

    def __init__(
        self,
        work: Callable[[list[Call]], Sequence[Answer | Exception]],
        threads: ThreadPoolExecutor,
        at_once: int,
    ) -> None:
        self._work = work
        self._threads = threads
        self._at_once = at_once
        self._lock = Lock()
        self._waiting: list[tuple[Call, asyncio.Future[Answer]]] = []
        self._coming = 0  # how many threads have been asked, and have not taken anything yet
        self._in_turn: set[asyncio.AbstractEventLoop] = set()

    def ask(self, call: Call) -> asyncio.Future[Answer]:
        """Return the future answer. A call whose future is cancelled before a thread takes it is not done."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        with self._lock:
            self._waiting.append((call, future))
            if loop not in self._in_turn:
                self._in_turn.add(loop)
                loop.call_soon(self._end_turn, loop)
        return future

    def _end_turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._in_turn.discard(loop)
        try:
            self.hand_over()
        except RuntimeError as error:  # there are no threads any more: the program ends
            with self._lock:
                waiting, self._waiting = self._waiting, []
            _settle(loop, [(future, error) for _, future in waiting])

    def hand_over(self) -> None:
        """Ask as many threads as are needed for the calls that wait, before the turn ends."""
        with self._lock:
            while len(self._waiting) > self._coming * self._at_once:
                self._threads.submit(self._take)
                self._coming += 1

    def _take(self) -> None:
        with self._lock:
            self._coming -= 1
            taken, self._waiting = self._waiting[: self._at_once], self._waiting[self._at_once :]
        taken = [(call, future) for call, future in taken if not future.done()]
        try:
            answers = self._work([call for call, _ in taken])
        except Exception as error:  # noqa: BLE001 - raised where the calls were made
            answers = [error] * len(taken)
        answered = [(future, answer) for (_, future), answer in zip(taken, answers, strict=True)]
        for loop in {future.get_loop() for future, _ in answered}:
            with suppress(RuntimeError):  # the loop is closed, so nobody waits
                loop.call_soon_threadsafe(_settle, loop, answered)


def _settle(
    loop: asyncio.AbstractEventLoop, answered: Sequence[tuple[asyncio.Future[Answer], Answer | Exception]]
) -> None:
    for future, answer in answered:
        if future.done() or future.get_loop() is not loop:
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
