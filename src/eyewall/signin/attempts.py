"""Limits of sign-in attempts, kept in the store, so that they hold over all processes.

An attempt is counted before the password is looked at: a thousand parallel guesses are no more than the
limit, too. A refused attempt writes nothing. And no number of guesses locks the victim out at the places
of the latest successful sign-ins (OWASP ASVS 5.0, 6.1.1 and 6.3.1).

The caller says what happens::

    await attempts.hit(account, address)         # raises TooManyAttemptsError: answer 429
    if await verify_password(password, stored):
        await attempts.succeeded(account, address)
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from eyewall.core.side_records import Kept, SideRecords
from eyewall.core.store import Clock, Store, utc_now
from eyewall.errors import TooManyAttemptsError
from eyewall.signin.attempt_rules import (
    DEFAULT_LIMITS,
    UNREADABLE,
    AccountHistory,
    Attempt,
    KnownNetwork,
    Limits,
    account_name,
    network_of,
    tag_of,
)

_SPARE: Final = timedelta(minutes=15)
"""Counts are kept this much longer than they matter: see ``SideRecords`` on clearing away expired ones."""


class Attempts:
    """Counts attempts to sign in, and refuses those above a limit.

    Use one object per process; any number of them over one store count together.

    Args:
        store: where the counts are kept, as records of their own; any server-side store.
        clock: returns the current time (UTC).
        limits: how many attempts are allowed.
    """

    def __init__(self, store: Store, clock: Clock = utc_now, *, limits: Limits = DEFAULT_LIMITS) -> None:
        self._clock = clock
        self._limits = limits
        self._networks = SideRecords(store, clock, "attempts from a network", tuple[Attempt, ...])
        self._accounts = SideRecords(store, clock, "attempts on an account", AccountHistory)

    async def hit(self, account: str, address: str | None) -> None:
        """Count one attempt. Call it before the password is checked, for accounts that do not exist, too.

        Args:
            account: the name as your look-up compares it; upper and lower case are one here. It is hashed,
                never kept.
            address: the visitor's IP address, as a proxy you trust tells it. IPv6 counts by its /64.

        Raises:
            TooManyAttemptsError: refuse the attempt; nothing was written, and looking at the password now
                would undo the limit.
            StoreUnavailable: the store does not answer; whether it was counted is unknown.
        """
        name, network = account_name(account), network_of(address)
        # Look first: then what is refused takes no turn, and the second count cannot refuse after the first.
        tried, history = await asyncio.gather(self._networks.load(network), self._accounts.load(name))
        self._refuse_network(tried or (), tag_of(name))
        self._refuse_account(history or AccountHistory(), tag_of(network))
        await self._count_for_network(network, tag_of(name))
        await self._count_for_account(name, tag_of(network))

    async def succeeded(self, account: str, address: str | None) -> None:
        """Take the attempts back: the password was right. The address is known from now on.

        Args:
            account: as :meth:`hit` was given it.
            address: as :meth:`hit` was given it.

        Raises:
            StoreUnavailable: the store does not answer; the attempts may still count.
        """
        name, network = account_name(account), network_of(address)
        tag, known = tag_of(name), None if network == UNREADABLE else tag_of(network)

        def without_pair(tried: tuple[Attempt, ...] | None) -> Kept[tuple[Attempt, ...]] | None:
            left = tuple(each for each in tried or () if each.account != tag)
            return None if left == (tried or ()) else self._kept_network(left)

        def with_success(history: AccountHistory | None) -> Kept[AccountHistory]:
            return self._kept_account((history or AccountHistory()).succeeded_from(known, self._clock()))

        await self._networks.update(network, without_pair)
        await self._accounts.update(name, with_success)

    async def forgive(self, account: str) -> None:
        """Forget the attempts on ``account`` from everywhere, and its known addresses.

        For the end of a password reset: its owner has proved by other means to be that. The limit of the pair
        stays for the addresses that reached it.

        Raises:
            StoreUnavailable: the store does not answer.
        """
        await self._accounts.delete(account_name(account))

    async def _count_for_network(self, network: str, account: bytes) -> None:
        def counted(tried: tuple[Attempt, ...] | None) -> Kept[tuple[Attempt, ...]]:
            self._refuse_network(tried or (), account)
            return self._kept_network((*(tried or ()), Attempt(account, self._clock())))

        await self._networks.update(network, counted)

    async def _count_for_account(self, name: str, network: bytes) -> None:
        def counted(history: AccountHistory | None) -> Kept[AccountHistory]:
            self._refuse_account(history or AccountHistory(), network)
            return self._kept_account(self._with_attempt(history or AccountHistory(), network))

        await self._accounts.update(name, counted)

    def _refuse_network(self, tried: tuple[Attempt, ...], account: bytes) -> None:
        now = self._clock()
        # The address first: its wait is the one that helps, and the answer to a flood stays the same.
        self._refuse("address", self._limits.address.wait([each.at for each in tried], now))
        of_pair = [each.at for each in tried if each.account == account]
        self._refuse("pair", self._limits.pair.wait(of_pair, now))

    def _refuse_account(self, history: AccountHistory, network: bytes) -> None:
        if self._known(history, network) is None:
            self._refuse("account", self._limits.account.wait(history.strangers, self._clock()))

    def _refuse(self, limit: str, wait: timedelta | None) -> None:
        if wait is not None:
            raise TooManyAttemptsError(limit, wait)

    def _with_attempt(self, history: AccountHistory, network: bytes) -> AccountHistory:
        known = self._known(history, network)
        if known is not None:
            return history.attempted_from(known)
        return history.attempted_by_stranger(self._clock(), self._limits.account.window)

    def _known(self, history: AccountHistory, network: bytes) -> KnownNetwork | None:
        known = history.known_at(network, self._clock() - self._limits.known_for)
        # NIST's limit holds at a known place, too: guesses from the victim's own network end there.
        return known if known is not None and known.failures < self._limits.account.attempts else None

    def _kept_network(self, tried: tuple[Attempt, ...]) -> Kept[tuple[Attempt, ...]]:
        window = max(self._limits.pair.window, self._limits.address.window)
        now = self._clock()
        recent = tuple(each for each in tried if each.at > now - window)
        return Kept(recent, now + window + _SPARE)

    def _kept_account(self, history: AccountHistory) -> Kept[AccountHistory]:
        now = self._clock()
        return Kept(history, self._end_of(history, now) + _SPARE)

    def _end_of(self, history: AccountHistory, now: datetime) -> datetime:
        ends = [each.at + self._limits.known_for for each in history.known]
        return max([now + self._limits.account.window, *ends])
