"""Finds out whether a Redis or Valkey server may throw sessions away when it is full."""

from __future__ import annotations

import logging
from typing import Final

from eyewall.errors import StoreUnavailable
from eyewall.stores.resp_replies import Carrier, Reply

KEEPS_ALL: Final = "noeviction"

_logger: Final = logging.getLogger("eyewall.stores.resp")
_EVICTS: Final = (
    "Redis or Valkey signs people out when it is full: its maxmemory-policy is %s; set it to noeviction, and "
    "keep sessions apart from a cache"
)


async def warn_of_eviction(link: Carrier) -> None:
    """Log one line if a server may evict sessions. Silent where the user may not ask; never fails.

    Asks ``INFO``, because providers that run Redis for others forbid ``CONFIG``.
    """
    try:
        replies = await link.send_to_all(("INFO", "memory"))
    except StoreUnavailable:
        return
    if policies := sorted({policy for reply in replies if (policy := _evicting_policy(reply))}):
        _logger.warning(_EVICTS, ", ".join(policies))


def _evicting_policy(reply: Reply) -> str | None:
    """Return what the server evicts by; None when it keeps all, has no limit, or does not tell."""
    if not isinstance(reply, bytes):
        return None
    lines = reply.decode("utf-8", "replace").splitlines()
    facts = {name: value for name, _, value in (line.partition(":") for line in lines)}
    policy = facts.get("maxmemory_policy", KEEPS_ALL)
    return None if policy == KEEPS_ALL or facts.get("maxmemory") == "0" else policy
