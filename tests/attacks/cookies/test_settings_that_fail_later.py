"""Settings that are taken at start and break every request, raise raw errors, or show a secret."""

from __future__ import annotations

from typing import Any

import pytest
from tornado.web import Application

from eyewall import ConfigurationError, Sessions, Settings
from tests.tornado.site import SECRET


def _bound(**options: Any) -> Sessions:
    sessions = Sessions(backend="memory", cookie_secret=SECRET, **options)
    sessions.bind(Application())
    return sessions


@pytest.mark.parametrize("name", ["__Host-shop", "__Secure-shop", "__Http-shop", "__Host-Http-shop"])
def test_a_prefixed_name_works_without_a_word_about_secure(name: str) -> None:
    """Harm: EYEWALL_NAME=__Host-shop, as the questions advise it, answers each request with a 500."""
    sessions = _bound(name=name)
    for https in (True, False):
        session = sessions.open([], https=https)
        session.destroy()
        assert sessions.cookie_name(https=https) == name
        assert sessions.settings.cookie_secure(https)


@pytest.mark.parametrize(
    "options",
    [
        {"domain": ".example.com"},
        {"domain": "a..example"},
        {"domain": "a-.example"},
        {"domain": "x" * 64 + ".example"},
        {"name": "x" * 4000},
        {"name": "__http-x"},
        {"name": "__Http-x", "httponly": False},
        {"trusted_origins": "https://app.example."},
        {"trusted_origins": "https://app..example"},
        {"trusted_origins": "https://app.example:99999"},
        {"trusted_origins": "https://app.example:0443"},
        {"path": "~no-such-user/x", "backend": "file"},
        {"secret_file": "~no-such-user/x"},
    ],
    ids=lambda options: "-".join(f"{name}={value}"[:30] for name, value in options.items()),
)
def test_what_can_never_work_is_refused_at_start_by_its_name(options: dict[str, object]) -> None:
    """Harm: the server starts, and each request is a 500, or a setting never takes effect."""
    with pytest.raises(ConfigurationError, match=next(iter(options)).upper()):
        Settings.from_environment(
            environ={f"EYEWALL_{name.upper()}": str(value) for name, value in options.items()}, dotenv=None
        )


@pytest.mark.parametrize("url", ["redis:hunter2@host/?x=://", "redis:hunter2://h"])
def test_an_address_without_a_scheme_is_refused_unseen(url: str) -> None:
    """Harm: what stands before "://" is shown unmasked, and a password may stand there."""
    with pytest.raises(ConfigurationError) as refusal:
        Settings(url=url)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("given", ["redis://:hunter2@host/0", {"cookie_secret": "hunter2" * 6}])
def test_a_wrong_sessions_setting_is_refused_unseen(given: object) -> None:
    """Harm: Application(sessions="redis://:password@...") writes the password into the log, per request."""
    with pytest.raises(ConfigurationError) as refusal:
        Sessions.serving(Application(sessions=given))
    assert "hunter2" not in str(refusal.value)
