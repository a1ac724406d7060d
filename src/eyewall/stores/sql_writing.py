"""Writes of single records: what each is, and what a kind of database must know to do them.

A write is a statement that the driver takes as it is. SQLAlchemy builds and compiles it once, not at every
call, where its share would be more than the driver's and the database's together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.sql.dml import UpdateBase

from eyewall.stores.sql_statements import Statements

Values = dict[str, Any]
Answers = list[bool | None]

TIMES: Final = ("seen_at", "expires_at")
"""The columns that a touch sets."""


class Text:
    """A statement, compiled.

    Args:
        statement: what to compile.
        dialect: of the database and its driver.
        columns: those that it sets.
    """

    def __init__(self, statement: UpdateBase, dialect: Dialect, columns: Sequence[str]) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=columns or None)
        self.sql: Final = str(compiled)
        self._names: Final[Sequence[str]] = compiled.positiontup

    def arguments(self, values: Values) -> list[Any]:
        """Return ``values``, which go by name, in the driver's order."""
        return [values[name] for name in self._names]


@dataclass(frozen=True, slots=True, eq=False)
class Verb:
    """One of the four writes of a single record.

    Args:
        form: how the database takes it.
        one: the statement that does it alone.
        many: the statement that a batch executes for each of its rows.
        columns: those that it sets.
        repeatable: whether doing it twice is the same as doing it once.
    """

    form: Form
    one: Text
    many: Text
    columns: Sequence[str]
    repeatable: bool

    @property
    def removes(self) -> bool:
        """Whether it removes the row."""
        return not self.columns


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """A write that somebody waits for.

    Args:
        verb: what to do.
        values: its parameters by name; ``wanted`` is the digest.
        outcome: whether it took effect.
        deadline: by the event loop's clock.
    """

    verb: Verb
    values: Values
    outcome: asyncio.Future[bool]
    deadline: float

    @property
    def digest(self) -> bytes:
        """Which row it is about."""
        digest: bytes = self.values["wanted"]
        return digest


class Form(Protocol):
    """How a kind of database takes writes."""

    mixes_verbs: bool
    """Whether different verbs can be in one batch."""

    most: int
    """How many writes one batch has at most."""

    def many_of(self, statement: UpdateBase, table: Table) -> UpdateBase:
        """Return what a batch executes for each row, given what a lone write executes."""

    def one(self, connection: Connection, write: Write) -> bool:
        """Do a lone write; return whether it took effect."""

    def many(self, connection: Connection, writes: list[Write]) -> Answers:
        """Do writes of different rows, sorted by digest, in one transaction.

        Returns:
            For each whether it took effect; None for one that was not done and must be tried alone.
        """


class Verbs:
    """The four verbs, compiled.

    Args:
        statements: over ``table``.
        table: the store's.
        dialect: of the database and its driver.
        form: how the database takes them.
    """

    def __init__(self, statements: Statements, table: Table, dialect: Dialect, form: Form) -> None:
        def verb(statement: UpdateBase, columns: Sequence[str], *, repeatable: bool) -> Verb:
            one = Text(statement, dialect, columns)
            many = Text(form.many_of(statement, table), dialect, columns)
            return Verb(form, one, many, columns, repeatable)

        every = table.c.keys()
        self.create = verb(statements.create, every, repeatable=False)
        self.replace = verb(statements.replace, every[1:], repeatable=False)
        self.touch = verb(statements.touch, TIMES, repeatable=True)
        self.delete = verb(statements.delete, (), repeatable=True)
