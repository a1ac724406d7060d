"""What all tests of faults do."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Have what a test has abandoned collected in that test, and not blamed on whichever runs later."""
    yield
    gc.collect()
