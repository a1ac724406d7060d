"""Each option of the jar reaches the browser as meant, and no misuse reaches it at all."""

from __future__ import annotations

import string
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyewall.core.cookie import MAX_PAIR_BYTES
from eyewall.core.cookie_jar import CookieJar
from eyewall.core.cookie_values import JarOptions
from eyewall.errors import CookieError
from tests.core.exchange import MANNERS, TEXTS, TOKENS, Exchange, value_of

# -- options ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "attributes"),
    [
        ({}, "Path=/; Secure; HttpOnly; SameSite=Lax"),
        (
            {"max_age": 31536000, "path": "/", "samesite": "Lax"},
            "Max-Age=31536000; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
        ({"path": "/admin", "httponly": False}, "Path=/admin; Secure; SameSite=Lax"),
        (
            {"domain": "shop.example", "samesite": "Strict"},
            "Path=/; Domain=shop.example; Secure; HttpOnly; SameSite=Strict",
        ),
        ({"samesite": None}, "Path=/; Secure; HttpOnly"),
        ({"samesite": "None", "partitioned": True}, "Path=/; Secure; HttpOnly; SameSite=None; Partitioned"),
        ({"max_age": timedelta(milliseconds=1)}, "Max-Age=1; Path=/; Secure; HttpOnly; SameSite=Lax"),
        (
            {"max_age": 0},
            "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; Secure; HttpOnly; SameSite=Lax",
        ),
    ],
)
def test_each_option_is_sent_as_browsers_read_it(options: Any, attributes: str) -> None:
    """Harm: an option is misspelt on the wire and browsers pass over it, on some Python versions only."""
    exchange = Exchange()
    (line,) = exchange.end(exchange.jar().set("c", "" if options.get("max_age") == 0 else "v", **options))
    assert line == f"c={'' if options.get('max_age') == 0 else 'v'}; {attributes}"


@pytest.mark.parametrize(
    ("https", "chosen", "secure"),
    [(True, "auto", True), (False, "auto", False), (True, False, False), (False, True, True)],
)
def test_secure_follows_the_connection_unless_told(https: bool, chosen: Any, secure: bool) -> None:
    """Harm: a Secure cookie never comes back from http://localhost, or one goes out in the clear."""
    (line,) = Exchange(https=https).jar().set("c", "v", secure=chosen).outgoing.leave(200)
    assert ("; Secure" in line) is secure


@settings(deadline=None)
@given(
    name=TOKENS,
    path=st.sampled_from(["/", "/a", "/a/b"]),
    domain=st.sampled_from([None, "shop.example", "example.shop.example"]),
    partitioned=st.booleans(),
    samesite=st.sampled_from(["Lax", "Strict", "None", None]),
    manner=st.sampled_from(["permanent", *MANNERS]),
)
def test_deletion_leaves_the_strictest_jar_empty(name: str, manner: str, **options: Any) -> None:
    """Harm: clear-preferences, sign-out, and the cookie stays."""
    exchange = Exchange()
    exchange.url = "https://example.shop.example/a/b"
    exchange.end(getattr(exchange.jar(), manner).set(name, "v", **options))
    assert len(exchange.browser.cookies) == 1
    exchange.end(exchange.jar().delete(name, **options))
    assert exchange.browser.cookies == []


@pytest.mark.parametrize("name", ["__Host-a", "__Secure-a", "__Http-a", "__Host-Http-a"])
def test_deletion_matches_prefixes(name: str) -> None:
    """Harm: browsers refuse to delete a prefixed cookie by a line that breaks the prefix's rules."""
    exchange = Exchange()
    exchange.end(exchange.jar().set(name, "v"))
    exchange.end(exchange.jar().delete(name))
    assert exchange.browser.cookies == []


# -- misuse -----------------------------------------------------------------------------------------------

REFUSALS: dict[str, tuple[Callable[[CookieJar], object], str]] = {
    "name with space": (lambda jar: jar.set("a b", "v"), "use letters"),
    "empty name": (lambda jar: jar.set("", "v"), "use letters"),
    "name with line break": (lambda jar: jar.set("a\r\nb", "v"), "use letters"),
    "value that is no text": (lambda jar: jar.set("a", 5), "jar.signed"),
    "lone surrogate": (lambda jar: jar.set("a", "\ud800"), "leave them out"),
    "unstorable value": (lambda jar: jar.signed.set("a", object()), "convert it to one of"),
    "max_age of text": (lambda jar: jar.set("a", "v", max_age="60"), "whole seconds"),  # type: ignore[arg-type]
    "max_age of text, signed": (lambda jar: jar.signed.set("a", "v", max_age="60"), "whole seconds"),  # type: ignore[arg-type]
    "max_age False": (lambda jar: jar.set("a", "v", max_age=False), "whole seconds"),
    "max_age negative": (lambda jar: jar.set("a", "v", max_age=-1), "0 to 400 days"),
    "max_age above the cap": (lambda jar: jar.signed.set("a", 1, max_age=400 * 86400 + 1), "0 to 400 days"),
    "path without slash": (lambda jar: jar.set("a", "v", path="admin"), "start with '/'"),
    "path with semicolon": (lambda jar: jar.set("a", "v", path="/;Domain=x"), "percent-encode"),
    "path over 1024 bytes": (lambda jar: jar.set("a", "v", path="/" * 1025), "1024"),
    "domain with scheme": (lambda jar: jar.set("a", "v", domain="https://x.example"), "no scheme"),
    "None without Secure": (lambda jar: jar.set("a", "v", samesite="None", secure=False), "secure=True"),
    "unknown SameSite": (lambda jar: jar.set("a", "v", samesite="lax"), "give 'Lax'"),  # type: ignore[arg-type]
    "Partitioned without Secure": (
        lambda jar: jar.set("a", "v", partitioned=True, secure=False),
        "secure=True",
    ),
    "secure as text": (lambda jar: jar.set("a", "v", secure="false"), "True or False"),  # type: ignore[arg-type]
    "__Host- with domain": (
        lambda jar: jar.set("__Host-a", "v", domain="x.example"),
        "drop them or the prefix",
    ),
    "__Host- with path": (lambda jar: jar.delete("__Host-a", path="/a"), "drop them or the prefix"),
    "__Host- without Secure": (lambda jar: jar.set("__Host-a", "v", secure=False), "secure=True"),
    "too large": (lambda jar: jar.set("a", "v" * 4096), "keep it on the server"),
    "too large when signed": (lambda jar: jar.signed.set("a", "v" * 3100), "keep it on the server"),
    "too large when encoded": (lambda jar: jar.set("a", " " * 1400), "keep it on the server"),
    "the session's own": (lambda jar: jar.set("__Host-session", "v"), "another name"),
    "deleting the session's own": (lambda jar: jar.delete("__Host-session"), "another name"),
    "two of a name by path": (lambda jar: jar.set("kept", "v", path="/a"), "two names"),
    "two of a name by domain": (lambda jar: jar.delete("kept", domain="shop.example"), "two names"),
    "two of a name by partition": (lambda jar: jar.set("kept", "v", partitioned=True), "two names"),
}


@pytest.mark.parametrize("misuse", REFUSALS)
def test_misuse_is_refused_with_the_fix_and_leaves_nothing(misuse: str) -> None:
    """Harm: half a cookie leaves with the response, or the browser drops one in silence."""
    act, fix = REFUSALS[misuse]
    jar = Exchange().jar().set("kept", "1")
    with pytest.raises(CookieError, match=fix) as refusal:
        act(jar)
    assert "vvvv" not in str(refusal.value)
    assert jar.outgoing.leave(200) == ["kept=1; Path=/; Secure; HttpOnly; SameSite=Lax"]


@settings(deadline=None)
@given(
    option=st.sampled_from(["name", "path", "domain", "samesite"]),
    before=st.text(string.ascii_letters, max_size=5),
    evil=st.sampled_from([";", "\r", "\n", "\0", "\x7f", "\t", " ", "\x85", "\xa0", ",", '"']),
    after=st.text(max_size=5),
)
def test_no_option_can_smuggle_in_another(option: str, before: str, evil: str, after: str) -> None:
    """Harm: a visitor's text in an attribute widens the cookie's domain or adds a header."""
    text = before + evil + after
    if option == "path":
        if evil in ',"':  # harmless there
            return
        text = "/" + text
    options: Any = {"name": "n"} | {option: text}
    jar = Exchange().jar()
    with pytest.raises(CookieError):
        jar.set(options.pop("name"), "v", **options)
    assert jar.outgoing.leave(200) == []


def test_4096_bytes_are_the_limit() -> None:
    """Harm: a browser drops in silence what was one byte too long, or we refuse what it would keep."""
    exchange = Exchange()
    exchange.end(exchange.jar().set("n", "v" * (MAX_PAIR_BYTES - 1)))
    with pytest.raises(CookieError):
        exchange.jar().set("n", "v" * MAX_PAIR_BYTES)


def test_the_same_cookie_set_again_replaces_the_first() -> None:
    """Harm: a handler that changes its mind sends two lines of one name, and browsers differ."""
    exchange = Exchange()
    jar = exchange.jar().set("a", "1", path="/x")
    jar.signed.set("a", 2, path="/x")
    jar.delete("a", path="/x").set("a", "3", path="/x", httponly=False)
    assert exchange.end(jar) == ["a=3; Path=/x; Secure; SameSite=Lax"]


def test_a_manner_holds_for_the_rest_of_the_chain_and_no_further() -> None:
    """Harm: the second of two values in a row, meant to be encrypted, goes out for all to read."""
    jar = Exchange().jar()
    jar.encrypted.set("a", 1).set("b", 2)
    jar.set("c", "3")
    assert [value_of(line).partition(".")[0] for line in jar.outgoing.leave(200)] == ["ewx1", "ewx1", "3"]


def test_nothing_can_be_set_once_the_headers_are_out() -> None:
    """Harm: a cookie set too late is lost in silence."""
    jar = Exchange().jar()
    jar.outgoing.leave(200)
    for late in (jar, jar.signed, jar.encrypted.permanent):
        with pytest.raises(CookieError, match=r"before flush\(\)"):
            late.set("a", "v")
        with pytest.raises(CookieError, match=r"before flush\(\)"):
            late.delete("a")


def test_an_answer_of_500_or_more_sets_nothing() -> None:
    """Harm: "saved" in a cookie, beside an error page that says it was not."""
    assert len(Exchange().jar().set("a", "v").outgoing.leave(499)) == 1
    assert Exchange().jar().set("a", "v").outgoing.leave(500) == []


def test_a_cookie_set_by_other_means_too_is_refused_when_leaving() -> None:
    """Harm: two lines of one name, one of them without our attributes."""
    with pytest.raises(CookieError, match="use the jar alone"):
        Exchange().jar().set("a", "v").outgoing.leave(200, {"a"})


@settings(max_examples=60, deadline=None)
@given(
    name=TOKENS,
    value=TEXTS,
    manner=st.sampled_from(["permanent", *MANNERS]),
    max_age=st.none() | st.integers(0, 400 * 86400),
    path=st.from_regex(r"/[a-z%/._-]{0,20}", fullmatch=True),
    https=st.booleans(),
    httponly=st.booleans(),
    samesite=st.sampled_from(["Lax", "Strict", "None", None]),
    partitioned=st.booleans(),
)
def test_the_strictest_jar_keeps_everything_we_send(
    name: str, value: str, manner: str, https: bool, **options: Any
) -> None:
    """Harm: a cookie is accepted here, and dropped by the browser."""
    exchange = Exchange(https=https)
    jar = exchange.jar()
    try:
        getattr(jar, manner).set(name, value, **options)
    except CookieError:
        return
    exchange.end(jar)  # asserts that nothing was refused
    assert len(exchange.browser.cookies) == (options["max_age"] != 0)


def test_options_have_no_names_beside_the_known() -> None:
    """Harm: httpOnly=True is swallowed, and the cookie open to scripts."""
    wrong: Any = {"httpOnly": True}
    with pytest.raises(TypeError):
        Exchange().jar().set("a", "v", **wrong)
    assert set(JarOptions.__annotations__) == {
        "path",
        "domain",
        "secure",
        "httponly",
        "samesite",
        "partitioned",
    }
