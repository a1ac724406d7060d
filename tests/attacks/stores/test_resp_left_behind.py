"""What cancels, ended event loops and a close leave behind in the Redis and Valkey store."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from typing import Any

from eyewall.core.store import utc_now
from eyewall.errors import StoreUnavailable
from eyewall.stores.resp import RespStore
from eyewall.testing import ManualClock
from eyewall.testing.check_kit import new_record

LOOPS = """
import asyncio, gc, os, sys
from eyewall.stores.resp import RespStore
store = RespStore(sys.argv[1])
for _ in range(20):
    asyncio.run(store.load(bytes(32)))
gc.collect()
print(sum(os.readlink(link.path).startswith("socket:") for link in os.scandir("/proc/self/fd")
          if os.path.lexists(link.path)))
"""


def test_ended_loops_keep_no_connections(valkey9: Any) -> None:
    """Each loop that ended without ``close`` kept its connections: many loops filled the server."""
    # In a process of its own, because whoever does not close is warned of it: rightly.
    done = subprocess.run(
        [sys.executable, "-c", LOOPS, valkey9.url], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) <= 1


async def test_calls_cancelled_before_a_hung_cluster_do_not_pile_up(fresh_server: Any) -> None:
    """Cancelled calls waited for their turn without a deadline: memory grew, and later calls came last."""
    cluster = fresh_server("cluster")
    store = RespStore(cluster.url, timeout=0.3)
    await _until_served(store)
    cluster.pause()
    calls = [asyncio.ensure_future(store.load(bytes(32))) for _ in range(500)]
    await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    await asyncio.sleep(0.6)
    carrier: Any = store._links.here()
    links = list(carrier._links.values())
    assert links
    assert not any(link._queue or link._busy() for link in links)
    cluster.resume()
    await store.close()


async def test_closing_a_cluster_cancels_nobody(fresh_server: Any) -> None:
    """A call under way ended as if its task had been cancelled, which no handler of errors catches."""
    store = RespStore(fresh_server("cluster").url)
    await _until_served(store)
    calls = [asyncio.ensure_future(store.load(bytes(32))) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await store.close()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(outcome is None or isinstance(outcome, StoreUnavailable) for outcome in outcomes), outcomes


async def test_a_principal_that_is_no_text_has_no_sessions(valkey9: Any) -> None:
    """A name with half a surrogate, out of some form, was a 500 here and an empty list elsewhere."""
    store = RespStore(valkey9.url)
    assert await store.find_principal("\ud800") == []
    assert await store.delete_principal("\ud800") == 0
    await store.close()


async def test_a_fast_clock_takes_no_live_session_off_its_principals_list(valkey9: Any) -> None:
    """Listing devices on a host whose clock is a little ahead hid a session from "sign out everywhere"."""
    clock = ManualClock(utc_now())
    here = RespStore(valkey9.url, clock=clock, prefix="skew:")
    ahead = RespStore(valkey9.url, clock=lambda: clock() + timedelta(seconds=40), prefix="skew:")
    record = new_record(clock, principal="alice", expires_at=clock() + timedelta(seconds=30))
    await here.create(record)
    assert await ahead.find_principal("alice") == []
    assert await here.delete_principal("alice") == 1
    assert await here.load(record.digest) is None
    await asyncio.gather(here.close(), ahead.close())


async def _until_served(store: RespStore) -> None:
    for _ in range(20):
        try:
            assert await store.load(bytes(32)) is None
        except StoreUnavailable:
            continue
        return
