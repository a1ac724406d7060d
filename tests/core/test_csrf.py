"""Requests that another origin's page caused are refused; people, our own pages and programs are not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eyewall.core.csrf import (
    MAX_REASON,
    cross_origin_refusal,
    parse_origin,
    source_refusal,
    validate_trusted_origin,
)
from eyewall.errors import ConfigurationError

OURS = "https://shop.example"
TRUSTED = "https://pay.example"
SIBLING = "https://blog.shop.example"
EVIL = "https://evil.example"
ORIGINS = (OURS, TRUSTED, SIBLING, EVIL, "null", None)


def refusal(**given: Any) -> str | None:
    """Ask about a POST to ``OURS`` that has no headers but those given."""
    facts: dict[str, Any] = {
        "method": "POST",
        "sec_fetch_site": None,
        "origin": None,
        "scheme": "https",
        "host": "shop.example",
        "trusted_origins": frozenset((TRUSTED,)),
    }
    return cross_origin_refusal(**{**facts, **given})


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("site", ["none", "same-origin", "same-site", "cross-site", None])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_safe_method_is_never_refused(method: str, site: str | None, origin: str | None) -> None:
    """Harm: links from other sites break."""
    assert refusal(method=method, sec_fetch_site=site, origin=origin) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "get", "GET ", "TRACE", ""])
@pytest.mark.parametrize(
    ("site", "passing"),
    [
        ("none", set(ORIGINS)),
        ("same-origin", set(ORIGINS)),
        ("same-site", {TRUSTED}),
        ("cross-site", {TRUSTED}),
        (None, {OURS, TRUSTED, None}),
    ],
)
def test_unsafe_method_passes_only_from_ourselves_the_trusted_and_programs(
    method: str, site: str | None, passing: set[str | None]
) -> None:
    """Harm: another site's page, or a taken-over subdomain's, acts in the visitor's name."""
    allowed = {o for o in ORIGINS if refusal(method=method, sec_fetch_site=site, origin=o) is None}
    assert allowed == passing


@pytest.mark.parametrize(
    "site",
    [
        "",
        "Same-Origin",
        "SAME-ORIGIN",
        "same-origin,cross-site",
        "none,none",
        "same-origin ",
        "future-value",
        "\x00",
    ],
)
def test_unknown_sec_fetch_site_counts_as_cross_site(site: str) -> None:
    """Harm: a value we do not know, or two joined by a comma, opens the door."""
    assert refusal(sec_fetch_site=site) is not None
    assert refusal(sec_fetch_site=site, origin=OURS) is not None
    assert refusal(sec_fetch_site=site, origin=TRUSTED) is None


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://shop.example.evil.example",
        "https://evil-shop.example",
        "https://shop.example.",
        "https://shop.example/",
        "https://shop.example/path",
        "https://shop.example?x",
        "https://shop.example#x",
        "https://shop.example@evil.example",
        "https://evil.example@shop.example",
        "https://user:pass@shop.example",
        "https://shop.example:",
        "https://shop.example:0443",
        "https://shop.example:444",
        "https://shop.example:80",
        "https://shop.example:99999",
        "https://shop.example:443:443",
        "https://shop.example,https://evil.example",
        "https://shop.example, https://shop.example",
        "https://shop.example https://evil.example",
        " https://shop.example",
        "https://shop.example\n",
        "https:///shop.example",
        "https:shop.example",
        "https:\\\\shop.example",
        "//shop.example",
        "shop.example",
        "http://shop.example",
        "ftp://shop.example",
        "wss://shop.example",
        "https://\uff53hop.example",
        "https://\u017fhop.example",
        "https://xn--hop-hga.example",
        "https://shop\x00.example",
        "https://shop%2eexample",
        "https://*",
        "*",
    ],
)
def test_look_alike_origin_is_not_ours(origin: str) -> None:
    """Harm: loose matching takes the attacker's page for ours (Bokeh's CVE-2026-21883)."""
    assert refusal(origin=origin) is not None


def test_kelvin_sign_does_not_fold_into_our_host() -> None:
    """Harm: ``str.lower()`` turns U+212A into ``k``, and so another host into ours."""
    assert refusal(origin="https://ban\u212a.example", host="bank.example") is not None
    assert refusal(origin="https://bank.example", host="ban\u212a.example") is not None


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        ("https://shop.example", "https", "SHOP.Example"),
        ("HTTPS://Shop.Example", "https", "shop.example"),
        ("https://shop.example", "https", "shop.example:443"),
        ("https://shop.example:443", "https", "shop.example"),
        ("http://shop.example", "http", "shop.example:80"),
        ("http://localhost:8888", "http", "localhost:8888"),
        ("http://127.0.0.1:8888", "http", "127.0.0.1:8888"),
        ("http://[::1]:8888", "http", "[::1]:8888"),
        ("https://my_host.local", "https", "my_host.local"),
        ("https://shop.example", "http", "shop.example"),  # TLS ends at a proxy we were not told of
        ("https://shop.example", "http", "shop.example:443"),
    ],
)
def test_our_own_pages_pass_in_every_spelling(origin: str, scheme: str, host: str) -> None:
    """Harm: the site's own forms are refused."""
    assert refusal(origin=origin, scheme=scheme, host=host) is None


@pytest.mark.parametrize(
    ("origin", "scheme", "host"),
    [
        ("http://shop.example", "https", "shop.example"),  # whoever sits on the network writes http pages
        ("http://shop.example", "https", "shop.example:80"),
        ("http://shop.example", "http", "shop.example:443"),
        ("https://shop.example", "http", "shop.example:80"),
        ("http://localhost:8888", "http", "localhost:8889"),
        ("http://localhost", "http", "127.0.0.1"),
        ("http://shop.example", "http", ""),
        ("http://shop.example", "http", "shop.example."),
        ("http://shop.example", "http", "user@shop.example"),
        ("app://", "http", ""),
        ("app://shop.example", "https", "shop.example"),
    ],
)
def test_other_port_or_weaker_scheme_is_not_ours(origin: str, scheme: str, host: str) -> None:
    """Harm: another program on the same machine, or a page forged on the network, acts for the visitor."""
    assert refusal(origin=origin, scheme=scheme, host=host) is not None


def test_websocket_handshake_is_judged_though_it_is_a_get() -> None:
    """Harm: any site opens a socket with the visitor's cookies (cross-site WebSocket hijacking)."""
    facts: dict[str, Any] = {"scheme": "https", "host": "shop.example", "trusted_origins": ()}
    assert source_refusal(sec_fetch_site="cross-site", origin=EVIL, **facts) is not None
    assert source_refusal(sec_fetch_site=None, origin=EVIL, **facts) is not None
    assert source_refusal(sec_fetch_site="same-origin", origin=OURS, **facts) is None


# ------------------------------------------------------------------------------------ the reason


@pytest.mark.parametrize(
    "header",
    [
        "evil\r\nGET / HTTP/1.1",
        "\x1b[31mred",
        "%s%n{0}",
        "x" * 70_000,
        "\U0001f600" * 9_000,
        "\u202e",
        "'" * 99,
    ],
)
def test_reason_cannot_forge_or_flood_a_log(header: str) -> None:
    """Harm: log injection (ASVS 16.4.1) and logs filled by 64 KB headers."""
    for reason in (
        refusal(origin=header),
        refusal(sec_fetch_site=header, origin=header),
        refusal(origin=EVIL, host=header),
    ):
        assert reason is not None
        assert reason.isascii()
        assert reason.isprintable()
        assert len(reason) <= MAX_REASON


def test_reason_names_what_was_seen() -> None:
    """Harm: an operator cannot tell a proxy's mistake from an attack."""
    assert refusal(origin=EVIL) == f"Origin '{EVIL}': neither https at 'shop.example' nor trusted"
    assert refusal(origin=EVIL, sec_fetch_site="cross-site") == (
        f"Sec-Fetch-Site 'cross-site', Origin '{EVIL}': not trusted"
    )


@settings(max_examples=300, deadline=None)
@given(st.none() | st.text(), st.none() | st.text(), st.sampled_from(["http", "https"]), st.text())
def test_no_header_makes_it_raise(site: str | None, origin: str | None, scheme: str, host: str) -> None:
    """Harm: whoever sends odd bytes causes a 500."""
    reason = refusal(sec_fetch_site=site, origin=origin, scheme=scheme, host=host)
    assert reason is None or (len(reason) <= MAX_REASON and reason.isascii())


# --------------------------------------------------------------------------------- trusted origins


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("https://pay.example", "https://pay.example"),
        ("HTTPS://Pay.Example", "https://pay.example"),
        ("https://pay.example:443", "https://pay.example"),
        ("http://pay.example:80", "http://pay.example"),
        ("http://pay.example:443", "http://pay.example:443"),
        ("https://pay.example:8443", "https://pay.example:8443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("chrome-extension://abcdefghij", "chrome-extension://abcdefghij"),
    ],
)
def test_trusted_origin_is_kept_as_browsers_spell_it(text: str, spelt: str) -> None:
    """Harm: a trusted origin never matches, because somebody wrote its default port."""
    assert validate_trusted_origin(text) == spelt
    trusted = (validate_trusted_origin(text),)
    assert refusal(sec_fetch_site="cross-site", origin=spelt, trusted_origins=trusted) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "pay.example",
        "//pay.example",
        "https://",
        "https://*.pay.example",
        "https://pay.example/",
        "https://pay.example/path",
        "https://user@pay.example",
        "https://pay.example.",
        "https://pay.example:port",
        "https://pay.example:65536",
        "https://p\xe4y.example",
        "https://pay.example,https://b.example",
        " https://pay.example",
        "https://" + "a" * 600,
        None,
        b"https://pay.example",
    ],
)
def test_unclear_trusted_origin_is_refused_at_start_with_the_fix(text: Any) -> None:
    """Harm: a pattern too wide trusts strangers, one never sent by a browser trusts nobody."""
    with pytest.raises(ConfigurationError, match=r"write it like https://app\.example\.com") as refused:
        validate_trusted_origin(text)
    assert len(str(refused.value)) < 300


def test_trusted_origin_is_exact() -> None:
    """Harm: trusting one page trusts its neighbours."""
    trusted = (validate_trusted_origin("https://pay.example"),)
    for other in (
        "http://pay.example",
        "https://pay.example:8443",
        "https://www.pay.example",
        "https://pay.example.evil.example",
        "https://pay.example.",
    ):
        assert refusal(sec_fetch_site="cross-site", origin=other, trusted_origins=trusted) is not None
        assert refusal(origin=other, trusted_origins=trusted) is not None


@given(st.text())
def test_whatever_parses_reads_back_as_itself(text: str) -> None:
    """Harm: two spellings of one origin, of which only one is trusted."""
    origin = parse_origin(f"https://{text}")
    assert origin is None or parse_origin(str(origin)) == origin
