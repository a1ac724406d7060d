"""What tests of the SQL store begin with: each database in turn, and time that stands still."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyewall.testing import ManualClock
from tests.stores.sql_places import DATABASES, Place


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still."""
    return ManualClock()


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A fresh table in each of the databases."""
    if request.param == "sqlite":
        return Place(f"sqlite:///{tmp_path}/sessions.db")
    return Place(request.getfixturevalue(request.param).url)
