"""What counts as too many attempts: rules over values, without I/O.

Two values are kept. One per network says which accounts were tried from there, so the limits per address
and per pair of account and address are decided in one atomic change, and a stranger who tries a million
names changes one small record. One per account says how often it was tried from everywhere, and from which
networks it was signed in lately. Times are kept one by one, not as a count per quarter of an hour: a limit
of five holds in *any* quarter of an hour.
"""

from __future__ import annotations

import hashlib
import ipaddress
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import msgspec

from eyewall.core.record import Instant
from eyewall.errors import ConfigurationError

UNREADABLE: Final = "unreadable"
"""The network of everybody whose address cannot be read: they share one budget."""

MOST_COUNTED: Final = 1_000
_MOST_KNOWN: Final = 10
_TAG_BYTES: Final = 16
_LONGEST_NAME: Final = 1_024
_LONGEST_ADDRESS: Final = 100
_IPV6_PREFIX: Final = 64


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many attempts in any such time.

    Args:
        attempts: how many, 1 to 1000.
        window: in which time.

    Raises:
        ConfigurationError: outside of that, or a window that is not positive.
    """

    attempts: int
    window: timedelta

    def __post_init__(self) -> None:
        if not 1 <= self.attempts <= MOST_COUNTED or self.window <= timedelta(0):
            raise ConfigurationError(f"{self}: attempts must be 1 to {MOST_COUNTED}, the window above zero")

    def wait(self, times: Sequence[datetime], now: datetime) -> timedelta | None:
        """Return how long until another attempt is within the limit, or None when it is now."""
        recent = sorted(at for at in times if at > now - self.window)
        if len(recent) < self.attempts:
            return None
        # No longer than a window, whatever the clock of the process said that wrote the time.
        return min(recent[-self.attempts] + self.window - now, self.window)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many attempts to sign in are allowed.

    Args:
        pair: for one account from one address. The default is five in 15 minutes: who forgot which password
            it was needs four or five.
        address: for one address over all accounts, against one password tried on many names. The default is
            50 in 15 minutes. Successes are given back, so an office behind one address reaches it only with
            fifty *failures*.
        account: for one account over all addresses from which it was not signed in lately; and, for each
            address where it was, how many failures in a row end that. The default is 100 (NIST SP 800-63B-4,
            3.2.2: no more failures in a row than that) in a day. NIST then wants the account's owner to act;
            here a day passes, or :meth:`~eyewall.signin.attempts.Attempts.forgive` is called, because a lock
            without end would be a lever in the hands of strangers.
        known_for: how long the address of a successful sign-in stays known. The default is 30 days.
    """

    pair: Limit = Limit(5, timedelta(minutes=15))
    address: Limit = Limit(50, timedelta(minutes=15))
    account: Limit = Limit(100, timedelta(days=1))
    known_for: timedelta = timedelta(days=30)


DEFAULT_LIMITS: Final = Limits()


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt from a network: which account (its tag), and when."""

    account: bytes
    at: Instant


class KnownNetwork(msgspec.Struct, frozen=True, array_like=True):
    """A network from which an account was signed in: its tag, when last, and how often it failed since."""

    network: bytes
    at: Instant
    failures: int = 0


class AccountHistory(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of an account: attempts from networks not known, and the known networks."""

    strangers: tuple[Instant, ...] = ()
    known: tuple[KnownNetwork, ...] = ()

    def known_at(self, network: bytes, since: datetime) -> KnownNetwork | None:
        """Return ``network`` if the account was signed in from there after ``since``."""
        return next((each for each in self.known if each.network == network and each.at > since), None)

    def attempted_by_stranger(self, now: datetime, window: timedelta) -> AccountHistory:
        """Return this with one more attempt; times older than ``window`` are dropped."""
        recent = tuple(at for at in self.strangers if at > now - window)
        return AccountHistory((*recent, now), self.known)

    def attempted_from(self, known: KnownNetwork) -> AccountHistory:
        """Return this with one more attempt from ``known``."""
        tried = KnownNetwork(known.network, known.at, known.failures + 1)
        return AccountHistory(self.strangers, tuple(tried if each is known else each for each in self.known))

    def succeeded_from(self, network: bytes | None, now: datetime) -> AccountHistory:
        """Return this with no attempts, and with ``network`` (if any) as the one known best."""
        if network is None:
            return AccountHistory((), self.known)
        others = tuple(each for each in self.known if each.network != network)
        return AccountHistory((), (KnownNetwork(network, now), *others)[:_MOST_KNOWN])


def network_of(address: str | None) -> str:
    """Return what counts as one place: an IPv4 address, or the first 64 bits of an IPv6 address.

    A household gets 64 bits of IPv6 or more, so single addresses there are free to change. An IPv4 address
    in IPv6 clothes is the IPv4 address. All that is no address is one place, :data:`UNREADABLE`.
    """
    try:
        found = ipaddress.ip_address((address or "")[:_LONGEST_ADDRESS].strip())
    except ValueError:
        return UNREADABLE
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found), _IPV6_PREFIX), strict=False))


def account_name(account: str) -> str:
    """Return ``account`` so that spellings most look-ups take for one name share one budget."""
    # Cut first: the work on what a stranger sends must not grow with it.
    return unicodedata.normalize("NFKC", account[:_LONGEST_NAME]).casefold().strip()


def tag_of(text: str) -> bytes:
    """Return 128 bits that stand for ``text``, so that what strangers type is not kept."""
    digest = hashlib.blake2b(
        text.encode("utf-8", "surrogatepass"), digest_size=_TAG_BYTES, person=b"attempts"
    )
    return digest.digest()
