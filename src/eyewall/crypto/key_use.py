"""Counts what retired keys still verify, so that an operator knows when one can go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Use:
    """What one retired key verified since this process started.

    Args:
        count: how many values.
        last_seen: when the last one came (UTC), or None while there was none.
    """

    count: int = 0
    last_seen: datetime | None = None


class KeyUse:
    """One :class:`Use` per retired key: as many entries as keys, whatever strangers send.

    Args:
        retired: IDs of the keys that verify and do not sign.
        clock: returns the current time (UTC).
    """

    def __init__(self, retired: Iterable[str], clock: Callable[[], datetime]) -> None:
        self._uses = dict.fromkeys(retired, Use())
        self._clock = clock

    def note(self, key_id: str) -> None:
        """Count one value that the key verified; other keys than the retired ones are none of our business.

        Call it after the check, never before: anybody can write a key ID into a cookie.
        """
        use = self._uses.get(key_id)
        if use is not None:
            self._uses[key_id] = Use(use.count + 1, self._clock())

    def by_key(self) -> dict[str, Use]:
        """Return each retired key's use by key ID, newest key first."""
        return dict(self._uses)
