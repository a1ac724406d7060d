"""What was measured, and what follows from it: medians, and comparisons side by side.

Absolute figures belong to one machine on one day. What can be carried away are the ratio and the added CPU
time, each taken between an application and its bare sister in the same round, minutes or less apart.
"""

from __future__ import annotations

from statistics import median
from typing import Any, NamedTuple

from bench.drive import Figures
from bench.systems import System

Case = tuple[str, int]
"""A load's name and a number of connections."""


class Line(NamedTuple):
    """One line of the table; times in microseconds. None where there is nothing to tell."""

    system: str
    load: str
    connections: int
    per_second: float
    p50: float
    p99: float
    cpu: float
    added: float | None
    added_spread: float | None
    ratio: float | None
    commands: float | None
    kept: float | None


class Results:
    """Collects the figures of each round, and the commands counted beside them."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, Case], dict[int, Figures]] = {}
        self.commands: dict[tuple[str, str], float] = {}
        self.notes: list[str] = []
        self.failures = 0

    def fail(self, note: str) -> None:
        """Note that something was not measured because it answered wrongly."""
        self.notes.append(note)
        self.failures += 1

    def add(self, system: System, case: Case, number: int, figures: Figures) -> None:
        """Keep the figures of one run in round ``number``."""
        self._rounds.setdefault((system.name, case), {})[number] = figures

    def lines(self, systems: list[System], cases: list[Case]) -> list[Line]:
        """Return the table's lines: by load, by connections, then by system."""
        return [
            self._line(system, case)
            for case in cases
            for system in systems
            if (system.name, case) in self._rounds
        ]

    def _line(self, system: System, case: Case) -> Line:
        own = self._rounds[system.name, case]
        bare = {} if system.is_bare else self._rounds.get((system.bare, case), {})
        both = sorted(own.keys() & bare.keys())
        added = [own[i].cpu - bare[i].cpu for i in both]
        ratios = [own[i].per_second / bare[i].per_second for i in both]
        kept = [figures.kept for figures in own.values() if figures.kept is not None]
        return Line(
            system.name,
            *case,
            per_second=median(f.per_second for f in own.values()),
            p50=median(f.p50 for f in own.values()),
            p99=median(f.p99 for f in own.values()),
            cpu=median(f.cpu for f in own.values()),
            added=median(added) if added else None,
            added_spread=max(added) - min(added) if added else None,
            ratio=median(ratios) if ratios else None,
            commands=self.commands.get((system.name, case[0])),
            kept=median(kept) if kept else None,
        )


HEADINGS = (
    "system", "requests/s", "p50 ms", "p99 ms", "CPU us", "added us", "±", "ratio", "commands", "kept of 100",
)  # fmt: skip


def table(lines: list[Line], titles: dict[str, str]) -> str:
    """Return the table, in Markdown, one section per load and number of connections."""
    parts: list[str] = []
    cases = dict.fromkeys((line.load, line.connections) for line in lines)
    for load, connections in cases:
        own = [line for line in lines if (line.load, line.connections) == (load, connections)]
        used = _used_columns([_cells(line) for line in own])
        rows = [[_cells(line)[i] for i in used] for line in own]
        parts.append(f"### {load}, {titles[load]}, {connections} connections\n")
        parts.append(markdown([HEADINGS[i] for i in used], rows))
    return "\n".join(parts)


def _cells(line: Line) -> list[str]:
    return [
        line.system,
        f"{line.per_second:.0f}",
        f"{line.p50 / 1000:.2f}",
        f"{line.p99 / 1000:.2f}",
        f"{line.cpu:.0f}",
        _or_blank(line.added, "{:+.1f}"),
        _or_blank(None if line.added_spread is None else line.added_spread / 2, "{:.1f}"),
        _or_blank(line.ratio, "{:.2f}"),
        _or_blank(line.commands, "{:.2f}"),
        _or_blank(line.kept, "{:.0f}"),
    ]


def _or_blank(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _used_columns(rows: list[list[str]]) -> list[int]:
    return [i for i in range(len(HEADINGS)) if i < 2 or any(row[i] for row in rows)]


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table, padded so that it reads well as plain text."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        return "| " + " | ".join(padded) + " |"

    rule = "|" + "|".join(
        "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)
    )
    return "\n".join([line(headings), rule + "|", *map(line, rows)]) + "\n"


def as_json(lines: list[Line], facts: dict[str, Any]) -> dict[str, Any]:
    """Return all of it as JSON takes it."""
    return {**facts, "lines": [line._asdict() for line in lines]}
