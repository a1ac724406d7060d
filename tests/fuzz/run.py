"""Fuzzes every format with atheris, guided by what the bytes reach: ``make fuzz``.

Each runs in a process of its own, since libFuzzer ends the one it runs in. What it finds on the way stays in
``build/fuzz``, and what breaks a rule is written there as ``crash-...``: give such a file a name, and keep it
among the seeds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, Final

SEEDS: Final = Path(__file__).parent / "seeds"
FOUND: Final = Path("build/fuzz")
LONGEST_INPUT: Final = 4096
LONGEST_TIME: Final = 10
"""Seconds for one input, on a machine that does other things as well; more is a finding of its own."""


def main() -> int:
    """Fuzz what the command line names, or everything; return 1 when a rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="formats; all without one")
    parser.add_argument("--seconds", type=int, default=30, help="for each format")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or sorted(path.name for path in SEEDS.iterdir())
    if options.here:
        fuzz(names[0], options.seconds)
    broken = [name for name in names if run(name, options.seconds) != 0]
    print("broken:" if broken else "nothing broken in", ", ".join(broken or names))  # noqa: T201
    return 1 if broken else 0


def run(name: str, seconds: int) -> int:
    """Fuzz one format in a process of its own; return how it ended."""
    command = [sys.executable, "-m", "tests.fuzz.run", name, "--seconds", str(seconds), "--here"]
    return subprocess.run(command, check=False).returncode


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one format; never returns."""
    atheris: Any = import_module("atheris")  # has no types, and is not there for tests and checks

    with atheris.instrument_imports(include=["eyewall"]):
        from tests.fuzz.targets import TARGETS

    target, found = TARGETS[name], FOUND / name
    found.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT}",
        f"-timeout={LONGEST_TIME}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=0",
        "-verbosity=0",
        str(found),
        str(SEEDS / name),
    ]

    def one_input(data: bytes) -> None:
        target(data)  # libFuzzer wants no answer

    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
