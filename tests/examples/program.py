"""A program of ours as a real process: on a free port, in a folder of its own, ended by its own pid."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEMO = ("-m", "eyewall.cli.main", "demo")
LAB = (str(EXAMPLES / "lab.py"),)
_READY_SECONDS = 20.0


class Program:
    """A Python program that says on its first line where it listens.

    Args:
        words: what follows ``python``; ``--port`` is added.
        folder: where it works, and keeps its data.
        variables: environment variables beside those of the test, of which ``EYEWALL_…`` are left out.
    """

    def __init__(self, *words: str, folder: Path, **variables: str) -> None:
        self._words = words
        self._folder = folder
        self._environ = environment(**variables)
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.first_line = ""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._running().pid

    @property
    def errors(self) -> str:
        """What it wrote to stderr."""
        return (self._folder / "stderr.txt").read_text()

    def start(self) -> Self:
        """Start it and wait for its first line; after a stop, on the same port again."""
        with (self._folder / "stderr.txt").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *self._words, "--port", str(self.port)],
                cwd=self._folder,
                env=self._environ,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.first_line = self._read_line()
        found = re.search(r"http://[^/ ]+:(\d+)", self.first_line)
        if found is None:
            self.kill()
            raise AssertionError(f"it did not start: {self.first_line!r} {self.errors}")
        self.port = int(found[1])
        return self

    def kill(self) -> None:
        """End it as a crash would."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit code."""
        process = self._running()
        process.send_signal(number)
        with process:  # closes the pipe
            return process.wait(20)

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def _read_line(self) -> str:
        stdout = self._running().stdout
        assert stdout is not None
        ready, _, _ = select.select([stdout], [], [], _READY_SECONDS)
        return stdout.readline() if ready else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.kill()


def environment(**variables: str) -> dict[str, str]:
    """Return the test's environment without settings of ours, and with ``variables``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EYEWALL_")}
    return {**kept, "PYTHONUNBUFFERED": "1", **variables}
