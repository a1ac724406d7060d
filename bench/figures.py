"""Every figure that a page can ask for by name, made from what was measured."""

from __future__ import annotations

from collections.abc import Mapping

from bench import estimate as assumed
from bench.estimate import Costs, estimate, reach
from bench.loads import LOADS
from bench.plan import Case, Plan
from bench.processes import CLUSTER, ONE_REDIS, FleetFigures, Processes
from bench.results import Line, Results
from bench.scale import Scale, Size
from bench.sweep_effect import PAUSE
from bench.systems import SYSTEMS
from bench.tables import line_tables, markdown, or_blank
from eyewall.core.sweeping import BATCH

USUAL = 64
"""Connections of the figures in the text."""
OVERVIEW = ("W1", "W2", "W3", "W4", "W5", "W8")
TITLES = {"redis": "Redis", "postgres": "PostgreSQL", "sqlite": "SQLite"}
IN_TEXT = {
    "redis": "Eyewall, Redis",
    "postgres": "Eyewall, PostgreSQL",
    "sqlite": "Eyewall, SQLite",
    "file": "Eyewall, file",
    "sealed": "Eyewall, sealed cookie",
    "signed": "Tornado signed cookie",
}
"""What the text calls a system, and what the tables call it."""


# Requests


def request_figures(results: Results) -> dict[str, str]:
    """Return the figures of ``results.json``."""
    lines = results.lines(Plan(SYSTEMS, LOADS).cases)
    shown = {(line.system, line.case): line for line in lines}
    found = {
        "requests-date": results.date,
        "requests-how": f"{results.rounds} rounds of {results.seconds:g} s",
        "requests-machine": versions(results.machine),
        "requests-noticed": _noticed(results),
        "requests-tables": line_tables(lines, {load.name: load.title for load in LOADS}),
        "requests-overview": _overview(shown),
    }
    bare = shown.get(("Tornado", Case("W0", USUAL)))
    if bare is not None:
        found["bare-cpu"] = f"{bare.cpu:.0f}"
    for short, system in IN_TEXT.items():
        for load in OVERVIEW:
            line = shown.get((system, Case(load, USUAL)))
            if line is not None:
                found |= _in_text(f"{short}-{load.lower()}", line)
    return found


def _in_text(name: str, line: Line) -> dict[str, str]:
    if line.added is None or line.ratio is None:
        return {}
    return {f"{name}-added": f"{max(line.added, 0):.0f}", f"{name}-ratio": f"{line.ratio:.2f}"}


def versions(machine: Mapping[str, str]) -> str:
    """Return what a machine is, in one line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def _noticed(results: Results) -> str:
    said = [f"- {name}: not measured, {why}" for name, why in results.absent.items()]
    said += [f"- {name}: {note}" for name, each in results.systems.items() for note in each.notes]
    if results.one_core:
        said.append("- everything shared one core: requests/s and latencies mean little here")
    return "\n".join([*said, ""]) or "- nothing\n"


def _overview(shown: Mapping[tuple[str, Case], Line]) -> str:
    """One line per system: CPU us added and ratio by load, and the store's commands of W1 and W2."""
    rows = []
    for system in SYSTEMS:
        lines = [shown.get((system.name, Case(load, USUAL))) for load in OVERVIEW]
        if system.is_bare or not any(lines):
            continue
        commands = [or_blank(line and line.commands, "{:.2f}") for line in lines[:2]]
        rows.append([system.name, *map(_added_and_ratio, lines), " / ".join(filter(None, commands))])
    return markdown(["system", *(f"{load} us (ratio)" for load in OVERVIEW), "commands W1 / W2"], rows)


def _added_and_ratio(line: Line | None) -> str:
    if line is None or line.added is None or line.ratio is None:
        return ""
    return f"{line.added:+.0f} ({line.ratio:.2f})"


# Scale


def scale_figures(scale: Scale) -> dict[str, str]:
    """Return the figures of ``scale.json``."""
    own = scale.own
    found = {
        "scale-date": scale.date,
        "scale-machine": versions(scale.machine),
        "scale-sizes": _sizes(scale),
        "scale-bytes": _bytes(scale),
        "scale-sweep": _sweeps(scale),
        "sweep-pace": f"{BATCH / PAUSE:,.0f}",
        "import-ms": f"{own.import_ms:.0f}",
        "import-mb": f"{own.import_bytes / 1e6:.1f}",
        "import-modules": f"{own.modules}",
        "session-object-bytes": f"{own.session_bytes:,.0f}",
    }
    for store, figures in scale.stores.items():
        found[f"{store}-session-bytes"] = f"{figures.sizes[-1].session_bytes:,.0f}"
        found[f"{store}-index-bytes"] = f"{figures.index_bytes:,.0f}"
    return found


def _sizes(scale: Scale) -> str:
    headings = [
        "store",
        "sessions",
        "W1/s",
        "p99 ms",
        "CPU us",
        "added us",
        "store CPU us",
        "list ms",
        "end ms",
    ]
    rows = [
        [TITLES[store], *_size_cells(size)]
        for store, figures in scale.stores.items()
        for size in figures.sizes
    ]
    return markdown(headings, rows)


def _size_cells(size: Size) -> list[str]:
    return [
        f"{size.sessions:,}",
        f"{size.per_second:.0f}",
        f"{size.p99 / 1000:.1f}",
        f"{size.cpu:.0f}",
        f"{size.added:+.0f}",
        or_blank(size.store_cpu or None, "{:.0f}"),
        f"{size.find:.2f}",
        f"{size.revoke:.2f}",
    ]


def _bytes(scale: Scale) -> str:
    rows = [
        [
            TITLES[store],
            f"{figures.sizes[-1].session_bytes:,.0f}",
            f"{figures.index_bytes:,.0f}",
            f"{figures.sizes[-1].filled_in:.0f}",
        ]
        for store, figures in scale.stores.items()
    ]
    return markdown(["store", "bytes per session", "more when signed in", "filled in s"], rows)


def _sweeps(scale: Scale) -> str:
    headings = ["store", "expired", "swept/s at most", "p99 ms without", "as Eyewall sweeps", "at most"]
    rows = [
        [
            TITLES[store],
            f"{swept.expired:,}",
            f"{swept.per_second:,.0f}",
            f"{swept.p99_without:.2f}",
            f"{swept.p99_paced:.2f} ({swept.p99_paced / swept.p99_without - 1:+.0%})",
            f"{swept.p99_at_most:.2f}",
        ]
        for store, figures in scale.stores.items()
        if (swept := figures.sweep) is not None
    ]
    return markdown(headings, rows)


# Processes


def process_figures(processes: Processes) -> dict[str, str]:
    """Return the figures of ``processes.json``."""
    names = list(processes.fleets[0].loads)
    columns = ("/s", "p99 ms", "CPU us", "store CPU us")
    headings = ["processes", *(f"{name} {what}" for name in names for what in columns), "kept of 100"]
    rows = [_fleet_cells(fleet, names) for fleet in processes.fleets]
    return {
        "processes-date": processes.date,
        "processes-machine": versions(processes.machine),
        "processes-cores": _cores(processes.cores),
        "processes": markdown(headings, rows),
    }


def _cores(count: int) -> str:
    return "one core" if count == 1 else f"{count} cores"


def _fleet_cells(fleet: FleetFigures, names: list[str]) -> list[str]:
    cells = [f"{fleet.processes} on {fleet.store}"]
    for name in names:
        load = fleet.loads[name]
        cells += [f"{load.per_second:.0f}", f"{load.p99 / 1000:.1f}", f"{load.cpu:.0f}"]
        cells.append(f"{load.store_cpu:.0f}")
    return [*cells, str(fleet.kept)]


# What follows from both


def together_figures(scale: Scale, processes: Processes) -> dict[str, str]:
    """Return what follows for other sizes: how far one Redis goes, and 100 million sessions."""
    if "redis" not in scale.stores:
        return {}
    one = costs(scale, processes, ONE_REDIS)
    found = {"reach": _reach(one), "estimate-assumed": _assumed(), "estimate": _estimated(one)}
    if any(fleet.store == CLUSTER for fleet in processes.fleets):
        found["cluster-read-cpu"] = f"{costs(scale, processes, CLUSTER).read - one.read:.0f}"
    return found


def costs(scale: Scale, processes: Processes, store: str) -> Costs:
    """Return what was measured of one process on ``store``."""
    redis = scale.stores["redis"]
    fleet = next(each for each in processes.fleets if (each.store, each.processes) == (store, 1))
    read, write = fleet.loads["W1"], fleet.loads["W2"]
    return Costs(
        redis.sizes[-1].session_bytes,
        redis.index_bytes,
        read.store_cpu,
        write.store_cpu,
        read.cpu,
        write.cpu,
    )


def _reach(one: Costs) -> str:
    found = reach(one)
    rows = [
        ["memory", f"{found.sessions:,} sessions in {assumed.MASTER_BYTES / 1e9:.0f} GB"],
        ["its core", f"{found.per_second:,.0f} requests/s at {assumed.STORE_LOAD:.0%} load"],
        ["application processes until then", f"{found.processes:.0f}"],
    ]
    return markdown(["one Redis ends at", ""], rows)


def _assumed() -> str:
    return f"""\
- {assumed.SESSIONS:,} live sessions of 500 bytes; {assumed.SIGNED_IN:.0%} of them are signed in.
- Each makes {assumed.REQUESTS_A_DAY} requests a day, {assumed.WRITES:.0%} of which change the session; the
  busiest hour has {assumed.PEAK:g} times the mean.
- Memory for {assumed.SPARE_MEMORY:g} times the data (fragmentation, replication), in masters that may use
  {assumed.MASTER_BYTES / 1e9:.0f} GB each.
- At the peak a master uses {assumed.STORE_LOAD:.0%} of its core, an application process
  {assumed.CORE_LOAD:.0%}.
"""


def _estimated(one: Costs) -> str:
    found = estimate(one)
    reads, writes = 1 - assumed.WRITES, assumed.WRITES
    store = f"({reads:g} x {one.store_read:.0f} + {writes:g} x {one.store_write:.0f} us)"
    own = f"({reads:g} x {one.read:.0f} + {writes:g} x {one.write:.0f} us)"
    each = f"{one.session_bytes:.0f} + {assumed.SIGNED_IN:g} x {one.index_bytes:.0f} bytes each"
    peak = f"x {assumed.REQUESTS_A_DAY} / 86,400 s x {assumed.PEAK:g}"
    rows = [
        ["data", each, f"{found.data_bytes / 1e9:.0f} GB"],
        ["memory", f"x {assumed.SPARE_MEMORY:g}", f"{found.memory_bytes / 1e9:.0f} GB"],
        ["requests at the peak", peak, f"{found.peak:,.0f}/s"],
        ["cores of Redis", f"x {store}", f"{found.store_cores:.1f}"],
        ["masters, for the memory", f"/ {assumed.MASTER_BYTES / 1e9:.0f} GB", f"{found.masters_by_memory}"],
        ["masters, for the load", f"/ {assumed.STORE_LOAD:g}", f"{found.masters_by_cpu}"],
        ["**masters**", "the larger; three at least", f"**{found.masters}**, and a replica of each"],
        ["application processes", f"x {own} / {assumed.CORE_LOAD:g}", f"{found.processes}"],
    ]
    return markdown(["what", "how", "result"], rows)
