"""Tornado and redis-py by hand, as a careful programmer writes it in twenty lines: the floor of features.

The asyncio client with hiredis and a blocking pool, a random ID in a plain cookie, JSON in the store. No
signature, no merging, no idle timeout beside the absolute one, no answer held back.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from bench.apps import answers
from bench.apps.tornado_site import ByHand, application, serve


class RedisByHand(ByHand):
    """GET to open, SET to save."""

    session_id: str | None = None

    async def opened(self) -> dict[str, Any]:
        session_id = self.get_cookie("session")
        value = await self.settings["redis"].get("s:" + session_id) if session_id else None
        if value is None:
            return {}
        self.session_id = session_id
        found: dict[str, Any] = json.loads(value)
        return found

    async def saved(self, session: dict[str, Any]) -> None:
        if self.session_id is None:
            self.session_id = secrets.token_urlsafe(32)
            self.set_cookie("session", self.session_id, httponly=True, samesite="Lax")
        await self.settings["redis"].set("s:" + self.session_id, json.dumps(session), ex=answers.HOUR)

    async def renewed(self, session: dict[str, Any]) -> None:
        if self.session_id is not None:
            await self.settings["redis"].delete("s:" + self.session_id)
        self.session_id = None
        await self.saved(session)


async def main() -> None:
    """Serve."""
    where = answers.place()
    pool = BlockingConnectionPool.from_url(where.store, max_connections=64)
    await serve(application(RedisByHand, redis=Redis(connection_pool=pool)), where.port)


if __name__ == "__main__":
    asyncio.run(main())
