"""What an application may decide about its sessions: one frozen object, checked when it is made.

Three ways in, one meaning: keyword arguments, :meth:`Settings.from_mapping`, and
:meth:`Settings.from_environment` (the process's environment and a ``.env`` file). Whatever the way, every
value goes through :mod:`eyewall.settings_rules`, so that a wrong setting fails at start, by the name the
user wrote, with the fix, and never while serving.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, cast

from eyewall import settings_rules as rules
from eyewall.settings_sources import by_field, read_environment
from eyewall.settings_values import read_value
from eyewall.store_url import DEFAULT_FOLDER, masked_url

Secret = str | bytes | Mapping[int, str | bytes]
"""One secret, or several by version (the form Tornado's ``cookie_secret`` may have)."""

MASK: Final = "***"

_OF_PROFILE: Final = cast(timedelta, None)
"""Stands for the profile's limit, which takes its place before anybody sees it."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """Everything configurable about sessions. Defaults are safe for production over HTTPS.

    Text is understood as in an environment variable, so ``ttl="3600"`` and ``secure="yes"`` work; durations
    may be given in seconds, paths as text, origins as one comma-separated string or any list of strings.

    Raises:
        ConfigurationError: a value is malformed, or contradicts another one.

    >>> Settings(ttl=timedelta(minutes=15), name="__Host-shop").cookie_name(https=True)
    '__Host-shop'
    """

    # --- where the sessions are kept -----------------------------------------------------------------

    backend: str = ""
    """Kind of store: memory, file, redis, valkey, database, mongodb, cookie, or the name of an installed
    plug-in. Default: what ``url`` says, else ``file``, which needs no server and survives a restart."""

    url: str | None = None
    """Address of the store, e.g. ``redis://localhost:6379/0`` or ``file:///var/lib/shop/sessions``; it also
    decides the backend. Default: none. May hold a password, so it is shown masked."""

    host: str | None = None
    """Host of the store, where there is no ``url``. Default: the driver's, commonly localhost."""

    port: int | None = None
    """TCP port of the store, 1 to 65535, where there is no ``url``. Default: the driver's."""

    password: str | None = None
    """Password of the store, where there is no ``url``. Default: none. Never shown."""

    database: str | None = None
    """Name (MongoDB) or number (Redis, Valkey) of the database, where there is no ``url``.
    Default: the store's."""

    path: Path = DEFAULT_FOLDER
    """Folder of the file store and of its secret; a relative one starts at the working directory.
    Default: ``.eyewall``, so that a first start needs no decision."""

    migrate_from: str | None = None
    """Address of the store the sessions are in so far: they move to the one above as they are used, and
    nobody is signed out. Default: none. Shown masked."""

    encrypt: bool = False
    """Seal records on their way into the store (extra ``encryption``), with the keys that sign the cookie.
    Switching it on ends the sessions that lie there unsealed. Default: false."""

    store_timeout: timedelta = timedelta(seconds=1)
    """Longest wait for one call to the store (seconds). Default: 1 s, so that an outage is answered with a
    503 within two; drivers' own defaults were measured to stall for up to a minute."""

    max_size: int = 64 * 1024
    """Largest stored form of one session (bytes), 1 KiB to 16 MiB. Default: 64 KiB: each request reads it
    all, and what does not fit is better kept in a table of one's own (ASVS 15.2.2)."""

    # --- how long they live --------------------------------------------------------------------------

    profile: Literal["aal1", "aal2", "aal3"] | None = None
    """Hold the timeouts to an assurance level of NIST SP 800-63B-4 (sections 2.1.3, 2.2.3, 2.3.3): its limits
    become the defaults, and longer ones are refused. Default: none; the defaults are those of aal2."""

    ttl: timedelta = _OF_PROFILE
    """Idle timeout: longest silence before a session ends (seconds). Default: 1 h (NIST SP 800-63B-4
    section 2.2.3, AAL2; ASVS 7.3.1)."""

    absolute_ttl: timedelta = _OF_PROFILE
    """Absolute timeout: longest life of a session however busy (seconds), at most 400 days, the longest any
    browser keeps a cookie. Default: 24 h (NIST SP 800-63B-4 section 2.2.3, AAL2; ASVS 7.3.2)."""

    # --- signing in ----------------------------------------------------------------------------------

    remember_ttl: timedelta = _OF_PROFILE
    """How long a browser that was told to remember its user brings them back without asking (seconds), at
    most 400 days; 0 switches it off. Default: 30 days; off with aal3, which allows none."""

    max_sessions: int | None = None
    """Most sessions one principal may have at a time (ASVS 7.1.2). Default: none, no limit."""

    when_full: Literal["end-oldest", "refuse"] = "end-oldest"
    """What a sign-in beyond ``max_sessions`` does: end the device not seen for longest, or be refused.
    Default: end-oldest, so that nobody is locked out by a session left open elsewhere."""

    clear_site_data: bool = False
    """Tell the browser at sign-out to forget what it keeps of this site (ASVS 14.3.1). Default: false: it
    takes along the cookies and storage of every other application on the host."""

    # --- the cookie ----------------------------------------------------------------------------------

    cookie_secret: Secret | None = field(default=None, hash=False)  # a mapping cannot be hashed
    """The secret that signs the cookie: at least 32 bytes nobody can guess. Several, so that keys can be
    rotated: as text with commas between, newest first, or by version, the highest being the newest. Default:
    Tornado's ``cookie_secret``, else for the file store one made on first start. Never shown."""

    secret_file: Path | None = None
    """File with the secrets, one per line, newest first, instead of ``cookie_secret``; ``eyewall new-key``
    makes it and rotates it. Read at start, never made then. Default: none; the file store has its own in
    its folder."""

    name: str | None = None
    """Name of the cookie, used verbatim. Default: ``__Host-session`` where the cookie is Secure and
    ``session`` where it is not; see :meth:`cookie_name`. The prefix keeps subdomains and plain http from
    planting the cookie (RFC 6265bis 4.1.3, ASVS 3.3.1)."""

    secure: bool | Literal["auto"] = "auto"
    """Send the cookie over HTTPS only. Default: auto, Secure exactly when the request came by HTTPS, so
    that http://localhost works. Behind a proxy that hides HTTPS set it to true."""

    httponly: bool = True
    """Hide the cookie from JavaScript. Default: true (ASVS 3.3.4): a script that was smuggled in cannot
    carry the session away."""

    samesite: Literal["Lax", "Strict", "None"] = "Lax"
    """Whether other sites' pages send the cookie along. Default: Lax (ASVS 3.3.2): links from elsewhere
    arrive signed in, forms from elsewhere do not. None needs ``secure=True``."""

    domain: str | None = None
    """Share the cookie with this domain's subdomains. Default: none, only the very host (ASVS 3.3.3)."""

    cookie_path: str = "/"
    """URL path below which the cookie is sent. Default: ``/``; the ``__Host-`` prefix demands it, and a
    narrower path protects nothing (RFC 6265bis 8.6)."""

    partitioned: bool = False
    """Keep a separate cookie for each top-level site that embeds us (CHIPS). Default: false. Needs
    ``secure=True``."""

    # --- who may send requests -----------------------------------------------------------------------

    cross_origin_protection: bool = True
    """Refuse unsafe requests that a browser says come from another origin. Default: true (ASVS 3.5.1)."""

    trusted_origins: tuple[str, ...] = ()
    """Exact other origins (``https://app.example``, no wildcard) that may send unsafe requests.
    Default: none."""

    cors_origins: tuple[str, ...] = ()
    """Exact origins (``http://localhost:3000``) whose scripts may read our answers (CORS), or ``*`` for all,
    then without cookies. Default: none, and the application's own CORS headers are left alone."""

    cors_credentials: bool = False
    """Let the scripts of ``cors_origins`` send the visitor's cookies along. They may then send unsafe
    requests too, as ``trusted_origins`` may. Default: false."""

    cors_headers: tuple[str, ...] = ("Content-Type", "X-XSRFToken", "X-CSRFToken")
    """Request headers those scripts may set. Default: what sending JSON with a CSRF token needs."""

    cors_expose_headers: tuple[str, ...] = ()
    """Response headers those scripts may read beside the few that all may. Default: none."""

    strict: bool = False
    """Refuse where the default is lenient: unsafe requests to handlers with the mixin need a CSRF token, and
    a change to a session that ended meanwhile answers 409 instead of being dropped. Default: false."""

    spelling: InitVar[rules.Spelling] = str
    """How error messages spell a field's name; for ways in that are not keyword arguments."""

    def __post_init__(self, spelling: rules.Spelling) -> None:
        """Bring every value to its inner type, settle what follows from another, refuse contradictions."""
        for name in _FIELDS:
            self._settle(name, read_value(name, getattr(self, name), spelling(name)))
        self._take_profile(spelling)
        self._check_store(spelling)
        self._check_cookie(spelling)
        rules.check_one_secret(self.cookie_secret, self.secret_file, spelling)
        rules.check_cors(self.cors_origins, credentials=self.cors_credentials, spelled=spelling)
        rules.check_max_size(self.max_size, spelling)
        rules.check_timeouts(self.ttl, self.absolute_ttl, spelling)
        rules.check_sign_in(self.remember_ttl, self.max_sessions, spelling)
        rules.check_positive("store_timeout", self.store_timeout, spelling)

    def _settle(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the one way a frozen dataclass leaves to normalise

    def _take_profile(self, spelling: rules.Spelling) -> None:
        chosen = {name: getattr(self, name) for name in rules.PROFILE_FIELDS}
        for name, limit in rules.limits_of(self.profile, chosen, spelling).items():
            self._settle(name, limit)

    def _check_store(self, spelling: rules.Spelling) -> None:
        server = {name: getattr(self, name) for name in rules.SERVER_FIELDS}
        rules.check_address(self.url, server, spelling)
        self._settle("backend", rules.effective_backend(self.backend, self.url, spelling))
        self._settle("path", rules.effective_folder(self.path, self.url, self.backend, spelling))
        rules.check_server(self.backend, self.url, server, spelling)
        rules.check_port(self.port, spelling)
        rules.check_around(self.backend, self.url, self.migrate_from, encrypt=self.encrypt, spelled=spelling)

    def _check_cookie(self, spelling: rules.Spelling) -> None:
        rules.check_secure_only(
            secure=self.secure, samesite=self.samesite, partitioned=self.partitioned, spelled=spelling
        )
        rules.check_name_prefix(
            self.name or "",
            secure=self.secure,
            httponly=self.httponly,
            domain=self.domain,
            cookie_path=self.cookie_path,
            spelled=spelling,
        )

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> Settings:
        """Make settings from a mapping of field names to values, such as a part of a TOML file.

        Raises:
            ConfigurationError: also for a name that is no setting; says which one was probably meant.
        """
        return cls(**by_field(mapping, {name: name for name in _FIELDS}))

    @classmethod
    def from_environment(
        cls,
        prefix: str = "EYEWALL_",
        environ: Mapping[str, str] | None = None,
        dotenv: str | os.PathLike[str] | None = ".env",
    ) -> Settings:
        """Make settings from variables named ``prefix`` + field in capitals, e.g. ``EYEWALL_TTL``.

        The environment wins over the ``.env`` file; blank values count as unset; ``DATABASE_URL`` serves
        as ``url`` when the backend is ``database`` and nothing else says where that is. With
        ``prefix="TINA4_SESSION_"`` the ``.env`` of a Tina4 application works as it is.

        Args:
            prefix: what our variables begin with. Others are ignored; unknown ones with it are refused.
            environ: the variables; the process's own unless given.
            dotenv: a file of further variables; skipped when it is missing, None, or has none of ours.

        Raises:
            ConfigurationError: the message names the variable as it was written.
            MissingDriverError: the ``.env`` file is ours to read, but python-dotenv is not installed.
        """
        variables = os.environ if environ is None else environ
        texts, spelling = read_environment(prefix, variables, dotenv, _FIELDS)
        values: dict[str, Any] = {**texts}
        return cls(**values, spelling=spelling)

    @property
    def senders(self) -> tuple[str, ...]:
        """The other origins that may send unsafe requests, cookies included.

        ``trusted_origins``, and those of ``cors_origins`` with ``cors_credentials``: whoever may read a
        visitor's pages, CSRF tokens included, is not kept from posting by anything.
        """
        return self.trusted_origins + (self.cors_origins if self.cors_credentials else ())

    def cookie_secure(self, https: bool) -> bool:  # noqa: FBT001 - reads as a question
        """Return whether the cookie carries ``Secure`` in the answer to a request that came by ``https``.

        A ``name`` with a prefix promises it; over plain http browsers then keep it on localhost at most.
        """
        promised = self.name is not None and self.name.startswith(rules.NAME_PREFIXES)
        return https or promised if self.secure == "auto" else self.secure

    def cookie_name(self, https: bool) -> str:  # noqa: FBT001 - as cookie_secure
        """Return the cookie's name in the answer to a request that came by ``https``, or by plain http.

        An explicit ``name`` is used verbatim. Else it has the strongest prefix that browsers accept beside
        the other settings, because they drop a prefixed cookie that breaks its prefix's rules.
        """
        if self.name is not None:
            return self.name
        if not self.cookie_secure(https):
            return "session"
        host_bound = self.domain is None and self.cookie_path == "/"
        return "__Host-session" if host_bound else "__Secure-session"

    def describe(self) -> dict[str, str]:
        """Return every effective setting as text, secrets masked: fit for a log or an operator's page."""
        described = {name: _shown(name, getattr(self, name)) for name in _FIELDS}
        if self.backend != "file":
            described["path"] = "not used"
        if self.name is None:
            described["name"] = f"{self.cookie_name(True)} (https), {self.cookie_name(False)} (http)"
        return described

    def __repr__(self) -> str:
        """Like :meth:`describe`: a repr ends up in logs and tracebacks (ASVS 16.2.5)."""
        return f"Settings({', '.join(f'{name}={value}' for name, value in self.describe().items())})"


_FIELDS: Final = tuple(each.name for each in dataclasses.fields(Settings))


def _shown(name: str, value: object) -> str:
    if value is None:
        return "not set"
    if name in ("cookie_secret", "password"):
        return MASK
    if name in ("url", "migrate_from"):
        return masked_url(str(value))
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.10g} s"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return str(value)
