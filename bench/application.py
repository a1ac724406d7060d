"""An application under test: a process of its own, on a core of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.process import free_port, tied_to_us

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 30.0
STOP_SECONDS = 5.0


class ApplicationFailedError(Exception):
    """An application did not start; the message carries what it said."""


class RunningApplication:
    """One program of ``bench/apps``.

    Args:
        module: its name, such as ``tornado_bare``.
        words: what follows ``--port`` on its command line.
        core: the core it runs on.
    """

    def __init__(self, module: str, *words: str, core: int) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self.port = free_port()
        command = [sys.executable, "-m", f"bench.apps.{module}", "--port", str(self.port), *words]
        self._process = subprocess.Popen(
            tied_to_us(["taskset", "-c", str(core), *command], death_signal="TERM", unprivileged=False),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def pid(self) -> int:
        """Of the process; its workers are below it."""
        return self._process.pid

    def wait_until_ready(self) -> Self:
        """Wait until it takes connections.

        Raises:
            ApplicationFailedError: it ended, or took longer than 30 seconds.
        """
        deadline = time.monotonic() + READY_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            time.sleep(0.02)
        said = self.said
        self.stop()
        raise ApplicationFailedError(f"it did not start:\n{said}")

    @property
    def said(self) -> str:
        """The end of what it wrote."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-3000:]

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self.wait_until_ready()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
