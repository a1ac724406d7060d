"""Which connections the Redis and Valkey store uses: those of the process and event loop it is called in.

No socket may be shared between two of either. So after a fork each process makes its own, and what it
inherited stays where it is, unclosed: closing it would deafen the parent's event loop.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, get_running_loop
from os import getpid

from eyewall.stores.resp_address import Address, Source
from eyewall.stores.resp_cluster import ClusterLink
from eyewall.stores.resp_link import Link
from eyewall.stores.resp_replies import Carrier


class Links:
    """The connections to one deployment, apart for each process and each event loop.

    Args:
        address: of the deployment.
        timeout: longest wait of a call (seconds).
    """

    def __init__(self, address: Address, timeout: float) -> None:
        self._address = address
        self._timeout = timeout
        self._links: dict[tuple[int, AbstractEventLoop], Carrier] = {}

    def here(self) -> Carrier:
        """Return the connections of this process and the running event loop, made when first asked for."""
        here = getpid(), get_running_loop()
        return self._links.get(here) or self._add(here)

    async def close(self) -> None:
        """Close the connections of this process and the running event loop, if there are any."""
        if (link := self._links.pop((getpid(), get_running_loop()), None)) is not None:
            await link.close()

    def _add(self, here: tuple[int, AbstractEventLoop]) -> Carrier:
        self._forget_closed_loops()
        link = self._links[here] = self._opened()
        return link

    def _opened(self) -> Carrier:
        if self._address.kind == "cluster":
            return ClusterLink(self._address, self._timeout)
        return Link(Source(self._address, self._timeout), self._timeout)

    def _forget_closed_loops(self) -> None:
        """Drop the links of loops that ended without ``close``: nobody can close those any more."""
        for here in list(self._links):  # a copy, made in one step: other threads may be adding theirs
            if here[1].is_closed():
                self._links.pop(here, None)
