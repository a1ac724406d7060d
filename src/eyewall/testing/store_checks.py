"""The store contract as checks that any store can run, ours or a stranger's.

One line of pytest runs them all::

    @pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
    async def test_the_store_keeps_its_promises(check, make_store):
        await check(make_store)

``make_store`` is an async function ``make_store(clock) -> Store``. A check may call it more than once, always
with one and the same clock, to get a second handle to the same place, as a second process would have; a
store that lives in one process may return the same object each time. The check closes what it opened.
Every check uses digests and principals of its own, so one place (a database, a folder) serves all of them,
one after the other. Clocks start at the real time, so servers that expire records by themselves agree.

What a store need not have is checked apart, so that nothing is skipped in silence:
:func:`checks_for` adds :data:`PRINCIPAL_CHECKS`, :data:`SCAN_CHECKS`, :data:`SWEEP_CHECKS` and
:data:`ANNOUNCER_CHECKS` where they belong. :data:`DAMAGE_CHECKS` take a second argument,
``plant(digest, blob)``, which overwrites the stored bytes of a record behind the store's back::

    @pytest.mark.parametrize("check", DAMAGE_CHECKS, ids=lambda check: check.__name__)
    async def test_damage_is_never_served(check, make_store, plant):
        await check(make_store, plant)

A broken promise raises AssertionError with a message that says which one. pytest is not needed.
"""

from __future__ import annotations

from typing import Final

from eyewall.core.store import PrincipalIndex, Scan
from eyewall.testing import capability_checks as capability
from eyewall.testing import change_checks as change
from eyewall.testing import create_load_checks as create_load
from eyewall.testing import damage_checks as damage
from eyewall.testing import upkeep_checks as upkeep
from eyewall.testing.announcer_checks import ANNOUNCER_CHECKS
from eyewall.testing.check_kit import Check, DamageCheck

STORE_CHECKS: Final[tuple[Check, ...]] = (
    create_load.check_create_stores_a_record,
    create_load.check_create_never_overwrites,
    create_load.check_create_never_overwrites_a_dead_record,
    create_load.check_create_has_one_winner,
    create_load.check_create_works_again_after_delete,
    create_load.check_load_of_nothing_is_none,
    create_load.check_load_returns_exactly_what_was_written,
    create_load.check_load_returns_every_byte_of_a_payload,
    create_load.check_load_returns_microseconds,
    create_load.check_expired_record_is_never_served,
    create_load.check_loading_never_writes,
    change.check_replace_swaps_the_whole_record,
    change.check_replace_refuses_another_version,
    change.check_replace_creates_nothing,
    change.check_replace_never_brings_a_deleted_record_back,
    change.check_replace_never_revives_a_dead_record,
    change.check_replace_into_the_past_makes_it_dead,
    change.check_replace_has_one_winner,
    change.check_touch_moves_times_only,
    change.check_touch_extends_life,
    change.check_touch_revives_nothing,
    change.check_touch_undoes_no_replace,
    change.check_delete_removes,
    change.check_delete_sees_dead_records,
    change.check_delete_has_one_winner,
    change.check_delete_wins_over_everything_in_flight,
    upkeep.check_sweep_never_touches_live_records,
    upkeep.check_sweep_keeps_to_its_limit,
    upkeep.check_close_twice_does_nothing_more,
    upkeep.check_cancelled_loads_swap_no_answers,
    upkeep.check_cancelled_writes_are_whole_or_nothing,
)
"""What every store promises."""

SWEEP_CHECKS: Final[tuple[Check, ...]] = (
    upkeep.check_sweep_removes_all_that_is_due,
    upkeep.check_sweep_spares_records_whose_life_was_extended,
)
"""What a store promises besides when no server expires its records: then ``sweep`` must."""

PRINCIPAL_CHECKS: Final[tuple[Check, ...]] = (
    capability.check_find_returns_all_records_of_a_principal,
    capability.check_find_tells_look_alikes_apart,
    capability.check_the_empty_principal_is_not_nobody,
    capability.check_index_follows_the_principal,
    capability.check_index_follows_a_refused_replace_nowhere,
    capability.check_find_leaves_out_the_dead_and_the_deleted,
    capability.check_find_sees_records_that_were_extended,
    capability.check_delete_principal_ends_them_all,
    capability.check_delete_principal_wins_over_replace_in_flight,
)
"""What a store promises that is a :class:`~eyewall.core.store.PrincipalIndex`."""

SCAN_CHECKS: Final[tuple[Check, ...]] = (
    capability.check_scan_yields_every_live_record,
    capability.check_scan_misses_nothing_while_others_come_and_go,
    capability.check_scan_may_be_left_early,
)
"""What a store promises that is a :class:`~eyewall.core.store.Scan`."""

DAMAGE_CHECKS: Final[tuple[DamageCheck, ...]] = (
    damage.check_load_reports_damage,
    damage.check_load_refuses_the_record_of_another,
    damage.check_damaged_records_are_there_but_not_live,
    damage.check_damage_is_left_out_of_lists,
)
"""What a store of encoded records (files, Redis) promises when somebody has been at its bytes.

``plant(digest, blob)`` puts ``blob`` where :func:`~eyewall.core.record.encode_record`'s bytes are kept.
A store that spreads a record over columns has no such place, and tests its own kinds of damage.
"""


def checks_for(
    store_type: type, *, server_expires: bool = False, announces: bool = False
) -> tuple[Check, ...]:
    """Every check that a store of ``store_type`` has to pass, by the capabilities the class has.

    Args:
        store_type: the store's class.
        server_expires: True when a server drops expired records by itself, so that ``sweep`` may find
            nothing (Redis, MongoDB); then :data:`SWEEP_CHECKS` are left out.
        announces: True when it has an announcer, which a class cannot tell: PostgreSQL announces, SQLite
            does not; then :data:`~eyewall.testing.announcer_checks.ANNOUNCER_CHECKS` are added.
    """
    checks = STORE_CHECKS if server_expires else STORE_CHECKS + SWEEP_CHECKS
    if issubclass(store_type, PrincipalIndex):
        checks += PRINCIPAL_CHECKS
    if issubclass(store_type, Scan):
        checks += SCAN_CHECKS
    if announces:
        checks += ANNOUNCER_CHECKS
    return checks
