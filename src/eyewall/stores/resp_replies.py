"""What travels to Redis or Valkey and back: commands, scripts, replies, and what a refusal means."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, ClassVar, Final, Protocol

import msgspec

from eyewall.errors import StoreUnavailable
from eyewall.stores.resp_address import AuthenticationError, NoScriptError, ReadOnlyError, ResponseError

Command = tuple[str | bytes | int, ...]
Reply = Any
"""bytes, int, list or None; or the ResponseError with which the server answered this one command."""

SCAN_COUNT: Final = 500
"""How many keys a server looks at in one step of a scan: short enough to hold nobody up."""

_AROUND: Final = ("PUBLISH", "WAIT")
"""Commands that belong to those before them: what is done again is so together with them."""

_TURNED_AWAY: Final = (
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "has no permissions",
    "invalid password",
    "DB index",
    "invalid DB index",
    "CERTIFICATE_VERIFY_FAILED",
    "SELECT is not allowed",
)
"""How servers and TLS say that the settings are wrong; redis-py often wraps these in a ConnectionError."""


class Script:
    """A Lua script, run by its SHA-1 and sent whole only when the server has forgotten it."""

    COMMAND: Final = "EVALSHA"
    IN_FULL: Final = "EVAL"
    _sources: ClassVar[dict[str, str]] = {}

    def __init__(self, source: str) -> None:
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._sources[self.sha] = source

    def on(self, key: str | bytes, *arguments: str | bytes | int) -> Command:
        """Return the command that runs the script on one key."""
        return (self.COMMAND, self.sha, 1, key, *arguments)

    @classmethod
    def in_full(cls, command: Command) -> Command:
        """Return ``command``, made by :meth:`on`, with the script's source instead of its SHA-1."""
        return (cls.IN_FULL, cls._sources[str(command[1])], *command[2:])


class Call(msgspec.Struct, eq=False):
    """The commands of one caller, and the future that will hold their replies.

    Args:
        commands: to run in this order.
        future: gets the reply to each, or StoreUnavailable.
        due: when it is too late (``time.monotonic``).
    """

    commands: tuple[Command, ...]
    future: asyncio.Future[list[Reply]]
    due: float

    def answer(self, replies: list[Reply]) -> None:
        """Hand over the replies; nobody may be waiting for them any more."""
        if not self.future.done():
            self.future.set_result(replies)

    def fail(self, error: BaseException) -> None:
        """Tell whoever still waits that there will be no replies."""
        if not self.future.done():
            self.future.set_exception(unavailable(error))


class Carrier(Protocol):
    """What the store needs of a deployment, be it one server or a cluster."""

    def send(self, *commands: Command) -> Awaitable[list[Reply]]:
        """Run ``commands`` in this order; return the reply to each, be it a refusal.

        Raises:
            StoreUnavailable: no complete answer in time. Any of the commands may have run.
        """

    def send_to_all(self, command: Command) -> Awaitable[list[Reply]]:
        """Run ``command``, which is about no key, on every server that takes changes; return the replies.

        Raises:
            StoreUnavailable: no complete answer in time.
        """

    def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """Yield every key that matches the glob ``pattern``, some perhaps twice."""

    async def close(self) -> None:
        """Close the connections."""


async def sent_again(carrier: Carrier, commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
    """Send again, in full, the scripts that the server has forgotten, if any; return all replies.

    What it did is not done twice, but waited for again.

    Raises:
        StoreUnavailable: no complete answer in time.
    """
    if not any(isinstance(reply, NoScriptError) for reply in replies):
        return replies
    again = {
        index: Script.in_full(command) if isinstance(reply, NoScriptError) else command
        for index, (command, reply) in enumerate(zip(commands, replies, strict=True))
        if isinstance(reply, NoScriptError) or command[0] in _AROUND
    }
    second = dict(zip(again, await carrier.send(*again.values()), strict=True))
    return [second.get(index, reply) for index, reply in enumerate(replies)]


def unavailable(error: BaseException) -> StoreUnavailable:
    """Return ``error`` as the one error callers know, with the driver's own as its cause."""
    # Where no master is found, redis-py adds its own objects' insides to what happened.
    said = str(error).partition(" : <")[0]
    failure = StoreUnavailable(f"Redis or Valkey: {said or type(error).__name__}")
    failure.__cause__ = error
    return failure


def sound(reply: Reply) -> Any:
    """Return ``reply`` unless it is the server's refusal.

    Raises:
        StoreUnavailable: the server refused: it is full, read-only, loading, lacks replicas ...
    """
    if isinstance(reply, Exception):
        raise unavailable(reply)
    return reply


def is_wrong_type(reply: Reply) -> bool:
    """Tell whether the server refused because the key holds something else than a string."""
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def is_read_only(reply: Reply) -> bool:
    """Tell whether the server refused because it is a replica. Redis 6 says so in a script's error."""
    return isinstance(reply, ReadOnlyError) or (
        isinstance(reply, ResponseError) and "-READONLY" in str(reply)
    )


def is_misconfiguration(error: BaseException | None) -> bool:
    """Tell whether trying again is in vain: the password, the database or the certificate is wrong."""
    return isinstance(error, AuthenticationError) or any(sign in str(error) for sign in _TURNED_AWAY)
