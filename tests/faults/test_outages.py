"""A server that is killed, hung, frozen, slow or cut off: what users of a real application see of it.

Every networked store, and every fault: F1 (killed), F2 (killed between load and save), F3 (stopped; frozen
on the way), F4 (slow), F5 (the reply to a save is lost), F6 (connections reset, answers in slices). One lab
reaches the server directly, the other through a proxy. All faults of one store hit the same two processes,
so that each is also the proof that the one before has left nothing behind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.examples.pair import SECRET
from tests.examples.program import LAB, Program
from tests.faults.durable import DURABLE
from tests.faults.kit import User, Waits, check_log, passer_by, report, running, users
from tests.servers.fixtures import started
from tests.servers.proxy import Proxy

pytestmark = [pytest.mark.server, pytest.mark.asyncio(loop_scope="module")]

SETTINGS = {"EYEWALL_COOKIE_SECRET": SECRET}
DIRECT, PROXIED = 0, 1
QUIET = 30
"""Lines that the log may have at the end of all faults, beside Tornado's own for each answer of 503."""


@dataclass
class Place:
    """A server, the way to it, and two applications that keep their sessions there."""

    server: Any
    proxy: Proxy
    labs: tuple[Program, Program]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=DURABLE)
async def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """Two labs over a server of their own. Whatever happens, they are never restarted (I6)."""
    server: Any = started(request.param)
    one, two = (tmp_path_factory.mktemp(name) for name in ("direct", "proxied"))
    with ExitStack() as stack:
        stack.callback(server.stop)
        async with (
            Proxy(server.port) as proxy,
            running(Program(*LAB, folder=one, EYEWALL_URL=server.url, **SETTINGS)) as direct,
            running(Program(*LAB, folder=two, EYEWALL_URL=proxy.url_for(server.url), **SETTINGS)) as proxied,
        ):
            yield Place(server, proxy, (direct, proxied))
            for lab in (direct, proxied):
                check_log(lab, most=QUIET)


async def everything_is_refused(place: Place, people: list[User]) -> None:
    """Nobody gets an answer that needs the store, nobody loses a cookie, and the rest of the site works."""
    for lab in (DIRECT, PROXIED):
        asked = [user.read("first", lab=lab) for user in people]
        asked += [user.put("lost", lab=lab) for user in people]
        stranger = User(place.labs, "stranger")
        asked += [people[0].sign_in(lab=lab), stranger.sign_in(lab=lab)]
        assert set(await asyncio.gather(*asked)) == {503}
        assert (await stranger.ask("/whoami", lab=lab)).code == 200, "without a cookie, no store is needed"
        stranger.close()


async def all_recover(people: list[User]) -> None:
    """Both applications serve everybody again, by themselves (I6)."""
    for user in people:
        for lab in (DIRECT, PROXIED):
            await user.recovered(lab=lab)


async def test_a_killed_server_costs_nobody_their_session(place: Place) -> None:
    """F1. Harm: everybody is signed out, or must wait for a minute, because the database was restarted."""
    async with users(place.labs, "alice", "bob") as people:
        async with passer_by(place.labs[DIRECT]) as waits:
            place.server.kill()
            await everything_is_refused(place, people)
        await restart(place)
        await all_recover(people)
        tell(place, "killed", people, waits)


async def test_a_server_killed_between_load_and_save_keeps_half_of_nothing(place: Place) -> None:
    """F2. Harm: an answer that claims what is not stored, or a cookie for a session that is not."""
    async with users(place.labs, "alice", "bob") as people:
        alice, _ = people
        await alice.recovered(lab=PROXIED)
        place.proxy.replies.forget()
        slow = asyncio.ensure_future(alice.ask("/slow?ms=500&write=late", lab=PROXIED))
        await place.proxy.replies.first_piece()
        place.server.kill()
        assert (await slow).code == 503
        await restart(place)
        await all_recover(people)
        assert await alice.read("late") == 200  # and it is not there: nobody was told that it is


async def test_a_hung_server_costs_two_seconds_and_no_session(place: Place) -> None:
    """F3. Harm: each visitor waits for a driver's own timeout, 11 to 59 seconds."""
    async with users(place.labs, "alice", "bob") as people:
        async with passer_by(place.labs[DIRECT]) as waits:
            place.server.pause()
            await everything_is_refused(place, people)
        place.server.resume()
        await all_recover(people)
        tell(place, "hung", people, waits)


async def test_a_frozen_way_costs_two_seconds_and_no_session(place: Place) -> None:
    """F3. Harm: a firewall that forgets its connections holds every request for good."""
    async with users(place.labs, "alice", "bob") as people:
        async with passer_by(place.labs[PROXIED]) as waits:
            place.proxy.requests.freeze()
            place.proxy.replies.freeze()
            asked = [user.put("lost", lab=PROXIED) for user in people for _ in range(5)]
            assert set(await asyncio.gather(*asked)) == {503}
            assert await people[0].read("first", lab=DIRECT) == 200, "the other application is not concerned"
        place.proxy.requests.thaw()
        place.proxy.replies.thaw()
        await all_recover(people)
        tell(place, "frozen", people, waits)


async def test_a_slow_server_is_waited_for_within_reason(place: Place) -> None:
    """F4. Harm: a slow database makes the pages slow that do not need it; or a late answer is an error."""
    async with users(place.labs, "alice", "bob") as people:
        for user in people:
            await user.recovered(lab=PROXIED)
        async with passer_by(place.labs[PROXIED]) as waits:
            place.proxy.requests.latency = 0.3
            for user in people:
                assert await user.put("slowly", lab=PROXIED) == 204
                assert await user.read("slowly", lab=PROXIED) == 200
            place.proxy.requests.latency = 6.0
            asked = [user.put("too_slowly", lab=PROXIED) for user in people for _ in range(10)]
            await asyncio.gather(*asked)
        place.proxy.requests.latency = 0.0
        place.proxy.cut()
        await all_recover(people)
        tell(place, "slow", people, waits)


async def test_a_lost_reply_counts_once(place: Place) -> None:
    """F5. Harm: a retry that does it twice: two items in the cart, two payments."""
    async with users(place.labs, "alice", "bob") as people:
        alice, _ = people
        lost = 0
        for counted in range(1, 3):
            await alice.recovered(lab=PROXIED)
            place.proxy.replies.forget()
            asked = asyncio.ensure_future(alice.ask("/incr?k=n", "POST", lab=PROXIED))
            await place.proxy.replies.first_piece()
            place.proxy.replies.freeze()
            lost += (await asked).code == 503
            place.proxy.replies.thaw()
            await all_recover(people)
            value = json.loads((await alice.ask("/kv?k=n")).body)["value"] or 0
            assert counted - lost <= value <= counted


async def test_cut_connections_and_answers_in_slices_mix_nobody_up(place: Place) -> None:
    """F6. Harm: the rest of one visitor's answer is read as another's."""
    async with users(place.labs, "alice", "bob") as people:
        for turn in range(12):
            place.proxy.replies.slice_bytes = 1 if turn % 2 else 0
            place.proxy.requests.forget()
            asked = [user.put(f"k{turn}", lab=PROXIED) for user in people]
            asked += [user.read("first", lab=PROXIED) for user in people for _ in range(3)]
            answers = asyncio.gather(*asked)
            await place.proxy.requests.first_piece()
            place.proxy.cut()
            assert set(await answers) <= {200, 204, 503}
            place.proxy.replies.slice_bytes = 0
            await all_recover(people)


async def test_sign_outs_around_an_outage_hold(place: Place) -> None:
    """I3. Harm: who signed out, or tried to, is signed in again once the server is back."""
    async with users(place.labs, "alice", "bob") as people:
        alice, bob = people
        assert await alice.sign_out() == 204
        place.server.kill()
        assert await bob.sign_out(lab=PROXIED) == 503
        await restart(place)
        await bob.recovered()
        assert await bob.principal(lab=PROXIED) == bob.name, "it was refused, so it must be done again"
        assert await bob.sign_out(lab=PROXIED) == 204
        for user in people:
            await user.check_ended()
            assert await user.sign_in() == 200


async def restart(place: Place) -> None:
    """Start the server again, while this loop goes on."""
    await asyncio.to_thread(place.server.start)


def tell(place: Place, fault: str, people: list[User], waits: Waits) -> None:
    """Show what it cost."""
    report(
        f"{place.server.name} {fault}: 503 after {max(user.slowest for user in people):.2f} s at most; "
        f"others p50 {waits.share(0.5) * 1000:.1f} ms, p99 {waits.share(0.99) * 1000:.1f} ms"
    )
