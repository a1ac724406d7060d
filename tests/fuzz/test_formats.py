"""Any bytes, for every format that others can write, with hypothesis; the seeds begin, and are bent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

SEEDS: Final = Path(__file__).parent / "seeds"
EXAMPLES: Final = 20_000 if os.environ.get("EYEWALL_TEST_SOAK") else 150


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


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_every_format_are_still_accepted(name: str) -> None:
    """Seeds that nothing reads any more leave the fuzzer outside the door."""
    assert any(TARGETS[name](seed) for seed in seeds_of(name))


def test_every_folder_of_seeds_has_its_format() -> None:
    """A format that was renamed must take its seeds along."""
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)
