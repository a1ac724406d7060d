"""Rendering ``Set-Cookie`` lines: what is accepted is kept by a strict browser, all else is refused whole."""

from __future__ import annotations

import string
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyewall.core.cookie import CookieAttributes, CookieOptions, render_deletion, render_set_cookie
from eyewall.errors import CookieError
from eyewall.testing.cookie_jar import StrictCookieJar

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TOKEN_CHARACTERS = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
VALUE_CHARACTERS = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '",;\\')
DAY = 86_400


def options(**given: Any) -> Any:
    """Return arguments a type checker would refuse: at run time they must be refused too."""
    return given


# ------------------------------------------------------------------------------------ literal lines


def test_session_cookie_line_is_frozen() -> None:
    """Harm: a change of ours alters what browsers get without anybody noticing."""
    cookie = CookieAttributes("__Host-session", secure=True)
    tail = "; Path=/; Secure; HttpOnly; SameSite=Lax"
    assert cookie.set("ew1.k.id.mac") == f"__Host-session=ew1.k.id.mac{tail}"
    assert cookie.set("v", max_age=3600) == f"__Host-session=v; Max-Age=3600{tail}"


def test_deletion_line_is_frozen_and_carries_the_same_attributes() -> None:
    """Harm: the cookie stays because its deletion names another path, domain or partition."""
    line = render_deletion(
        "sid", path="/app", domain="example.com", secure=True, samesite="None", partitioned=True
    )
    assert line == (
        "sid=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/app; Domain=example.com; "
        "Secure; HttpOnly; SameSite=None; Partitioned"
    )


def test_bare_cookie_line_is_frozen() -> None:
    """Harm: an attribute nobody asked for."""
    assert render_set_cookie("theme", "dark", httponly=False, samesite=None) == "theme=dark; Path=/"


def test_functions_and_class_are_one_code_path() -> None:
    """Harm: two renderers drift apart, and one forgets a check."""
    given: CookieOptions = {"path": "/a", "secure": True, "samesite": "Strict"}
    cookie = CookieAttributes("n", **given)
    assert render_set_cookie("n", "v", max_age=5, **given) == cookie.set("v", max_age=5)
    assert render_deletion("n", **given) == cookie.delete()
    assert set(CookieOptions.__annotations__) == {f.name for f in fields(CookieAttributes) if f.init} - {
        "name"
    }


def test_attributes_cannot_be_changed_after_the_check() -> None:
    """Harm: a checked cookie loses its Secure flag later."""
    cookie = CookieAttributes("n", secure=True)
    with pytest.raises(FrozenInstanceError):
        cookie.secure = False  # type: ignore[misc]


# ------------------------------------------------------------------------------------------ lifetime


@pytest.mark.parametrize(
    ("max_age", "seconds"),
    [
        (0, 0),
        (1, 1),
        (400 * DAY, 400 * DAY),
        (timedelta(days=400), 400 * DAY),
        (timedelta(days=30), 30 * DAY),
        (timedelta(0), 0),
        (timedelta(microseconds=1), 1),
        (timedelta(seconds=59, milliseconds=1), 60),
    ],
)
def test_lifetime_is_sent_in_whole_seconds_and_never_rounded_to_deletion(
    max_age: int | timedelta, seconds: int
) -> None:
    """Harm: Tornado drops ``max_age=0``; rounding half a second down would delete the cookie."""
    assert f"; Max-Age={seconds};" in render_set_cookie("n", "v", max_age=max_age)


@pytest.mark.parametrize(
    "max_age",
    [
        -1,
        400 * DAY + 1,
        10**30,
        timedelta(days=400, microseconds=1),
        timedelta(microseconds=-1),
        timedelta.max,
        timedelta.min,
        True,
        False,
        1.5,
        float("nan"),
        float("inf"),
        "60",
        "60; Domain=evil.example",
        b"60",
        object(),
    ],
)
def test_lifetime_that_no_browser_grants_is_refused(max_age: Any) -> None:
    """Harm: a cap applied in silence, or an attribute injected through ``max_age`` (Tornado before 6.6)."""
    with pytest.raises(CookieError, match=r"cookie 'n': max_age .*; give "):
        render_set_cookie("n", "v", max_age=max_age)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "thing"),
    [
        ({"name": ""}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a=b"}, "name"),
        ({"name": "a;b"}, "name"),
        ({"name": "a,b"}, "name"),
        ({"name": 'a"b'}, "name"),
        ({"name": "n\n"}, "name"),
        ({"name": "n\xa0"}, "name"),
        ({"name": "\uff4e"}, "name"),
        ({"name": None}, "name"),
        ({"name": b"n"}, "name"),
        ({"name": "n" * 4097}, "name"),
        ({"path": ""}, "path"),
        ({"path": "app"}, "path"),
        ({"path": "/a;b"}, "path"),
        ({"path": "/a b"}, "path"),
        ({"path": "/a\r\nSet-Cookie: x=y"}, "path"),
        ({"path": "/\n"}, "path"),
        ({"path": "/é"}, "path"),
        ({"path": None}, "path"),
        ({"path": "/" * 1025}, "path"),
        ({"domain": ""}, "domain"),
        ({"domain": ".example.com"}, "domain"),
        ({"domain": "example.com."}, "domain"),
        ({"domain": "example..com"}, "domain"),
        ({"domain": "-example.com"}, "domain"),
        ({"domain": "example.com:80"}, "domain"),
        ({"domain": "https://example.com"}, "domain"),
        ({"domain": "example.com; Path=/evil"}, "domain"),
        ({"domain": "example.com\n"}, "domain"),
        ({"domain": "b\xfccher.example"}, "domain"),
        ({"domain": "*.example.com"}, "domain"),
        ({"domain": "a." * 127 + "com"}, "domain"),
        ({"domain": "a" * 64 + ".com"}, "domain"),
        ({"domain": b"example.com"}, "domain"),
        ({"samesite": "lax"}, "samesite"),
        ({"samesite": "LAX"}, "samesite"),
        ({"samesite": ""}, "samesite"),
        ({"samesite": "Lax; Domain=evil.example"}, "samesite"),
        ({"samesite": True}, "samesite"),
        ({"samesite": ["Lax"]}, "samesite"),
        ({"samesite": "None"}, "secure"),
        ({"partitioned": True}, "secure"),
        ({"secure": "false"}, "secure"),
        ({"secure": 1}, "secure"),
        ({"httponly": None}, "httponly"),
        ({"partitioned": "no", "secure": True}, "partitioned"),
        ({"name": "__Secure-n"}, "secure"),
        ({"name": "__Host-n"}, "secure"),
        ({"name": "__Host-n", "secure": True, "path": "/app"}, "path"),
        ({"name": "__Host-n", "secure": True, "domain": "example.com"}, "domain"),
        ({"name": "__Http-n"}, "secure"),
        ({"name": "__Http-n", "secure": True, "httponly": False}, "httponly"),
        ({"name": "__Host-Http-n", "secure": True, "httponly": False}, "httponly"),
        ({"name": "__Host-Http-n", "secure": True, "path": "/app"}, "path"),
        ({"name": "__host-n", "secure": True}, "prefix"),
        ({"name": "__HOST-n", "secure": True}, "prefix"),
        ({"name": "__secure-n", "secure": True}, "prefix"),
        ({"name": "__HTTP-n", "secure": True}, "prefix"),
        ({"name": "__Host-http-n", "secure": True}, "prefix"),
    ],
)
def test_contradictory_or_injecting_attribute_is_refused_and_named(given: dict[str, Any], thing: str) -> None:
    """Harm: browsers drop the cookie in silence, or a smuggled attribute widens it (GHSA-78cv-mqj4-43f7)."""
    arguments = {"name": "n", **given}
    for build in (CookieAttributes, render_deletion):
        with pytest.raises(CookieError, match=thing) as refusal:
            build(**arguments)
        assert "; " in str(refusal.value)
        assert str(refusal.value).isascii()
        assert len(str(refusal.value)) < 400


@pytest.mark.parametrize("prefix", ["__Secure-", "__Host-", "__Http-", "__Host-Http-"])
def test_prefixed_name_that_keeps_its_promise_is_accepted(prefix: str) -> None:
    """Harm: the safest names cannot be used."""
    line = render_set_cookie(f"{prefix}n", "v", secure=True)
    jar = StrictCookieJar()
    jar.receive("https://example.com/", [line], NOW)
    assert jar.rejected == []


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "a;b",
        "a,b",
        'a"b',
        "a\\b",
        "a\tb",
        "a\r\nb",
        "a\x00",
        "a\x7f",
        "a\x80",
        "\xe9",
        "\u2000",
        "\ud800",
        b"v",
        7,
        None,
    ],
)
def test_value_that_needs_encoding_is_refused_without_quoting_it(value: Any) -> None:
    """Harm: header injection through a value; and the message must not leak a secret."""
    secret = f"hush{value}hush" if isinstance(value, str) else value
    with pytest.raises(CookieError, match=r"its value .*encode it first") as refusal:
        CookieAttributes("n").set(secret)
    assert "hush" not in str(refusal.value)


def test_name_and_value_fit_4096_bytes_exactly() -> None:
    """Harm: browsers drop a longer cookie without a word (ASVS 3.3.5)."""
    cookie = CookieAttributes("name")
    jar = StrictCookieJar()
    jar.receive("https://example.com/", [cookie.set("v" * 4092)], NOW)
    assert len(jar.cookies[0].value) == 4092
    with pytest.raises(CookieError, match=r"4097 bytes.*keep it on the server"):
        cookie.set("v" * 4093)


def test_path_fits_1024_bytes_exactly() -> None:
    """Harm: browsers ignore a longer Path, so the cookie goes elsewhere than meant."""
    jar = StrictCookieJar()
    path = "/" + "p" * 1023
    jar.receive("https://example.com/", [render_set_cookie("n", "v", path=path)], NOW)
    assert (jar.cookies[0].path, jar.ignored) == (path, [])


# -------------------------------------------------------------------------------------- any input

LABELS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=8)
NAMES = st.builds(
    str.__add__,
    st.sampled_from(["", "", "__Host-", "__Secure-", "__Http-", "__Host-Http-", "__HOST-", "__secure-"]),
    st.text(TOKEN_CHARACTERS, min_size=1, max_size=20),
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "path": st.builds("/".__add__, st.text(string.ascii_letters + '/%-._~,="', max_size=20)),
        "domain": st.none() | st.builds("{}.{}x".format, LABELS, LABELS),
        "secure": st.booleans(),
        "httponly": st.booleans(),
        "samesite": st.sampled_from(["Lax", "Strict", "None", None]),
        "partitioned": st.booleans(),
    },
)


@settings(max_examples=300, deadline=None)
@given(NAMES, st.text(VALUE_CHARACTERS, max_size=60), OPTIONS, st.none() | st.integers(1, 400 * DAY))
def test_whatever_is_accepted_reads_back_from_a_strict_browser(
    name: str, value: str, given: dict[str, Any], max_age: int | None
) -> None:
    """Harm: a combination we accept is one browsers drop or change, or cannot be deleted again."""
    try:
        line = render_set_cookie(name, value, max_age=max_age, **options(**given))
    except CookieError:
        with pytest.raises(CookieError):  # a deletion is refused exactly when the cookie itself would be
            render_deletion(name, **options(**given))
        return
    path = given.get("path", "/")
    url = f"https://{given.get('domain') or 'www.example.org'}{path}"
    jar = StrictCookieJar()
    jar.receive("https://" + url.split("/")[2] + "/elsewhere/", [line], NOW)
    assert (jar.rejected, jar.ignored) == ([], [])
    (kept,) = jar.cookies
    assert (kept.name, kept.value, kept.path) == (name, value, path)
    assert (kept.secure, kept.http_only) == (given.get("secure", False), given.get("httponly", True))
    assert kept.expires == (None if max_age is None else NOW + timedelta(seconds=max_age))
    jar.receive(url, [render_deletion(name, **options(**given))], NOW)
    assert jar.cookies == []


HOSTILE = st.text(st.sampled_from('a/.;\r\n\0 \t=,"\\\x7f\x80\u2028'), max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["name", "value", "path", "domain", "samesite", "max_age"]),
    HOSTILE,
    st.sampled_from(";\r\n\0"),
    HOSTILE,
)
def test_separator_in_any_argument_is_refused(argument: str, before: str, stray: str, after: str) -> None:
    """Harm: one careless argument injects an attribute or a whole header (CWE-113)."""
    given: dict[str, Any] = {"name": "n", "value": "v", argument: f"{before}{stray}{after}"}
    with pytest.raises(CookieError):
        render_set_cookie(**given)


@settings(max_examples=300, deadline=None)
@given(st.text(), st.text(), st.text(), st.none() | st.text())
def test_any_text_gives_one_clean_line_or_a_refusal(
    name: str, value: str, path: str, domain: str | None
) -> None:
    """Harm: anything but a CookieError reaches the caller as a 500."""
    try:
        line = render_set_cookie(name, value, path=path, domain=domain)
    except CookieError:
        return
    assert line.isascii()
    assert line.isprintable()
    assert line.count(";") == (3 if domain is None else 4)
