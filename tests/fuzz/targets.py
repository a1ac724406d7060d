"""One entry per format that others can write: each takes any bytes, and fails when a rule is broken.

The same entries serve hypothesis (``test_formats.py``, always) and atheris (``run.py``, by ``make fuzz``).
Each returns whether the bytes were accepted, so that a test can see to it that the seeds still are.
"""

from __future__ import annotations

from typing import Final

from tests.fuzz import (
    cookie_targets,
    header_targets,
    operator_targets,
    planted_targets,
    request_target,
    store_targets,
)
from tests.fuzz.kit import Target

TARGETS: Final[dict[str, Target]] = {
    target.__name__: target
    for module in (
        cookie_targets,
        header_targets,
        store_targets,
        planted_targets,
        operator_targets,
        request_target,
    )
    for target in module.TARGETS
}
"""Every entry by its name, which is also the name of the folder of its seeds."""
