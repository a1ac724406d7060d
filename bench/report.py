"""Put what was measured into the pages.

    python -m bench.report            # fills the pages, draws docs/_static/bench.svg
    python -m bench.report --check    # fails when a page does not show what the files say

The pages are written by hand; only what stands between ``<!-- figure: name -->`` and ``<!-- /figure -->`` is
ours. The figures come from ``results.json``, ``scale.json`` and ``processes.json``; what was not measured yet
stays as it is, and is named.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from bench.application import ROOT
from bench.figures import process_figures, request_figures, scale_figures, together_figures
from bench.plot import draw_results
from bench.processes import Processes, read_processes
from bench.results import Results, read_results
from bench.scale import Scale, read_scale

PAGES = ("bench/RESULTS.md", "docs/performance.md", "docs/scaling.md", "docs/faq.md", "README.md")
PICTURE = ROOT / "docs" / "_static" / "bench.svg"
PLACE = re.compile(r"(<!-- figure: ([\w-]+) -->).*?(<!-- /figure -->)", re.DOTALL)


def all_figures(folder: Path) -> dict[str, str]:
    """Return every figure by its name, of what was measured so far."""
    found: dict[str, str] = {}
    results, scale, processes = _read(folder)
    if results is not None:
        found |= request_figures(results)
    if scale is not None:
        found |= scale_figures(scale)
    if processes is not None:
        found |= process_figures(processes)
    if scale is not None and processes is not None:
        found |= together_figures(scale, processes)
    return found


def _read(folder: Path) -> tuple[Results | None, Scale | None, Processes | None]:
    files = [folder / name for name in ("results.json", "scale.json", "processes.json")]
    for file in files:
        if not file.exists():
            print(f"report: {file} is missing: not measured yet", file=sys.stderr)
    results, scale, processes = files
    return (
        read_results(results) if results.exists() else None,
        read_scale(scale) if scale.exists() else None,
        read_processes(processes) if processes.exists() else None,
    )


def misplaced(page: str) -> list[str]:
    """Return the figures that begin a line of text: Markdown would take the comment for the end of it."""
    return re.findall(r"^ *<!-- figure: ([\w-]+) -->.*<!-- /figure -->", page, re.MULTILINE)


def filled(page: str, figures: dict[str, str]) -> tuple[str, list[str]]:
    """Return ``page`` with all figures in their places, and the names of those that there are not."""
    missing: list[str] = []

    def put(place: re.Match[str]) -> str:
        begin, name, end = place.groups()
        if name not in figures:
            missing.append(name)
            return place.group()
        text = figures[name]
        return f"{begin}\n\n{text.strip()}\n\n{end}" if "\n" in text else f"{begin}{text}{end}"

    return PLACE.sub(put, page), missing


def main(words: list[str] | None = None) -> int:
    """Fill the pages; return how many of them lack something or, with ``--check``, are out of date."""
    parser = argparse.ArgumentParser(prog="report", description="Put what was measured into the pages.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail when something is old")
    parser.add_argument("--from", type=Path, default=ROOT / "bench", dest="folder", help="of the .json files")
    options = parser.parse_args(words)
    figures, troubled = all_figures(options.folder), 0
    for name in PAGES:
        path = ROOT / name
        before = path.read_text()
        after, missing = filled(before, figures)
        if begins := misplaced(before):
            print(f"report: {name}: put a word before the figure {', '.join(begins)}", file=sys.stderr)
        if missing:
            print(f"report: {name} has no figure yet for {', '.join(missing)}", file=sys.stderr)
        if not options.check:
            path.write_text(after)
        elif after != before:
            print(f"report: {name} is not up to date: python -m bench.report", file=sys.stderr)
        troubled += bool(begins or missing) or (options.check and after != before)
    if not options.check and (options.folder / "results.json").exists():
        draw_results(read_results(options.folder / "results.json"), PICTURE)
    return troubled


if __name__ == "__main__":
    sys.exit(main())
