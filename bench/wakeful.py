"""The load generator's event loop, which never sleeps.

To wake a process that sleeps on another core is work, and whoever wakes it has to do it: on a virtual
machine, 5 to 15 us for each answer. An application pays it only while the generator finds time to sleep,
that is, the more of it the slower the application is. Beside bare Tornado that looks like the session's
cost: it was 10 us of what Tornado's signed cookie seemed to add. So the generator asks again and again
whether anything has come. A store on the same core goes first.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class _Wakeful(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found and timeout != 0:
            os.sched_yield()
        return found


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """As :func:`asyncio.run`, and never asleep."""
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_Wakeful())) as runner:
        return runner.run(work)
