"""An answer that waits for its save leaves with the headers it had when it was finished."""

from __future__ import annotations

from tests.tornado.site import Handler, ServeSite


class Late(Handler):
    """Goes on with its headers after its answer is finished."""

    def get(self) -> None:
        """Finish, and then change what a client must never see changed."""
        self.s["k"] = "v"
        self.set_header("X-Said", "in time")
        self.add_header("X-Twice", "one")
        self.add_header("X-Twice", "two")
        self.finish("done")
        self.set_header("X-Said", "too late")
        self.set_header("X-Late", "too late")
        self.clear_header("X-Twice")


async def test_headers_changed_after_finish_reach_nobody(serve: ServeSite) -> None:
    """An answer whose head is not what the handler finished: a cookie or a cache rule meant for another."""
    site = await serve([("/", Late)])
    answer = await site.fetch("/")
    assert answer.body == b"done"
    assert answer.headers["X-Said"] == "in time"
    assert answer.headers.get_list("X-Twice") == ["one", "two"]
    assert "X-Late" not in answer.headers
    assert answer.headers.get_list("Set-Cookie")
