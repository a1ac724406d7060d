"""Any bytes, for every format that others can write, with hypothesis; the seeds begin, and are bent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

SEEDS: Final = Path(__file__).parent / "seeds"
EXAMPLES: Final = 20_000 if os.environ.get("EYEWALL_TEST_SOAK") else 150
LONG: Final = 64 * 1024
"""Bytes: as much as Tornado lets a stranger send in headers."""
MOST_SECONDS: Final = 1.5
"""For one such input: what grows with the square of its length takes minutes."""


def seeds_of(name: str) -> list[bytes]:
    """The seeds of one entry, in the order of their names."""
    return [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]


@st.composite
def bent(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with a few bytes overwritten, put in, left out, or the rest of another seed after it."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 8)))
        data[start:end] = draw(st.binary(max_size=8))
    if draw(st.booleans()):
        other = draw(st.sampled_from(seeds))
        data += other[draw(st.integers(0, len(other))) :]
    return bytes(data)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_break_a_rule_of_their_format(name: str) -> None:
    """Harm: whoever sends or stores odd bytes causes a 500, or is believed."""
    target = TARGETS[name]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(bent(seeds_of(name)) | st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
    def run(data: bytes) -> None:
        target(data)

    for seed in seeds_of(name):
        target(seed)
    run()


def drawn_out(seed: bytes) -> Iterator[bytes]:
    """The seed with one of its pieces again and again, until it is as long as a stranger can make it."""
    cuts = range(0, len(seed) + 1, max(1, len(seed) // 6))
    for start in cuts:
        for piece in (seed[start : start + 1], seed[start : start + 7], seed[start:]):
            if piece:
                times = LONG // len(piece)
                yield seed[:start] + piece * times + seed[start:]


@pytest.mark.parametrize("name", TARGETS)
def test_no_repetition_takes_long(name: str) -> None:
    """Harm: one request with 64 KB of the right nonsense keeps everybody waiting for seconds."""
    target = TARGETS[name]
    for seed in seeds_of(name):
        for data in drawn_out(seed):
            began = time.process_time()
            target(data)
            took = time.process_time() - began
            assert took < MOST_SECONDS, f"{took:.1f} s for {data[:80]!r} and so on"


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_every_format_are_still_accepted(name: str) -> None:
    """Seeds that nothing reads any more leave the fuzzer outside the door."""
    assert any(TARGETS[name](seed) for seed in seeds_of(name))


def test_every_folder_of_seeds_has_its_format() -> None:
    """A format that was renamed must take its seeds along."""
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)
