"""Each scenario runs by the mixin and by ``install()``: two ways in, one behaviour."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.tornado.site import ServeSite, Site, Way, serving


@pytest.fixture(params=["mixin", "install"])
def way(request: pytest.FixtureRequest) -> Way:
    """The way in under test."""
    chosen: Way = request.param
    return chosen


@pytest_asyncio.fixture
async def serve(way: Way) -> AsyncIterator[ServeSite]:
    """Start sites that end with the test."""
    async with AsyncExitStack() as stack:

        async def start(handlers: list[Any], **options: Any) -> Site:
            return await stack.enter_async_context(serving(way, handlers, **options))

        yield start
