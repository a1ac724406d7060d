"""Sealed records, keys that are being rotated, and a revocation in a process that has the old key only."""

from __future__ import annotations

import secrets
from pathlib import Path

from eyewall import Sessions, Settings
from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock


async def test_all_sessions_of_a_locked_account_end_also_those_that_do_not_open(tmp_path: Path) -> None:
    """It answers "0 ended", and in the processes that have the newest key the account goes on."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    old, new = (secrets.token_urlsafe(32) for _ in range(2))

    def process(name: str, *keys: str) -> Sessions:
        file = tmp_path / name
        file.write_text("\n".join(keys) + "\n")
        file.chmod(0o600)
        settings = Settings(backend="memory", secret_file=file, encrypt=True)
        return Sessions(settings, store=store, clock=clock)

    ahead, behind = process("ahead", new, old), process("behind", old)
    session = ahead.open([], https=False)
    session.sign_in("ann")
    await ahead.commit(session)
    cookie = ahead.set_cookie_lines(session, https=False)[0].partition(";")[0]
    await behind.revoke_all("ann")
    again = ahead.open([cookie], https=False)
    await ahead.load(again)
    assert again.principal is None
