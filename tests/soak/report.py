"""Prints what matters in a soak's results, as Markdown: ``python -m tests.soak.report FILE``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.soak.verdict import judged, slope, store_of, verdict

Results = dict[str, Any]


def lines(results: Results) -> Iterator[str]:
    """Yield the report of a soak, in Markdown."""
    last = results["samples"][-1]
    ledger = results["ledger"]
    yield (
        f"{last['at'] / 60:.0f} minutes, {results['plan']['users']} users, {last['answers']:,} answers, "
        f"{sum(ledger['actions'].values()):,} things done; {_mean_cpu(results['samples']):.0%} of one core."
    )
    yield ""
    yield "| store | answers | memory, MB | grows, MB/h | held p99.99, ms | greatest, ms | records |"
    yield "|---|---|---|---|---|---|---|"
    for store in results["stores"]:
        yield _row(results, store)
    witness = next(lag for name, lag in _lags(results).items() if store_of(name) not in results["stores"])
    yield f"| none, no visitors | | | | {witness['p99.99']} | {witness['greatest']} | |"
    yield ""
    for kind, times in ledger["complaints"].items():
        yield f"- {kind}: {times}"
    yield f"- tracebacks in the logs: {sum(results['tracebacks'].values())}"
    yield ""
    yield from verdict(results) or ["Passed."]


def _row(results: Results, store: str) -> str:
    samples = judged(results)
    names = [name for name in samples[-1]["processes"] if store_of(name) == store]
    lags = [_lags(results)[name] for name in names]
    records = [sample["stores"][store]["records"] for sample in samples]
    cells = (
        store,
        f"{results['ledger']['answers'][store]:,}",
        ", ".join(_from_to([sample["processes"][name]["rss"] for sample in samples]) for name in names),
        ", ".join(f"{slope(samples, name):+.1f}" for name in names) if len(samples) > 1 else "",
        max(lag["p99.99"] for lag in lags),
        max(lag["greatest"] for lag in lags),
        f"{min(records)} to {max(records)}",
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def _from_to(memory: Sequence[float]) -> str:
    return f"{memory[0]:.0f} to {memory[-1]:.0f}"


def _lags(results: Results) -> dict[str, dict[str, Any]]:
    return {name: process["lag"] for name, process in results["samples"][-1]["processes"].items()}


def _mean_cpu(samples: Sequence[dict[str, Any]]) -> float:
    return sum(float(sample["cpu"]) for sample in samples) / len(samples)


if __name__ == "__main__":
    print("\n".join(lines(json.loads(Path(sys.argv[1]).read_text()))))  # noqa: T201 - the answer
