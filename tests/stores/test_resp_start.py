"""The address of a Redis or Valkey store, and what it says at the application's start."""

from __future__ import annotations

import asyncio
from math import inf
from pathlib import Path
from typing import Any

import pytest

from eyewall.core.store import utc_now
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores.resp import RespStore
from eyewall.stores.resp_address import read_address
from eyewall.testing.check_kit import new_record, next_version
from tests.servers.proxy import Proxy
from tests.servers.resp import RespServer
from tests.stores.resp_kit import EVERY_KIND, Factory, stores

__all__ = ["stores"]


# Start


@pytest.mark.parametrize(
    ("user", "database", "complaint"),
    [(":wrong@", "0", "password|WRONGPASS"), ("", "0", "(?i)auth"), (":right@", "99", "DB index")],
    ids=["wrong password", "no password", "no such database"],
)
async def test_wrong_credentials_fail_at_start_in_one_line(
    user: str, database: str, complaint: str, fresh_server: Any, stores: Factory
) -> None:
    """Whoever mistypes a password should read one line, not a driver's traceback, and not at midnight."""
    server = fresh_server("redis7")
    server.ask("CONFIG", "SET", "requirepass", "right")
    store = stores(f"redis://{user}127.0.0.1:{server.port}/{database}")
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        await store.check()
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)
    assert "wrong" not in str(caught.value).replace("wrong password", "")
    with pytest.raises(StoreUnavailable):
        await store.load(bytes(32))


async def test_missing_rights_fail_at_start_in_one_line(fresh_server: Any, stores: Factory) -> None:
    """A user who may read and not write would fail at the first visitor's first save."""
    server = fresh_server("redis7")
    server.ask("ACL", "SETUSER", "reader", "on", ">right", "~eyewall:*", "+get")
    with pytest.raises(ConfigurationError, match="no permissions"):
        await stores(f"redis://reader:right@127.0.0.1:{server.port}/0").check()


GUIDE = Path(__file__).resolve().parents[2] / "docs" / "stores" / "redis.md"
ENOUGH = "+@read +@write +@scripting +@connection +publish +subscribe +wait -@dangerous"


@pytest.mark.parametrize(("kind", "more"), [("redis7", ""), ("cluster", "+cluster|slots")])
async def test_the_rights_that_the_guide_names_are_enough(
    kind: str, more: str, fresh_server: Any, stores: Factory
) -> None:
    """An operator who follows the guide must not meet refusals in production."""
    assert ENOUGH in GUIDE.read_text()
    assert more in GUIDE.read_text()
    server = fresh_server(kind)
    for member in getattr(server, "members", [server]):
        rules = ["on", ">right", "~eyewall:*", *ENOUGH.split(), *more.split()]
        assert member.ask("ACL", "SETUSER", "shop", *rules).startswith("+OK")
    store = stores(server.url.replace("://", "://shop:right@"))
    await store.check()
    record = new_record(utc_now, principal="alice")
    assert await store.create(record)
    assert await store.replace(next_version(record), version=1)
    assert await store.touch(record.digest, utc_now(), record.expires_at)
    assert len([each async for each in store.scan()]) == len(await store.find_principal("alice")) == 1
    assert await store.delete_principal("alice") == 1
    assert not await store.delete(record.digest)


async def test_an_unknown_authority_fails_at_start(redis7_tls: RespServer, stores: Factory) -> None:
    """TLS that trusts anybody is no TLS."""
    store = stores(redis7_tls.url.partition("?")[0])
    with pytest.raises(ConfigurationError, match="CERTIFICATE_VERIFY_FAILED"):
        await store.check()


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_check_passes_where_all_is_well(
    kind: str, request: pytest.FixtureRequest, stores: Factory
) -> None:
    """A check that complains about a good server keeps the application down."""
    await stores(request.getfixturevalue(kind).url).check()


# Eviction


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
@pytest.mark.parametrize("kind", ["redis6", "redis7", "valkey9"])
async def test_a_server_that_evicts_is_told_once_at_start(
    kind: str, policy: str, fresh_server: Any, stores: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    """F9. Harm: people are signed out whenever the cache is busy, and nobody knows why."""
    server = fresh_server(kind)
    server.ask("CONFIG", "SET", "maxmemory", "100mb")
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    store = stores(server.url)
    for _ in range(2):
        await store.check()
    (line,) = _warnings(caplog)
    assert "\n" not in line
    assert f"maxmemory-policy is {policy}; set it to noeviction" in line


@pytest.mark.parametrize(("limit", "policy"), [("100mb", "noeviction"), ("0", "allkeys-lru")])
async def test_a_server_that_evicts_nothing_is_silent(
    limit: str, policy: str, fresh_server: Any, stores: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning without a cause teaches people to overlook warnings."""
    server = fresh_server("redis7")
    server.ask("CONFIG", "SET", "maxmemory", limit)
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    await stores(server.url).check()
    assert _warnings(caplog) == []


async def test_a_server_that_may_not_be_asked_is_silent(
    fresh_server: Any, stores: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    """Managed servers and careful operators forbid the question; that must neither fail the start nor nag."""
    server = fresh_server("redis7")
    server.ask("CONFIG", "SET", "maxmemory", "100mb")
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server.ask("ACL", "SETUSER", "shop", "on", ">right", "~eyewall:*", *ENOUGH.split())
    await stores(f"redis://shop:right@127.0.0.1:{server.port}/0").check()
    assert _warnings(caplog) == []


async def test_one_master_that_evicts_is_enough(
    fresh_server: Any, stores: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    """A third of the people is signed out all the same."""
    cluster = fresh_server("cluster")
    cluster.members[2].ask("CONFIG", "SET", "maxmemory", "100mb")
    cluster.members[2].ask("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    await stores(cluster.url).check()
    assert "allkeys-random" in _warnings(caplog)[0]


async def test_a_hung_answer_about_eviction_does_not_fail_the_start(
    redis7: RespServer, stores: Factory
) -> None:
    """A warning is no reason not to serve."""
    async with Proxy(redis7.port) as proxy:
        store = stores(proxy.url_for(redis7.url), timeout=0.2)
        await store.load(bytes(32))  # connected
        proxy.replies.forget()
        checking = asyncio.ensure_future(store.check())
        await proxy.replies.first_piece()
        proxy.replies.freeze()
        await checking


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage() for entry in caplog.records if entry.name.startswith("eyewall")]


async def test_nobody_there_is_unavailable_at_start(stores: Factory) -> None:
    """A server that is not up yet is a matter of time, not of settings."""
    with pytest.raises(StoreUnavailable) as caught:
        await stores("redis://127.0.0.1:1").check()
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@localhost",
        "redis://:secret@localhost/one",
        "redis://:secret@localhost:99999",
        "redis://:secret@a,b",
        "redis+ring://:secret@a",
        "unix+cluster:///run/redis",
        "redis+sentinel://:secret@a:26379",
        "redis+cluster://:secret@a/1",
        "localhost:6379",
        "",
    ],
)
def test_an_unreadable_url_is_refused_without_being_shown(url: str) -> None:
    """The URL holds the password, and error messages end in logs."""
    with pytest.raises(ConfigurationError) as caught:
        RespStore(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind", "nodes"),
    [
        ("redis://h", "", (("h", 6379),)),
        ("valkeys://:p%40ss@h:7/3", "", (("h", 7),)),
        ("valkey+sentinel://a:1,b,[::1]:3/main/2", "sentinel", (("a", 1), ("b", 26379), ("::1", 3))),
        ("redis+cluster://a,b:2", "cluster", (("a", 6379), ("b", 2))),
        ("unix:///run/redis.sock?db=1", "", ()),
    ],
)
def test_addresses_are_read(url: str, kind: str, nodes: tuple[tuple[str, int], ...]) -> None:
    """A misread address connects to the wrong server."""
    address = read_address(url)
    assert (address.kind, address.nodes) == (kind, nodes)
    assert "p@ss" not in repr(address)


def test_separate_settings_say_the_same_as_a_url() -> None:
    """A password with a slash or an at sign must not end up in the host's name."""
    settings = Settings(backend="redis", host="::1", port=7, password="p@ss/w:rd", database="3")
    address = RespStore.from_settings(settings)._address
    assert address.nodes == (("::1", 7),)
    assert address.options["password"] == "p@ss/w:rd"
    assert address.options["db"] == 3


def test_only_a_single_server_is_believed_to_keep_time() -> None:
    """A cluster may send a call on, again and again: a request would wait for all of it."""
    alone = RespStore("redis://127.0.0.1:1/0", timeout=0.5)
    cluster = RespStore("redis+cluster://127.0.0.1:1", timeout=0.5)
    assert (alone.longest_wait, cluster.longest_wait) == (0.5, inf)
