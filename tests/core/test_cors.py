"""CORS: yes to an exact list, with cookies only for those on it, and no to everything else."""

from __future__ import annotations

import string
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.cors import METHODS, CorsPolicy, is_preflight
from eyewall.errors import ConfigurationError
from eyewall.settings import Settings

FRONTEND: Final = "http://localhost:3000"


def policy(**options: Any) -> CorsPolicy:
    """The policy of an application with one frontend."""
    made = CorsPolicy.from_settings(
        Settings(**{"cors_origins": FRONTEND, "cors_credentials": True, **options})
    )
    assert made is not None
    return made


def test_without_settings_there_is_no_policy() -> None:
    """An application that does CORS itself must not find a second opinion in its answers."""
    assert CorsPolicy.from_settings(Settings()) is None
    assert CorsPolicy.from_settings(Settings(trusted_origins="https://a.example")) is None  # type: ignore[arg-type]


def test_a_listed_origin_may_read_with_cookies() -> None:
    """The chapter's frontend would be without its session."""
    assert policy(cors_expose_headers="ETag").actual_headers(FRONTEND) == {
        "Access-Control-Allow-Origin": FRONTEND,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "ETag",
    }


def test_without_credentials_the_browser_is_not_told_to_send_them() -> None:
    """Cookies travel only where the operator said so."""
    assert policy(cors_credentials=False).actual_headers(FRONTEND) == {
        "Access-Control-Allow-Origin": FRONTEND
    }


def test_a_preflight_is_told_what_may_be_sent() -> None:
    """A JSON post is preflighted: without this answer it is never sent."""
    assert policy(cors_expose_headers="ETag").preflight_headers(FRONTEND) == {
        "Access-Control-Allow-Origin": FRONTEND,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": "Content-Type, X-XSRFToken, X-CSRFToken",
        "Access-Control-Max-Age": "600",
    }
    assert "Access-Control-Allow-Headers" not in policy(cors_headers=()).preflight_headers(FRONTEND)


LOOK_ALIKES: Final = (
    None,
    "",
    "null",
    "*",
    "http://localhost",
    "http://localhost:3001",
    "http://localhost:30000",
    "https://localhost:3000",
    "http://localhost:3000/",
    "http://localhost:3000.evil.example",
    "http://localhost.evil.example:3000",
    "http://evil.example#http://localhost:3000",
    "http://user@localhost:3000",
    "http://localhost.:3000",
    "http://127.0.0.1:3000",
    "http://xn--localhost:3000",
    "http://\u212aocalhost:3000",
    "http://localhost:3000 http://localhost:3000",
    "http://localhost:3000,http://localhost:3000",
    "http://localhost:3000\r\nX: y",
    "http://localhost:3000" + "0" * 9999,
)


@pytest.mark.parametrize("origin", LOOK_ALIKES)
def test_a_look_alike_gets_nothing(origin: str | None) -> None:
    """One origin too many reads every visitor's pages (Bokeh's CVE-2026-21883)."""
    assert policy().actual_headers(origin) == {}
    assert policy().preflight_headers(origin) == {}


@given(st.text(max_size=60) | st.text("htps:/locaost0123456789.@#,", max_size=40))
def test_only_what_is_listed_is_ever_sent_back(origin: str) -> None:
    """What a stranger writes into a header must not come back in one."""
    headers = policy().actual_headers(origin)
    assert headers == {} or headers["Access-Control-Allow-Origin"] == FRONTEND


def test_everyone_may_read_without_cookies() -> None:
    """A public API: the one word for all, never the sender's own, and never credentials."""
    everyone = policy(cors_origins="*", cors_credentials=False)
    for origin in (None, "null", "https://a.example"):
        assert everyone.actual_headers(origin) == {"Access-Control-Allow-Origin": "*"}
        assert "Access-Control-Allow-Credentials" not in everyone.preflight_headers(origin)


@pytest.mark.parametrize(
    "origin", ["http://a..example", "http://a.example.", "http://a.example:0", "http://a:99999"]
)
def test_an_origin_that_no_browser_sends_is_refused_at_start(origin: str) -> None:
    """A list that can never match is found by the user whose page does not work."""
    with pytest.raises(ConfigurationError, match="is not scheme://host"):
        CorsPolicy.from_settings(Settings(cors_origins=origin))  # type: ignore[arg-type]


@given(
    st.sampled_from(("http", "https", "app")),
    st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12),
    st.integers(1, 65535) | st.none(),
)
def test_every_origin_that_is_accepted_is_one_that_matches(scheme: str, host: str, port: int | None) -> None:
    """Settings and check must spell an origin alike, also where its port is the default one."""
    origin = f"{scheme}://{host}" + (f":{port}" if port else "")
    assert policy(cors_origins=origin).actual_headers(origin) != {}


@pytest.mark.parametrize(
    ("method", "origin", "requested", "expected"),
    [
        ("OPTIONS", FRONTEND, "POST", True),
        ("OPTIONS", "null", "", True),
        ("OPTIONS", FRONTEND, None, False),
        ("OPTIONS", None, "POST", False),
        ("POST", FRONTEND, "POST", False),
        (None, FRONTEND, "POST", False),
    ],
)
def test_a_preflight_is_told_from_other_requests(
    method: str | None, origin: str | None, requested: str | None, expected: bool
) -> None:
    """An application's own OPTIONS must reach it, and a POST must not slip past it."""
    assert is_preflight(method=method, origin=origin, requested_method=requested) is expected
