"""Cookies know no ports: two applications on one host share a jar, and each has a sign-in form."""

from __future__ import annotations

from eyewall.stores.memory import MemoryStore
from tests.signin.kit import Deployment
from tests.signin.pages import Page


class Form(Page):
    def get(self) -> None:
        self.write(self.xsrf_token)

    def post(self) -> None:
        self.check_xsrf_cookie()
        self.write("ok")


async def test_a_form_of_the_one_survives_a_page_of_the_other(here: Deployment) -> None:
    """The pre-session's cookie has one name for all: each sign-in page spoils the form of the other."""
    one = await here.process([("/form", Form)], name="one", cookie_secret="A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6")
    here._open = lambda: MemoryStore(clock=here.clock)
    two = await here.process([("/form", Form)], name="two", cookie_secret="Z9y8X7w6V5u4T3s2R1q0P9o8N7m6L5k4")
    first = here.browser(one)
    second = here.browser(two, first)
    token = (await first.get("/form")).body.decode()
    await second.get("/form")
    assert (await first.post_form("/form", {"_xsrf": token})).code == 200
