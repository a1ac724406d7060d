"""A record that turns out damaged, or another's, only when a conflict makes us load it again."""

from __future__ import annotations

from typing import Any

import pytest

from eyewall.core.record import Record
from eyewall.errors import DamagedRecordError
from tests.tornado.site import Handler, serving


class Write(Handler):
    async def get(self) -> None:
        self.s["k"] = "v"
        self.write("told")


@pytest.mark.parametrize("how", ["damaged", "another's"])
async def test_a_record_found_damaged_on_a_conflict_is_no_500(how: str) -> None:
    """A damaged record is a new visitor and an event, never a 500 and a traceback per request."""
    async with serving("mixin", [("/", Write)]) as site:
        await site.sign_on(k="old")
        load = site.store.load
        seen: list[Any] = []
        kinds: list[str] = []
        site.sessions.events.subscribe(lambda event: kinds.append(event.kind.name))

        async def load_then_spoil(digest: bytes) -> Record | None:
            record = await load(digest)
            if not seen:
                seen.append(record)
                return record
            if how == "damaged":
                raise DamagedRecordError("not a session record: truncated")
            assert record is not None
            return Record(**{f: getattr(record, f) for f in Record.__struct_fields__} | {"digest": bytes(32)})

        async def refuse(_: Record, *, version: int) -> bool:
            return False

        site.store.load = load_then_spoil  # type: ignore[method-assign]
        site.store.replace = refuse  # type: ignore[method-assign, assignment]
        assert (await site.fetch("/")).code < 500
        assert "DAMAGED_RECORD" in kinds
