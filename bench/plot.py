"""Draw the CPU time added to a request, two bars a system; ``python -m bench.report`` does.

Plain SVG, so that the documentation needs no library and the picture can be read as text. It is narrow, so
that its letters stay legible on a phone, and has a ground of its own, so that they are on any page. Its
colours follow the reader's colour scheme.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

from bench.loads import LOADS
from bench.plan import Plan
from bench.results import Results
from bench.systems import SYSTEMS

TITLES = {"W1": "W1, reading two values", "W2": "W2, counting and saving"}
CONNECTIONS = 64
LEFT_OUT = (", install()", "Valkey")
"""What would be a line beside one that hardly differs."""
WIDTH, MARGIN, FIGURE, TOP = 400, 12, 44, 78
NAME, BAR, GAP = 19, 14, 11
PICTURE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t d">
<title id="t">CPU time that a session layer adds to a request</title>
<desc id="d">{description}</desc>
<style>
text {{ font: 14.5px system-ui, sans-serif; fill: #333 }}
.ground {{ fill: #fff }} .W1 {{ fill: #2a6f97 }} .W2 {{ fill: #e09f3e }}
.small {{ font-size: 12.5px }} .ours {{ font-weight: 700 }}
@media (prefers-color-scheme: dark) {{
text {{ fill: #ddd }} .ground {{ fill: #1a1c1e }} .W1 {{ fill: #61a5c2 }}
}}
</style>
<rect class="ground" width="{width}" height="{height}" rx="6"/>
{body}
</svg>
"""


class Row(NamedTuple):
    """One system: microseconds added, by load."""

    system: str
    added: dict[str, float]


def rows_of(results: Results) -> list[Row]:
    """Return what the picture shows, quickest first."""
    added: dict[str, dict[str, float]] = {}
    for line in results.lines(Plan(SYSTEMS, LOADS).cases):
        wanted = line.case.load in TITLES and line.case.connections == CONNECTIONS
        if wanted and line.added is not None and not any(part in line.system for part in LEFT_OUT):
            added.setdefault(line.system, {})[line.case.load] = line.added
    return sorted((Row(system, values) for system, values in added.items()), key=_fastest)


def _fastest(row: Row) -> float:
    return sum(row.added.values()) / len(row.added)


def draw(rows: list[Row], date: str) -> str:
    """Return the picture."""
    longest = max(max(row.added.values()) for row in rows)
    scale = (WIDTH - 2 * MARGIN - FIGURE) / max(longest, 1)
    step = NAME + BAR * len(TITLES) + GAP
    parts = _legend(date)
    for i, row in enumerate(rows):
        parts += _bars(row, TOP + i * step, scale)
    said = "; ".join(f"{row.system}: " + _figures(row) for row in rows)
    height = TOP + len(rows) * step + 4
    return PICTURE.format(width=WIDTH, height=height, description=escape(said), body="\n".join(parts))


def _figures(row: Row) -> str:
    return ", ".join(f"{load} {value:.0f} us" for load, value in sorted(row.added.items()))


def _legend(date: str) -> list[str]:
    about = f"above the bare framework; {CONNECTIONS} connections; {date}"
    parts = [
        f'<text class="ours" x="{MARGIN}" y="22">Microseconds of CPU added to a request</text>',
        f'<text class="small" x="{MARGIN}" y="41">{escape(about)}</text>',
    ]
    for i, (load, title) in enumerate(TITLES.items()):
        x = MARGIN + i * 188
        parts.append(f'<rect class="{load}" x="{x}" y="52" width="11" height="11" rx="1"/>')
        parts.append(f'<text class="small" x="{x + 16}" y="62">{escape(title)}</text>')
    return parts


def _bars(row: Row, top: int, scale: float) -> list[str]:
    ours = ' class="ours"' if row.system.startswith("Eyewall") else ""
    parts = [f'<text{ours} x="{MARGIN}" y="{top + 13}">{escape(row.system)}</text>']
    for i, (load, value) in enumerate(sorted(row.added.items())):
        y, length = top + NAME + i * BAR, max(value, 0) * scale
        bar = f'x="{MARGIN}" y="{y}" width="{length:.1f}" height="{BAR - 1}" rx="1"'
        parts.append(f'<rect class="{load}" {bar}/>')
        parts.append(
            f'<text class="small" x="{MARGIN + length + 5:.1f}" y="{y + BAR - 2.5}">{value:.0f}</text>'
        )
    return parts


def draw_results(results: Results, target: Path) -> None:
    """Write the picture to ``target``, if there is anything to show."""
    rows = rows_of(results)
    if rows:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(draw(rows, results.date))
