"""Writes to MongoDB: those of one turn of the event loop in one command, each with a result of its own.

The ``bulkWrite`` command (MongoDB 8.0) says of every operation how many documents it met, whereas the older
commands only say how many all of them met together, from which nobody can tell who lost a compare-and-swap.
So on older servers, and when it is the only one of its turn, a write goes alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from bson.errors import InvalidDocument
from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import (
    ClientBulkWriteException,
    DuplicateKeyError,
    InvalidOperation,
    PyMongoError,
    WriteConcernError,
    WriteError,
)
from pymongo.results import ClientBulkWriteResult

from eyewall.stores.mongodb_calls import Calls, Document, Turn, fail

LARGE: Final = 65_536
"""Bytes of a payload above which a write goes alone: so a command is never cut in two (48 MB), nor do many
small writes wait for a large one."""

DUPLICATE: Final = 11000
NOT_KNOWN: Final = frozenset({59, 115})
"""CommandNotFound, CommandNotSupported: also of a server of 8.0 that still lives by the rules of 7.0."""

_unsendable: Final = (InvalidDocument, OverflowError)  # cannot be encoded, is larger than a document may be

Collection = AsyncCollection[Document]
Model = InsertOne[Document] | UpdateOne | DeleteOne
Outcome = bool | Exception


class Insert(NamedTuple):
    """Inserts ``document``; False when its ``_id`` is taken."""

    document: Document

    def model(self, namespace: str) -> Model:
        """Return it as a part of a command."""
        return InsertOne(self.document, namespace)

    async def alone(self, records: Collection) -> bool:
        """Do it by a command of its own."""
        try:
            await records.insert_one(self.document)
        except DuplicateKeyError:
            return False
        return True


class Update(NamedTuple):
    """Makes ``changes`` to the document that ``expected`` describes; False when there is none."""

    expected: Document
    changes: Document

    def model(self, namespace: str) -> Model:
        """Return it as a part of a command."""
        return UpdateOne(self.expected, self.changes, namespace=namespace)

    async def alone(self, records: Collection) -> bool:
        """Do it by a command of its own."""
        return (await records.update_one(self.expected, self.changes)).matched_count == 1


class Delete(NamedTuple):
    """Deletes the document of ``key``; False when there is none."""

    key: str

    def model(self, namespace: str) -> Model:
        """Return it as a part of a command."""
        return DeleteOne({"_id": self.key}, namespace=namespace)

    async def alone(self, records: Collection) -> bool:
        """Do it by a command of its own."""
        return (await records.delete_one({"_id": self.key})).deleted_count == 1


Write = Insert | Update | Delete
Asked = tuple[Write, "asyncio.Future[bool]"]


class Writes:
    """Collects the writes of one turn of the event loop into one command; each caller awaits its own future.

    Args:
        calls: runs the commands.
        records: the collection.
    """

    def __init__(self, calls: Calls, records: Collection) -> None:
        self._calls = calls
        self._records = records
        self._turn: Turn[Asked] = Turn(self._send)
        self._goes_together = True  # until the server says that it does not know the command

    def send(self, write: Write, size: int = 0) -> asyncio.Future[bool]:
        """Return a future of whether ``write``, which carries ``size`` bytes of payload, met its document.

        It may be cancelled: the write is done all the same, and the others' results stay theirs.
        """
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if size > LARGE:
            self._each_alone([(write, answer)])
        else:
            self._turn.add((write, answer))
        return answer

    def _send(self, asked: list[Asked]) -> None:
        if len(asked) == 1 or not self._goes_together:
            self._each_alone(asked)
            return
        told: asyncio.Future[list[Outcome] | None] = asyncio.get_running_loop().create_future()
        told.add_done_callback(partial(self._hand_out, asked))
        self._calls.settle(told, self._together([write for write, _ in asked]))

    def _each_alone(self, asked: list[Asked]) -> None:
        for write, answer in asked:
            self._calls.settle(answer, write.alone(self._records))

    async def _together(self, writes: list[Write]) -> list[Outcome] | None:
        """Return the outcome of each; None when none was sent, or the server does not know the command."""
        models = [write.model(self._records.full_name) for write in writes]
        try:
            done = await self._records.database.client.bulk_write(
                models, ordered=False, verbose_results=True, write_concern=self._records.write_concern
            )
        except ClientBulkWriteException as error:
            if error.partial_result is None and getattr(error.error, "code", None) in NOT_KNOWN:
                self._goes_together = False
                return None
            return _outcomes_despite(error, writes)
        except InvalidOperation:  # the driver asks the server's version before it sends anything
            self._goes_together = False
            return None
        except _unsendable:  # one of them: it alone shall fail
            return None
        return _in_order(_outcomes(done), len(writes))

    def _hand_out(self, asked: list[Asked], told: asyncio.Future[list[Outcome] | None]) -> None:
        error = told.exception()
        if error is not None:
            fail((answer for _, answer in asked), error)
        elif (outcomes := told.result()) is None:
            self._each_alone([each for each in asked if not each[1].done()])
        else:
            for (_, answer), outcome in zip(asked, outcomes, strict=True):
                self._tell(answer, outcome)

    def _tell(self, answer: asyncio.Future[bool], outcome: Outcome) -> None:
        if answer.done():
            return
        if isinstance(outcome, Exception):
            answer.set_exception(self._calls.failure(outcome))
        else:
            answer.set_result(outcome)


def _outcomes(done: ClientBulkWriteResult) -> dict[int, Outcome]:
    """Return what the server said of each operation, by its place in the command."""
    inserted = dict.fromkeys(done.insert_results, True)
    updated = {place: each.matched_count == 1 for place, each in done.update_results.items()}
    deleted = {place: each.deleted_count == 1 for place, each in done.delete_results.items()}
    return {**inserted, **updated, **deleted}


def _outcomes_despite(error: ClientBulkWriteException, writes: Sequence[Write]) -> list[Outcome]:
    """Return the outcomes when some operations failed, or the command did.

    Raises:
        PyMongoError: of no operation is known what became of it.
    """
    if isinstance(error.error, Exception):
        raise error.error
    for doubt in error.write_concern_errors or ():  # what was written may be lost with the primary
        raise WriteConcernError("not confirmed", _code(doubt))
    partly = error.partial_result
    outcomes = {} if partly is None else _outcomes(partly)
    for failed in error.write_errors or ():
        place = _place(failed)
        taken = _code(failed) == DUPLICATE and isinstance(writes[place], Insert)
        outcomes[place] = False if taken else WriteError("refused", _code(failed))
    return _in_order(outcomes, len(writes))


def _in_order(outcomes: dict[int, Outcome], count: int) -> list[Outcome]:
    """Return the outcomes by place. What the server is silent about may have happened or not."""
    return [outcomes.get(place, PyMongoError("the server did not tell")) for place in range(count)]


def _code(document: Any) -> int:
    return int(document["code"])


def _place(document: Any) -> int:
    return int(document["idx"])
