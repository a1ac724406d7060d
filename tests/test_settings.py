"""Settings: safe as they are, understood whatever way they come, and never wrong in silence."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.errors import ConfigurationError
from eyewall.settings import Settings

TINA4: Final = "TINA4_SESSION_"
CANARY: Final = "c4n4ry-Zq3vT7yB"


def from_environment(environ: dict[str, str], **options: Any) -> Settings:
    """Read ``environ`` alone: no ``.env`` of the machine the tests run on."""
    return Settings.from_environment(environ=environ, **{"dotenv": None, **options})


# --- defaults -------------------------------------------------------------------------------------------


def test_defaults_are_safe_for_production() -> None:
    """A developer who decides nothing would otherwise ship a cookie that can be stolen."""
    settings = Settings()
    assert settings.backend == "file"
    assert settings.path == Path(".eyewall")
    assert (settings.ttl, settings.absolute_ttl) == (timedelta(hours=1), timedelta(hours=24))
    assert (settings.httponly, settings.samesite, settings.domain, settings.cookie_path) == (
        True,
        "Lax",
        None,
        "/",
    )
    assert settings.cross_origin_protection
    assert settings.trusted_origins == ()
    assert settings.max_size == 65536
    assert settings.store_timeout == timedelta(seconds=1)


def test_settings_cannot_change_after_they_were_checked() -> None:
    """An assignment that skips the checks would let an unsafe value in while serving."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().httponly = False  # type: ignore[misc]


def test_a_secret_mapping_changed_later_does_not_change_the_settings() -> None:
    """Dropping a key from one's own dict must not sign people out at some later moment."""
    secrets = {1: b"old", 2: b"new"}
    settings = Settings(cookie_secret=secrets)
    del secrets[1]
    assert settings.cookie_secret == {1: b"old", 2: b"new"}


def test_settings_can_be_copied_with_one_change() -> None:
    """What was settled from the URL must not look like a contradiction the second time."""
    settings = Settings(url="file:///srv/sessions", trusted_origins=("https://a.example",))
    copy = dataclasses.replace(settings, ttl=timedelta(minutes=5))
    assert copy == Settings(
        url="file:///srv/sessions", trusted_origins=("https://a.example",), ttl=timedelta(minutes=5)
    )


def test_equal_settings_are_one_key_even_with_several_secrets() -> None:
    """Settings with a mapping inside must still be usable as a key."""
    assert len({Settings(cookie_secret={1: "a"}), Settings(cookie_secret={1: "a"})}) == 1


# --- the cookie's name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "on_https", "on_http"),
    [
        ({}, "__Host-session", "session"),
        ({"secure": True}, "__Host-session", "__Host-session"),
        ({"secure": False}, "session", "session"),
        ({"domain": "example.com"}, "__Secure-session", "session"),
        ({"cookie_path": "/shop"}, "__Secure-session", "session"),
        ({"name": "tina4_session"}, "tina4_session", "tina4_session"),
    ],
)
def test_the_name_has_the_strongest_prefix_browsers_accept(
    options: dict[str, Any], on_https: str, on_http: str
) -> None:
    """A browser drops a cookie that breaks its prefix's rules: nobody could stay signed in."""
    settings = Settings(**options)
    assert (settings.cookie_name(https=True), settings.cookie_name(https=False)) == (on_https, on_http)


# --- ways in --------------------------------------------------------------------------------------------


def test_every_field_can_come_from_the_environment() -> None:
    """A field forgotten in one way in could be set in development only."""
    environ = {
        "EYEWALL_BACKEND": "redis",
        "EYEWALL_HOST": "db.internal",
        "EYEWALL_PORT": "6380",
        "EYEWALL_PASSWORD": "pass word",
        "EYEWALL_DATABASE": "3",
        "EYEWALL_MIGRATE_FROM": "sqlite:///old.db",
        "EYEWALL_ENCRYPT": "yes",
        "EYEWALL_STORE_TIMEOUT": "0.5",
        "EYEWALL_MAX_SIZE": "2048",
        "EYEWALL_TTL": "60",
        "EYEWALL_ABSOLUTE_TTL": "120",
        "EYEWALL_COOKIE_SECRET": "s",
        "EYEWALL_NAME": "__Secure-shop",
        "EYEWALL_SECURE": "yes",
        "EYEWALL_HTTPONLY": "OFF",
        "EYEWALL_SAMESITE": "sTRICT",
        "EYEWALL_DOMAIN": "example.com",
        "EYEWALL_COOKIE_PATH": "/shop",
        "EYEWALL_PARTITIONED": "1",
        "EYEWALL_CROSS_ORIGIN_PROTECTION": "no",
        "EYEWALL_TRUSTED_ORIGINS": "https://a.example, http://localhost:8888,",
        "EYEWALL_CORS_ORIGINS": "https://a.example, http://localhost:3000",
        "EYEWALL_CORS_CREDENTIALS": "true",
        "EYEWALL_CORS_HEADERS": "Content-Type, X-Page",
        "EYEWALL_CORS_EXPOSE_HEADERS": "ETag",
        "EYEWALL_STRICT": "true",
        "EYEWALL_PROFILE": "AAL2",
        "EYEWALL_REMEMBER_TTL": "86400",
        "EYEWALL_MAX_SESSIONS": "3",
        "EYEWALL_WHEN_FULL": "refuse",
        "EYEWALL_CLEAR_SITE_DATA": "yes",
    }
    expected = Settings(
        backend="redis",
        host="db.internal",
        port=6380,
        password="pass word",
        database="3",
        migrate_from="sqlite:///old.db",
        encrypt=True,
        store_timeout=timedelta(milliseconds=500),
        max_size=2048,
        ttl=timedelta(minutes=1),
        absolute_ttl=timedelta(minutes=2),
        cookie_secret="s",
        name="__Secure-shop",
        secure=True,
        httponly=False,
        samesite="Strict",
        domain="example.com",
        cookie_path="/shop",
        partitioned=True,
        cross_origin_protection=False,
        trusted_origins=("https://a.example", "http://localhost:8888"),
        cors_origins=("https://a.example", "http://localhost:3000"),
        cors_credentials=True,
        cors_headers=("Content-Type", "X-Page"),
        cors_expose_headers=("ETag",),
        strict=True,
        profile="aal2",
        remember_ttl=timedelta(days=1),
        max_sessions=3,
        when_full="refuse",
        clear_site_data=True,
    )
    assert from_environment(environ) == expected
    covered = {name.removeprefix("EYEWALL_").lower() for name in environ} | {"url", "path", "secret_file"}
    assert covered == {field.name for field in dataclasses.fields(Settings)}
    assert from_environment({"EYEWALL_PATH": "/srv/s"}) == Settings(path=Path("/srv/s"))
    assert from_environment({"EYEWALL_SECRET_FILE": "/srv/k"}) == Settings(secret_file=Path("/srv/k"))
    assert from_environment({"EYEWALL_URL": "memory://"}) == Settings(backend="memory", url="memory://")


def test_a_mapping_means_what_the_same_keywords_mean() -> None:
    """A part of a TOML file has numbers, booleans and lists rather than text."""
    options = {"ttl": 60, "secure": True, "trusted_origins": ["https://a.example"], "path": "/srv/s"}
    assert Settings.from_mapping(options) == Settings(
        ttl=timedelta(seconds=60), secure=True, trusted_origins=("https://a.example",), path=Path("/srv/s")
    )


@pytest.mark.parametrize(
    ("profile", "limits"),
    [
        ("aal1", (timedelta(days=30), timedelta(days=30), timedelta(days=30))),
        ("aal2", (timedelta(hours=1), timedelta(hours=24), timedelta(days=30))),
        ("aal3", (timedelta(minutes=15), timedelta(hours=12), timedelta(0))),
    ],
)
def test_a_profile_brings_the_limits_of_its_assurance_level(
    profile: Literal["aal1", "aal2", "aal3"], limits: tuple[timedelta, ...]
) -> None:
    """Who names a level must get it without looking up three numbers."""
    settings = Settings(profile=profile)
    assert (settings.ttl, settings.absolute_ttl, settings.remember_ttl) == limits
    assert Settings(profile=profile, ttl=timedelta(minutes=1)).ttl == timedelta(minutes=1)


def test_blank_variables_count_as_unset() -> None:
    """Compose files and CI systems pass empty variables for what nobody has set."""
    assert from_environment({"EYEWALL_TTL": "", "EYEWALL_PASSWORD": "  "}) == Settings()


def test_other_variables_are_none_of_our_business() -> None:
    """An application's other variables must not stop it from starting."""
    assert (
        from_environment({"PATH": "/bin", "TINA4_DEBUG": "true", "DATABASE_URL": "postgres://x"})
        == Settings()
    )


def test_a_tina4_env_file_works_unchanged(tmp_path: Path) -> None:
    """Moving from Tina4 must not begin with renaming settings."""
    dotenv = tmp_path / ".env"
    dotenv.write_text(
        "TINA4_DEBUG=true\nTINA4_SESSION_BACKEND=redis\nTINA4_SESSION_HOST=localhost\n"
        "TINA4_SESSION_PORT=6379\nTINA4_SESSION_PASSWORD=\nTINA4_SESSION_TTL=3600 # 1 hour\n"
        "TINA4_SESSION_NAME=tina4_session\nTINA4_SESSION_SECURE=true\nTINA4_SESSION_HTTPONLY=true\n"
        "TINA4_SESSION_SAMESITE=Lax\n"
    )
    settings = Settings.from_environment(TINA4, environ={}, dotenv=dotenv)
    assert settings == Settings(
        backend="redis", host="localhost", port=6379, name="tina4_session", secure=True
    )


def test_tina4_database_sessions_use_the_database_url(tmp_path: Path) -> None:
    """Tina4 keeps them in the application's own database, which DATABASE_URL names."""
    for environ, file in [
        ({f"{TINA4}BACKEND": "database", "DATABASE_URL": "sqlite:///shop.db"}, ""),
        ({f"{TINA4}BACKEND": "database"}, "DATABASE_URL=sqlite:///shop.db\n"),
        ({}, f"{TINA4}BACKEND=database\nDATABASE_URL=sqlite:///shop.db\n"),
    ]:
        (tmp_path / ".env").write_text(file)
        settings = Settings.from_environment(TINA4, environ=environ, dotenv=tmp_path / ".env")
        assert (settings.backend, settings.url) == ("database", "sqlite:///shop.db")


def test_the_environment_wins_over_the_env_file(tmp_path: Path) -> None:
    """An operator's override must not lose against a file in the image."""
    (tmp_path / ".env").write_text("EYEWALL_TTL=1\nEYEWALL_MAX_SIZE=2048\n")
    settings = Settings.from_environment(environ={"EYEWALL_TTL": "60"}, dotenv=tmp_path / ".env")
    assert (settings.ttl, settings.max_size) == (timedelta(seconds=60), 2048)


WITHOUT_DOTENV: Final = """
import sys
sys.modules["dotenv"] = None  # as if it were not installed
from eyewall.settings import Settings
try:
    print(Settings.from_environment(environ={}, dotenv=sys.argv[1]).ttl)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_python_dotenv_is_needed_only_for_an_env_file_of_ours(tmp_path: Path) -> None:
    """A stranger's .env must not demand a library; our own must not be ignored in silence."""

    def run(text: str) -> str:
        (tmp_path / ".env").write_text(text)
        command = [sys.executable, "-c", WITHOUT_DOTENV, str(tmp_path / ".env")]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run("DJANGO_DEBUG=1\n") == "1:00:00\n"
    answer = run("EYEWALL_TTL=60\n")
    assert answer.startswith("MissingDriverError")
    assert "pip install 'eyewall[dotenv]'" in answer
    assert "export" in answer


@pytest.mark.parametrize("content", [b"EYEWALL_TTL=\xff\xfe60\n", b"\xff\xfeE\x00Y\x00"])
def test_an_env_file_that_is_not_text_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    """A file saved in another encoding would lose every setting in silence."""
    (tmp_path / "odd.env").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"odd\.env cannot be read"):
        Settings.from_environment(environ={}, dotenv=tmp_path / "odd.env")


def test_a_missing_env_file_or_a_folder_of_that_name_is_no_error(tmp_path: Path) -> None:
    """Production has no .env; some machines have a virtual environment called so."""
    assert Settings.from_environment(environ={}, dotenv=tmp_path / "none") == Settings()
    assert Settings.from_environment(environ={}, dotenv=tmp_path) == Settings()


# --- wrong settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "fix"),
    [
        ({"EYEWALL_SAMSITE": "Lax"}, "did you mean EYEWALL_SAMESITE"),
        ({"EYEWALL_TTLL": "60"}, "did you mean EYEWALL_TTL"),
        ({"EYEWALL_ttl": "60"}, "unknown setting EYEWALL_ttl"),
        ({"EYEWALL_XYZZY": "1"}, "known are EYEWALL_BACKEND, "),
        ({"EYEWALL_SPELLING": "1"}, "unknown setting EYEWALL_SPELLING"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_one_probably_meant(
    environ: dict[str, str], fix: str
) -> None:
    """A typing error in a security setting would leave it off, and nobody would know."""
    with pytest.raises(ConfigurationError, match=fix):
        from_environment(environ)


def test_an_unknown_key_of_a_mapping_is_refused_with_the_one_probably_meant() -> None:
    """As with variables, a typing error must not pass."""
    with pytest.raises(ConfigurationError, match="unknown setting samsite; did you mean samesite"):
        Settings.from_mapping({"samsite": "Lax"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samesite": "None"}, r"samesite=None needs secure=true"),
        ({"samesite": "none", "secure": False}, r"samesite=None needs secure=true"),
        ({"partitioned": True}, r"partitioned=true needs secure=true"),
        ({"name": "__Host-s", "domain": "example.com"}, r"__Host-s.* and domain="),
        ({"name": "__Host-s", "cookie_path": "/a"}, r"__Host-s.* and cookie_path='/a'"),
        ({"name": "__Host-s", "secure": False}, r"__Host-s.* and secure=false"),
        ({"name": "__Secure-s", "secure": False}, r"__Secure-s.* and secure=false"),
        ({"name": "__host-s"}, r"name='__host-s' must spell its prefix exactly '__Host-'"),
        ({"ttl": 0}, r"ttl must be longer than 0"),
        ({"remember_ttl": -1}, r"remember_ttl .* out of range"),
        ({"remember_ttl": timedelta(days=401)}, r"remember_ttl .* 400 days"),
        ({"max_sessions": 0}, r"max_sessions=0 is out of range"),
        ({"when_full": "panic"}, r"when_full='panic' is none of end-oldest, refuse"),
        ({"profile": "aal4"}, r"profile='aal4' is none of aal1, aal2, aal3"),
        ({"profile": "aal2", "ttl": 3601}, r"ttl .* longer than profile=aal2 allows"),
        ({"profile": "aal3", "remember_ttl": 60}, r"remember_ttl .* longer than profile=aal3 allows"),
        ({"ttl": timedelta(seconds=-1)}, r"ttl must be longer than 0"),
        ({"absolute_ttl": 0}, r"absolute_ttl must be longer than 0"),
        ({"store_timeout": 0}, r"store_timeout must be longer than 0"),
        ({"ttl": 90000}, r"ttl .* is longer than absolute_ttl .* lower ttl"),
        ({"absolute_ttl": timedelta(days=401)}, r"absolute_ttl .* 400 days"),
        ({"port": 0, "backend": "redis"}, r"port=0 .* 1 to 65535"),
        ({"port": 65536, "backend": "redis"}, r"port=65536 .* 1 to 65535"),
        ({"max_size": 1023}, r"max_size=1023 .* 1024 to 16777216"),
        ({"max_size": 16 * 1024 * 1024 + 1}, r"max_size=16777217 .* 1024 to 16777216"),
        ({"url": "redis://h", "port": 1}, r"url and port both say where the store is"),
        ({"url": "redis://h", "host": "h", "password": "p"}, r"url and host, password both say"),
        (
            {"url": "redis://h", "backend": "file"},
            r"backend='file' contradicts url='redis://h', which is redis",
        ),
        ({"url": "sqlite:///x", "backend": "mongodb"}, r"contradicts .* which is database"),
        ({"url": "rediss://h", "path": "/srv"}, r"path is the folder of the file store, .* is redis"),
        ({"url": "file:///srv/a", "path": "/srv/b"}, r"path and url name different folders"),
        ({"url": "file://srv/a"}, r"url names no absolute folder; write file:///"),
        ({"url": "reddis://h"}, r"url has a scheme no store knows; did you mean redis"),
        ({"url": "localhost:6379"}, r"url is not a URL"),
        ({"backend": "reddis"}, r"backend='reddis' is no store; did you mean redis\?"),
        ({"backend": "database"}, r"needs url \(or the variable DATABASE_URL\)"),
        ({"host": "db.internal"}, r"host says where a server is, but the file backend has none"),
        ({"backend": "memory", "database": "x"}, r"database says where .* memory backend has none"),
    ],
)
def test_contradictions_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    """Of two settings that contradict, one is not in force, and it is the one somebody relies on."""
    with pytest.raises(ConfigurationError, match=message):
        Settings(**options)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TTL", "soon", "EYEWALL_TTL='soon' is not a number of seconds"),
        ("TTL", "nan", "EYEWALL_TTL='nan' is not a number of seconds"),
        ("TTL", "inf", "EYEWALL_TTL='inf' is not a number of seconds"),
        ("TTL", "-5", "EYEWALL_TTL must be longer than 0 seconds"),
        ("TTL", "604800", "lower EYEWALL_TTL, or raise EYEWALL_ABSOLUTE_TTL"),
        ("PORT", "6379a", "EYEWALL_PORT='6379a' is not a whole number"),
        ("HTTPONLY", "maybe", "EYEWALL_HTTPONLY='maybe' is neither true nor false"),
        ("SECURE", "sometimes", "EYEWALL_SECURE='sometimes' is neither auto, true nor false"),
        ("SAMESITE", "Relaxed", "EYEWALL_SAMESITE='Relaxed' is neither Lax, Strict nor None"),
        ("SAMESITE", "None", "EYEWALL_SAMESITE=None needs EYEWALL_SECURE=true"),
        ("NAME", "my session", "EYEWALL_NAME='my session' is not a cookie name"),
        ("DOMAIN", "https://example.com", "EYEWALL_DOMAIN='https://example.com' is not a domain"),
        ("COOKIE_PATH", "shop", "EYEWALL_COOKIE_PATH='shop' is not a URL path"),
        ("URL", "carrier://pigeon", "EYEWALL_URL has a scheme no store knows"),
    ],
)
def test_errors_call_a_setting_what_the_user_called_it(variable: str, value: str, message: str) -> None:
    """An operator who set EYEWALL_TTL searches the deployment for that, not for a Python name."""
    with pytest.raises(ConfigurationError) as caught:
        from_environment({f"EYEWALL_{variable}": value})
    assert message in str(caught.value)


def test_errors_name_the_database_url_when_that_was_used() -> None:
    """A bad DATABASE_URL is not mended by looking for a TINA4_SESSION_URL that nobody set."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL has a scheme no store knows"):
        from_environment({f"{TINA4}BACKEND": "database", "DATABASE_URL": "oracle://x"}, prefix=TINA4)


@pytest.mark.parametrize(
    "origin",
    [
        "https://a.example/",
        "https://a.example/login",
        "https://user@a.example",
        "https://A.example",
        "https://*.example",
        "https://a.example:",
        "https://a.example:port",
        "https://a.example\n",
        "https://",
        "https:a.example",
        "a.example",
        "null",
        "*",
        "",
        7,
    ],
)
def test_a_trusted_origin_is_exactly_an_origin(origin: Any) -> None:
    """A value that looks like an origin but never equals one trusts nobody, or too many."""
    with pytest.raises(ConfigurationError, match="trusted_origins"):
        Settings(trusted_origins=(origin,))


def test_a_default_port_is_spelled_as_browsers_spell_it() -> None:
    """A browser leaves it out, so an origin with it would never be recognised."""
    settings = Settings(trusted_origins=("https://a.example:443", "http://b.example:80"))
    assert settings.trusted_origins == ("https://a.example", "http://b.example")
    assert Settings(trusted_origins=("http://b.example:443",)).trusted_origins == ("http://b.example:443",)


# --- several keys ----------------------------------------------------------------------------------------

NEWER: Final = "Zq3vT7yB1nM5kJ9hG2fD4sA6pO8iU0wE"
OLDER: Final = "mR8cX2bN6vL0zQ4wE9tY3uI7oP1aS5dF"


def test_commas_separate_secrets_newest_first() -> None:
    """A platform that configures by variables alone could not rotate without signing everybody out."""
    expected = {2: NEWER, 1: OLDER}
    assert from_environment({"EYEWALL_COOKIE_SECRET": f"{NEWER}, {OLDER},"}).cookie_secret == expected
    assert Settings(cookie_secret=f"{NEWER},{OLDER}").cookie_secret == expected


@pytest.mark.parametrize(
    "text", ["correct,horse,battery,staple,correct,horse", f"{NEWER},short", ",,,", f"a,{NEWER}"]
)
def test_a_secret_with_a_comma_of_its_own_is_refused_with_the_fix(text: str) -> None:
    """Taking its first half for the secret would weaken it in silence."""
    with pytest.raises(ConfigurationError, match=r"cookie_secret has a comma.*as bytes") as caught:
        Settings(cookie_secret=text)
    assert text not in str(caught.value)
    assert Settings(cookie_secret=text.encode()).cookie_secret == text.encode()


def test_a_secret_and_a_secret_file_contradict() -> None:
    """Rotating the one that is not read changes nothing, and nobody notices."""
    with pytest.raises(ConfigurationError, match="EYEWALL_COOKIE_SECRET and EYEWALL_SECRET_FILE both say"):
        from_environment({"EYEWALL_COOKIE_SECRET": NEWER, "EYEWALL_SECRET_FILE": "/srv/k"})


# --- CORS ------------------------------------------------------------------------------------------------


def test_every_site_with_credentials_is_refused_with_the_fix() -> None:
    """Every site a visitor opens could read their pages and act as them."""
    with pytest.raises(ConfigurationError, match=r"_ORIGINS=\* contradict.*list the exact origins"):
        from_environment({"EYEWALL_CORS_ORIGINS": "*", "EYEWALL_CORS_CREDENTIALS": "true"})


def test_credentials_for_nobody_are_refused_with_the_fix() -> None:
    """Half of the configuration works for nobody, and the browser does not say why."""
    with pytest.raises(ConfigurationError, match=r"cors_credentials=true.*while cors_origins is empty"):
        Settings(cors_credentials=True)


def test_every_site_without_credentials_is_allowed() -> None:
    """A public API has nothing to hide from scripts."""
    for everyone in ("*", ("*",), ["*"]):
        assert Settings.from_mapping({"cors_origins": everyone}).cors_origins == ("*",)


@pytest.mark.parametrize("origins", ["null", "https://*.example", "*, https://a.example", "a.b", 7, [None]])
def test_a_cors_origin_is_exactly_an_origin(origins: Any) -> None:
    """``null`` is every sandboxed frame, and a pattern is always one origin too wide."""
    with pytest.raises(ConfigurationError, match="cors_origins"):
        Settings(cors_origins=origins)


@pytest.mark.parametrize("names", ["*", "X-Page\r\nSet-Cookie: a=b", ["X Page"], [7], 7])
def test_a_cors_header_is_a_header_name(names: Any) -> None:
    """The list is sent as it stands: it must not bring a header of its own."""
    for field in ("cors_headers", "cors_expose_headers"):
        with pytest.raises(ConfigurationError, match=field):
            Settings(**{field: names})


def test_who_may_read_with_cookies_may_send_and_nobody_else() -> None:
    """A page that may not use cookies must not be able to post with them."""
    origins = {"trusted_origins": "https://a.example", "cors_origins": "https://b.example"}
    assert Settings(**origins).senders == ("https://a.example",)  # type: ignore[arg-type]
    both = Settings(**origins, cors_credentials=True)  # type: ignore[arg-type]
    assert both.senders == ("https://a.example", "https://b.example")
    assert dataclasses.replace(both, cors_origins=(), cors_credentials=False).senders == (
        "https://a.example",
    )


TEXT_FIELDS: Final = ("backend", "url", "host", "name", "domain", "cookie_path", "database", "path")


@given(
    field=st.sampled_from(TEXT_FIELDS),
    before=st.text(max_size=8),
    bad=st.sampled_from(["\r", "\n", "\0", "\r\nSet-Cookie: a=b"]),
    after=st.text(max_size=8),
)
def test_no_setting_takes_control_characters(field: str, before: str, bad: str, after: str) -> None:
    """A line break in a cookie attribute writes headers of its own (Tornado GHSA-78cv-mqj4-43f7)."""
    with pytest.raises(ConfigurationError, match=field):
        Settings.from_mapping({field: f"{before}{bad}{after}"})


@given(
    field=st.sampled_from([field.name for field in dataclasses.fields(Settings)]),
    value=st.one_of(st.none(), st.integers(), st.floats(), st.text(), st.binary(), st.lists(st.text())),
)
def test_any_value_is_either_a_setting_or_a_clear_error(field: str, value: Any) -> None:
    """A traceback out of the depths tells nobody which setting to mend."""
    try:
        Settings(**{field: value})
    except ConfigurationError as error:
        assert field in str(error)  # noqa: PT017 - some of the values are right


# --- secrets stay secret --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"cookie_secret": CANARY},
        {"cookie_secret": {1: CANARY, 2: CANARY.encode()}},
        {"backend": "redis", "password": CANARY},
        {"url": f"redis://:{CANARY}@h/0"},
        {"url": f"redis://user:p@{CANARY}@h/0"},
        {"url": f"mongodb://u:a/{CANARY}@h1,h2/db?tls=true"},
        {"url": f"postgresql://u:{CANARY}?x@h/db"},
        {"url": f"rediss://h/0?password={CANARY}"},
        {"url": f"rediss://h/0?x=a@b&password={CANARY}"},
    ],
)
def test_no_text_form_of_settings_shows_a_secret(options: dict[str, Any]) -> None:
    """A repr ends up in logs and error trackers, where more people read than know the secret."""
    settings = Settings(**options)
    for shown in (repr(settings), str(settings), str(settings.describe())):
        assert CANARY not in shown
        assert "***" in shown


@pytest.mark.parametrize(
    "options",
    [
        {"url": f"redis://:{CANARY}@h/0", "backend": "file"},
        {"url": f"oracle://:{CANARY}@h/0"},
        {"url": f"file://u:{CANARY}@h/0"},
        {"url": f"redis:{CANARY}@h"},
        {"url": f"redis://:{CANARY}@h\x07"},
        {"password": CANARY, "backend": "file"},
        {"password": [CANARY]},
        {"cookie_secret": [CANARY]},
        {"cookie_secret": {}, "password": CANARY},
    ],
)
def test_no_error_repeats_a_secret(options: dict[str, Any]) -> None:
    """The message of a start that failed is pasted into tickets and chats."""
    with pytest.raises(ConfigurationError) as caught:
        Settings(**options)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_describe_tells_every_effective_setting() -> None:
    """An operator must see what is in force, not only what was set (ASVS 7.1.1)."""
    described = Settings(url="file:///srv/s", ttl=timedelta(minutes=5)).describe()
    assert set(described) == {field.name for field in dataclasses.fields(Settings)}
    assert described["path"] == "/srv/s"
    assert described["ttl"] == "300 s"
    assert described["name"] == "__Host-session (https), session (http)"
    assert described["cookie_secret"] == "not set"
    assert Settings(backend="memory").describe()["path"] == "not used"


# --- the store's URL ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("memory://", "memory"),
        ("file:///srv/sessions", "file"),
        ("redis://h", "redis"),
        ("rediss://h", "redis"),
        ("redis+sentinel://h/main", "redis"),
        ("redis+cluster://h", "redis"),
        ("unix:///run/redis.sock", "redis"),
        ("valkey://h", "valkey"),
        ("VALKEYS://h", "valkey"),
        ("sqlite:///s.db", "database"),
        ("postgresql://h/db", "database"),
        ("postgres://h/db", "database"),
        ("mysql://h/db", "database"),
        ("mariadb://h/db", "database"),
        ("mongodb://h1,h2/db", "mongodb"),
        ("mongodb+srv://h/db", "mongodb"),
    ],
)
def test_the_url_decides_the_backend(url: str, backend: str) -> None:
    """One variable must be enough: hosting services give a URL and nothing else."""
    assert Settings(url=url).backend == backend
    assert Settings(url=url, backend=backend).backend == backend


def test_a_redis_url_may_lead_to_valkey() -> None:
    """Valkey's own guides write redis:// URLs."""
    assert Settings(url="redis://h", backend="valkey").backend == "valkey"


@pytest.mark.parametrize(
    ("url", "folder"),
    [("file:///srv/my%20shop", "/srv/my shop"), ("file://localhost/srv/s", "/srv/s")],
)
def test_a_file_url_names_the_folder(url: str, folder: str) -> None:
    """Sessions kept in another folder than the one asked for would be lost at the next deployment."""
    assert Settings(url=url).path == Path(folder)


def test_variables_that_steer_the_test_suite_are_no_settings() -> None:
    """CI exports them for the whole run; an application started there must still start."""
    environ = {"EYEWALL_REQUIRE_SERVERS": "all", "EYEWALL_TEST_REDIS7_URL": "redis://x"}
    assert Settings.from_environment(environ=environ, dotenv=None) == Settings()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"backend": "cookie", "encrypt": True}, "encrypt needs sessions in a store"),
        ({"backend": "cookie", "migrate_from": "redis://old"}, "migrate_from needs sessions in a store"),
        ({"migrate_from": "memory://"}, "no store that sessions can be left in"),
        ({"url": "redis://a", "migrate_from": "redis://a"}, "are the same"),
    ],
)
def test_what_cannot_be_put_around_a_store_is_refused(options: dict[str, Any], complaint: str) -> None:
    """A migration from nowhere would look like one that is done."""
    with pytest.raises(ConfigurationError, match=complaint):
        Settings(**options)


def test_the_address_migrated_from_is_shown_without_its_password() -> None:
    """It is as secret as the one migrated to."""
    assert "hunter2" not in repr(Settings(migrate_from="redis://:hunter2@old"))
