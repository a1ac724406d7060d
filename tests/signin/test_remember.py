"""Remember tokens: bring their owner back once each, nobody else, and not for ever."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest

from eyewall.core.ids import digest_of, new_session_id
from eyewall.core.record import Device, Record, encode_record
from eyewall.core.side_records import Kept, SideRecords
from eyewall.crypto.keyring import Key, KeyRing
from eyewall.errors import StoreUnavailable
from eyewall.signin.remember import GRACE, Redeemed, RememberTokens, Replayed, token_in
from eyewall.signin.remember_cookie import PresentedToken, RememberCookieSigner
from eyewall.stores.memory import MemoryStore
from eyewall.testing.check_kit import new_record, next_version
from eyewall.testing.clock import ManualClock

COOKIE = "__Host-remember"
LIFE = timedelta(days=30)
DEVICE_ID = bytes(range(16))
DEVICE = Device("Browser/1.0", "192.0.2.7")
SECRET = "Zq0w-3Yt9mJ4vB7xK1nR5sU8dF2gH6lPaScVeXi"
OLDER = "hT5rW8yU1iO4pA7sD0fG3jK6lZ9xC2vBnMqEwQd"
MOMENT = timedelta(microseconds=1)


class Remembering:
    """One store, one clock, and as many processes as a test likes."""

    def __init__(self, store_type: type[MemoryStore] = MemoryStore) -> None:
        self.clock = ManualClock()
        self.store = store_type(clock=self.clock)
        self.tokens = self.process()

    def process(self, secret: Any = SECRET) -> RememberTokens:
        """What one process has."""
        return RememberTokens(self.store, self.clock, KeyRing.from_secret(secret), LIFE)

    async def issued(self, tokens: RememberTokens | None = None) -> str:
        """The cookie value that Ann's browser is given at sign-in."""
        issue = (tokens or self.tokens).issue
        value, _ = await issue(COOKIE, principal="ann", device_id=DEVICE_ID, device=DEVICE)
        return value

    def presented(self, value: str, tokens: RememberTokens | None = None) -> PresentedToken:
        """``value`` as a browser brings it."""
        presented = (tokens or self.tokens).read(COOKIE, [value])
        assert presented is not None
        return presented

    async def bring(self, value: str, tokens: RememberTokens | None = None) -> Redeemed | Replayed | None:
        """One request with this cookie and no session."""
        tokens = tokens or self.tokens
        presented = self.presented(value, tokens)
        found = await tokens.redeem(COOKIE, presented)
        if isinstance(found, Replayed):  # as the manager does, once the device's sessions have ended
            await tokens.end(presented)
        return found

    async def used(self, value: str, tokens: RememberTokens | None = None) -> Redeemed:
        """One request that is brought back."""
        found = await self.bring(value, tokens)
        assert isinstance(found, Redeemed)
        return found

    async def records(self) -> list[Record]:
        """All that is stored."""
        return [record async for record in self.store.scan()]


THEFT = Replayed("ann", DEVICE_ID)


@pytest.fixture
def world() -> Remembering:
    """A store in memory."""
    return Remembering()


# Coming back


async def test_token_brings_its_owner_back_and_is_succeeded(world: Remembering) -> None:
    """A user who ticked the box and has to type the password anyway."""
    value = await world.issued()
    for _ in range(5):
        world.clock.advance(timedelta(days=1))
        found = await world.used(value)
        assert (found.principal, found.device_id, found.was_first) == ("ann", DEVICE_ID, True)
        assert found.value != value
        value = found.value


async def test_twenty_tabs_of_two_processes_arrive_at_one_session_and_one_successor(
    world: Remembering,
) -> None:
    """Rotation that takes honest tabs for thieves, or leaves 20 sessions behind (spring-security #17292)."""
    value, processes = await world.issued(), (world.process(), world.process())
    tabs = await asyncio.gather(*(world.used(value, processes[number % 2]) for number in range(20)))
    assert len({(tab.session_id, tab.value) for tab in tabs}) == 1
    assert Counter(tab.was_first for tab in tabs) == {True: 1, False: 19}
    world.clock.advance(timedelta(days=1))
    assert (await world.used(tabs[0].value)).was_first


async def test_slow_tab_is_let_in_until_the_grace_is_over(world: Remembering) -> None:
    """A tab that loads 30 s after the first is the user's; one later than that may be anybody's."""
    value = await world.issued()
    first = await world.used(value)
    world.clock.advance(GRACE)
    again = await world.used(value)
    assert (again.session_id, again.value, again.was_first) == (first.session_id, first.value, False)
    world.clock.advance(MOMENT)
    assert await world.bring(value) == THEFT


async def test_session_id_is_like_any_other_and_new_at_each_use(world: Remembering) -> None:
    """An ID of fewer bits, or one that can be foreseen, is a session for whoever computes it."""
    value, seen = await world.issued(), set()
    for _ in range(50):
        found = await world.used(value)
        seen.add(found.session_id)
        assert len(digest_of(found.session_id)) == 32
        assert len(found.session_id) == len(new_session_id())
        value = found.value
    assert len(seen) == 50


# Theft


async def test_replay_after_the_grace_ends_the_family_and_tells_whose(world: Remembering) -> None:
    """A copied cookie that works on another day is a second key to the house."""
    value = await world.issued()
    successor = (await world.used(value)).value
    world.clock.advance(timedelta(days=1))
    assert await world.bring(value) == THEFT
    assert await world.bring(successor) is None
    assert await world.bring(value) is None  # one alarm, not one for each further try
    assert await world.records() == []


async def test_thief_who_was_first_is_out_at_the_owners_next_visit(world: Remembering) -> None:
    """A thief faster than the owner would keep the account for as long as they like."""
    value = await world.issued()
    stolen = (await world.used(value)).value
    world.clock.advance(timedelta(hours=5))
    stolen = (await world.used(stolen)).value
    assert await world.bring(value) == THEFT
    assert await world.bring(stolen) is None


async def test_thief_within_the_grace_is_found_out_at_the_next_use(world: Remembering) -> None:
    """Whoever shares the successor of a parallel request shares its fate, too."""
    value = await world.issued()
    owner, thief = await world.used(value), await world.used(value)
    world.clock.advance(timedelta(days=1))
    next_value = (await world.used(thief.value)).value
    world.clock.advance(timedelta(days=1))
    assert await world.bring(owner.value) == THEFT
    assert await world.bring(next_value) is None


async def test_token_before_the_last_is_a_replay_even_within_the_grace(world: Remembering) -> None:
    """A grace for each older token would let a thief fall back on any of them."""
    value = await world.issued()
    await world.used((await world.used(value)).value)
    assert await world.bring(value) == THEFT


async def test_replay_of_one_browsers_token_leaves_the_other_browsers_alone(world: Remembering) -> None:
    """Theft of one laptop must not sign the phone out behind its owner's back."""
    stolen, phone = await world.issued(), await world.issued()
    await world.used(stolen)
    world.clock.advance(timedelta(days=1))
    assert await world.bring(stolen) == THEFT
    assert (await world.used(phone)).was_first


async def test_verifier_nobody_was_given_is_a_replay(world: Remembering) -> None:
    """Whoever got hold of the key could otherwise try verifiers for a known selector in silence."""
    presented = world.presented(await world.issued())
    made_up = PresentedToken(presented.selector, secrets.token_urlsafe(32))
    assert await world.tokens.redeem(COOKIE, made_up) == THEFT


# A reply that is lost


class LosingReplies(MemoryStore):
    """Replaces, and then the connection breaks."""

    loss: type[BaseException] | None = None

    async def replace(self, record: Record, *, version: int) -> bool:
        done = await super().replace(record, version=version)
        if self.loss is not None:
            raise self.loss
        return done


@pytest.mark.parametrize("loss", [StoreUnavailable, asyncio.CancelledError])
async def test_lost_reply_costs_nothing_within_the_grace_and_a_sign_in_after_it(
    loss: type[BaseException],
) -> None:
    """A browser that never got its successor brings the old token: soon enough, it must go on."""
    world = Remembering(LosingReplies)
    assert isinstance(world.store, LosingReplies)
    value = await world.issued()
    world.store.loss = loss
    with pytest.raises(loss):
        await world.bring(value)
    world.store.loss = None
    assert not (await world.used(value)).was_first
    world.clock.advance(GRACE + MOMENT)
    assert await world.bring(value) == THEFT


async def test_request_cancelled_at_any_point_leaves_a_usable_token(world: Remembering) -> None:
    """A user who presses reload must not be taken for a thief."""
    value = await world.issued()
    for turns in range(6):
        task = asyncio.ensure_future(world.bring(value))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert (await world.used(value)).principal == "ann"


# The end


async def test_use_never_lengthens_life(world: Remembering) -> None:
    """A token that lives on by being used is a password that never has to be typed (NIST SP 800-63B-4)."""
    value, ends_at = await world.issued(), world.clock() + LIFE
    for _ in range(5):
        world.clock.advance(timedelta(days=5))
        found = await world.used(value)
        assert found.ends_at == ends_at
        assert [record.expires_at for record in await world.records()] == [ends_at]
        value = found.value
    world.clock.advance(timedelta(days=5) - MOMENT)
    assert (await world.used(value)).ends_at == ends_at
    world.clock.advance(MOMENT)
    assert await world.bring(value) is None
    assert not await world.tokens.is_live(world.presented(value))


async def test_record_kept_longer_than_its_token_lengthens_no_life(world: Remembering) -> None:
    """Whatever moves a record's expiry (a touch, a copy between stores) must not move the token's."""
    value = await world.issued()
    (record,) = await world.records()
    assert await world.store.touch(record.digest, world.clock(), record.expires_at + LIFE)
    world.clock.advance(LIFE)
    assert len(await world.records()) == 1
    assert await world.bring(value) is None
    assert not await world.tokens.is_live(world.presented(value))


async def test_expired_token_raises_no_alarm(world: Remembering) -> None:
    """A holiday is not a theft, also with the cookie from before the last use."""
    value = await world.issued()
    await world.used(value)
    world.clock.advance(LIFE)
    assert await world.bring(value) is None


@pytest.mark.parametrize("back", [timedelta(hours=1), GRACE + MOMENT])
async def test_clock_that_was_set_back_makes_no_grace_longer(world: Remembering, back: timedelta) -> None:
    """A wrong clock would be an hour in which stolen tokens work."""
    value = await world.issued()
    await world.used(value)
    world.clock.advance(-back)
    assert await world.bring(value) == THEFT


async def test_clocks_that_differ_a_little_make_no_thief_of_a_tab(world: Remembering) -> None:
    """The second tab's server may be a second behind the first one's."""
    value = await world.issued()
    first = await world.used(value)
    world.clock.advance(timedelta(seconds=-1))
    assert (await world.used(value)).value == first.value


async def test_signing_out_with_any_token_of_the_family_ends_it(world: Remembering) -> None:
    """A sign-out in a slow tab that leaves the successor working is none."""
    value = await world.issued()
    successor = (await world.used(value)).value
    assert await world.tokens.is_live(world.presented(successor))
    assert await world.tokens.end(world.presented(value))
    assert not await world.tokens.end(world.presented(value))
    assert not await world.tokens.is_live(world.presented(successor))
    assert await world.bring(successor) is None


class Revoking(MemoryStore):
    """Somebody revokes everything of Ann's right after a record was loaded."""

    revoking = False

    async def load(self, digest: bytes) -> Record | None:
        found = await super().load(digest)
        if self.revoking:
            await self.delete_principal("ann")
        return found


async def test_revocation_beside_a_use_wins() -> None:
    """A thief who is coming back at the moment of "sign out everywhere" would stay."""
    world = Remembering(Revoking)
    assert isinstance(world.store, Revoking)
    value = await world.issued()
    world.store.revoking = True
    assert await world.bring(value) is None
    assert await world.records() == []


async def test_revocation_right_after_a_use_is_seen(world: Remembering) -> None:
    """The session that is being started from the token would not be in the list that was revoked."""
    value = await world.issued()
    await world.used(value)
    await world.store.delete_principal("ann")
    assert not await world.tokens.is_live(world.presented(value))


# What is stored


def spellings(secret: str) -> Iterable[bytes]:
    """A base64url secret in the encodings it could be stored in."""
    octets = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    yield secret.encode()
    yield octets
    yield octets.hex().encode()
    yield octets.hex().upper().encode()
    yield base64.b64encode(octets).rstrip(b"=")


async def test_nothing_stored_can_be_sent_as_a_cookie(world: Remembering) -> None:
    """A stolen backup would be a bag of everybody's cookies (ASVS 6.5.2, Rack's CVE-2019-16782)."""
    value = await world.issued()
    known = [world.presented(value).verifier]
    for _ in range(3):
        found = await world.used(value)
        value = found.value
        known += [found.session_id, world.presented(value).verifier]
        (record,) = await world.records()
        stored = encode_record(record)
        assert not [octets for secret in known for octets in spellings(secret) if octets in stored]
        assert world.presented(value).selector.encode() not in stored


async def test_record_is_found_by_its_principal_and_tells_where_it_came_from(world: Remembering) -> None:
    """A token that no list shows is one that nobody can revoke."""
    issued_at = world.clock()
    value = await world.issued()
    world.clock.advance(timedelta(days=1))
    await world.used(value)
    (record,) = await world.store.find_principal("ann")
    token = token_in(record)
    assert token is not None
    assert (token.principal, token.device_id, token.issued_at) == ("ann", DEVICE_ID, issued_at)
    assert (record.device, record.seen_at) == (DEVICE, world.clock())
    assert await world.store.delete(record.digest)
    assert await world.bring(value) is None


async def test_other_records_are_no_tokens(world: Remembering) -> None:
    """A list of devices that takes a session, or a counter, for a token revokes the wrong thing."""
    counters = SideRecords(world.store, world.clock, "counter", int)
    await counters.update("ann", lambda _: Kept(1, world.clock() + LIFE))
    await world.store.create(new_record(world.clock))
    assert [token_in(record) for record in await world.records()] == [None, None]


@pytest.mark.parametrize(
    "spoil", [lambda payload: bytes(len(payload)), lambda payload: payload[:-1], lambda payload: payload[1:]]
)
async def test_damaged_record_is_no_token_and_no_theft(
    world: Remembering, spoil: Callable[[bytes], bytes]
) -> None:
    """A broken disk must neither let anybody in nor cry theft, nor answer 500 for 30 days."""
    value = await world.issued()
    (record,) = await world.records()
    damaged = next_version(record, payload=spoil(record.payload))
    assert await world.store.replace(damaged, version=record.version)
    assert token_in(damaged) is None
    assert await world.bring(value) is None
    assert not await world.tokens.is_live(world.presented(value))


async def test_another_familys_record_in_this_ones_place_is_no_token(world: Remembering) -> None:
    """Whoever can write to the store but has no key would move their own token to another's place."""
    await world.issued()
    (ann,) = await world.records()
    value, _ = await world.tokens.issue(COOKIE, principal="mallory", device_id=bytes(16), device=None)
    (mallory,) = [record for record in await world.records() if record.principal == "mallory"]
    moved = next_version(mallory, payload=ann.payload)
    assert await world.store.replace(moved, version=mallory.version)
    assert await world.bring(value) is None


def test_reprs_show_no_secret() -> None:
    """Tracebacks and debug logs are read by more people than cookies are meant for."""
    selector, verifier, session_id = (secrets.token_urlsafe(size) for size in (16, 32, 32))
    presented = PresentedToken(selector, verifier)
    value = RememberCookieSigner(KeyRing.from_secret(SECRET)).issue(COOKIE, presented)
    found = Redeemed("ann", DEVICE_ID, session_id, value, ManualClock()(), was_first=True)
    for shown in (repr(presented), str(presented), repr(found)):
        assert not [secret for secret in (selector, verifier, session_id, value) if secret in shown]


# Keys


async def test_retired_key_redeems_and_the_successor_has_the_new_one(world: Remembering) -> None:
    """Changing the key every month would sign everybody out every month."""
    value = await world.issued(world.process(OLDER))
    rotated = world.process({1: OLDER, 2: SECRET})
    successor = (await world.used(value, rotated)).value
    assert (await world.used(value, rotated)).value == successor
    assert (await world.used(successor, world.process(SECRET))).was_first


async def test_token_of_a_dropped_key_is_forgotten_without_an_alarm(world: Remembering) -> None:
    """Dropping a leaked key must put its tokens out of use, and not cry theft for each of them."""
    value = await world.issued(world.process(OLDER))
    assert world.process(SECRET).read(COOKIE, [value]) is None


async def test_key_that_made_the_successor_and_is_gone_within_the_grace_is_no_theft(
    world: Remembering,
) -> None:
    """While a new key is rolled out, a tab's request may reach a process that does not have it yet."""
    behind, ahead = world.process(OLDER), world.process({1: OLDER, 2: SECRET})
    value = await world.issued(behind)
    successor = (await world.used(value, ahead)).value
    assert await world.bring(value, behind) is None
    assert (await world.used(value, ahead)).value == successor


async def test_store_alone_does_not_yield_the_successor(world: Remembering) -> None:
    """Whoever reads the store and has one used token could otherwise compute the next, and the session."""
    value = await world.issued()
    found = await world.used(value)
    (record,) = await world.records()
    token = token_in(record)
    assert token is not None
    assert token.last is not None
    # The same stored record under a ring whose key has the ID but not the secret: all else is known.
    impostor = Key(OLDER.encode())
    object.__setattr__(impostor, "id", token.last.key_id)
    guess = RememberTokens(world.store, world.clock, KeyRing([impostor]), LIFE)
    guessed = await guess.redeem(COOKIE, world.presented(value))
    assert isinstance(guessed, Redeemed)
    assert guessed.session_id != found.session_id
    assert guessed.value.split(".")[3] != found.value.split(".")[3]


async def test_successor_and_session_id_are_frozen(world: Remembering, monkeypatch: Any) -> None:
    """Two releases that run side by side while one is rolled out must give one browser one answer."""
    monkeypatch.setattr(secrets, "token_bytes", lambda size: bytes(range(size)))
    found = await world.used(await world.issued())
    assert world.presented(found.value).verifier == "9q1NXZsxqEZs6tqiqQsULmce21bBkHrpzO21Ipo2mEg"
    assert found.session_id == "0Pv7jr1IGhU-GtpfFSmxtPZMxNBuArGoj7GTI2IxuE8"
