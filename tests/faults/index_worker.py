"""Processes that sign people in and out without end, for a test that kills them at any moment.

Run as ``python -m tests.faults.index_worker URL SECRET``. For each line of input, which names principals,
one child is forked that leads their lives until it is killed. Says: its pid; ``ended DIGEST`` for each
session whose end was acknowledged, ``done`` for all else that was; ``dead``.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any

from eyewall.core.opening import open_store
from eyewall.core.session import Session
from eyewall.core.store import utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import StoreUnavailable
from eyewall.settings import Settings
from eyewall.signin.service import SignInManager
from tests.core.world import Browser

BROWSERS = 3
"""Of each principal, all busy at once."""


class Life:
    """One principal in several browsers."""

    def __init__(self, manager: SignInManager, principal: str) -> None:
        self._manager = manager
        self._principal = principal

    async def lead(self) -> None:
        """Do one thing after another, at random, in all browsers at once."""
        acts: list[Callable[[Browser], Coroutine[Any, Any, None]]] = [
            self._change, self._regenerate, self._sign_in, self._sign_in,
            self._sign_out, self._end_others, self._end_one, self._end_all,
        ]  # fmt: skip
        await asyncio.gather(*(self._in_one_browser(Browser(self._manager), acts) for _ in range(BROWSERS)))

    async def _in_one_browser(
        self, browser: Browser, acts: list[Callable[[Browser], Coroutine[Any, Any, None]]]
    ) -> None:
        while True:
            with suppress(StoreUnavailable):  # as when those who sign in outrun who signs them all out
                await random.choice(acts)(browser)
            say("done")

    async def _sign_in(self, browser: Browser) -> None:
        session = await browser.open()
        session.sign_in(self._principal)
        await browser.end(session)

    async def _change(self, browser: Browser) -> None:
        await browser.put(number=random.random())

    async def _regenerate(self, browser: Browser) -> None:
        session = await browser.open()
        session.regenerate()
        await browser.end(session)

    async def _sign_out(self, browser: Browser) -> None:
        session = await browser.open()
        digest = _digest_of(session)
        session.sign_out()
        await browser.end(session)
        if digest is not None:
            say(f"ended {digest.hex()}")

    async def _end_others(self, browser: Browser) -> None:
        session = await browser.open()
        if session.principal is not None:
            await self._manager.revoke_others(session)
        await browser.end(session)

    async def _end_one(self, browser: Browser) -> None:
        devices = await self._manager.of(self._principal)
        if devices:
            await self._manager.revoke(devices[0].handle, principal=self._principal)

    async def _end_all(self, browser: Browser) -> None:
        session = await browser.open()
        digest = _digest_of(session)
        await self._manager.revoke_all(self._principal)
        if digest is not None:
            say(f"ended {digest.hex()}")


def _digest_of(session: Session) -> bytes | None:
    """Return the digest of the session if somebody is signed in there."""
    record = session.draft.record
    return None if record is None or record.principal is None else record.digest


async def lead_lives(manager: SignInManager, principals: list[str]) -> None:
    """Until killed."""
    await asyncio.gather(*(Life(manager, principal).lead() for principal in principals))


def say(word: object) -> None:
    """Print at once: what is said is known, even if we are killed now."""
    os.write(1, f"{word}\n".encode())


def breed(url: str, secret: str) -> None:
    """Fork a child for each line of input, and wait for its end."""
    settings = Settings(url=url, cookie_secret=secret, store_timeout=timedelta(seconds=10))
    manager = SignInManager(settings, open_store(settings, utc_now))  # the driver is imported once, here
    manager.use_keyring(KeyRing.from_secret(secret))
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            say(os.getpid())
            asyncio.run(lead_lives(manager, line.split()))
        os.waitpid(child, 0)
        say("dead")


if __name__ == "__main__":
    breed(*sys.argv[1:])
