"""The keys that the library tornado-auth-sessions left in Redis, read once and then given up.

``session:<ID>`` holds who is signed in. ``<prefix>taken:<SHA-256 of the ID>`` is ours: which sign-in of ours
has taken the place of that key. It outlives every request that may have read the key before it went, and
keeps such a request from bringing the sign-in back after a sign-out.
"""

from __future__ import annotations

import hashlib
from typing import Final

from eyewall.stores.resp import RespStore
from eyewall.stores.resp_replies import Command, is_wrong_type, sound

_MARK_MILLISECONDS: Final = 60_000
"""How long it stays known what took a key's place: far longer than a request may wait for its store."""


class OldAuthSessions(RespStore):
    """A connection to the Redis of the old library; as a store it keeps nothing."""

    async def find(self, old_id: str) -> bytes | None:
        """Return who is signed in under ``old_id``, or None when there is no such key (any more).

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        (reply,) = await self._links.here().send(("GET", _old_key(old_id)))
        found: bytes | None = None if is_wrong_type(reply) else sound(reply)
        return found

    async def give_up(self, old_id: str, successor: str) -> bool:
        """Delete the key of ``old_id``, in whose place the sign-in ``successor`` has come.

        Returns:
            False when another sign-in has taken its place before.

        Raises:
            StoreUnavailable: Redis does not answer; the key may be there still.
        """
        mark = f"{self._prefix}taken:{hashlib.sha256(old_id.encode()).hexdigest()}"
        steps: tuple[Command, ...] = (
            ("SET", mark, successor, "NX", "PX", _MARK_MILLISECONDS),
            ("GET", mark),
            ("DEL", _old_key(old_id)),
        )
        _, first, _ = [sound(reply) for reply in await self._links.here().send(*steps)]
        return bool(first == successor.encode())


def _old_key(old_id: str) -> str:
    return f"session:{old_id}"
