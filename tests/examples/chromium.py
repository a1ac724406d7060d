"""The real Chromium of the operating system, driven through playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

INSTALL = "apt-get update && apt-get install -y --no-install-recommends chromium"
PATIENCE_MS: Final = 15_000
"""How long a page may take to look as it should; the machine may be busy."""

_QUIET = (
    "--headless",
    "--no-sandbox",  # CI runs as root, where Chromium has no sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Lend a browser; without one the test is skipped, and at the end of the run named as not tested."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        _missing()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(_QUIET))
        yield browser
        browser.close()


def _missing() -> NoReturn:
    message = f"server missing: chromium; bring it with: {INSTALL}"
    if os.environ.get("EYEWALL_REQUIRE_SERVERS") == "all":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
