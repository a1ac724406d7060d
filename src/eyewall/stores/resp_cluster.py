"""Carries commands to a Redis or Valkey cluster: redis-py finds the nodes and follows slots that move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final

from eyewall.stores.resp_address import Address, NoScriptError, ResponseError, cluster_client
from eyewall.stores.resp_replies import SCAN_COUNT, Command, Reply, Script, unavailable

CALLS: Final = 50
"""Most calls under way; redis-py raises when a node's connections run out."""


class ClusterLink:
    """Connections of one event loop in one process to a cluster. Calls are not put together into batches.

    Args:
        address: of the cluster.
        timeout: longest wait of a call, from its start to its last reply (seconds).
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._client = cluster_client(address, timeout, connections=CALLS * 2)
        self._timeout = timeout
        self._turn = asyncio.Semaphore(CALLS)
        self._first = asyncio.Lock()
        self._knows_nodes = False
        self._tasks: set[asyncio.Future[Any]] = set()

    async def send(self, *commands: Command) -> list[Reply]:
        """Run ``commands`` in this order; return the reply to each. See :class:`Carrier`."""
        replies: list[Reply] = await self._within_deadline(self._run(commands))
        return replies

    async def scan(self, pattern: str) -> AsyncIterator[bytes]:
        """Yield every key of every master that matches ``pattern``. See :class:`Carrier`."""
        keys = self._client.scan_iter(match=pattern, count=SCAN_COUNT)
        while (key := await self._within_deadline(anext(keys, None))) is not None:
            yield key

    async def close(self) -> None:
        """Close the connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _within_deadline(self, call: Awaitable[Any]) -> Any:
        """Await ``call`` in a task of its own: no hung node makes us wait, no cancel cuts its line."""
        task = asyncio.ensure_future(call)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        # Also when we are cancelled: calls that nobody waits for must not queue up before a hung node.
        deadline = asyncio.get_running_loop().call_later(self._timeout, task.cancel)
        task.add_done_callback(lambda _task: deadline.cancel())
        await asyncio.wait({task}, timeout=self._timeout)
        if not task.done() or task.cancelled():
            task.cancel()
            raise unavailable(TimeoutError(f"no answer within {self._timeout} s, or the store was closed"))
        if (error := task.exception()) is not None:
            raise unavailable(error)
        return task.result()

    def _finished(self, task: asyncio.Future[Any]) -> None:
        """Let go of ``task``; nobody need have waited for its error."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _run(self, commands: tuple[Command, ...]) -> list[Reply]:
        async with self._turn:
            await self._find_nodes()
            return [await self._reply_to(command) for command in commands]

    async def _reply_to(self, command: Command) -> Reply:
        try:
            return await self._client.execute_command(*command)
        except NoScriptError:
            return await self._client.execute_command(*Script.in_full(command))
        except ResponseError as refusal:
            return refusal

    async def _find_nodes(self) -> None:
        """Learn the cluster's layout, once: left to the first calls, they cut each other's connections."""
        async with self._first:
            if not self._knows_nodes:
                await self._client.initialize()
                self._knows_nodes = True
