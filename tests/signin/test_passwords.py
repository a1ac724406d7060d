"""Passwords: the same time for everybody, nothing on the event loop, and old hashes on their way out."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Literal

import argon2
import bcrypt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eyewall.errors import ConfigurationError, TooBusyError, UnusablePasswordError
from eyewall.signin import passwords as module
from eyewall.signin.hashing_threads import HashingThreads
from eyewall.signin.passwords import LONGEST_PASSWORD, OWASP, RFC_9106, Passwords, Strength

KNOWN = "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$rk2Mi3E4dgRMg0fHaYaptWVZRKqs//6b6k3/nntqGJk"
KNOWN_BCRYPT = (
    "CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"  # of "U*U"; crypt_blowfish's own vector
)
GARBAGE = [
    "",
    "x",
    "hunter2",
    "é",
    "\ud800",
    "\0",
    "$argon2id$",
    "$argon2id$v=19$m=19456,t=2,p=1$!!!$!!!",
    "$argon2id$v=19$m=0,t=0,p=0$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg",
    "$argon2id$x=1$y=2,z=3,q=4$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg",
    KNOWN[:-9],
    KNOWN.replace("argon2id", "argon2xx"),
    "$2b$05$",
    f"$2b$99${KNOWN_BCRYPT}",
    f"$2b$31${KNOWN_BCRYPT}",
    f"$2b$05${KNOWN_BCRYPT}x",
    f"$2b$05${KNOWN_BCRYPT}\n",
    "$2b$05$" + "/" * 53,
    "5f4dcc3b5aa765d61d8327deb882cf99",
]


@pytest.fixture
async def passwords() -> AsyncIterator[Passwords]:
    """As an application makes it."""
    made = Passwords()
    yield made
    made.close()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[argon2.Parameters]:
    """The parameters of every comparison that argon2 did to its end."""
    done: list[argon2.Parameters] = []
    real = argon2.PasswordHasher.verify

    def verify(hasher: argon2.PasswordHasher, stored: str, secret: bytes) -> Literal[True]:
        try:
            result = real(hasher, stored, secret)
        except argon2.exceptions.VerifyMismatchError:
            done.append(argon2.extract_parameters(stored))
            raise
        done.append(argon2.extract_parameters(stored))
        return result

    monkeypatch.setattr(argon2.PasswordHasher, "verify", verify)
    return done


# Right and wrong


async def test_only_the_password_itself_is_right(passwords: Passwords) -> None:
    """A near miss that passes is somebody else."""
    stored = await passwords.hash("correct horse")
    assert await passwords.verify("correct horse", stored)
    for wrong in ("Correct horse", "correct horse ", " correct horse", "correct", ""):
        assert not await passwords.verify(wrong, stored)


async def test_what_is_stored_is_argon2id_with_the_agreed_work_and_a_salt(passwords: Passwords) -> None:
    """Two users with one password would be seen to have one; less work is a faster guess."""
    first, second = await passwords.hash("correct horse"), await passwords.hash("correct horse")
    assert first != second
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert "correct" not in first


async def test_a_hash_of_this_version_is_read_for_ever(passwords: Passwords) -> None:
    """An update that reads hashes otherwise locks everybody out."""
    assert await passwords.verify("correct horse", KNOWN)
    assert not passwords.needs_rehash(KNOWN)


async def test_passwords_are_not_cut(passwords: Passwords) -> None:
    """Everything after the 72nd byte would be decoration."""
    stored = await passwords.hash("x" * LONGEST_PASSWORD)
    assert await passwords.verify("x" * LONGEST_PASSWORD, stored)
    assert not await passwords.verify("x" * (LONGEST_PASSWORD - 1) + "y", stored)


async def test_one_character_is_the_same_from_every_keyboard(passwords: Passwords) -> None:
    """Set on one machine, refused on the other: NFC and NFD of one password."""
    composed, taken_apart = (unicodedata.normalize(form, "café Å") for form in ("NFC", "NFD"))
    assert composed != taken_apart
    assert await passwords.verify(taken_apart, await passwords.hash(composed))
    assert await passwords.verify(composed, await passwords.hash(taken_apart))


async def test_different_characters_stay_different(passwords: Passwords) -> None:
    """NFKC would take the ligature for two letters: fewer passwords to guess."""
    assert not await passwords.verify("office", await passwords.hash("oﬃce"))


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "empty"),
        ("x" * (LONGEST_PASSWORD + 1), "longer than 4096 bytes"),
        ("é" * (LONGEST_PASSWORD // 2 + 1), "longer than 4096 bytes"),
        ("half \ud800", "half a character"),
    ],
)
async def test_a_password_that_cannot_be_kept_is_refused_by_name(
    passwords: Passwords, password: str, reason: str
) -> None:
    """A form without its field makes an account with an empty password."""
    with pytest.raises(UnusablePasswordError, match=reason):
        await passwords.hash(password)


# The same for everybody


@pytest.mark.parametrize("stored", [None, KNOWN, *GARBAGE])
async def test_every_refusal_does_the_same_work(
    passwords: Passwords, work: list[argon2.Parameters], stored: str | None
) -> None:
    """Who has an account is told by the time of the answer."""
    assert not await passwords.verify("wrong", stored)
    expected = argon2.extract_parameters(KNOWN)
    assert work == [expected]


@pytest.mark.parametrize("password", ["", "x" * 5_000, "x" * 10_000_000, "\ud800", "\0"])
@pytest.mark.parametrize(
    "stored", [None, KNOWN, f"$2b$05${KNOWN_BCRYPT}"], ids=["nobody", "argon2", "bcrypt"]
)
async def test_no_password_ends_in_an_error(passwords: Passwords, password: str, stored: str | None) -> None:
    """A 500 for half a character, and only where the account exists."""
    assert not await passwords.verify(password, stored)


async def test_a_password_nobody_can_have_does_the_same_work(
    passwords: Passwords, work: list[argon2.Parameters]
) -> None:
    """A quick answer to a long password would tell that it was not even tried."""
    assert not await passwords.verify("x" * 5_000, KNOWN)
    assert len(work) == 1


DAMAGED = st.builds(
    lambda at, by: KNOWN[:at] + by + KNOWN[at + 1 :], st.integers(0, len(KNOWN) - 1), st.characters()
)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=80) | DAMAGED)
@example("$argon2id$v=19$m=19456,t=2$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg")
def test_whatever_is_stored_is_a_no_and_not_an_error(stored: str) -> None:
    """One damaged row, and its owner sees a 500 for ever."""
    if "m=" not in stored or stored.startswith("$argon2id$v=19$m=19456,"):  # not megabytes at random
        assert not Passwords()._verify("wrong", stored)
    Passwords().needs_rehash(stored)


async def test_unknown_users_take_as_long_as_wrong_passwords(passwords: Passwords) -> None:
    """As above, by the clock. Without the work the quotient is a thousand, so two is no tight bound."""
    times: dict[str | None, list[float]] = {None: [], KNOWN: []}
    for _ in range(15):
        for stored, taken in times.items():
            start = time.perf_counter()
            await passwords.verify("wrong", stored)
            taken.append(time.perf_counter() - start)
    unknown, wrong = (statistics.median(taken) for taken in times.values())
    assert 0.5 < unknown / wrong < 2


# The way up


@pytest.mark.parametrize("version", ["2a", "2b", "2y"])
async def test_hashes_of_bcrypt_are_right_until_they_are_replaced(passwords: Passwords, version: str) -> None:
    """Moving to Eyewall would need every user to reset the password."""
    stored = f"${version}$05${KNOWN_BCRYPT}"
    assert await passwords.verify("U*U", stored)
    assert not await passwords.verify("U*U*", stored)
    assert passwords.needs_rehash(stored)


async def test_long_passwords_of_bcrypt_are_right_and_no_error(passwords: Passwords) -> None:
    """72 bytes were read; today's bcrypt refuses more, and the owner of a long password is locked out."""
    password = "é" * 50
    stored = bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()
    assert await passwords.verify(password, stored)
    assert not await passwords.verify("é" * 35, stored)


async def test_other_parameters_are_right_and_replaced(passwords: Passwords) -> None:
    """Raising the work would help nobody who has an account already."""
    strong = Passwords(strength=RFC_9106)
    stored = await strong.hash("correct horse")
    strong.close()
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert await passwords.verify("correct horse", stored)
    assert passwords.needs_rehash(stored)
    assert not strong.needs_rehash(stored)


@pytest.mark.parametrize("stored", GARBAGE)
def test_what_is_no_hash_should_be_replaced(stored: str) -> None:
    """An error here hits the user whose password was right."""
    assert module.needs_rehash(stored)


@pytest.mark.parametrize(
    ("passes", "memory", "lanes"), [(1, 8, 1), (2, 17 * 1024, 1), (0, 64 * 1024, 1), (3, 64 * 1024, 0)]
)
def test_less_work_than_the_minimum_is_refused_at_start(passes: int, memory: int, lanes: int) -> None:
    """A parameter taken from a test suite makes every password of a stolen table cheap."""
    with pytest.raises(ConfigurationError, match="minimum for argon2id"):
        Strength(passes, memory, lanes)


@pytest.mark.parametrize(("passes", "memory_mib"), [(1, 46), (2, 19), (3, 12), (4, 9), (5, 7)])
def test_what_owasp_names_is_allowed(passes: int, memory_mib: int) -> None:
    """Who follows OWASP's list to the letter gets no complaint."""
    assert Strength(passes, memory_mib * 1024) == Strength(passes, memory_mib * 1024, 1)


@pytest.mark.parametrize(
    "costs", [(2, 2 * 1024**2, 1), (65, 7 * 1024, 1), (32, 1024**2, 1), (2, 19 * 1024, 65)]
)
def test_work_that_no_verification_would_do_is_refused_at_start(costs: tuple[int, int, int]) -> None:
    """Harm: passwords are hashed so hard that each is taken for a planted hash, and nobody gets in."""
    with pytest.raises(ConfigurationError, match="more work"):
        Strength(*costs)


# Threads


async def longest_pause() -> float:
    """How long the event loop kept others waiting, at most, until this is cancelled (seconds)."""
    longest, last = 0.0, time.perf_counter()
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    return longest


async def test_the_event_loop_is_never_held(passwords: Passwords) -> None:
    """Twenty sign-ins would stop everybody for half a second."""
    pauses = []
    for _ in range(3):  # the machine may be busy; a held loop shows every time
        watch = asyncio.ensure_future(longest_pause())
        await asyncio.gather(*(passwords.verify("wrong", None) for _ in range(20)))
        watch.cancel()
        pauses.append(await watch)
    assert min(pauses) < 0.1


@pytest.fixture
def threads() -> Iterator[HashingThreads]:
    """Two at work, three waiting."""
    made = HashingThreads(at_once=2, most_waiting=3)
    yield made
    made.close()


async def test_a_flood_is_refused_and_what_was_taken_on_is_done(threads: HashingThreads) -> None:
    """A thousand posts to the form would take nineteen gigabytes, or a queue of a minute."""
    gate = threading.Event()
    taken = [asyncio.ensure_future(threads.run(gate.wait)) for _ in range(5)]
    await asyncio.sleep(0)
    for _ in range(100):
        with pytest.raises(TooBusyError, match="try again"):
            await threads.run(gate.wait)
    gate.set()
    assert await asyncio.gather(*taken) == [True] * 5
    assert await threads.run(lambda: "room again") == "room again"


async def test_no_more_than_agreed_work_at_once(threads: HashingThreads) -> None:
    """The memory of one hash, times what was agreed: no more."""
    gate, at_work = threading.Event(), []
    both = threading.Barrier(3)

    def job() -> None:
        at_work.append(threading.current_thread().name)
        if len(at_work) <= 2:
            both.wait(10)
        gate.wait(10)

    taken = [asyncio.ensure_future(threads.run(job)) for _ in range(5)]
    await asyncio.to_thread(both.wait, 10)
    assert len(at_work) == 2
    gate.set()
    await asyncio.gather(*taken)
    assert len(at_work) == 5
    assert len(set(at_work)) == 2


async def test_callers_who_gave_up_leave_their_place(threads: HashingThreads) -> None:
    """A thousand visitors who close the page, and nobody can sign in any more."""
    for _ in range(20):
        gate = threading.Event()
        taken = [asyncio.ensure_future(threads.run(gate.wait)) for _ in range(5)]
        await asyncio.sleep(0)
        for each in taken:
            each.cancel()
        gate.set()
        await asyncio.gather(*taken, return_exceptions=True)
        await threads.run(gate.wait)
    assert await threads.run(lambda: 1) == 1


async def test_closing_twice_and_hashing_after_it_work(passwords: Passwords) -> None:
    """One part of a program closes what another one still uses."""
    passwords.close()
    passwords.close()
    assert await passwords.verify("correct horse", KNOWN)


@pytest.mark.parametrize("options", [{"at_once": 0}, {"at_once": -1}, {"most_waiting": -1}])
def test_bounds_that_make_no_sense_are_refused_at_start(options: dict[str, int]) -> None:
    """No thread at all: the first sign-in waits for ever."""
    with pytest.raises(ConfigurationError, match="at_once must be 1 or more"):
        Passwords(**options)  # type: ignore[arg-type] # one of the integers each time


async def test_the_functions_are_the_class_with_its_defaults() -> None:
    """The short way must not be the weak way."""
    stored = await module.hash_password("correct horse")
    assert await module.verify_password("correct horse", stored)
    assert not await module.verify_password("correct horse", None)
    assert not module.needs_rehash(stored)
    assert argon2.extract_parameters(stored).memory_cost == OWASP.memory
    module.close_passwords()


FORKS = """
import asyncio, os
from eyewall.signin.passwords import Passwords

passwords = Passwords()
stored = asyncio.run(passwords.hash("x"))  # the threads are there before the fork
child = os.fork()
assert asyncio.run(passwords.verify("x", stored))
if child:
    assert os.waitpid(child, 0)[1] == 0
    print("both")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a few lines."""
    return subprocess.run(
        [sys.executable, "-c", program], timeout=30, capture_output=True, text=True, check=False
    )


def test_a_forked_process_has_threads_of_its_own() -> None:
    """Demo users made at start, then a fork per processor: no sign-in would ever be answered."""
    assert run(FORKS).stdout == "both\n"


@pytest.mark.parametrize("library", ["argon2", "bcrypt"])
def test_a_missing_library_is_named_with_what_to_install(library: str) -> None:
    """An ImportError from the depth of a library, and nobody knows what to do."""
    done = run(f"import sys; sys.modules[{library!r}] = None; import eyewall.signin.passwords")
    assert f"MissingDriverError: passwords need the library '{library}'" in done.stderr
    assert "pip install 'eyewall[passwords]'" in done.stderr


@pytest.mark.parametrize(
    "costs",
    ["m=4294967295,t=2,p=1", "m=19456,t=4000000000,p=1", "m=1048576,t=1,p=131072", "m=1048576,t=64,p=1"],
)
async def test_a_planted_hash_takes_neither_the_memory_nor_a_thread(costs: str) -> None:
    """Whoever can write one row of the users' table could stop every sign-in."""
    passwords = Passwords()
    stored = await passwords.hash("correct horse")
    planted = stored.replace(stored.split("$")[3], costs)
    assert await passwords.verify("correct horse", planted) is False
    assert await passwords.verify("correct horse", stored) is True
    passwords.close()
