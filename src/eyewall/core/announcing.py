"""Telling every process that something happened: that sessions ended, above all.

A process that serves a WebSocket learns from the store, by asking now and then, that its session has ended.
An announcement makes that prompt. It is a hint and never the truth: it may be lost, it may come twice, and
whoever may write to the store's server may send one. So a listener looks into the store before it believes,
and asks now and then all the same.

A store that can announce has a method ``announcer()``; :func:`announcer_of` asks any store for it. Stores of
one place (one Redis database and prefix, one PostgreSQL table) hear each other, and nobody else's.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

MAX_MESSAGE: Final = 5120
"""Longest message (bytes). PostgreSQL carries less than 8,000 characters, and these become 6,828."""


class Listener(Protocol):
    """What somebody who listens is told: one call at a time, in order, on the event loop it listens on.

    The methods return at once and do not wait; an exception is logged and ends nothing.
    """

    def heard(self, message: bytes) -> None:
        """Called for each announcement, this process's own included.

        Those that one task awaited one after the other come in that order. One may come twice when the
        connection it was sent over was lost meanwhile.

        ``message`` has at most :data:`MAX_MESSAGE` bytes.
        """

    def connected(self) -> None:
        """From now on everything is heard, until :meth:`lost`.

        What was announced before, since the beginning or since ``lost``, may have been missed: time to look
        at everything once.
        """

    def lost(self, reason: str) -> None:
        """From now on announcements are missed. Called once for an outage, however long it lasts.

        Also called when the first attempt to connect fails. A server that hangs is noticed after some
        seconds only; so announcements made shortly before this call may have been missed as well.
        """


class Listening(Protocol):
    """Somebody listens. It connects again by itself, for ever, until it is closed."""

    async def aclose(self) -> None:
        """End it at once; after that the listener is not called any more. Closing twice does nothing more."""


class Announcer(Protocol):
    """Tells something to all who listen, in every process, this one included."""

    async def announce(self, message: bytes) -> None:
        """Send ``message`` to all who listen now.

        Returning means that the server took it, not that anybody heard it.

        Args:
            message: at most :data:`MAX_MESSAGE` bytes of any value; need not be secret, must not be a secret.

        Raises:
            StoreUnavailable: it could not be sent in time; some may have heard it nevertheless.
            ValueError: the message is too long.
        """

    def listen(self, listener: Listener) -> Listening:
        """Begin to listen, on the running event loop, over a connection of its own.

        Returns at once, also when the server is down; ``listener.connected()`` says when it is heard. One for
        each process is enough.
        """


@runtime_checkable
class Announcing(Protocol):
    """Capability: the store can announce, if what it is connected to can."""

    def announcer(self) -> Announcer | None:
        """Return the store's announcer, always the same; None when its server has no means to announce.

        Closing the store ends what listens on the running event loop.
        """


def announcer_of(store: object) -> Announcer | None:
    """Return the announcer of ``store``; None when it cannot announce, and asking it has to do."""
    return store.announcer() if isinstance(store, Announcing) else None


def require_sendable(message: bytes) -> None:
    """Refuse a message that some store could not carry; all refuse it alike, so that stores can be changed.

    Raises:
        ValueError: it is longer than :data:`MAX_MESSAGE`.
    """
    if len(message) > MAX_MESSAGE:
        raise ValueError(
            f"an announcement may have {MAX_MESSAGE} bytes, this one has {len(message)}; make two of it"
        )
