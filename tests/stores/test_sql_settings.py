"""What the SQL store makes of its settings, right ones and wrong ones."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from eyewall.errors import ConfigurationError, EyewallError, MissingDriverError
from eyewall.settings import Settings
from eyewall.stores import sql_urls
from eyewall.stores.sql import SqlStore
from eyewall.testing.check_kit import new_record
from eyewall.testing.clock import ManualClock
from tests.servers.patience import PATIENCE
from tests.stores.sql_places import DATABASES, Place, execute


@pytest.fixture
def clock() -> ManualClock:
    """Time stands still."""
    return ManualClock()


# Settings and URLs


@pytest.mark.parametrize(
    ("written", "driven"),
    [
        ("postgres://u:p%40@h/d", "postgresql+asyncpg://u:p%40@h/d"),
        ("postgresql://h/d?sslmode=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
        ("mysql://h:3307/d", "mysql+asyncmy://h:3307/d"),
        ("mariadb://h/d", "mariadb+asyncmy://h/d"),
        ("sqlite:///relative.db", "sqlite+pysqlite:///relative.db"),
        ("sqlite+aiosqlite:///relative.db", "sqlite+pysqlite:///relative.db"),
        ("sqlite:////absolute.db", "sqlite+pysqlite:////absolute.db"),
    ],
)
def test_urls_work_as_people_write_them(written: str, driven: str) -> None:
    """Hosting services hand out URLs that no driver takes as they are."""
    assert sql_urls.driver_url(written)[0].render_as_string(hide_password=False) == driven


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("mysql+aiomysql://h/d", "write mysql://"),
        ("postgresql+psycopg2://h/d", "write postgresql://"),
        ("sqlite+pysqlcipher:///x.db", "write sqlite://"),
        ("oracle://h/d", "may start with sqlite"),
        ("sqlite://x.db", "three slashes"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:////nowhere/at/all/x.db", "make it first"),
        ("nonsense", "write it like"),
        ("postgresql://u:secret@h:port/d", "percent-encoded"),
    ],
)
def test_a_wrong_url_is_refused_with_the_fix(url: str, advice: str) -> None:
    """A message that does not say what to write costs somebody an evening."""
    with pytest.raises(ConfigurationError, match=advice) as refusal:
        SqlStore(url)
    assert "secret" not in str(refusal.value)


def test_a_missing_driver_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra's name is all that somebody needs who reads this at deployment."""
    monkeypatch.setattr(sql_urls, "find_spec", lambda _name: None)
    with pytest.raises(MissingDriverError, match=r"eyewall\[postgres\]"):
        SqlStore("postgresql://h/d")


async def test_settings_name_the_place_and_the_deadline(tmp_path: Path, clock: ManualClock) -> None:
    """A setting that is read but not used is a lie."""
    settings = Settings(url=f"sqlite:///{tmp_path}/sessions.db", store_timeout=timedelta(seconds=7))
    store = SqlStore.from_settings(settings, clock)
    record = new_record(clock)
    assert await store.create(record)
    assert store._pools.current()._timeout == 7
    await store.close()
    again = SqlStore(f"sqlite:///{tmp_path}/sessions.db", clock=clock)
    assert await again.load(record.digest) == record
    await again.close()


def _modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_the_sqlite_files_are_their_owners_alone(tmp_path: Path, clock: ManualClock) -> None:
    """Other users of the machine must not read everybody's sessions."""
    store = SqlStore(f"sqlite:///{tmp_path}/sessions.db", clock=clock)
    await store.create(new_record(clock))
    modes = _modes(tmp_path)
    await store.close()
    assert modes == dict.fromkeys(("sessions.db", "sessions.db-wal", "sessions.db-shm"), 0o600)


# Wrong settings


async def _refusal(url: str) -> str:
    store = SqlStore(url, timeout=PATIENCE)
    with pytest.raises(EyewallError) as refusal:
        await store.check()
    await store.close()
    assert isinstance(refusal.value, ConfigurationError), refusal.value
    message = str(refusal.value)
    assert "\n" not in message
    assert "wrong-password" not in message
    return message


async def test_a_wrong_mysql_setting_is_said_in_one_line(mariadb: Any) -> None:
    """Somebody reads this at three in the morning."""
    url = mariadb.url
    assert "check the name and the password" in await _refusal(url.replace(":eyewall@", ":wrong-password@"))
    assert "create the database" in await _refusal(f"{url.rpartition('/')[0]}/nowhere")
    assert "check the host's name" in await _refusal(url.replace("127.0.0.1", "no-such-host.invalid"))


async def test_a_wrong_postgres_setting_is_said_in_one_line(fresh_server: Callable[[str], Any]) -> None:
    """Somebody reads this at three in the morning."""
    server = fresh_server("postgres")
    store = SqlStore(server.url)
    await execute(store, text("CREATE ROLE alice LOGIN PASSWORD 'right'"))
    await execute(store, text("CREATE ROLE bob LOGIN"))
    (server.folder / "data" / "pg_hba.conf").write_text(
        "host all alice 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
    )
    await execute(store, text("SELECT pg_reload_conf()"))
    await store.close()
    await asyncio.sleep(0.2)
    as_user = server.url.replace("postgres@", "{}@").format
    assert "check the name and the password" in await _refusal(as_user("alice:wrong-password"))
    assert "check the name" in await _refusal(as_user("nobody-here"))
    assert "grant the right" in await _refusal(as_user("bob"))
    assert "create the database" in await _refusal(f"{server.url.rpartition('/')[0]}/nowhere")
    assert "check the host's name" in await _refusal(server.url.replace("127.0.0.1", "no-such-host.invalid"))


async def test_a_user_without_the_right_to_make_tables_can_use_one(postgres: Any, clock: ManualClock) -> None:
    """Careful operators make the schema themselves, and give the application no right to."""
    place = Place(postgres.url)
    owner = place.store(clock)
    await owner.create_schema()
    await execute(owner, text("CREATE ROLE visitor LOGIN"))
    await execute(owner, text(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {place.table} TO visitor"))
    store = Place(postgres.url.replace("postgres@", "visitor@"), place.table).store(clock)
    await store.check()
    assert await store.create(new_record(clock))
    await asyncio.gather(owner.close(), store.close())


@pytest.mark.parametrize("name", DATABASES)
async def test_a_foreign_table_is_said_in_one_line(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """A table of the same name but of something else would fail at every request."""
    url = f"sqlite:///{tmp_path}/s.db" if name == "sqlite" else request.getfixturevalue(name).url
    place = Place(url)
    stranger = SqlStore(url, table=f"other_{name}", timeout=PATIENCE)
    await execute(stranger, text(f"CREATE TABLE {place.table} (digest INTEGER)"))
    await stranger.close()
    store = SqlStore(url, table=place.table, timeout=PATIENCE)
    with pytest.raises(ConfigurationError, match="another layout"):
        await store.check()
    await store.close()


async def test_a_file_that_is_no_database_is_said_in_one_line(tmp_path: Path) -> None:
    """A path that was mistyped must not overwrite what is there."""
    (tmp_path / "notes.txt").write_text("dear diary " * 100)
    assert "belongs to something else" in await _refusal(f"sqlite:///{tmp_path}/notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "dear diary " * 100
