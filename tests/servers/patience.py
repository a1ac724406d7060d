"""How long tests wait that are not about waiting."""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 10.0
"""Seconds: the deadline in tests that are not about deadlines, for machines that do much at once."""
