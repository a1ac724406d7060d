"""Measure session layers side by side; print one table.

    python -m bench.run --quick                  # under a minute: does everything work?
    python -m bench.run                          # the whole; says first how long it will take
    python -m bench.run --only redis --loads W1,W2 --connections 64

Only the whole run replaces ``bench/RESULTS.md``, ``bench/results.json`` and ``docs/_static/bench.svg``; parts
of it go to ``build/bench``.

Every application is a process of its own on one core; stores, load generator and this program share the
other. All are checked before any is measured, and the runs alternate: A B C, A B C, A B C.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from bench import machine
from bench.application import ROOT, ApplicationFailedError, RunningApplication
from bench.checks import check
from bench.commands import Watch, commands_per_request
from bench.drive import WrongAnswerError, drive
from bench.loads import LOADS, Load, load_called
from bench.plot import save
from bench.report import report
from bench.results import Case, Results, as_json, table
from bench.servers import Places
from bench.systems import QUICK, System, chosen
from tests.servers.process import MissingServerError, ServerFailedError

OVERHEAD = 1.25
"""A run takes this many times its measuring time (warming up), and a bit to prepare its sessions."""
PREPARING = 0.25


class Plan(NamedTuple):
    """What is measured, and for how long."""

    systems: list[System]
    loads: list[Load]
    connections: list[int]
    rounds: int
    seconds: float

    @property
    def cases(self) -> list[Case]:
        """Every load with every number of connections."""
        return [(load.name, connections) for load in self.loads for connections in self.connections]

    def measures(self, system: System, load: Load) -> bool:
        """Whether ``load`` says anything about ``system``."""
        if load.bare:
            return system.is_bare
        return not (load.needs_store and system.in_cookie)

    @property
    def runs(self) -> int:
        """How many runs it makes."""
        wanted = sum(self.measures(system, load) for system in self.systems for load in self.loads)
        return wanted * len(self.connections) * self.rounds

    @property
    def minutes(self) -> float:
        """How long it takes, about."""
        return self.runs * (self.seconds * OVERHEAD + PREPARING) / 60


class Candidate(NamedTuple):
    """A system, its application, and who counts its store's commands, if somebody can."""

    system: System
    app: RunningApplication
    watch: Watch | None


def started(plan: Plan, core: int, stack: ExitStack, results: Results) -> list[Candidate]:
    """Start every application of the plan; what cannot be started is named in the results."""
    places, launched = Places(stack), []
    for system in plan.systems:
        if not system.is_installed:
            results.notes.append(f"{system.name}: not measured, {system.needs} is not installed")
            continue
        try:
            address = places.address(system.store)
        except (MissingServerError, ServerFailedError) as error:
            results.notes.append(f"{system.name}: not measured, {str(error).splitlines()[0]}")
            continue
        app = RunningApplication(system.module, "--store", address, "--way", system.way, core=core)
        stack.callback(app.stop)
        launched.append(
            Candidate(system, app, Watch(address) if system.store in ("redis", "valkey") else None)
        )
    return [each for each in launched if _is_sound(each, results)]


def _is_sound(candidate: Candidate, results: Results) -> bool:
    """Whether the application starts and does what a session must."""
    system, app = candidate.system, candidate.app
    try:
        app.wait_until_ready()
        notes = asyncio.run(check(app.port, system))
    except (ApplicationFailedError, WrongAnswerError, TimeoutError) as error:
        said = str(error).strip() or "no answer in time"
        results.fail(f"{system.name}: REFUSED, {said.splitlines()[-1]}")
        print(f"REFUSED {system.name}: {said}", file=sys.stderr)
        return False
    results.notes += [f"{system.name}: {note}" for note in notes]
    return True


def measure(plan: Plan, candidates: list[Candidate], results: Results) -> None:
    """Run every load on every application, round by round."""
    for number in range(plan.rounds):
        for case in plan.cases:
            for candidate in candidates:
                if plan.measures(candidate.system, load_called(case[0])):
                    _measure_one(plan, candidate, case, number, results)
        print(f"round {number + 1} of {plan.rounds} done", file=sys.stderr)


def _measure_one(plan: Plan, candidate: Candidate, case: Case, number: int, results: Results) -> None:
    system, (name, connections) = candidate.system, case
    work = drive(
        candidate.app,
        load_called(name),
        connections=connections,
        seconds=plan.seconds,
        bare=system.is_bare,
    )
    try:
        figures = asyncio.run(work)
    except (WrongAnswerError, OSError, TimeoutError) as error:
        said = str(error) or "no answer in time"
        results.fail(f"{system.name}, {name} at {connections}: {said}")
        print(f"FAILED {system.name}, {name} at {connections}: {said}", file=sys.stderr)
        return
    results.add(system, case, number, figures)


def count_commands(plan: Plan, candidates: list[Candidate], results: Results) -> None:
    """Count what the requests of each load cost the store, where the store can tell."""
    for system, app, watch in candidates:
        for load in plan.loads if watch is not None else ():
            if watch is not None and plan.measures(system, load):
                results.commands[system.name, load.name] = asyncio.run(
                    commands_per_request(watch, app.port, load)
                )


def write(plan: Plan, results: Results, facts: dict[str, object], folder: Path, picture: Path) -> str:
    """Write the results as a page, as JSON and as a picture; return the table."""
    lines = results.lines(plan.systems, plan.cases)
    text = table(lines, {load.name: load.title for load in LOADS})
    numbers = as_json(lines, facts | {"notes": results.notes})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (folder / "RESULTS.md").write_text(report(text, results.notes, facts))
    save(numbers, picture)
    return text


def options_from(words: list[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure session layers side by side.")
    parser.add_argument("--quick", action="store_true", help="does everything work? Four systems, briefly")
    parser.add_argument("--only", action="append", default=[], help="systems whose names contain this")
    parser.add_argument("--loads", help="such as W1,W2; default: all")
    parser.add_argument("--connections", help="such as 16,64; default: 16,64,256")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--seconds", type=float, help="of each run; default: 1.5")
    parser.add_argument("--into", type=Path, help="folder for the results; default: bench for a whole run")
    options = parser.parse_args(words)
    try:
        options.plan = plan_from(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def plan_from(options: argparse.Namespace) -> Plan:
    """Return what is to be measured.

    Raises:
        ValueError: an option names nothing there is.
    """
    quick = options.quick
    systems = chosen(options.only)
    if quick and not options.only:
        systems = [system for system in systems if system.name in QUICK]
    loads = [load_called(name) for name in options.loads.split(",")] if options.loads else LOADS
    connections = [int(each) for each in (options.connections or ("16" if quick else "16,64,256")).split(",")]
    rounds = options.rounds or (1 if quick else 3)
    return Plan(systems, loads, connections, rounds, options.seconds or (0.3 if quick else 1.5))


def places_for(options: argparse.Namespace) -> tuple[Path, Path]:
    """Return the folder of the results and the file of the picture.

    Only a whole run replaces the published ones; a part of it goes to ``build/bench``.
    """
    partial = any((options.quick, options.only, options.loads, options.connections, options.rounds))
    if options.into is None and not partial and not options.seconds:
        return ROOT / "bench", ROOT / "docs" / "_static" / "bench.svg"
    folder = options.into or ROOT / "build" / "bench"
    return folder, folder / "bench.svg"


def main(words: list[str] | None = None) -> int:
    """Measure; return how many systems were refused or failed."""
    options = options_from(words)
    plan: Plan = options.plan
    cores, results, began = machine.take_cores(), Results(), datetime.now(UTC)
    print(f"{plan.runs} runs, about {plan.minutes:.0f} minutes", file=sys.stderr)
    with ExitStack() as stack:
        candidates = started(plan, cores.application, stack, results)
        measure(plan, candidates, results)
        count_commands(plan, candidates, results)
    facts: dict[str, object] = {
        "date": f"{began:%Y-%m-%d}",
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "one core only": cores.application == cores.rest,
        "machine": machine.describe(),
    }
    print(write(plan, results, facts, *places_for(options)))
    for note in results.notes:
        print(f"note: {note}")
    return results.failures


if __name__ == "__main__":
    sys.exit(main())
