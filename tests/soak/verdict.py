"""Whether a soak was passed: rules over its results, each of which can fail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean, linear_regression
from typing import Any, Final

WARM_UP: Final = 15 * 60.0
"""Seconds that are not judged; of a short run its first third instead."""

STEEPEST: Final = 2.0
"""Most growth: megabytes an hour, or that many percent of the memory, whichever is more."""

NOISE: Final = 4.0
"""Megabytes that say nothing in a run that judges less than an hour."""

LONGEST_HELD: Final = 100.0
"""Milliseconds."""

FULLEST: Final = 1.3
"""How many times as many records a store may hold at the end as after the warm-up."""

_SAME_TIME: Final = 0.2
_MORE_RECORDS: Final = 60
_MORE_FILES: Final = 60

Samples = Sequence[dict[str, Any]]


def verdict(results: dict[str, Any]) -> list[str]:
    """Return what is wrong with a soak, in words; nothing when it was passed."""
    return [*_broken_promises(results), *held_loops(results), *_growing(results)]


def judged(results: dict[str, Any]) -> Samples:
    """Return the samples after the warm-up."""
    samples: Samples = results["samples"]
    last = samples[-1]["at"] if samples else 0.0
    return [sample for sample in samples if sample["at"] >= min(WARM_UP, last / 3)]


def slope(samples: Samples, name: str) -> float:
    """Return by how many megabytes an hour the process ``name`` grows, fitted over ``samples``."""
    hours = [sample["at"] / 3600 for sample in samples]
    return linear_regression(hours, [sample["processes"][name]["rss"] for sample in samples]).slope


def _broken_promises(results: dict[str, Any]) -> Iterator[str]:
    for kind, times in results["ledger"]["complaints"].items():
        if times:
            yield f"{times} times {kind}: {results['ledger']['examples'][kind][0]}"
    for name, said in results["tracebacks"].items():
        if said:
            yield f"{name} wrote {said} tracebacks to its log"
    if results["fallen"]:
        yield f"{results['fallen']} users fell over: {results['falls'][0]}"
    for store in results["stores"]:
        if not results["ledger"]["answers"].get(store):
            yield f"nobody asked anything of {store}"


def held_loops(results: dict[str, Any]) -> Iterator[str]:
    """Yield the loops that were held for too long by nothing that is the machine's doing."""
    processes = results["samples"][-1]["processes"]
    for name, process in processes.items():
        others = [
            event
            for other in processes
            if store_of(other) != store_of(name)
            for event in processes[other]["lag"]["worst"]
        ]
        for event in process["lag"]["worst"]:
            if event["held"] > LONGEST_HELD and not is_machines_doing(event, others):
                yield f"the loop of {name} was held: {event}"


def store_of(process: str) -> str:
    """Return which store a process works on: its name without the number."""
    return process.rstrip(" 12")


def is_machines_doing(event: dict[str, Any], others: Iterable[dict[str, Any]]) -> bool:
    """Whether a loop that was held for too long was held by the machine.

    Either the loop waited for a thread of its process that itself waited for a processor, or the host took
    the processor away; or a process that shares nothing with this one but the machine (another store's) was
    held half as long at the same time.
    """
    unexplained: float = event["held"] - event["threads_waited"] - event["stolen"]
    beside = [other["held"] for other in others if abs(other["at"] - event["at"]) <= _SAME_TIME]
    return unexplained <= LONGEST_HELD or max(beside, default=0.0) >= event["held"] / 2


def _growing(results: dict[str, Any]) -> Iterator[str]:
    samples = judged(results)
    if len(samples) < 3:
        yield f"only {len(samples)} samples after the warm-up, so nothing is known of the memory"
        return
    for name in samples[-1]["processes"]:
        yield from _growing_process(name, samples)
    for store in results["stores"]:
        yield from _filling(store, samples)


def _growing_process(name: str, samples: Samples) -> Iterator[str]:
    hours = (samples[-1]["at"] - samples[0]["at"]) / 3600
    memory = fmean(sample["processes"][name]["rss"] for sample in samples)
    allowed = max(STEEPEST, memory * STEEPEST / 100)
    steepness = slope(samples, name)
    if steepness > allowed and (hours >= 1 or steepness * hours > NOISE):
        yield f"{name} grows by {steepness:.1f} MB an hour, from {memory:.0f} MB"
    first, last = _thirds(sample["processes"][name]["files"] for sample in samples)
    if last > first * FULLEST + _MORE_FILES:
        yield f"{name} has {last:.0f} files open at the end, and had {first:.0f}"


def _filling(store: str, samples: Samples) -> Iterator[str]:
    first, last = _thirds(sample["stores"][store]["records"] for sample in samples)
    if last > first * FULLEST + _MORE_RECORDS:
        yield f"{store} holds {last:.0f} records at the end, and held {first:.0f}"


def _thirds(values: Iterable[float]) -> tuple[float, float]:
    """Return the means of the first and of the last third."""
    values = list(values)
    third = max(len(values) // 3, 1)
    return fmean(values[:third]), fmean(values[-third:])
