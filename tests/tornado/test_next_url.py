"""``next``: whatever is in a link to our sign-in page, the visitor stays on this host (S11, CWE-601)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tornado.web import RequestHandler

from eyewall.tornado.next_url import MAX_NEXT, next_of, safe_next
from tests.tornado.site import serving

OURS = "https://shop.example/sign-in?x=1"

SAFE = [
    "/",
    "/cart",
    "/cart/",
    "/cart?add=1&size=L#top",
    "/caf%C3%A9",
    "/search?q=a%0Ab%00",
    "/search?back=//evil.example",
    "/search?q=../..",
    "/#//evil.example",
    "/?next=/cart",
    "/a/b//c",
    "/@evil.example",
    "/:80",
    "/javascript:alert(1)",
    "/evil.example",
    "/.well-known/x",
    "/...",
    "/a.b/..c/d..",
    "/%252f%252fevil.example",
    "/~bob/[1]{2}|3^4`5'6!$&()*+,;=",
    "/" + "a" * (MAX_NEXT - 1),
]

HOSTILE = [
    "",
    " ",
    "cart",
    "./cart",
    "../cart",
    "?x",
    "#x",
    ".",
    # another host, as browsers and libraries read it
    "//evil.example",
    "///evil.example",
    "////evil.example",
    "//evil.example/%2e%2e",
    "//shop.example@evil.example",
    "//user:pw@evil.example:80/",
    "//[::1]/",
    "//evil%00.example",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "\\evil.example",
    "/cart\\..\\..\\evil.example",
    # dropped or trimmed before anybody looks for the host
    "/\t/evil.example",
    "/\n/evil.example",
    "/\r/evil.example",
    "\t//evil.example",
    " //evil.example",
    "\x00//evil.example",
    "/\x0b/evil.example",
    "/\x00/evil.example",
    "/ /evil.example",
    "//evil.example\n",
    "/cart\n",
    "/cart ",
    "\x1f/cart",
    "/cart\x7f",
    # headers and pages
    "/cart\r\nSet-Cookie: session=x",
    "/cart\r\n\r\n<script>",
    '/"><script>alert(1)</script>',
    "/cart%0d%0aSet-Cookie:x",
    "/%09/evil.example",
    "/%00/evil.example",
    "/a%7F",
    # schemes
    "http://evil.example",
    "https://evil.example",
    "https:evil.example",
    "https:/evil.example",
    "https:///evil.example",
    "HTTPS://evil.example",
    "javascript:alert(1)",
    "java\nscript:alert(1)",
    "data:text/html,<script>",
    "//javascript:alert(1)",
    "https://shop.example.evil.example/",
    "https://shop.example/",  # ours, but a path says the same, and needs no opinion on what is ours
    # what normalising or decoding turns into another host
    "/.//evil.example",
    "/..//evil.example",
    "/a/..//evil.example",
    "/%2e//evil.example",
    "/%2E%2e//evil.example",
    "/.%2e//evil.example",
    "/cart/..",
    "/%2fevil.example",
    "/%2F%2Fevil.example",
    "/%5cevil.example",
    "/%5C%5Cevil.example",
    # beyond ASCII
    "/\uff0fevil.example",
    "/\u2215evil.example",
    "/\u3002evil.example",
    "/\u202e/cart",
    "/\x85/evil.example",
    "/\xa0/evil.example",
    "\ufeff/cart",
    "/caf\xe9",
    "/\ud800",
    "/" + "a" * MAX_NEXT,
]


def host_in_browser(url: str, base_host: str) -> str:
    """The host that the WHATWG URL standard finds in ``url``, relative to an https page of ``base_host``."""
    text = re.sub(r"[\t\n\r]", "", url.strip("".join(map(chr, range(0x21)))))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if scheme is not None and scheme[1].lower() not in ("https", "http"):
        return f"({scheme[1]})"
    rest = text[scheme.end() :] if scheme is not None else text
    same_scheme = scheme is None or scheme[1].lower() == "https"
    slashes = re.match(r"[/\\]*", rest)
    assert slashes is not None
    if same_scheme and len(slashes[0]) < 2:
        return base_host
    authority = re.split(r"[/\\?#]", rest[slashes.end() :], maxsplit=1)[0]
    return authority.rpartition("@")[2].partition(":")[0]


@pytest.mark.parametrize("url", SAFE)
def test_a_path_of_this_host_is_kept(url: str) -> None:
    """Whoever signs in wants to be where they were going."""
    assert safe_next(url, "/home") == url


@pytest.mark.parametrize("url", HOSTILE)
def test_everything_else_leads_to_the_default(url: str) -> None:
    """A visitor who has just typed a password is sent to a page that asks for it again."""
    assert safe_next(url, "/home") == "/home"


@pytest.mark.parametrize("value", [None, b"/cart", 7, ["/cart"], True])
def test_what_is_not_text_leads_to_the_default(value: Any) -> None:
    """JSON has numbers and lists."""
    assert safe_next(value) == "/"


@given(st.text() | st.text("/\\.%25cf@:?#\t\n\r ahtps09eE", max_size=12))
@example("/.//evil.example")
@example("/\t/evil.example")
def test_no_resolver_leaves_this_host(url: str) -> None:
    """A spelling that nobody thought of, in a browser or in a library that follows the redirect."""
    safe = safe_next(url)
    assert host_in_browser(safe, "shop.example") == "shop.example"
    resolved = urlsplit(urljoin(OURS, safe))
    assert (resolved.scheme, resolved.netloc) == ("https", "shop.example")
    assert not resolved.path.startswith("//")
    assert urlsplit(safe).netloc == urlsplit(safe).scheme == ""


TWO_SLASHES = re.compile(r"[\x00-\x20]*[/\\][\t\n\r]*[/\\]")


@pytest.mark.parametrize("url", [url for url in HOSTILE if TWO_SLASHES.match(url)])
def test_the_resolver_of_these_tests_sees_the_attack(url: str) -> None:
    """A check that finds every address harmless proves nothing."""
    assert host_in_browser(url, "shop.example") != "shop.example"


class SignIn(RequestHandler):
    def get(self) -> None:
        self.redirect(next_of(self, "/home"))

    post = get


@pytest.mark.parametrize("url", [*SAFE, *[url for url in HOSTILE if url.isprintable()]])
async def test_a_redirect_goes_where_it_was_decided(url: str) -> None:
    """What was checked is decoded, stripped or joined once more before it is used."""
    encoded = quote(url, safe="", errors="surrogatepass")
    expected = url if url in SAFE else "/home"
    async with serving("install", [("/sign-in", SignIn)]) as site:
        answer = await site.fetch(f"/sign-in?next={encoded}")
        assert answer.headers["Location"] == expected
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = await site.fetch("/sign-in", "POST", headers=form, body=f"next={encoded}")
        assert answer.headers["Location"] == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "/home"),
        ("next=", "/home"),
        ("next=%ff%fe", "/home"),
        ("next=%20/cart", "/home"),
        ("next=/cart&next=//evil.example", "/home"),
        ("next=//evil.example&next=/cart", "/cart"),
        ("next=/%250d", "/home"),
    ],
)
async def test_odd_queries_are_no_error(query: str, expected: str) -> None:
    """A stranger's bytes become a 500, or the first of two values is checked and the second is used."""
    async with serving("install", [("/sign-in", SignIn)]) as site:
        answer = await site.fetch(f"/sign-in?{query}")
        assert (answer.code, answer.headers["Location"]) == (302, expected)
