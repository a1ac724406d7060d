"""What a run measures, in which order, and how long that takes.

Systems come in batches: a bare application and a few that are compared with it. Within a batch every case is
measured A B C, A B C, A B C, so that a bare run is never more than some seconds away from the runs that are
compared with it; and only the applications of one batch run at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from bench.loads import LOADS, Load
from bench.systems import System

ROUNDS, SECONDS = 3, 0.9
CONNECTIONS = {"W1": (16, 64, 256), "W2": (16, 64, 256)}
"""Of the loads that are measured with more than one number of connections."""
USUAL_CONNECTIONS = (64,)
BATCH = 4
"""Systems that share a bare run. Fewer bring the two nearer, and make the whole longer."""

OVERHEAD = 1.25
"""A run takes this many times its measuring time (warming up), and a bit to connect and to prepare."""
PREPARING = 0.12
STARTING = 8.0
"""Seconds to start, check and count the commands of a batch."""


class Case(NamedTuple):
    """A load with a number of connections."""

    load: str
    connections: int

    def __str__(self) -> str:
        return f"{self.load} at {self.connections}"


class Batch(NamedTuple):
    """A bare system, and those that are measured beside it."""

    bare: System
    systems: list[System]

    @property
    def everyone(self) -> list[System]:
        """All of them, in the order in which they take their turns."""
        return [self.bare, *self.systems]


class Plan(NamedTuple):
    """What is measured, and for how long.

    Args:
        systems: which.
        loads: which.
        connections: with how many, for every load; None for the usual ones of each.
        rounds: how often each case of each system.
        seconds: of each run.
    """

    systems: list[System]
    loads: list[Load]
    connections: tuple[int, ...] | None = None
    rounds: int = ROUNDS
    seconds: float = SECONDS

    @property
    def cases(self) -> list[Case]:
        """Every load with every number of connections."""
        return [Case(load.name, count) for load in self.loads for count in self._counts(load)]

    def _counts(self, load: Load) -> tuple[int, ...]:
        if self.connections is not None:
            return self.connections
        return CONNECTIONS.get(load.name, USUAL_CONNECTIONS)

    @property
    def batches(self) -> list[Batch]:
        """The systems, a few at a time; a bare one that nothing is compared with is alone."""
        found = []
        for bare in (system for system in self.systems if system.is_bare):
            others = iter([each for each in self.systems if each.bare == bare.name and not each.is_bare])
            own = [Batch(bare, few) for few in _few(others)]
            found += own or [Batch(bare, [])]
        return found

    @property
    def minutes(self) -> float:
        """How long it takes, about."""
        loads = {load.name: load for load in self.loads}
        runs = sum(
            measures(system, loads[case.load])
            for batch in self.batches
            for system in batch.everyone
            for case in self.cases
        )
        each = self.rounds * (self.seconds * OVERHEAD + PREPARING)
        return (runs * each + len(self.batches) * STARTING) / 60


def _few(systems: Iterator[System]) -> Iterator[list[System]]:
    while few := list(islice(systems, BATCH)):
        yield few


def measures(system: System, load: Load) -> bool:
    """Whether ``load`` says anything about ``system``."""
    if load.bare:
        return system.is_bare
    return not (load.needs_store and system.in_cookie)


def whole(plan: Plan) -> bool:
    """Whether ``plan`` measures each system as the published results do."""
    usual = Plan(plan.systems, LOADS)
    return plan == usual
