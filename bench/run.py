"""Measure session layers side by side; print one table.

    python -m bench.run                     # the whole, from the beginning; says first how long it will take
    python -m bench.run --continue          # what is still missing in bench/results.json
    python -m bench.run --continue --only "Eyewall, Redis"      # these anew, the others as they are
    python -m bench.run --quick             # half a minute: does everything work?
    python -m bench.run --only redis --loads W1,W2 --connections 64

A run that does not measure as the published results were goes to ``build/bench``; the others to ``bench/``.
``python -m bench.report`` then puts the figures into the pages.

Every application is a process of its own on one core; stores, load generator and this program share the
other. Each is checked before it is measured, and the runs alternate: A B C, A B C, A B C.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench import machine, wakeful
from bench.application import ROOT, ApplicationFailedError, RunningApplication
from bench.checks import check
from bench.commands import (
    DriverWitness,
    MariaDBWitness,
    PostgresWitness,
    RespWitness,
    Witness,
    commands_per_request,
)
from bench.drive import SESSIONS, Figures, WrongAnswerError, drive
from bench.loads import LOADS, Load, Visitor, load_called
from bench.plan import ROUNDS, SECONDS, Batch, Case, Plan, measures, whole
from bench.results import Pair, Results, read_results
from bench.servers import Places
from bench.systems import QUICK, System, chosen
from bench.tables import line_tables
from tests.servers.process import MissingServerError, ServerFailedError

FAULTS = (ApplicationFailedError, WrongAnswerError, OSError, TimeoutError)


@dataclass
class Candidate:
    """A system and its running application."""

    system: System
    app: RunningApplication
    address: str
    visitors: dict[str, list[Visitor]] = field(default_factory=dict)


class Bench:
    """Measures a plan, one batch after the other.

    Args:
        plan: what to measure.
        results: what there is already, and where the rest goes.
        target: the file to which they are written after every case.
        places: where the stores are.
        core: of the applications.
    """

    def __init__(self, plan: Plan, results: Results, target: Path, places: Places, core: int) -> None:
        self.failures = 0
        self._plan = plan
        self._results = results
        self._target = target
        self._places = places
        self._core = core

    def measure(self) -> None:
        """Measure all batches of which something is missing."""
        batches, began = self._plan.batches, time.monotonic()
        for number, batch in enumerate(batches, 1):
            if any(self._missing(batch, case) for case in self._plan.cases):
                with ExitStack() as stack:
                    self._measure_batch(batch, stack)
            minutes = (time.monotonic() - began) / 60
            names = ", ".join(system.name for system in batch.everyone)
            print(f"batch {number} of {len(batches)} done, {minutes:.1f} minutes: {names}", file=sys.stderr)

    def _missing(self, batch: Batch, case: Case) -> list[System]:
        """Return who has yet to be measured; the bare system comes first, if it is needed by another."""
        load = load_called(case.load)
        lacking = [
            system
            for system in batch.everyone
            if measures(system, load) and not self._results.has(system, case)
        ]
        if lacking and not lacking[0].is_bare:
            return [batch.bare, *lacking]
        return lacking

    def _measure_batch(self, batch: Batch, stack: ExitStack) -> None:
        fit = {each.system.name: each for each in self._started(batch.everyone, stack)}
        for case in self._plan.cases:
            turns = [fit[system.name] for system in self._missing(batch, case) if system.name in fit]
            for _ in range(self._plan.rounds if turns else 0):
                self._one_round(turns, case)
            self._results.save(self._target)
        for candidate in fit.values():
            self._count_commands(candidate)
        self._results.save(self._target)

    def _started(self, systems: list[System], stack: ExitStack) -> list[Candidate]:
        """Start all applications at once; return those that do what a session must."""
        launched = []
        for system in systems:
            address = self._address_for(system)
            if address is not None:
                app = self._launch(system, address, stack)
                launched.append(Candidate(system, app, address))
        return [candidate for candidate in launched if self._is_sound(candidate)]

    def _launch(self, system: System, address: str, stack: ExitStack, *more: str) -> RunningApplication:
        words = ("--store", address, "--way", system.way, *more)
        app = RunningApplication(system.module, *words, core=self._core)
        stack.callback(app.stop)
        return app

    def _address_for(self, system: System) -> str | None:
        """Return where the system keeps its sessions, or note why it cannot be measured."""
        self._results.absent.pop(system.name, None)
        try:
            if system.is_installed:
                return self._places.address(system.store)
            reason = f"{system.needs} is not installed"
        except (MissingServerError, ServerFailedError) as error:
            reason = str(error).splitlines()[0]
        self._results.absent[system.name] = reason
        print(f"absent: {system.name}: {reason}", file=sys.stderr)
        return None

    def _is_sound(self, candidate: Candidate) -> bool:
        system, app = candidate.system, candidate.app
        try:
            app.wait_until_ready()
            notes = asyncio.run(check(app.port, system))
        except FAULTS as error:
            self._results.absent[system.name] = f"refused: {_last_line(error)}"
            self._fail(system.name, error)
            return False
        self._results.of(system).notes = notes
        return True

    def _one_round(self, turns: list[Candidate], case: Case) -> None:
        """Let each take its turn, the bare one first; without its figures the others' mean nothing."""
        beside: Figures | None = None
        for candidate in turns:
            is_bare = candidate.system.is_bare
            if beside is None and not is_bare:
                return
            figures = self._one_run(candidate, case)
            if figures is not None:
                self._results.add(candidate.system, case, Pair(figures, None if is_bare else beside))
            if is_bare:
                beside = figures

    def _one_run(self, candidate: Candidate, case: Case) -> Figures | None:
        system, visitors = candidate.system, candidate.visitors.setdefault(case.load, [])
        load = load_called(case.load)
        work = drive(
            candidate.app,
            load.without_sessions() if system.is_bare else load,
            connections=case.connections,
            seconds=self._plan.seconds,
            visitors=visitors,
        )
        try:
            return wakeful.run(work)
        except FAULTS as error:
            visitors.clear()  # who knows what they know
            note = f"{case}: {_last_line(error)}"
            if note not in self._results.of(system).notes:
                self._results.of(system).notes.append(note)
            self._fail(f"{system.name}, {case}", error)
            return None

    def _count_commands(self, candidate: Candidate) -> None:
        """Count what the requests of each load cost the store, where somebody can tell."""
        system = candidate.system
        with ExitStack() as stack:
            watched = self._watched(candidate, stack)
            loads = [load for load in self._plan.loads if measures(system, load)]
            if watched is None or all(load.name in self._results.of(system).commands for load in loads):
                return
            try:
                asyncio.run(self._count_all(*watched, system, loads))
            except FAULTS as error:
                self._fail(f"{system.name}, counting", error)

    async def _count_all(self, witness: Witness, port: int, system: System, loads: list[Load]) -> None:
        async with witness:
            for load in loads:
                counted = await commands_per_request(witness, port, load)
                self._results.of(system).commands[load.name] = counted

    def _watched(self, candidate: Candidate, stack: ExitStack) -> tuple[Witness, int] | None:
        """Return a witness, and the port of the application that it watches."""
        system, port = candidate.system, candidate.app.port
        match system.store:
            case "redis" | "valkey":
                return RespWitness(candidate.address), port
            case "postgres":
                return PostgresWitness(self._places.server("postgres")), port
            case "mysql":
                return MariaDBWitness(self._places.server("mysql")), port
            case "sqlite" | "mongodb":
                app = self._launch(system, candidate.address, stack, "--count").wait_until_ready()
                return DriverWitness(app.port), app.port
        return None

    def _fail(self, who: str, error: BaseException) -> None:
        self.failures += 1
        print(f"FAILED {who}: {str(error) or 'no answer in time'}", file=sys.stderr)


def _last_line(error: BaseException) -> str:
    return (str(error).strip() or "no answer in time").splitlines()[-1]


def options_from(words: list[str] | None) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="bench", description="Measure session layers side by side.")
    parser.add_argument("--quick", action="store_true", help="does everything work? Four systems, briefly")
    parser.add_argument("--continue", action="store_true", dest="goes_on", help="keep what is measured")
    parser.add_argument("--only", action="append", default=[], help="systems whose names contain this")
    parser.add_argument("--loads", help="such as W1,W2; default: all")
    parser.add_argument("--connections", help="such as 16,64; default: 64, of W1 and W2 16, 64 and 256")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS}")
    parser.add_argument("--seconds", type=float, help=f"of each run; default: {SECONDS}")
    parser.add_argument("--into", type=Path, help="folder of results.json; default: bench, if usual")
    options = parser.parse_args(words)
    try:
        options.plan = plan_from(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def plan_from(options: argparse.Namespace) -> Plan:
    """Return what is to be measured.

    Raises:
        ValueError: an option names nothing there is, or there are more connections than visitors.
    """
    quick = options.quick
    systems = chosen(options.only)
    if quick and not options.only:
        systems = [system for system in systems if system.name in QUICK]
    loads = [load_called(name) for name in options.loads.split(",")] if options.loads else LOADS
    counts = options.connections or ("16" if quick else "")
    connections = tuple(int(each) for each in counts.split(",")) if counts else None
    if connections and max(connections) > SESSIONS:
        raise ValueError(f"--connections: at most {SESSIONS}, one for each visitor")
    rounds = options.rounds or (1 if quick else ROUNDS)
    return Plan(systems, loads, connections, rounds, options.seconds or (0.3 if quick else SECONDS))


def target_for(options: argparse.Namespace) -> Path:
    """Return the file of the results; only what is measured as usual may become a part of the published."""
    usual = whole(options.plan) and (options.goes_on or not options.only)
    folder = options.into or ROOT / ("bench" if usual else "build/bench")
    return Path(folder) / "results.json"


def results_for(options: argparse.Namespace, target: Path, *, one_core: bool) -> Results:
    """Return the results to add to: those in ``target`` if it goes on, else new ones.

    Raises:
        ValueError: those in ``target`` cannot be compared with what would be added.
    """
    plan: Plan = options.plan
    fresh = Results(f"{datetime.now(UTC):%Y-%m-%d}", machine.describe(), plan.rounds, plan.seconds, one_core)
    if not options.goes_on or not target.exists():
        return fresh
    found = read_results(target)
    if (found.machine, found.rounds, found.seconds) != (fresh.machine, fresh.rounds, fresh.seconds):
        raise ValueError(f"{target} is of another machine, other versions or durations: cannot go on with it")
    for system in plan.systems if options.only else ():
        if not system.is_bare:
            found.forget(system)
    return found


def failed_before(results: Results) -> Iterator[str]:
    """Yield what is worth a line under the table."""
    yield from (f"{name}: not measured, {why}" for name, why in results.absent.items())
    yield from (f"{name}: {note}" for name, each in results.systems.items() for note in each.notes)


def main(words: list[str] | None = None) -> int:
    """Measure; return how many systems were refused or failed."""
    options = options_from(words)
    plan: Plan = options.plan
    target, cores = target_for(options), machine.take_cores()
    try:
        results = results_for(options, target, one_core=cores.application == cores.rest)
    except ValueError as error:
        sys.exit(f"bench: {error}")
    print(f"{len(plan.batches)} batches, about {plan.minutes:.0f} minutes, into {target}", file=sys.stderr)
    with ExitStack() as stack:
        bench = Bench(plan, results, target, Places(stack), cores.application)
        bench.measure()
    print(line_tables(results.lines(plan.cases), {load.name: load.title for load in LOADS}))
    for note in failed_before(results):
        print(f"note: {note}")
    return bench.failures


if __name__ == "__main__":
    sys.exit(main())
