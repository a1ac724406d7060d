"""What stays open beyond its request, found by its session and by its principal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eyewall.core.session import Session


class Watched:
    """One open thing and its session.

    Args:
        session: as loaded when it was opened; kept up to date by the watch.
        on_end: called once, with the reason, when the session has ended.
        on_message: called with what was sent to its principal, or None.
        owner: what is open; for whoever lists it.
    """

    __slots__ = ("__weakref__", "digest", "on_end", "on_message", "owner", "principal", "session")

    def __init__(
        self,
        session: Session,
        on_end: Callable[[str], None],
        on_message: Callable[[Any], None] | None,
        owner: object,
    ) -> None:
        record = session.draft.record
        if record is None:
            raise ValueError("only a session that is stored can be watched")
        self.session = session
        self.digest = record.digest
        self.principal = record.principal
        self.on_end = on_end
        self.on_message = on_message
        self.owner = owner


class OpenSessions:
    """All that is open in this process, by the digest of its session and by its principal."""

    def __init__(self) -> None:
        self._by_digest: dict[bytes, set[Watched]] = {}
        self._by_principal: dict[str, set[Watched]] = {}

    def add(self, watched: Watched) -> None:
        """Note that ``watched`` is open."""
        self._by_digest.setdefault(watched.digest, set()).add(watched)
        if watched.principal is not None:
            self._by_principal.setdefault(watched.principal, set()).add(watched)

    def remove(self, watched: Watched) -> None:
        """Forget it; nothing happens when it is not known."""
        _discard(self._by_digest, watched.digest, watched)
        if watched.principal is not None:
            _discard(self._by_principal, watched.principal, watched)

    def is_watching(self, watched: Watched) -> bool:
        """Whether it is still open, as far as we know."""
        return watched in self._by_digest.get(watched.digest, ())

    def of(self, principal: str) -> list[Watched]:
        """Return what ``principal`` has open in this process."""
        return list(self._by_principal.get(principal, ()))

    def _follow(self, watched: Watched, digest: bytes) -> None:
        _discard(self._by_digest, watched.digest, watched)
        watched.digest = digest
        self._by_digest.setdefault(digest, set()).add(watched)


def _discard(index: dict[Any, set[Watched]], key: Any, watched: Watched) -> None:
    found = index.get(key)
    if found is not None:
        found.discard(watched)
        if not found:
            del index[key]
