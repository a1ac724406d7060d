"""From measured figures to machines: how far one store goes, and what 100 million sessions take.

What is assumed stands here, once, and is told on the page beside the result.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

SESSIONS = 100_000_000
SIGNED_IN = 0.5
"""Part of the sessions that belong to a principal and so have an entry in the index."""
REQUESTS_A_DAY = 20
"""Of each session, with its cookie."""
PEAK = 3.0
"""The busiest hour, as a multiple of the mean."""
WRITES = 0.1
"""Part of the requests that change the session."""
SPARE_MEMORY = 1.3
"""Fragmentation, replication buffers, copy-on-write: so many times the data."""
MASTER_BYTES = 24e9
"""Memory that one master may use, such as three quarters of 32 GB."""
STORE_LOAD, CORE_LOAD = 0.5, 0.6
"""Part of a core that a store's server, and an application process, may use at the peak."""
DAY = 86_400


class Costs(NamedTuple):
    """What was measured: bytes; microseconds of CPU per request, of the store and of the application."""

    session_bytes: float
    index_bytes: float
    store_read: float
    store_write: float
    read: float
    write: float


class Estimate(NamedTuple):
    """What it takes. Bytes, requests per second, cores, and how many masters each of two limits asks for."""

    data_bytes: float
    memory_bytes: float
    peak: float
    store_cores: float
    masters_by_memory: int
    masters_by_cpu: int
    processes: int

    @property
    def masters(self) -> int:
        """How many it takes; a cluster has three at least."""
        return max(self.masters_by_memory, self.masters_by_cpu, 3)


def estimate(costs: Costs, sessions: int = SESSIONS) -> Estimate:
    """Return what so many sessions take."""
    data = sessions * (costs.session_bytes + SIGNED_IN * costs.index_bytes)
    peak = sessions * REQUESTS_A_DAY / DAY * PEAK
    store = peak * mixed(costs.store_read, costs.store_write) / 1e6
    own = peak * mixed(costs.read, costs.write) / 1e6
    memory = data * SPARE_MEMORY
    by_memory, by_cpu = ceil(memory / MASTER_BYTES), ceil(store / STORE_LOAD)
    return Estimate(data, memory, peak, store, by_memory, by_cpu, ceil(own / CORE_LOAD))


def mixed(read: float, write: float) -> float:
    """Return the mean cost of a request."""
    return (1 - WRITES) * read + WRITES * write


class Reach(NamedTuple):
    """How far one server goes: sessions in the memory of a master, and requests per second of its core."""

    sessions: int
    per_second: float
    processes: float


def reach(costs: Costs) -> Reach:
    """Return where one Redis ends, and how many application processes it serves until then."""
    each = (costs.session_bytes + SIGNED_IN * costs.index_bytes) * SPARE_MEMORY
    per_second = STORE_LOAD * 1e6 / mixed(costs.store_read, costs.store_write)
    per_process = CORE_LOAD * 1e6 / mixed(costs.read, costs.write)
    return Reach(int(MASTER_BYTES / each), per_second, per_second / per_process)
