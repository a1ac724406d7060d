"""Draw ``docs/_static/bench.svg`` from ``bench/results.json``: CPU added per request, one bar a system.

    python -m bench.plot [results.json] [bench.svg]

Plain SVG, so that the documentation needs no library and the picture can be read as text. It follows the
reader's colour scheme.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from bench.application import ROOT

LOADS = {"W1": "reading two values", "W2": "counting and saving"}
WIDTH, BAR, GAP, LEFT, RIGHT, TOP = 760, 11, 8, 230, 64, 58
PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t d">
<title id="t">CPU time that a session layer adds to a request</title>
<desc id="d">{description}</desc>
<style>
text {{ font: 12px system-ui, sans-serif; fill: #333 }}
.W1 {{ fill: #2a6f97 }} .W2 {{ fill: #e09f3e }} .small {{ font-size: 11px }} .ours {{ font-weight: 700 }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #ddd }} .W1 {{ fill: #61a5c2 }} }}
</style>
{body}
</svg>
"""


class Row(NamedTuple):
    """One system: microseconds added, by load."""

    system: str
    added: dict[str, float]


def rows_of(numbers: dict[str, Any]) -> tuple[list[Row], int]:
    """Return what the picture shows, quickest first, and with how many connections it was measured."""
    lines = [line for line in numbers["lines"] if line["load"] in LOADS and line["added"] is not None]
    counts = sorted({line["connections"] for line in lines})
    connections = 64 if 64 in counts or not counts else counts[-1]
    added: dict[str, dict[str, float]] = {}
    for line in lines:
        if line["connections"] == connections and ", install()" not in line["system"]:
            added.setdefault(line["system"], {})[line["load"]] = line["added"]
    rows = [Row(system, values) for system, values in added.items()]
    return sorted(rows, key=lambda row: min(row.added.values())), connections


def draw(rows: list[Row], connections: int, date: str) -> str:
    """Return the picture."""
    longest = max(max(row.added.values()) for row in rows)
    scale = (WIDTH - LEFT - RIGHT) / max(longest, 1)
    step = BAR * len(LOADS) + GAP
    parts = [*_legend(connections, date)]
    for i, row in enumerate(rows):
        parts += _bars(row, TOP + i * step, scale)
    said = "; ".join(f"{row.system}: " + _figures(row) for row in rows)
    return PICTURE.format(
        width=WIDTH, height=TOP + len(rows) * step + 6, description=escape(said), body="\n".join(parts)
    )


def _figures(row: Row) -> str:
    return ", ".join(f"{load} {value:.0f} us" for load, value in sorted(row.added.items()))


def _legend(connections: int, date: str) -> list[str]:
    about = f"Microseconds of CPU per request above the bare framework, {connections} connections, {date}"
    parts = [f'<text x="8" y="18">{escape(about)}</text>']
    for i, (load, title) in enumerate(LOADS.items()):
        x = LEFT + i * 190
        parts.append(f'<rect class="{load}" x="{x}" y="30" width="10" height="10"/>')
        parts.append(f'<text class="small" x="{x + 15}" y="39">{load}, {title}</text>')
    return parts


def _bars(row: Row, top: int, scale: float) -> list[str]:
    ours = ' class="ours"' if row.system.startswith("Eyewall") else ""
    parts = [f'<text{ours} x="{LEFT - 8}" y="{top + BAR + 4}" text-anchor="end">{escape(row.system)}</text>']
    for i, (load, value) in enumerate(sorted(row.added.items())):
        y, length = top + i * BAR, max(value, 0) * scale
        parts.append(
            f'<rect class="{load}" x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 1}" rx="1"/>'
        )
        parts.append(f'<text class="small" x="{LEFT + length + 4:.1f}" y="{y + BAR}">{value:.0f}</text>')
    return parts


def save(numbers: dict[str, Any], target: Path) -> bool:
    """Write the picture to ``target``; return False when there is nothing to show."""
    rows, connections = rows_of(numbers)
    if not rows:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(draw(rows, connections, numbers["date"]))
    return True


def main() -> None:
    """Read the numbers, write the picture."""
    given = [Path(word) for word in sys.argv[1:]]
    source = given[0] if given else ROOT / "bench" / "results.json"
    target = given[1] if len(given) > 1 else ROOT / "docs" / "_static" / "bench.svg"
    if not save(json.loads(source.read_text()), target):
        sys.exit("plot: nothing was measured under W1 or W2")
    print(target)


if __name__ == "__main__":
    main()
