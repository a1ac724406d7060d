"""What went wrong, counted, with the first examples of each."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from enum import Enum
from typing import Any, Final

_EXAMPLES: Final = 10


class Wrong(Enum):
    """Kinds of broken promises; the value is the name in the results."""

    IDENTITY = "somebody else's session or data"
    REVIVED = "an ended session is there again"
    SIGNED_OUT = "signed out by nobody"
    LOST_WRITE = "an acknowledged write is lost"
    STATUS = "an unexpected status"
    OUTLIVED = "a stream or socket outlived its session"


class Ledger:
    """Counts answers by store, and complaints by kind."""

    def __init__(self) -> None:
        self.answers: Counter[str] = Counter()
        self.actions: Counter[str] = Counter()
        self.complaints: Counter[Wrong] = Counter()
        self.examples: defaultdict[Wrong, list[str]] = defaultdict(list)
        self._closed = False

    def close(self) -> None:
        """Count nothing any more: who is cut off by the end has nothing to complain of."""
        self._closed = True

    def complain(self, wrong: Wrong, what: str) -> None:
        """Note one broken promise."""
        if self._closed:
            return
        self.complaints[wrong] += 1
        if len(self.examples[wrong]) < _EXAMPLES:
            self.examples[wrong].append(f"{time.strftime('%H:%M:%S')} {what}")

    def figures(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "answers": dict(self.answers),
            "actions": dict(self.actions),
            "complaints": {wrong.value: self.complaints[wrong] for wrong in Wrong},
            "examples": {wrong.value: said for wrong, said in self.examples.items()},
        }
