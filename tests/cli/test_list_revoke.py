"""An operator sees the devices of one principal and can end one or all of them."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eyewall.core.opening import encrypted_store
from eyewall.core.payload import Payload, encode_payload
from eyewall.core.record import Device, Record
from eyewall.core.side_records import Kept, SideRecords
from eyewall.core.store import Store, utc_now
from eyewall.crypto.keyring import KeyRing
from eyewall.signin.devices import handle_of
from eyewall.signin.remember import RememberToken
from eyewall.testing.check_kit import new_record
from tests.cli.command import eyewall, file_url, fill, in_store, kept, sqlite_url
from tests.core.world import SECRET


@pytest.fixture(params=[file_url, sqlite_url])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that is not there yet."""
    make: Callable[[Path], str] = request.param
    return make(tmp_path / "sessions")


def signed_in(principal: str = "alice", *, device_id: bytes | None = None, **changes: Any) -> Record:
    """The record of a session that somebody has signed in to."""
    record = new_record(utc_now, principal=principal, **changes)
    payload = Payload(
        format=1, principal=principal, device_id=device_id or secrets.token_bytes(16), method="passkey"
    )
    return msgspec.structs.replace(record, payload=encode_payload(payload, record.digest))


def token_of(device_id: bytes, principal: str = "alice") -> Callable[[Store], Awaitable[bytes]]:
    """Return what keeps a remember token in a store, and returns its digest."""

    async def keep(store: Store) -> bytes:
        tokens = SideRecords(store, utc_now, "remember token", RememberToken)
        now = utc_now()
        token = RememberToken(
            principal=principal,
            device_id=device_id,
            valid=secrets.token_bytes(32),
            issued_at=now,
            ends_at=now + timedelta(days=1),
        )
        await tokens.update("a selector", lambda _: Kept(token, token.ends_at, principal=principal))
        return tokens.digest("a selector")

    return keep


def is_there(url: str, digest: bytes) -> bool:
    """Whether the store at ``url`` has a record."""

    async def load(store: Store) -> bool:
        return await store.load(digest) is not None

    return in_store(url, load)


def test_list_shows_each_device_with_its_times_and_method(url: str, tmp_path: Path) -> None:
    """Who asks "was that me?" needs place and time; the last used comes first."""
    now, device_id = utc_now(), secrets.token_bytes(16)
    early = signed_in(seen_at=now - timedelta(minutes=5))
    late = signed_in(
        device_id=device_id,
        created_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        device=Device("our kiosk", "2001:db8::1"),
    )
    marker = new_record(utc_now, principal="alice", successor=secrets.token_bytes(32))
    fill(url, early, late, marker, signed_in("bob"))
    in_store(url, token_of(device_id))
    answer = eyewall("list", "alice", "--url", url, folder=tmp_path)
    assert answer.code == 0, answer.err
    _, first, second = answer.out.splitlines()
    assert first.startswith(f"{handle_of(device_id)}  2026-01-02 03:04:05  {now:%Y-%m-%d}")
    assert first.split()[5:] == ["active,", "remembered", "passkey", "our", "kiosk", "(2001:db8::1)"]
    assert second.endswith("active              passkey")


def test_list_prints_nothing_that_could_be_used_as_a_session(url: str, tmp_path: Path) -> None:
    """The digest finds the record in a dump; the payload is nobody's business."""
    record = new_record(utc_now, principal="alice", payload=b"s3cr3t-payload")
    fill(url, record)
    answer = eyewall("list", "alice", folder=tmp_path, EYEWALL_URL=url)
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == 2
    assert record.digest.hex()[:12] not in answer.out
    assert "s3cr3t" not in answer.out + answer.err


def test_user_agent_cannot_command_the_terminal(url: str, tmp_path: Path) -> None:
    """An escape sequence in a header would clear the operator's screen or forge lines of the list."""
    agent = "Evil\x1b[2J\r\n0123456789ab  forged \u202e\u2603" + "x" * 400
    fill(url, signed_in(device=Device(agent, "")))
    answer = eyewall("list", "alice", "--url", url, folder=tmp_path)
    assert answer.code == 0, answer.err
    assert len(answer.out.splitlines()) == 2
    assert "\x1b" not in answer.out
    assert "\\u2603" in answer.out
    assert len(answer.out.splitlines()[1]) < 250


def test_list_of_nobody_says_so(url: str, tmp_path: Path) -> None:
    """Silence would be taken for a failure."""
    fill(url, signed_in())
    answer = eyewall("list", "mallory", "--url", url, folder=tmp_path)
    assert (answer.code, answer.out) == (0, "mallory is signed in nowhere\n")


def test_revoke_ends_all_of_one_principal_only(url: str, tmp_path: Path) -> None:
    """A locked account must be out everywhere, remembered or not, and nobody else."""
    device_id = secrets.token_bytes(16)
    hers = [signed_in(device_id=device_id), signed_in(), new_record(utc_now, principal="alice")]
    his = signed_in("bob")
    fill(url, *hers, his)
    token = in_store(url, token_of(device_id))
    answer = eyewall("revoke", "alice", "--url", url, folder=tmp_path)
    assert (answer.code, answer.out) == (0, "alice signed out on 3 devices\n"), answer.err
    assert kept(url, *hers, his) == [None, None, None, his]
    assert not is_there(url, token)


def test_revoke_of_a_handle_ends_that_device_only(url: str, tmp_path: Path) -> None:
    """A lost phone must go without the laptop; its token must go, too."""
    lost = secrets.token_bytes(16)
    gone, stays = signed_in(device_id=lost), signed_in()
    fill(url, gone, stays)
    token = in_store(url, token_of(lost))
    answer = eyewall("revoke", "alice", handle_of(lost), "--url", url, folder=tmp_path)
    assert (answer.code, answer.out) == (0, f"alice signed out on device {handle_of(lost)}\n"), answer.err
    assert kept(url, gone, stays) == [None, stays]
    assert not is_there(url, token)


def test_revoke_of_a_wrong_handle_ends_nothing_and_exits_1(url: str, tmp_path: Path) -> None:
    """A handle cut off in copying must not look as if the lost phone were out, nor end somebody's else."""
    device_id = secrets.token_bytes(16)
    his = signed_in("bob", device_id=device_id)
    fill(url, his, signed_in())
    answer = eyewall("revoke", "alice", handle_of(device_id), "--url", url, folder=tmp_path)
    assert (answer.code, answer.out) == (1, "")
    assert f"alice has no device {handle_of(device_id)}" in answer.err
    assert kept(url, his) == [his]


@pytest.fixture
def sealed(url: str) -> tuple[bytes, list[bytes]]:
    """A session and its token, sealed as a site with ``encrypt`` does; its device ID, and their digests."""
    device_id = secrets.token_bytes(16)
    session = signed_in(device_id=device_id, device=Device("our kiosk", ""))

    async def fill_sealed(store: Store) -> bytes:
        sealing = encrypted_store(store, KeyRing.from_secret(SECRET))
        assert await sealing.create(session)
        return await token_of(device_id)(sealing)

    return device_id, [session.digest, in_store(url, fill_sealed)]


def test_sealed_sessions_are_listed_and_revoked_with_the_keys_of_the_site(
    url: str, tmp_path: Path, sealed: tuple[bytes, list[bytes]]
) -> None:
    """Without the keys nobody can tell which sessions and tokens are one device's."""
    device_id, digests = sealed
    keys = {"EYEWALL_ENCRYPT": "true", "EYEWALL_COOKIE_SECRET": SECRET}
    answer = eyewall("list", "alice", "--url", url, folder=tmp_path, **keys)
    assert answer.out.splitlines()[1].split()[-2:] == ["our", "kiosk"], answer
    answer = eyewall("revoke", "alice", handle_of(device_id), "--url", url, folder=tmp_path, **keys)
    assert answer.code == 0, answer
    assert [is_there(url, digest) for digest in digests] == [False, False]


def test_sealed_sessions_and_tokens_end_also_when_nobody_tells_that_they_are_sealed(
    url: str, tmp_path: Path, sealed: tuple[bytes, list[bytes]]
) -> None:
    """A token that looks like nothing would bring back whom the operator has just locked out."""
    answer = eyewall("revoke", "alice", "--url", url, folder=tmp_path)
    assert answer.out == "alice signed out on 1 device\n", answer
    assert [is_there(url, digest) for digest in sealed[1]] == [False, False]


def test_missing_keys_are_named_rather_than_made(url: str, tmp_path: Path) -> None:
    """An empty list would say that nobody is signed in; a new key would open nothing."""
    fill(url, signed_in())
    answer = eyewall("list", "alice", "--url", url, folder=tmp_path, EYEWALL_ENCRYPT="true")
    assert (answer.code, answer.out) == (2, "")
    assert "EYEWALL_COOKIE_SECRET" in answer.err
    assert not list(tmp_path.rglob("secret"))


@pytest.mark.parametrize("command", [("list", "alice"), ("revoke", "alice"), ("sweep",)])
def test_wrong_store_is_one_line_and_exit_2(command: tuple[str, ...], tmp_path: Path) -> None:
    """A typing error must not look like "nobody is signed in"."""
    wrong = {
        "memory://": "inside the process",
        "gopher://x": "--url",
        file_url(tmp_path / "typo"): "no folder",
    }
    for url, reason in wrong.items():
        answer = eyewall(*command, "--url", url, folder=tmp_path)
        assert answer.code == 2
        assert reason in answer.err
        assert answer.err.count("\n") == 1
        assert answer.out == ""
    assert not (tmp_path / "typo").exists()


def test_store_that_fails_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """A script must be able to tell an outage from a wrong setting."""
    (tmp_path / "damaged.db").write_bytes(b"this is no database" * 100)
    answer = eyewall("revoke", "alice", "--url", sqlite_url(tmp_path / "damaged.db"), folder=tmp_path)
    assert answer.code == 1, answer
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err
