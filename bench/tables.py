"""The results as Markdown."""

from __future__ import annotations

from bench.results import Line

HEADINGS = (
    "system", "requests/s", "p50 ms", "p99 ms", "CPU us", "added us", "±", "ratio", "commands", "kept of 100",
)  # fmt: skip


def line_tables(lines: list[Line], titles: dict[str, str]) -> str:
    """Return one section per load and number of connections.

    Args:
        lines: in the order in which they shall be shown.
        titles: what each load does, by its name.
    """
    parts: list[str] = []
    for case in dict.fromkeys(line.case for line in lines):
        rows = [_cells(line) for line in lines if line.case == case]
        used = [i for i in range(len(HEADINGS)) if i < 2 or any(row[i] for row in rows)]
        parts.append(f"### {case.load}, {titles[case.load]}, {case.connections} connections\n")
        parts.append(markdown([HEADINGS[i] for i in used], [[row[i] for i in used] for row in rows]))
    return "\n".join(parts)


def _cells(line: Line) -> list[str]:
    return [
        line.system,
        f"{line.per_second:.0f}",
        f"{line.p50 / 1000:.2f}",
        f"{line.p99 / 1000:.2f}",
        f"{line.cpu:.0f}",
        or_blank(line.added, "{:+.1f}"),
        or_blank(None if line.added_spread is None else line.added_spread / 2, "{:.1f}"),
        or_blank(line.ratio, "{:.2f}"),
        or_blank(line.commands, "{:.2f}"),
        or_blank(line.kept, "{:.0f}"),
    ]


def or_blank(value: float | None, form: str) -> str:
    """Return ``value`` in the ``form``, or nothing when there is none."""
    return "" if value is None else form.format(value)


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
