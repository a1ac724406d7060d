"""Where the users of the soak go, and how long they may stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.soak.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long sessions live, in seconds; what the servers are told too.

    Args:
        idle: longest silence.
        absolute: longest life.
        remember: longest time to come back without a password.
        margin: how much earlier or later than said something may end.
    """

    idle: float = 60
    absolute: float = 180
    remember: float = 900
    margin: float = 8


@dataclass(frozen=True, kw_only=True)
class Place:
    """Two servers that share a store.

    Args:
        store: its name.
        ports: where the two listen.
        limits: how long its sessions live.
        ledger: where complaints go.
    """

    store: str
    ports: Sequence[int]
    limits: Limits
    ledger: Ledger
