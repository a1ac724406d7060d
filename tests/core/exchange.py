"""One browser and one application, and the jar between them: no HTTP, and a clock that stands still."""

from __future__ import annotations

import string

from hypothesis import strategies as st

from eyewall.core.cookie_jar import CookieFormats, CookieJar
from eyewall.crypto.keyring import Key, KeyRing
from eyewall.testing.clock import ManualClock
from eyewall.testing.cookie_jar import StrictCookieJar

OLD, NEW, OTHER = Key(b"o" * 32), Key(b"n" * 32), Key(b"x" * 32)
URL = "https://shop.example/"
MANNERS = ("signed", "encrypted")
TOKENS = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=20).filter(
    lambda name: not name.startswith("__")
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


class Exchange:
    """One browser and one application: each :meth:`jar` is a request."""

    def __init__(self, *keys: Key, https: bool = True) -> None:
        self.clock = ManualClock()
        self.browser = StrictCookieJar()
        self.https = https
        self.url = URL if https else URL.replace("https", "http")
        self.use(*(keys or (NEW,)))

    def use(self, *keys: Key) -> None:
        """Run the application with these keys, newest first."""
        self.formats = CookieFormats(KeyRing(keys), self.clock)

    def jar(self, *lines: str) -> CookieJar:
        """Begin a request with the browser's cookies, or with these lines."""
        header = self.browser.header_for(self.url, self.clock())
        sent = list(lines) or ([header] if header else [])
        return CookieJar(sent, https=self.https, formats=self.formats, reserved={"__Host-session"})

    def end(self, jar: CookieJar, status: int = 200) -> list[str]:
        """End it: the browser takes in what the response sets, and may refuse nothing."""
        lines = jar.outgoing.leave(status)
        self.browser.receive(self.url, lines, self.clock())
        assert self.browser.rejected == []
        assert self.browser.ignored == []
        return lines


def value_of(line: str) -> str:
    """The value in a Set-Cookie line."""
    return line.partition(";")[0].partition("=")[2]
