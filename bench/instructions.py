"""Count the machine instructions of a request and of its pieces: a regression guard free of noise.

    python -m bench.instructions             # compare with bench/instructions.json; fails beyond 2 %
    python -m bench.instructions --update    # accept the counts of now
    python -m bench.instructions --stability # how far repeated counts differ: where the tolerance comes from

One run of valgrind's callgrind for all pieces. It writes a profile whenever the C library's ``getloadavg``
is called, which Python never does by itself, so a call of ``os.getloadavg()`` before and after a piece cuts
out what the piece alone executed. Hash seeds are fixed. A baseline holds for one build of Python and, since
the lock file pins them, one version of each library: after ``make lock ARGS=--upgrade`` it is made anew.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.application import ROOT

BASELINE = ROOT / "bench" / "instructions.json"
TOLERANCE = 0.02
"""Part by which a count may grow. Repeated counts were seen to differ by 0.1 % at most (``--stability``); the
rest is room for where Python's memory happens to lie on another machine."""

CALLS = 40
WARM_UP = 20
MARK = "getloadavg"
LIMIT = 300


def work() -> None:
    """What runs under callgrind: each piece between two marks."""
    from bench.micro.pieces import pieces
    from bench.micro.whole_requests import whole_requests

    everything = pieces() | whole_requests()
    for piece in everything.values():
        for _ in range(WARM_UP):
            piece()
    gc.collect()
    gc.disable()
    for piece in everything.values():
        os.getloadavg()
        for _ in range(CALLS):
            piece()
        os.getloadavg()
    print(json.dumps(list(everything)))


def count() -> dict[str, int]:
    """Return the instructions of one call of each piece.

    Raises:
        RuntimeError: callgrind failed or wrote other profiles than expected.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise RuntimeError("valgrind is missing; bring it with: apt-get install -y valgrind")
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        callgrind = [valgrind, "--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={profile}"]
        command = [*callgrind, sys.executable, "-m", "bench.instructions", "--work"]
        done = subprocess.run(
            command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False, timeout=LIMIT
        )
        if done.returncode:
            raise RuntimeError(f"callgrind failed:\n{done.stderr[-2000:]}")
        names = json.loads(done.stdout)
        return _between_marks(profile, names)


def _environment() -> dict[str, str]:
    fixed = {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONMALLOC": "pymalloc"}
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return kept | fixed


def _between_marks(profile: Path, names: list[str]) -> dict[str, int]:
    """Part 1 is all before the first mark; then come each piece and the gap behind it in turn."""
    parts = [profile.with_name(f"{profile.name}.{i}") for i in range(1, 2 * len(names) + 1)]
    if not all(part.exists() for part in parts):
        raise RuntimeError("callgrind did not write a profile at each mark")
    totals = [_total(part) for part in parts]
    return {name: round(totals[2 * i + 1] / CALLS) for i, name in enumerate(names)}


def _total(part: Path) -> int:
    for line in part.read_text().splitlines():
        if line.startswith(("summary:", "totals:")):
            return int(line.split()[1])
    raise RuntimeError(f"{part.name} has no total")


def version() -> str:
    """What a baseline holds for."""
    built = f"{platform.python_implementation()} {platform.python_version()} {platform.machine()}"
    return f"{built}, {platform.python_compiler()}"


def compare(counted: dict[str, int], baseline: dict[str, Any]) -> int:
    """Print counts beside the baseline; return how many grew beyond the tolerance."""
    known = baseline.get(version(), {})
    grown = 0
    for name, number in counted.items():
        before = known.get(name)
        change = "new" if before is None else f"{number / before - 1:+.1%}"
        too_much = before is not None and number > before * (1 + TOLERANCE)
        grown += too_much
        print(f"{name:24}{number:>10}{before or '-':>10}{change:>9}{'  GREW' if too_much else ''}")
    if not known:
        print(f"no baseline for {version()}; make one with --update")
    return grown


def stability(times: int = 3) -> None:
    """Print by how much repeated counts differ."""
    runs = [count() for _ in range(times)]
    for name in runs[0]:
        numbers = [run[name] for run in runs]
        print(f"{name:24}{min(numbers):>10}{max(numbers):>10}{max(numbers) / min(numbers) - 1:>9.2%}")


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="instructions", description="Count instructions of each piece.")
    for option in ("update", "stability", "work"):
        parser.add_argument(f"--{option}", action="store_true")
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    if options.stability:
        stability()
        return 0
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    counted = count()
    grown = compare(counted, baseline)
    if options.update:
        BASELINE.write_text(json.dumps(baseline | {version(): counted}, indent=1) + "\n")
        return 0
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
