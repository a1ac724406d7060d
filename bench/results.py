"""What was measured, and what follows from it: medians, and comparisons side by side.

Absolute figures belong to one machine on one day. What can be carried away are the ratio and the added CPU
time, each taken between an application and its bare sister in the same round, some seconds apart.

The results stand in ``results.json`` as they were measured, run by run. They are written after every case, so
that a run that is stopped can go on where it was.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import NamedTuple

import msgspec

from bench.drive import Figures
from bench.plan import Case
from bench.systems import SYSTEMS, System


class Pair(NamedTuple):
    """One run of a system, and the bare run of the same round; a bare system has only the first."""

    own: Figures
    bare: Figures | None = None


class Measured(msgspec.Struct):
    """All about one system: its runs by case, its store's commands per request by load, what was noticed."""

    runs: dict[str, list[Pair]] = {}
    commands: dict[str, float] = {}
    notes: list[str] = []


class Results(msgspec.Struct):
    """Everything that was measured on one machine.

    Args:
        date: of the day it began.
        machine: what it is, and the versions of what ran on it.
        rounds: how many runs there are of each case.
        seconds: how long each of them took.
        one_core: everything shared one core.
        systems: by name.
        absent: why a system was not measured, by name.
    """

    date: str
    machine: dict[str, str]
    rounds: int
    seconds: float
    one_core: bool = False
    systems: dict[str, Measured] = {}
    absent: dict[str, str] = {}

    def of(self, system: System) -> Measured:
        """Return what there is about ``system``."""
        return self.systems.setdefault(system.name, Measured())

    def has(self, system: System, case: Case) -> bool:
        """Whether ``case`` needs no more runs."""
        measured = self.systems.get(system.name)
        return measured is not None and len(measured.runs.get(str(case), ())) >= self.rounds

    def add(self, system: System, case: Case, pair: Pair) -> None:
        """Keep one run."""
        self.of(system).runs.setdefault(str(case), []).append(pair)

    def forget(self, system: System) -> None:
        """Drop all about ``system``: it will be measured anew."""
        self.systems.pop(system.name, None)

    def save(self, path: Path) -> None:
        """Write everything to ``path``, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        fresh.replace(path)

    def lines(self, cases: list[Case]) -> list[Line]:
        """Return the table's lines: by load, by connections, then by system."""
        return [
            line_of(system, case, self.systems[system.name])
            for case in cases
            for system in SYSTEMS
            if system.name in self.systems and self.systems[system.name].runs.get(str(case))
        ]


def read_results(path: Path) -> Results:
    """Return what :meth:`Results.save` wrote.

    Raises:
        OSError: there is no such file.
        msgspec.MsgspecError: it holds something else.
    """
    return msgspec.json.decode(path.read_bytes(), type=Results)


class Line(NamedTuple):
    """One line of the table; times in microseconds. None where there is nothing to tell."""

    system: str
    case: Case
    per_second: float
    p50: float
    p99: float
    cpu: float
    added: float | None
    added_spread: float | None
    ratio: float | None
    commands: float | None
    kept: float | None


def line_of(system: System, case: Case, measured: Measured) -> Line:
    """Return the medians of a case, and its comparisons with the bare runs beside it."""
    pairs = measured.runs[str(case)]
    own = [pair.own for pair in pairs]
    beside = [(pair.own, pair.bare) for pair in pairs if pair.bare is not None]
    added = [own.cpu - bare.cpu for own, bare in beside]
    ratios = [own.per_second / bare.per_second for own, bare in beside]
    kept = [figures.kept for figures in own if figures.kept is not None]
    return Line(
        system.name,
        case,
        per_second=median(figures.per_second for figures in own),
        p50=median(figures.p50 for figures in own),
        p99=median(figures.p99 for figures in own),
        cpu=median(figures.cpu for figures in own),
        added=median(added) if added else None,
        added_spread=max(added) - min(added) if added else None,
        ratio=median(ratios) if ratios else None,
        commands=measured.commands.get(case.load),
        kept=median(kept) if kept else None,
    )
