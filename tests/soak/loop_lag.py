"""How long an event loop is held, and how much of that was the machine's doing.

Two ways see it. A *turn* is what the loop does between two looks at its sockets: its length is known exactly,
at the price of two looks at the clock. A *timer* that fires late also tells of waiting for the interpreter's
lock, which threads may keep: that is no part of any turn.

In both, the thread of the loop may have been ready to run and have waited for a processor. The kernel counts
that (``schedstat``, see ``Documentation/scheduler/sched-stats.rst``), so it is taken away: *held* is the
length of the turn, or the lateness of the timer, less the waiting.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import os
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

TICK: Final = 0.05
"""Seconds between two timers. One costs 0.13 ms of a virtual machine's processor, so ten milliseconds in
nine processes would cost as much as two hundred users."""

_LONGEST: Final = 10_000  # milliseconds; whatever is longer counts as this
_WORST_KEPT: Final = 20
_WORTH_A_LOOK: Final = 0.002  # seconds
_BASELINE: Final = 0.25  # seconds; how old the surroundings that an event is compared with may be


class _Moment(NamedTuple):
    """Where the loop's thread is at a moment; all in seconds since some time ago.

    Args:
        at: the time.
        ran: how long the thread has run.
        waited: how long it was ready to run, and did not.
        collected: how long the garbage collector has run.
    """

    at: float
    ran: float
    waited: float
    collected: float


class LoopLag:
    """Watches the running loop, from when it is made."""

    def __init__(self) -> None:
        own = f"/proc/self/task/{threading.get_native_id()}/schedstat"
        self._own = os.open(own, os.O_RDONLY | os.O_CLOEXEC)
        self._late = [0] * (_LONGEST + 1)
        self._worst: list[tuple[float, float, dict[str, Any]]] = []
        self._collecting = _CollectorTime()
        self._around = self._around_before = _Surroundings()
        self._watch_turns(asyncio.get_running_loop())
        self._watching = asyncio.ensure_future(self._watch_timers())

    def figures(self) -> dict[str, Any]:
        """Return what was seen so far, in milliseconds; the shares are those of the timers."""
        return {
            "timers": sum(self._late),
            "p50": self._share(0.5),
            "p99": self._share(0.99),
            "p99.99": self._share(0.9999),
            "greatest": max((held for held, _, _ in self._worst), default=0.0),
            "worst": [event for _, _, event in sorted(self._worst, key=lambda each: -each[0])],
        }

    async def _watch_timers(self) -> None:
        while True:
            if time.monotonic() - self._around.at > _BASELINE:
                self._around_before, self._around = self._around, _Surroundings()
            began = self._moment()
            await asyncio.sleep(TICK)
            held = self._note("timer", began, due=began.at + TICK)
            self._late[min(int(held), _LONGEST)] += 1

    def _watch_turns(self, loop: Any) -> None:
        select, began = loop._selector.select, self._moment()

        def watched(timeout: float | None = None) -> Any:
            nonlocal began
            if time.monotonic() - began.at > _WORTH_A_LOOK:
                self._note("turn", began, due=began.at)
            ready = select(timeout)
            began = self._moment()
            return ready

        loop._selector.select = watched

    def _moment(self) -> _Moment:
        ran, waited = os.pread(self._own, 64, 0).split()[:2]
        return _Moment(time.monotonic(), int(ran) / 1e9, int(waited) / 1e9, self._collecting.seconds)

    def _note(self, kind: str, began: _Moment, *, due: float) -> float:
        """Note what is over now and was to be over by ``due``; return how long we held it (milliseconds)."""
        now = self._moment()
        waited = now.waited - began.waited
        held = round(max(now.at - due - waited, 0.0) * 1000, 1)
        if len(self._worst) == _WORST_KEPT and held <= self._worst[0][0]:
            return held
        event = {
            "at": round(time.time(), 1),
            "kind": kind,
            "held": held,
            "ran": round((now.ran - began.ran) * 1000, 1),
            "waited": round(waited * 1000, 1),
            "collecting": round((now.collected - began.collected) * 1000, 1),
            **self._around_before.since(),
        }
        heapq.heappush(self._worst, (held, now.at, event))
        if len(self._worst) > _WORST_KEPT:
            heapq.heappop(self._worst)
        return held

    def _share(self, part: float) -> int:
        """Return within how many milliseconds ``part`` of the timers fired."""
        least, seen = sum(self._late) * part, 0
        for milliseconds, count in enumerate(self._late):
            seen += count
            if seen >= least:
                return milliseconds + 1
        return 0


class _CollectorTime:
    """Adds up the time the garbage collector took, for it holds every thread."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, phase: str, _facts: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self._began


class _Surroundings:
    """What else was going on, to explain an event: it is reported, and not taken away."""

    def __init__(self) -> None:
        self.at = time.monotonic()
        self._threads = _threads_waited()
        self._stolen = _stolen()

    def since(self) -> dict[str, float]:
        """Return how long our other threads waited for a processor, and what the host took for others."""
        return {
            "threads_waited": round((_threads_waited() - self._threads) * 1000, 1),
            "stolen": round((_stolen() - self._stolen) * 1000, 1),
        }


def _threads_waited() -> float:
    """Seconds that the other threads of this process together have waited for a processor."""
    total, own = 0, str(threading.get_native_id())
    for thread in Path("/proc/self/task").iterdir():
        if thread.name == own:
            continue
        try:
            total += int((thread / "schedstat").read_bytes().split()[1])
        except OSError:  # it has ended
            continue
    return total / 1e9


def _stolen() -> float:
    """Seconds that the host of this machine has given to others, over all processors."""
    with Path("/proc/stat").open("rb") as file:
        return int(file.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
