"""People who apply their schemas by hand get exactly what the store would make."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from eyewall.core.store import utc_now
from eyewall.stores.sql_schema import schema_sql
from eyewall.testing.check_kit import new_record
from tests.cli.command import eyewall, fill, kept, sqlite_url


@pytest.mark.parametrize("dialect", ["postgresql", "mysql", "sqlite"])
def test_schema_is_the_one_of_the_store(dialect: str, tmp_path: Path) -> None:
    """A second wording would drift."""
    answer = eyewall("schema", "--dialect", dialect, folder=tmp_path)
    assert (answer.code, answer.out) == (0, schema_sql(dialect))


def test_store_works_on_the_printed_schema(tmp_path: Path) -> None:
    """What is printed must be what is needed."""
    path = tmp_path / "sessions.db"
    connection = sqlite3.connect(path)
    connection.executescript(eyewall("schema", "--dialect", "sqlite", folder=tmp_path).out)
    connection.close()
    record = new_record(utc_now)
    fill(sqlite_url(path), record)
    assert kept(sqlite_url(path), record) == [record]


def test_dialect_follows_the_settings(tmp_path: Path) -> None:
    """What the site uses is what is meant; the password in the URL stays out of it."""
    answer = eyewall("schema", folder=tmp_path, EYEWALL_URL="postgres://shop:s3cr3t@127.0.0.1:1/shop")
    assert (answer.code, answer.out) == (0, schema_sql("postgresql"))


def test_settings_without_a_database_ask_for_the_dialect(tmp_path: Path) -> None:
    """Guessing would print a schema for the wrong database."""
    answer = eyewall("schema", folder=tmp_path)
    assert answer.code == 2
    assert "--dialect" in answer.err
    assert not list(tmp_path.iterdir()), "nothing is made by asking"
