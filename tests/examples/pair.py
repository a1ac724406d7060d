"""Two labs that share a store, and a client whose cookie both accept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from tests.examples.program import LAB, Program

SECRET = "Vg2rN8xkQe7Zt1LwBs4YhC6mPf0JdUaE"
"""Signs the cookies where the store makes no secret of its own; it protects nothing."""


@contextmanager
def two_labs(folder: Path, **variables: str) -> Iterator[tuple[Program, Program]]:
    """Run two labs with the same settings, each in a folder of its own below ``folder``."""
    for name in ("one", "two"):
        (folder / name).mkdir()
    with (
        Program(*LAB, folder=folder / "one", **variables) as one,
        Program(*LAB, folder=folder / "two", **variables) as two,
    ):
        yield one, two


class Visitor:
    """Somebody with one cookie, whose requests go to either lab, many of them at once.

    Args:
        labs: where they go.
        at_once: most requests under way.
    """

    def __init__(self, labs: Sequence[Program], *, at_once: int = 200) -> None:
        self.labs = labs
        self._client = AsyncHTTPClient(force_instance=True, max_clients=at_once)
        self.cookies: dict[str, str] = {}

    async def fetch(self, lab: int, path: str, method: str = "GET", data: Any = None) -> HTTPResponse:
        """One request to one of the two; a connection that breaks counts as 599."""
        body = None if method == "GET" else json.dumps(data if data is not None else {})
        headers = {"Content-Type": "application/json"}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        response = await self._client.fetch(
            self.labs[lab].url + path,
            method=method,
            body=body,
            headers=headers,
            raise_error=False,
            follow_redirects=False,
            request_timeout=30,
            connect_timeout=30,
        )
        self._take_cookies(response)
        return response

    def _take_cookies(self, response: HTTPResponse) -> None:
        for line in response.headers.get_list("Set-Cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
            if not value:
                del self.cookies[name]

    async def post(self, lab: int, path: str, **data: Any) -> HTTPResponse:
        """Post ``data`` as JSON."""
        return await self.fetch(lab, path, "POST", data)

    async def told(self, lab: int, path: str) -> Any:
        """What one of the two answers, read as JSON."""
        return json.loads((await self.fetch(lab, path)).body)

    async def value(self, key: str, lab: int = 0) -> Any:
        """What one of the two answers for ``key``."""
        return (await self.told(lab, f"/kv?k={key}"))["value"]

    async def both(self, path: str, method: str, times: int) -> list[HTTPResponse]:
        """Send the same request ``times`` times at once, to both in turn."""
        return await asyncio.gather(*(self.fetch(number % 2, path, method) for number in range(times)))

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()
