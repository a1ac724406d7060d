"""What processes tell each other through :mod:`eyewall.core.announcing`, as bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from eyewall.core.announcing import MAX_MESSAGE

_DIGESTS_IN_ONE: Final = 128
_encoder: Final = msgspec.msgpack.Encoder()


class Ended(msgspec.Struct, frozen=True, array_like=True, tag="e"):
    """These sessions have ended, or have changed so much that whoever holds them should look.

    Args:
        digests: of the sessions.
        reason: for people; a socket that is closed tells it.
    """

    digests: list[bytes]
    reason: str


class Message(msgspec.Struct, frozen=True, array_like=True, tag="m"):
    """Something for all that a principal has open.

    Args:
        principal: whose.
        content: what a WebSocket can send: text, bytes, or a dict that JSON can hold.
    """

    principal: str
    content: Any

    def encode(self) -> bytes:
        """Return it as bytes; raises TypeError for content that cannot be sent."""
        if not _is_sendable(self.content):
            raise TypeError("a WebSocket can send text, bytes, or a dict that JSON can hold")
        return _encoder.encode(self)


_decoder: Final = msgspec.msgpack.Decoder(Ended | Message)


def encode_ended(digests: Sequence[bytes], reason: str) -> Iterator[bytes]:
    """Yield as many messages as it takes to tell of all ``digests``."""
    for at in range(0, len(digests), _DIGESTS_IN_ONE):
        yield _encoder.encode(Ended(list(digests[at : at + _DIGESTS_IN_ONE]), reason))


def decode(message: bytes) -> Ended | Message | None:
    """Return what ``message`` tells; None when it is nothing of ours, whoever sent it."""
    if len(message) > MAX_MESSAGE:
        return None
    try:
        found: Ended | Message = _decoder.decode(message)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return None if isinstance(found, Message) and not _is_sendable(found.content) else found


def _is_sendable(content: object) -> bool:
    if isinstance(content, dict):
        try:
            json.dumps(content, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            return False
    return isinstance(content, str | bytes | dict)
