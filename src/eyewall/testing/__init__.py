"""Tools for testing applications and stores. Needs no pytest."""

from eyewall.testing.announcer_checks import ANNOUNCER_CHECKS
from eyewall.testing.clock import ManualClock
from eyewall.testing.store_checks import (
    DAMAGE_CHECKS,
    PRINCIPAL_CHECKS,
    SCAN_CHECKS,
    STORE_CHECKS,
    SWEEP_CHECKS,
    checks_for,
)

__all__ = [
    "ANNOUNCER_CHECKS",
    "DAMAGE_CHECKS",
    "PRINCIPAL_CHECKS",
    "SCAN_CHECKS",
    "STORE_CHECKS",
    "SWEEP_CHECKS",
    "ManualClock",
    "checks_for",
]
