"""A request without a cookie gets its session at its first use, however late that is."""

from __future__ import annotations

import pytest

from eyewall.errors import HeadersSentError, SessionClosedError
from tests.tornado.site import Handler, Way, serving

WAYS: tuple[Way, ...] = ("mixin", "install")


@pytest.mark.parametrize("way", WAYS)
async def test_a_first_use_after_the_head_has_left_is_refused(way: Way) -> None:
    """The cookie could not be sent any more: a session that nobody can ever come back to."""
    refused: list[Exception] = []

    class Late(Handler):
        async def get(self) -> None:
            self.write("begun, ")
            await self.flush()
            try:
                self.s["n"] = 1
            except HeadersSentError as error:
                refused.append(error)
            self.finish("ended")

    async with serving(way, [("/", Late)]) as site:
        answer = await site.fetch("/")
        assert (answer.code, answer.body) == (200, b"begun, ended")
        assert site.store.calls == []
    assert len(refused) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_first_use_after_the_answer_is_finished_is_refused(way: Way) -> None:
    """A change that was never saved, and nobody is told."""
    refused: list[Exception] = []

    class TooLate(Handler):
        def get(self) -> None:
            self.write("ended")

        def on_finish(self) -> None:
            try:
                self.s["n"] = 1
            except SessionClosedError as error:
                refused.append(error)

    async with serving(way, [("/", TooLate)]) as site:
        assert (await site.fetch("/")).body == b"ended"
        assert site.store.calls == []
    assert len(refused) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_a_first_use_in_time_is_stored_and_told(way: Way) -> None:
    """Whoever comes for the first time would never get a session."""

    class Visit(Handler):
        async def get(self) -> None:
            self.s["n"] = self.s.get("n", 0) + 1
            self.write(str(self.s["n"]))

    async with serving(way, [("/", Visit)]) as site:
        assert [(await site.fetch("/")).body for _ in range(3)] == [b"1", b"2", b"3"]
