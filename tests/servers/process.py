"""A real server process for the tests: its folder, its port, its life and its end.

A kind of server derives from :class:`ServerProcess` and says four things: which command starts it,
what must be prepared in its folder first, how to see that it answers, and its URL.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

READY_SECONDS = 20.0
STOP_SECONDS = 5.0
START_ATTEMPTS = 3


class MissingServerError(Exception):
    """A server is not installed here; ``command`` is what would bring it."""

    def __init__(self, name: str, command: str) -> None:
        super().__init__(f"server missing: {name}; bring it with: {command}")


class ServerFailedError(Exception):
    """A server did not become ready; the message carries the end of its log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> Iterator[int]:
    """Yield ``pid`` and, as far as the kernel tells, every process below it."""
    yield pid
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in children.read_text().split():
                yield from descendants(int(child))


def tied_to_us(command: Sequence[str | Path], *, death_signal: str, unprivileged: bool) -> list[str]:
    """Return ``command`` so that the kernel ends it when we die, and not run by root if ``unprivileged``.

    Without ``setpriv`` (it is Linux's own) only the ordinary stop at exit remains.
    """
    plain = [str(part) for part in command]
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return plain
    dropped = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    return [setpriv, f"--pdeathsig={death_signal}", *(dropped if unprivileged and is_root() else []), *plain]


def is_root() -> bool:
    """Tell whether we run as root, which PostgreSQL and MariaDB refuse to do."""
    return os.geteuid() == 0


class ServerProcess(ABC):
    """One server on a free port of 127.0.0.1, working in a temporary folder of its own.

    ``with Kind() as server`` starts and stops it; the verbs are there for tests of faults too. After
    :meth:`kill` or :meth:`halt`, :meth:`start` brings it back with the same port and folder.
    """

    name: str
    """What a missing-server message calls it."""
    brought_by: str
    """The command that installs it."""
    unprivileged = False
    """True for servers that refuse to run as root."""
    death_signal = "KILL"
    """What the kernel sends the server when the tests' process dies."""
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"eyewall-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._prepared = False
        self._starts = 0

    # What a kind of server must say

    @property
    @abstractmethod
    def url(self) -> str:
        """The address as the store's settings take it."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]:
        """Return the command line; the process must stay in the foreground."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Tell whether the server answers; may raise OSError for "not yet"."""

    def prepare(self) -> None:  # noqa: B027 - most kinds need nothing
        """Make what the server needs in its folder; called once, before the first start."""

    def settle(self) -> None:  # noqa: B027 - most kinds need nothing
        """Bring the ready server into the state tests expect; called once, after the first start."""

    # Life and end

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            MissingServerError: it is not installed.
            ServerFailedError: it ended, or did not answer within 20 seconds.
        """
        if self._prepared:
            self._launch()
            return self
        try:
            self._first_start()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the server and remove its folder. Stopping twice does nothing more."""
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.stop)

    def halt(self) -> None:
        """End the server in its own orderly way, keeping its folder."""
        if self._process is None:
            return
        everyone = self.pids
        self.resume()
        self._signal(everyone[:1], self.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._signal(everyone, signal.SIGKILL)
        self._reap()

    def kill(self) -> None:
        """End the server as a crash would (SIGKILL), keeping its folder."""
        self._signal(self.pids, signal.SIGKILL)
        self._reap()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): it keeps its connections and answers nothing."""
        self._signal(self.pids, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server run on (SIGCONT)."""
        self._signal(self.pids, signal.SIGCONT)

    @property
    def pids(self) -> list[int]:
        """The server's process and its children; empty when it is not running."""
        return [] if self._process is None else list(descendants(self._process.pid))

    @property
    def log(self) -> str:
        """What the server said since its last start."""
        path = self._log_path()
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self, *command: str | Path) -> None:
        """Run a tool of the server's to its end, as the server's own user.

        Raises:
            ServerFailedError: the tool failed; the message carries what it said.
        """
        tied = tied_to_us(command, death_signal="KILL", unprivileged=self.unprivileged)
        done = subprocess.run(
            tied, capture_output=True, cwd=self.folder, timeout=READY_SECONDS * 3, check=False
        )
        if done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
            raise ServerFailedError(f"{command[0]} failed:\n{said}")

    def _first_start(self) -> None:
        atexit.register(self.stop)
        if self.unprivileged and is_root():
            shutil.chown(self.folder, "nobody")
        self.prepare()
        self._launch_on_free_port()
        self._prepared = True
        self.settle()

    def _launch_on_free_port(self) -> None:
        """Launch; should somebody have taken the port meanwhile, take another."""
        for attempt in range(START_ATTEMPTS):
            try:
                self._launch()
                break
            except ServerFailedError:
                if attempt == START_ATTEMPTS - 1:
                    raise
                self.port = free_port()

    def _launch(self) -> None:
        self._starts += 1
        tied = tied_to_us(self.command(), death_signal=self.death_signal, unprivileged=self.unprivileged)
        with self._log_path().open("wb") as log:
            self._process = subprocess.Popen(
                tied,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        self._wait_until_ready(self._process)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                if self.is_ready():
                    return
            time.sleep(0.005)
        said = self.log[-2000:]
        self.kill()
        raise ServerFailedError(f"{self.name} did not become ready:\n{said}")

    def _log_path(self) -> Path:
        return self.folder / f"server-{self._starts}.log"

    def _signal(self, pids: Sequence[int], which: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, which)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None


def first_existing(*candidates: str | Path | None) -> Path | None:
    """Return the first of ``candidates`` that is a file, or None."""
    return next((Path(path) for path in candidates if path is not None and Path(path).is_file()), None)
