"""Count the machine instructions of a request and of its pieces: a regression guard free of noise.

    python -m bench.instructions             # compare with bench/instructions.json
    python -m bench.instructions --update    # accept the counts of now
    python -m bench.instructions --stability # how far repeated counts differ: where the tolerance comes from

One run of valgrind's callgrind for all pieces. It writes a profile whenever the C library's ``getloadavg``
is called, which Python never does by itself, so a call of ``os.getloadavg()`` before and after a piece cuts
out what the piece alone executed. Hash seeds are fixed.

A count belongs to one build of Python and one version of each library. On the build of the baseline every
count may grow by 2 %. On any other only whole requests are compared, each as a multiple of a request of bare
Tornado that was counted in the same run: that hardly depends on the interpreter, and may grow by 5 %.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import msgspec

from bench.application import ROOT

BASELINE = ROOT / "bench" / "instructions.json"
SAME_BUILD, OTHER_BUILD = 0.02, 0.05
"""Part by which a count, or a multiple, may grow. Repeated counts differ by 0.3 % at most (``--stability``),
the multiples of Python 3.11, 3.12 and 3.13 by 2.7 %."""

REFERENCE = "W0, bare Tornado"
LIBRARIES = ("tornado", "msgspec", "cryptography")
CALLS = 40
REPEATS = 3
"""Each piece is counted so often, and the smallest count holds: now and then one has to pay for memory that
the interpreter asks the system for, which depends on all that ran before it."""

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
        for _ in range(REPEATS):
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
    """Part 1 is all before the first mark; then come each count of a piece and the gap behind it in turn."""
    marks = 2 * REPEATS * len(names)
    parts = [profile.with_name(f"{profile.name}.{i}") for i in range(1, marks + 1)]
    if not all(part.exists() for part in parts):
        raise RuntimeError("callgrind did not write a profile at each mark")
    counts = [_total(part) for part in parts[1::2]]
    return {name: round(min(counts[REPEATS * i : REPEATS * (i + 1)]) / CALLS) for i, name in enumerate(names)}


def _total(part: Path) -> int:
    for line in part.read_text().splitlines():
        if line.startswith(("summary:", "totals:")):
            return int(line.split()[1])
    raise RuntimeError(f"{part.name} has no total")


def build() -> str:
    """What counts hold for: interpreter, compiler, its options, C library, kind of processor, libraries."""
    options = f"{sysconfig.get_config_var('CONFIG_ARGS')} {sysconfig.get_config_var('PY_CFLAGS')}"
    parts = [
        f"{platform.python_implementation()} {platform.python_version()}",
        f"{platform.python_compiler()} with options {hashlib.sha256(options.encode()).hexdigest()[:8]}",
        " ".join(platform.libc_ver()),
        platform.machine() + (" with avx2" if " avx2 " in Path("/proc/cpuinfo").read_text() else ""),
        *(f"{library} {version(library)}" for library in LIBRARIES),
    ]
    return ", ".join(parts)


class Baseline(msgspec.Struct):
    """The counts that were accepted last, and what they hold for."""

    build: str
    counts: dict[str, int]


def compare(counted: dict[str, int], baseline: Baseline) -> int:
    """Print what was counted beside the baseline; return how many grew beyond the tolerance."""
    known = baseline.counts
    if baseline.build == build():
        return _compared(counted, known, SAME_BUILD)
    print(f"the baseline is of another build, so only multiples of {REFERENCE!r} are compared")
    print(f"  baseline: {baseline.build}\n  here:     {build()}")
    return _compared(_multiples(counted), _multiples(known), OTHER_BUILD)


def _multiples(counts: dict[str, int]) -> dict[str, float]:
    one = counts[REFERENCE]
    return {name: count / one for name, count in counts.items() if name.startswith("W")}


def _compared(counted: Mapping[str, float], known: Mapping[str, float], tolerance: float) -> int:
    grown = 0
    for name, number in counted.items():
        before = known.get(name)
        if before is None:
            print(f"{name:24}{number:>12,.6g}{'new':>12}")
            continue
        too_much = number > before * (1 + tolerance)
        grown += too_much
        change = f"{number / before - 1:+.1%}"
        print(f"{name:24}{number:>12,.6g}{before:>12,.6g}{change:>9}{'  GREW' if too_much else ''}")
    if grown:
        print(f"{grown} grew by more than {tolerance:.0%}: mend it, or accept it with --update and say why")
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
    counted = count()
    grown = 0
    if BASELINE.exists():
        grown = compare(counted, msgspec.json.decode(BASELINE.read_bytes(), type=Baseline))
    if options.update:
        accepted = msgspec.json.encode(Baseline(build(), counted))
        BASELINE.write_bytes(msgspec.json.format(accepted, indent=1) + b"\n")
        return 0
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
