"""Reads the address of a Redis or Valkey deployment, and makes connections to it.

::

    redis://[user:password@]host[:port][/db]            one server; valkey:// is the same
    rediss://...                                        the same over TLS; valkeys:// too
    unix:///path/to/socket[?db=1]                       one server on this machine
    redis+sentinel://h1:p,h2,h3/service[/db]            the master that the sentinels name
    redis+cluster://h1:p,h2,h3                          a cluster, found through any of these nodes

``rediss+`` or ``valkeys+`` before ``sentinel`` or ``cluster`` means TLS to every server. What follows a
``?`` is passed to redis-py: ``ssl_ca_certs=/etc/ca.pem``, ``ssl_cert_reqs=required``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from eyewall.errors import ConfigurationError, MissingDriverError
from eyewall.stores.resp_opening import abort

try:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.connection import AbstractConnection, SSLConnection, parse_url
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
    from redis.backoff import NoBackoff
    from redis.crc import key_slot
    from redis.exceptions import (
        AskError,
        AuthenticationError,
        ClusterDownError,
        MovedError,
        NoScriptError,
        ReadOnlyError,
        ResponseError,
        TryAgainError,
    )
except ImportError:
    raise MissingDriverError(
        "Redis and Valkey need redis-py; install it with: pip install 'eyewall[redis]'"
    ) from None

__all__ = [
    "AbstractConnection",
    "Address",
    "AskError",
    "AuthenticationError",
    "ClusterDownError",
    "MovedError",
    "NoScriptError",
    "Place",
    "ReadOnlyError",
    "ResponseError",
    "Source",
    "TryAgainError",
    "read_address",
    "slot_of",
    "url_from",
]
"""The driver's names among them: only this file imports it, so that its absence has one message."""

SENTINEL_PORT: Final = 26379
SERVER_PORT: Final = 6379
Place = tuple[str, int]
"""Host and port of one server."""

_KINDS: Final = ("", "sentinel", "cluster")
_PLAIN: Final = {"redis": "redis", "valkey": "redis", "rediss": "rediss", "valkeys": "rediss", "unix": "unix"}


@dataclass(frozen=True)
class Address:
    """Where the servers are, as read from a URL.

    Args:
        kind: ``""`` for one server, ``"sentinel"`` or ``"cluster"``.
        nodes: host and port of each node named; empty for a Unix socket.
        options: what redis-py's connections take, password included.
        service: the sentinels' name for the master.
    """

    kind: str
    nodes: tuple[Place, ...]
    options: dict[str, Any] = field(repr=False)
    service: str = ""


def read_address(url: str) -> Address:
    """Return what ``url`` says.

    Raises:
        ConfigurationError: the URL is none of the forms above. The message does not repeat the URL,
            because that may hold a password.
    """
    scheme, _, kind = url.partition("://")[0].lower().partition("+")
    if scheme not in _PLAIN or kind not in _KINDS or (scheme == "unix" and kind):
        raise _misread(
            "the scheme is not redis, rediss, valkey, valkeys or unix (with +sentinel or +cluster)"
        )
    try:
        return _parsed(_PLAIN[scheme], kind, url)
    except ValueError as error:
        raise _misread(str(error)) from None


def _parsed(scheme: str, kind: str, url: str) -> Address:
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    segments = [unquote(segment) for segment in parts.path.split("/")[1:]]
    service = segments.pop(0) if kind == "sentinel" and segments else ""
    if kind == "sentinel" and not service:
        raise ValueError("it names no service: redis+sentinel://host1,host2/SERVICE")
    path = parts.path if scheme == "unix" else "/" + _database("/".join(segments), kind)
    default = SENTINEL_PORT if kind == "sentinel" else SERVER_PORT
    nodes = () if scheme == "unix" else tuple(_node(host, default) for host in hosts.split(","))
    if len(nodes) > 1 and not kind:
        raise ValueError("several hosts need +sentinel or +cluster in the scheme")
    options = dict(parse_url(f"{scheme}://{user}{at}{'' if scheme == 'unix' else 'x'}{path}?{parts.query}"))
    options.pop("host", None)  # a stand-in: a cluster's client would take it for one more node
    return Address(kind, nodes, options, service)


def _database(text: str, kind: str) -> str:
    if text and not text.isdecimal():
        raise ValueError("the database is not a number")
    if kind == "cluster" and int(text or 0):
        raise ValueError("a cluster has only database 0")
    return text


def _node(text: str, default_port: int) -> Place:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "localhost", parts.port or default_port


def _misread(reason: str) -> ConfigurationError:
    return ConfigurationError(f"cannot read the url of the Redis or Valkey store: {reason}")


def url_from(
    *,
    host: str | None = None,
    port: int | None = None,
    password: str | None = None,
    database: str | None = None,
) -> str:
    """Return the URL that says the same as separate settings do; None means redis-py's default."""
    user = f":{quote(password, safe='')}@" if password else ""
    name = host or "localhost"
    shown = f"[{name}]" if ":" in name else name
    return f"redis://{user}{shown}:{port or SERVER_PORT}/{database or 0}"


def slot_of(key: str | bytes) -> int:
    """Return the slot of a cluster in which ``key`` is."""
    return key_slot(key.encode() if isinstance(key, str) else key)


class Source:
    """Makes connections to one server, or to the master that the sentinels name.

    Args:
        address: of one server, or of sentinels.
        timeout: longest wait for a connection to open (seconds).
    """

    def __init__(self, address: Address, timeout: float) -> None:
        options = _options(address, timeout)
        self._sentinel = _sentinel(address, timeout) if address.kind == "sentinel" else None
        if self._sentinel is not None:
            options["ssl"] = options.pop("connection_class", None) is SSLConnection
            self._pool: ConnectionPool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
                address.service, self._sentinel, **options
            )
            return
        if address.nodes:
            options["host"], options["port"] = address.nodes[0]
        self._pool = ConnectionPool(**options)

    def make(self) -> AbstractConnection:
        """Return a connection that is not yet connected. It finds the master each time it connects."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def close(self) -> None:
        """Close the connections to the sentinels; those that were made are their users' to close."""
        if self._sentinel is not None:
            for client in self._sentinel.sentinels:
                await client.aclose()


def _sentinel(address: Address, timeout: float) -> Sentinel:
    """Sentinels are asked over TLS when the master is, but need no password of the master's."""
    options = {name: value for name, value in address.options.items() if name.startswith("ssl_")}
    options["ssl"] = address.options.get("connection_class") is SSLConnection
    options["retry"] = _never_again()
    # A hung sentinel must leave time to ask the next one.
    options["socket_timeout"] = options["socket_connect_timeout"] = timeout / 3
    sentinel = Sentinel(address.nodes, sentinel_kwargs=options)  # type: ignore[no-untyped-call]  # it has none
    if options["ssl"]:
        for client in sentinel.sentinels:
            client.connection_pool.connection_class = _AbruptConnection
    return sentinel


class _AbruptConnection(SSLConnection):
    """To a sentinel, which redis-py asks by itself: so redis-py, too, has to close without a word."""

    async def disconnect(self, *args: Any, **options: Any) -> None:
        abort(self)
        await super().disconnect(*args, **options)


def _options(address: Address, timeout: float) -> dict[str, Any]:
    """Connections that neither wait nor retry on their own: deadlines are ours, one for a whole call."""
    ours: dict[str, Any] = {
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
        "retry": _never_again(),
        "protocol": 2,
        "driver_info": None,
    }
    return {**address.options, **ours}


def _never_again() -> Retry:
    return Retry(NoBackoff(), 0)
