"""asyncio's eager tasks (Python 3.12): a task may have run to its end before create_task() returns."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from tests.tornado.site import Handler, serving


class Write(Handler):
    def get(self) -> None:
        self.s["k"] = "v"
        self.write("told")


class Stream(Handler):
    async def get(self) -> None:
        self.s["k"] = "v"
        self.write("one")
        await self.flush()
        self.s["l"] = "w"
        self.write("two")


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.11 has no eager tasks")
async def test_a_commit_that_ends_at_once_answers_too() -> None:
    """With a store that answers without waiting, the commit was over before the answer was held."""
    factory: Any = vars(asyncio)["eager_task_factory"]
    asyncio.get_running_loop().set_task_factory(factory)
    async with serving("mixin", [("/", Write), ("/stream", Stream)]) as site:
        assert await site.text("/", request_timeout=10) == "told"
        assert await site.text("/stream", request_timeout=10) == "onetwo"
        assert (await site.stored())["l"] == "w"
