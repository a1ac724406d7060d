"""CPU time of one store call against a local Valkey or Redis, beside plain pooled redis-py.

    python -m bench.micro.resp_calls [url]

Without a URL it starts a Valkey of its own, as the tests do. Counted is the CPU time of this process
only, in microseconds per call, the best of three rounds, with 1, 16 and 64 calls in flight.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis

from eyewall.core.record import Record
from eyewall.core.store import utc_now
from eyewall.stores import resp_layout as layout
from eyewall.stores.resp import RespStore
from tests.servers.resp import Valkey9

IN_FLIGHT = (1, 16, 64)
CALLS = 4_000
ROUNDS = 3

Call = Callable[[Record], Awaitable[object]]


def records(count: int) -> list[Record]:
    """Sessions of about 500 bytes each."""
    now = utc_now()
    return [
        Record(
            digest=secrets.token_bytes(32),
            version=1,
            payload=secrets.token_bytes(400),
            created_at=now,
            seen_at=now,
            expires_at=now + timedelta(hours=1),
        )
        for _ in range(count)
    ]


async def cpu_per_call(call: Call, own: list[Record]) -> float:
    """Let each record's user call again and again; return microseconds of our CPU per call."""
    turns = CALLS // len(own)

    async def use(record: Record) -> None:
        for version in range(record.version, record.version + turns):
            await call(msgspec.structs.replace(record, version=version))

    start = time.process_time()
    await asyncio.gather(*(use(record) for record in own))
    return (time.process_time() - start) / (turns * len(own)) * 1e6


async def best(call: Call, prepare: Call, in_flight: int) -> float:
    """The best of some rounds, each with fresh records."""
    results = []
    for _ in range(ROUNDS):
        own = records(in_flight)
        for record in own:
            await prepare(record)
        results.append(await cpu_per_call(call, own))
    return min(results)


async def compare(url: str) -> None:
    """Print one line per way of calling."""
    store = RespStore(url)
    plain_url = url.replace("valkey", "redis", 1)
    client = Redis(connection_pool=BlockingConnectionPool.from_url(plain_url, max_connections=64))
    swap = client.register_script(
        "local v = redis.call('GET', KEYS[1]) if not v then return 0 end "
        "redis.call('SET', KEYS[1], ARGV[1], 'PX', 3600000) return 1"
    )

    async def replace(record: Record) -> None:
        following = msgspec.structs.replace(record, version=record.version + 1)
        assert await store.replace(following, version=record.version)

    async def plain_replace(record: Record) -> None:
        await swap(keys=[record.digest], args=[layout.pack(record)])

    async def plain_create(record: Record) -> None:
        await client.set(record.digest, layout.pack(record), px=3600000)

    async def plain_load(record: Record) -> None:
        value = await client.get(record.digest)
        assert isinstance(value, bytes)
        assert layout.unpack(value, record.digest, utc_now())

    ways: list[tuple[str, Call, Call]] = [
        ("load, Eyewall", lambda record: store.load(record.digest), store.create),
        ("load, pooled redis-py", plain_load, plain_create),
        ("replace, Eyewall", replace, store.create),
        ("replace, pooled redis-py", plain_replace, plain_create),
    ]
    print(f"{'CPU us per call, in flight:':28}" + "".join(f"{count:8}" for count in IN_FLIGHT))
    for name, call, prepare in ways:
        figures = [await best(call, prepare, count) for count in IN_FLIGHT]
        print(f"{name:28}" + "".join(f"{figure:8.1f}" for figure in figures))
    await store.close()
    await client.aclose()


def main() -> None:
    """Measure against the server named on the command line, or against one started for it."""
    if len(sys.argv) > 1:
        asyncio.run(compare(sys.argv[1]))
        return
    with Valkey9() as server:
        asyncio.run(compare(server.url))


if __name__ == "__main__":
    main()
