"""Time the pieces of a request with pyperf.

    python -m bench.micro.core_pieces --fast        # a minute
    python -m bench.micro.core_pieces --rigorous -o before.json

Options are pyperf's; ``python -m pyperf compare_to before.json after.json`` says whether a change mattered.
"""

from __future__ import annotations

import pyperf

from bench.micro.pieces import pieces


def main() -> None:
    """Run them all."""
    runner = pyperf.Runner(program_args=("-m", "bench.micro.core_pieces"))
    runner.metadata["description"] = "pieces of an Eyewall request"
    for name, piece in pieces().items():
        runner.bench_func(name, piece)


if __name__ == "__main__":
    main()
