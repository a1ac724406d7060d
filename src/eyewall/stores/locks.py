"""Locks on the records of one folder, held across threads and processes.

A record's lock is one of 64 files, chosen by its digest, and taken with ``flock``, which the kernel
releases when a process dies, however it dies. A process that is merely *stopped* keeps it, so nobody waits
without a deadline. Inside one process a thread lock comes first: threads wake each other at once, and only
one of them has to poll for the file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from eyewall.errors import ConfigurationError, StoreUnavailable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SLOTS: Final = 64
FIRST_PAUSE: Final = 0.0005
LONGEST_PAUSE: Final = 0.008


class LockHeldError(StoreUnavailable):
    """Somebody else holds the lock, and held it as long as one was to wait."""


class _ProcessState:
    """What one process holds; a forked child must not believe it holds its parent's locks."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.threads = [threading.Lock() for _ in range(SLOTS)]
        self.open_files: set[int] = set()


class FolderLocks:
    """The 64 locks of one folder.

    Args:
        folder: where the lock files are; it must be there, and private.
        timeout: how long to wait for a lock at most.

    Raises:
        ConfigurationError: this system has no ``flock`` (Windows).
    """

    def __init__(self, folder: Path, timeout: timedelta) -> None:
        if fcntl is None:
            raise ConfigurationError(
                "the file store needs POSIX file locks (the fcntl module), which this system lacks; "
                "use the SQL store with a sqlite:// URL instead"
            )
        self._folder = folder
        self._timeout = timeout.total_seconds()
        self._state = _ProcessState()

    @contextmanager
    def holding(self, digest: bytes, *, waiting: bool = True) -> Iterator[None]:
        """Hold the lock of ``digest`` for the length of a ``with`` block. Blocks the calling thread.

        Args:
            digest: what is locked, with all that share its slot.
            waiting: whether to wait for whoever holds it, up to the timeout.

        Raises:
            LockHeldError: somebody else still held it then; a StoreUnavailable.
            OSError: the lock file cannot be opened.
        """
        patience = self._timeout if waiting else 0.0
        deadline = time.monotonic() + patience
        slot = digest[0] % SLOTS
        state = self._state_of_this_process()
        if not state.threads[slot].acquire(timeout=patience):
            raise self._still_held(slot)
        try:
            with self._holding_file(state, slot, deadline):
                yield
        finally:
            state.threads[slot].release()

    def _state_of_this_process(self) -> _ProcessState:
        if self._state.pid != os.getpid():
            inherited, self._state = self._state, _ProcessState()
            # While we kept these open, the parent's locks would outlive the parent.
            for descriptor in inherited.open_files:
                os.close(descriptor)
        return self._state

    @contextmanager
    def _holding_file(self, state: _ProcessState, slot: int, deadline: float) -> Iterator[None]:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path(slot), flags, 0o600)
        state.open_files.add(descriptor)
        try:
            self._wait_for(descriptor, slot, deadline)
            yield
        finally:
            # Closing alone would not release it while a forked child has a copy of the descriptor.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            state.open_files.discard(descriptor)
            os.close(descriptor)

    def _wait_for(self, descriptor: int, slot: int, deadline: float) -> None:
        """Poll: ``flock`` itself would wait for a stopped process for ever."""
        pause = FIRST_PAUSE
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() + pause > deadline:
                    raise self._still_held(slot) from None
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _path(self, slot: int) -> Path:
        return self._folder / f"{slot:02d}"

    def _still_held(self, slot: int) -> LockHeldError:
        return LockHeldError(
            f"{self._path(slot)} is locked by another process or thread for more than {self._timeout:g} s; "
            "is a process stopped, or the disk very slow?"
        )
