"""Changes made after the first flush(): saved before the next byte, or refused, never lost."""

from __future__ import annotations

from typing import Any

from tests.tornado.site import Handler, serving


async def test_a_change_after_the_flush_of_a_head_answer_is_kept() -> None:
    """``head = get`` of a streaming handler: Tornado writes no body, so nobody looked for the change."""

    class Stream(Handler):
        async def get(self) -> None:
            await self.flush()
            self.s["k"] = "v"

        head = get

    async with serving("mixin", [("/", Stream)]) as site:
        await site.sign_on()
        await site.fetch("/", "HEAD")
        assert (await site.stored()).get("k") == "v"


async def test_a_nested_change_is_stored_before_the_bytes_that_tell_of_it() -> None:
    """An assignment is; an append to a stored list left first and was saved at the end of the stream."""

    class Stream(Handler):
        async def get(self) -> None:
            assert self.s["items"] == [1]
            self.write("one")
            await self.flush()
            self.s["items"].append(2)
            self.write("two")
            await self.flush()
            seen.append((await site.stored())["items"])

    seen: list[Any] = []
    async with serving("mixin", [("/", Stream)]) as site:
        await site.sign_on(items=[1])
        await site.text("/")
        assert seen == [[1, 2]]


async def test_a_second_change_of_a_new_session_is_not_refused_while_the_first_is_stored() -> None:
    """Its cookie is on the way already; HeadersSentError blames the handler for nothing."""

    class Stream(Handler):
        async def get(self) -> None:
            self.s["a"] = 1
            self.flush()  # as nearly everybody writes it: not awaited
            self.s["b"] = 2
            self.write("told")

    async with serving("mixin", [("/", Stream)]) as site:
        assert (await site.fetch("/")).code == 200
        assert (await site.stored()).get("b") == 2


async def test_detaching_the_connection_with_unsaved_changes_is_not_silent() -> None:
    """detach() takes the wire away from under the barrier: what was changed before was never stored."""

    class Detach(Handler):
        async def get(self) -> None:
            self.s["k"] = "v"
            try:
                stream = self.detach()
            except Exception as error:
                errors.append(error)
                raise
            await stream.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            stream.close()

    errors: list[Exception] = []
    async with serving("mixin", [("/", Detach)]) as site:
        await site.sign_on()
        await site.fetch("/")
        assert errors or (await site.stored()).get("k") == "v"
