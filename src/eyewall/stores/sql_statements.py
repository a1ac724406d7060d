"""The statements of the SQL store. Each is whole by itself, so none can be half done."""

from __future__ import annotations

from sqlalchemy import (
    Executable,
    Integer,
    Table,
    bindparam,
    delete,
    insert,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import UpdateBase

from eyewall.core.record import FORMAT_VERSION


class Statements:
    """The statements over one table. Parameters: ``wanted`` is the digest, ``now`` is in microseconds.

    Args:
        table: as :func:`~eyewall.stores.sql_schema.session_table` makes it.
        dialect: SQLAlchemy's name of the database.
    """

    def __init__(self, table: Table, dialect: str) -> None:
        row = table.c
        wanted = row.digest == bindparam("wanted")
        live = (row.expires_at > bindparam("now")) & (row.format == literal_column(str(FORMAT_VERSION)))
        self.create = _insert_if_free(table, dialect)
        self.load = select(table).where(wanted)
        self.load_many = select(table).where(row.digest.in_(bindparam("wanted", expanding=True)))
        # Which columns these two set is said where they are compiled (``sql_writing``).
        self.replace = update(table).where(wanted, row.version == bindparam("expected"), live)
        self.touch = update(table).where(wanted, live)
        self.delete = delete(table).where(wanted)
        self.sweep = _delete_due(table, dialect)
        of_principal = row.principal_digest == bindparam("principal_digest")
        self.find_principal = select(table).where(of_principal, live)
        self.delete_principal = delete(table).where(of_principal)
        self.scan = (
            select(table)
            .where(row.digest > bindparam("after"), live)
            .order_by(row.digest)
            .limit(bindparam("limit", type_=Integer))
        )
        self.probe = select(table).where(row.digest == b"")


def _insert_if_free(table: Table, dialect: str) -> UpdateBase:
    """An INSERT that does nothing when the digest is taken, or, on MySQL, fails.

    MySQL's INSERT IGNORE would swallow every other error too, so the plain one is used there. On the
    others the conflict is no error, and so leaves no line in the server's log.
    """
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=[table.c.digest])
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing(index_elements=[table.c.digest])
    return insert(table)


def _delete_due(table: Table, dialect: str) -> Executable:
    """A DELETE of the ``limit`` longest expired rows, which touches and locks no other rows.

    MySQL has a form of its own for that. The portable one it would answer by reading, and so locking, the
    whole table at every step: its DELETE does not turn IN (SELECT ...) into look-ups.

    The portable form asks for the time twice, because a row may have been prolonged between being found and
    being locked. On PostgreSQL two sweepers take different rows, instead of waiting for each other.
    """
    if dialect in ("mysql", "mariadb"):
        # The name has been checked, so it is safe to write into the statement.
        sweep = f"DELETE FROM {table.name} WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit"  # noqa: S608
        return text(sweep)
    expired = table.c.expires_at <= bindparam("now")
    limit = bindparam("limit", type_=Integer)
    due = select(table.c.digest).where(expired).order_by(table.c.expires_at).limit(limit)
    if dialect == "postgresql":
        due = due.with_for_update(skip_locked=True)
    return delete(table).where(table.c.digest.in_(due), expired)
