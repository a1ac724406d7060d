"""Tornado's own signed cookie with JSON inside: no store, nothing can be taken back, all can be read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from bench.apps import answers
from bench.apps.tornado_site import ByHand, application, serve


class SignedCookie(ByHand):
    """Reads and sets the cookie."""

    async def opened(self) -> dict[str, Any]:
        value = self.get_signed_cookie("session")
        found: dict[str, Any] = json.loads(value) if value else {}
        return found

    async def saved(self, session: dict[str, Any]) -> None:
        self.set_signed_cookie("session", json.dumps(session), httponly=True, samesite="Lax")


if __name__ == "__main__":
    asyncio.run(serve(application(SignedCookie, cookie_secret=answers.SECRET), answers.place().port))
