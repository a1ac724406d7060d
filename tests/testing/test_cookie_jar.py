"""The jar refuses and sends what RFC 6265bis says a browser refuses and sends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from eyewall.testing.cookie_jar import RequestFrom, StrictCookieJar

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SITE = "https://www.shop.example/app/page"
PLAIN = "http://www.shop.example/app/page"


def after(*lines: str, url: str = SITE, request_from: RequestFrom = RequestFrom.SAME_SITE) -> StrictCookieJar:
    """Return a jar that received ``lines`` from ``url``."""
    jar = StrictCookieJar()
    jar.receive(url, lines, NOW, request_from)
    return jar


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "neither name nor value"),
        ("=", "neither name nor value"),
        ("; Path=/", "neither name nor value"),
        ("n=a\x00b", "control character"),
        ("n=v; Path=/\x7f", "control character"),
        ("n=" + "v" * 4096, "4096 bytes"),
        ("n=v; Domain=other.example", "another host"),
        ("n=v; Domain=a.www.shop.example", "another host"),
        ("n=v; Domain=hop.example", "another host"),
        ("n=v; Domain=example", "public suffix"),
        ("n=v; SameSite=None", "SameSite=None needs Secure"),
        ("n=v; Partitioned", "Partitioned needs Secure"),
        ("__Secure-n=v", "needs Secure"),
        ("__sEcUrE-n=v", "needs Secure"),
        ("__Host-n=v; Path=/", "needs Secure"),
        ("__Host-n=v; Secure", "__Host- needs Path=/"),
        ("__Host-n=v; Secure; Path=/app", "__Host- needs Path=/"),
        ("__HOST-n=v; Secure; Path=/; Domain=www.shop.example", "no Domain"),
        ("__Http-n=v; Secure", "needs HttpOnly"),
        ("__Host-Http-n=v; Secure; Path=/", "needs HttpOnly"),
        ("__Host-Http-n=v; HttpOnly; Path=/", "needs Secure"),
        ("=__Host-n=v", "prefix in a nameless cookie"),
        ("__secure-n", "prefix in a nameless cookie"),
    ],
)
def test_cookie_a_browser_drops_is_refused_with_its_reason(line: str, reason: str) -> None:
    """Harm: a test passes with a cookie no browser keeps."""
    jar = after(line)
    assert jar.cookies == []
    (rejection,) = jar.rejected
    assert rejection.line == line
    assert reason in rejection.reason


def test_secure_cookie_over_plain_http_is_refused() -> None:
    """Harm: a Secure cookie behind a proxy that tells us http is never kept."""
    assert after("n=v; Secure", url=PLAIN).rejected[0].reason == "Secure over an insecure connection"


def test_localhost_is_insecure_unless_asked_for() -> None:
    """Harm: it works on the developer's Chrome and not on Safari."""
    assert after("n=v; Secure", url="http://localhost:8888/").cookies == []
    jar = StrictCookieJar(trust_localhost=True)
    jar.receive("http://127.0.0.1:8888/", ["n=v; Secure"], NOW)
    assert jar.header_for("http://127.0.0.1:8888/", NOW) == "n=v"


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("sid=evil", "sid=good"),
        ("sid=evil; Path=/app", "sid=good"),
        ("sid=wide; Path=/", "sid=good; sid=wide"),  # the longer path goes first, so ours is not hidden
        ("sid=evil; Domain=shop.example", "sid=good"),
        ("other=x", "sid=good; other=x"),
    ],
)
def test_insecure_page_leaves_secure_cookies_alone(line: str, kept: str) -> None:
    """Harm: whoever sits on the network replaces or hides the session cookie over plain http."""
    jar = after("sid=good; Secure; Path=/app")
    jar.receive(PLAIN, [line], NOW)
    assert jar.header_for(SITE, NOW) == kept


@pytest.mark.parametrize(
    ("attribute", "named"),
    [
        ("Path=app", "path"),
        ("Path=/" + "p" * 1024, "path"),
        ("Max-Age=soon", "max-age"),
        ("Max-Age=1.5", "max-age"),
        ("Expires=tomorrow", "expires"),
        ("SameSite=Sometimes", "samesite"),
        ("Priority=High", "priority"),
        ("Path=/a; Path=/b", "path is given twice"),
    ],
)
def test_ignored_attribute_is_recorded_though_the_cookie_is_kept(attribute: str, named: str) -> None:
    """Harm: a misspelt attribute protects nothing, and nobody notices."""
    jar = after(f"n=v; {attribute}")
    assert len(jar.cookies) == 1
    assert named in jar.ignored[0].reason


def test_nothing_is_said_about_a_flawless_cookie() -> None:
    """Harm: false alarms teach people to look away."""
    jar = after("__Host-n=v; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax; Partitioned")
    assert (jar.rejected, jar.ignored) == ([], [])
    assert jar.header_for(SITE, NOW) == "__Host-n=v"


# ------------------------------------------------------------------------------------------- scope


@pytest.mark.parametrize(
    ("line", "url", "sent"),
    [
        ("n=v", "https://www.shop.example/app/", True),
        ("n=v", "https://www.shop.example/app", True),
        ("n=v", "https://www.shop.example/apple", False),
        ("n=v", "https://www.shop.example/", False),
        ("n=v; Path=/", "https://www.shop.example", True),
        ("n=v; Path=/", "https://www.shop.example:8443/", True),
        ("n=v; Path=/", "https://shop.example/", False),
        ("n=v; Path=/", "https://a.www.shop.example/", False),
        ("n=v; Path=/; Domain=shop.example", "https://shop.example/", True),
        ("n=v; Path=/; Domain=.SHOP.example", "https://blog.shop.example/", True),
        ("n=v; Path=/; Domain=shop.example", "https://myshop.example/", False),
        ("n=v; Path=/; Domain=shop.example", "https://shop.example.evil.example/", False),
        ("n=v; Path=/", "http://www.shop.example/", True),
        ("n=v; Path=/; Secure", "http://www.shop.example/", False),
    ],
)
def test_cookie_goes_where_its_scope_says(line: str, url: str, *, sent: bool) -> None:
    """Harm: a cookie reaches a host or path it was not meant for, or misses its own."""
    assert after(line).header_for(url, NOW) == ("n=v" if sent else None)


def test_address_is_a_host_of_its_own() -> None:
    """Harm: ``Domain`` matching by suffix mixes up machines."""
    jar = after("n=v; Domain=127.0.0.1", url="https://127.0.0.1/")
    assert jar.header_for("https://127.0.0.1/", NOW) == "n=v"
    assert after("n=v; Domain=0.0.1", url="https://127.0.0.1/").cookies == []


def test_longer_path_goes_first_then_the_older() -> None:
    """Harm: a server that takes the first of two cookies is tested with the wrong order."""
    jar = after("a=1; Path=/", "b=2; Path=/", "c=3; Path=/app")
    jar.receive(SITE, ["a=4; Path=/"], NOW)
    assert jar.header_for(SITE, NOW) == "c=3; a=4; b=2"


def test_nameless_cookie_travels_without_equals_sign() -> None:
    """Harm: what an attacker can really make a browser send is not tested."""
    assert after("=v", "w").header_for(SITE, NOW) == "w"


@pytest.mark.parametrize(
    "deletion",
    [
        "n=; Max-Age=0; Path=/",
        "n=; Max-Age=0; Path=/; Domain=shop.example; Secure",
        "n=; Max-Age=0; Domain=shop.example; Secure; Partitioned",
        "n=; Max-Age=0; Path=/; Domain=www.shop.example; Secure; Partitioned",
    ],
)
def test_deletion_in_another_scope_deletes_nothing(deletion: str) -> None:
    """Harm: signing out leaves the cookie behind."""
    jar = after("n=v; Path=/; Domain=shop.example; Secure; Partitioned")
    jar.receive(SITE, [deletion], NOW)
    assert len(jar.cookies) == 1
    jar.receive(SITE, ["n=; Max-Age=0; Path=/; Domain=shop.example; Secure; Partitioned"], NOW)
    assert jar.cookies == []


# ---------------------------------------------------------------------------------------- lifetime


@pytest.mark.parametrize(
    ("attributes", "lives"),
    [
        ("Max-Age=60", timedelta(seconds=60)),
        ("Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", timedelta(seconds=60)),
        ("Expires=Fri, 20 Nov 2026 13:00:00 GMT", timedelta(hours=1)),
        ("Expires=Friday, 20-Nov-26 13:00:00 GMT", timedelta(hours=1)),
        ("Expires=Fri Nov 20 13:00:00 2026", timedelta(hours=1)),
        ("Max-Age=99999999999999999999", timedelta(days=400)),
        ("Expires=Tue, 19 Jan 2038 03:14:07 GMT", timedelta(days=400)),
    ],
)
def test_cookie_lives_as_long_as_a_browser_lets_it(attributes: str, lives: timedelta) -> None:
    """Harm: a cookie outlives its session, or the cap of 400 days goes unseen."""
    jar = after(f"n=v; {attributes}")
    assert jar.header_for(SITE, NOW + lives - timedelta(seconds=1)) == "n=v"
    assert jar.header_for(SITE, NOW + lives) is None


@pytest.mark.parametrize(
    "attributes",
    ["Max-Age=0", "Max-Age=-5", "Expires=Thu, 01 Jan 1970 00:00:00 GMT", "Expires=Sun, 06 Nov 94 08:49:37"],
)
def test_dead_on_arrival_removes_the_cookie(attributes: str) -> None:
    """Harm: a deletion is taken for a cookie."""
    jar = after("n=v")
    jar.receive(SITE, [f"n=; {attributes}"], NOW)
    assert (jar.cookies, jar.rejected, jar.ignored) == ([], [], [])


@pytest.mark.parametrize(
    "date", ["Fri, 31 Feb 2026 00:00:00 GMT", "Fri, 20 Nov 2026 25:00:00 GMT", "20 Nov 2026", ""]
)
def test_impossible_date_is_ignored(date: str) -> None:
    """Harm: a malformed date deletes the cookie, or raises."""
    jar = after(f"n=v; Expires={date}")
    assert (jar.cookies[0].expires, len(jar.ignored)) == (None, 1)


# ---------------------------------------------------------------------------------------- SameSite


@pytest.mark.parametrize(
    ("attribute", "request_from", "method", "sent"),
    [
        ("; SameSite=Strict", RequestFrom.SAME_SITE, "POST", True),
        ("; SameSite=Strict", RequestFrom.CROSS_SITE_NAVIGATION, "GET", False),
        ("; SameSite=Lax", RequestFrom.SAME_SITE, "POST", True),
        ("; SameSite=Lax", RequestFrom.CROSS_SITE_NAVIGATION, "GET", True),
        ("; SameSite=Lax", RequestFrom.CROSS_SITE_NAVIGATION, "POST", False),
        ("; SameSite=Lax", RequestFrom.CROSS_SITE_SUBRESOURCE, "GET", False),
        ("", RequestFrom.CROSS_SITE_NAVIGATION, "GET", True),
        ("", RequestFrom.CROSS_SITE_NAVIGATION, "POST", False),
        ("", RequestFrom.CROSS_SITE_SUBRESOURCE, "GET", False),
        ("; SameSite=None; Secure", RequestFrom.CROSS_SITE_SUBRESOURCE, "POST", True),
    ],
)
def test_same_site_decides_who_may_make_it_travel(
    attribute: str, request_from: RequestFrom, method: str, *, sent: bool
) -> None:
    """Harm: a test of CSRF protection passes because the cookie never came, or came where it cannot."""
    jar = after(f"n=v{attribute}")
    assert jar.header_for(SITE, NOW, request_from, method) == ("n=v" if sent else None)


def test_cross_site_image_cannot_plant_a_same_site_cookie() -> None:
    """Harm: session fixation from another site's page."""
    planted = after("n=v; SameSite=Lax", request_from=RequestFrom.CROSS_SITE_SUBRESOURCE)
    assert "cross-site subresource" in planted.rejected[0].reason
    assert after("n=v; SameSite=Lax", request_from=RequestFrom.CROSS_SITE_NAVIGATION).rejected == []
