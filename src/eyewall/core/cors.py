"""Which other origins' scripts may read our answers, and with cookies or without (CORS).

Browsers ask by ``Origin``, and before anything but the simplest request by a preflight: an OPTIONS request
that carries no cookies (Fetch standard, 3.3). The answer here is yes to an exact list. No patterns: one that
is too wide lets ``good.com.evil.com`` in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from eyewall.core.csrf import parse_origin, validate_trusted_origin
from eyewall.settings import Settings

METHODS: Final = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
"""Methods an allowed origin may use; a handler without one answers 405 as always."""

PREFLIGHT_SECONDS: Final = 600
"""How long a browser may remember a preflight: short enough for an origin taken off the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsPolicy:
    """The rules of one application.

    Args:
        origins: as browsers spell them; or ``*`` alone, for all.
        credentials: whether cookies may travel. Never with ``*``.
        headers: request headers that scripts may set.
        exposed: response headers that scripts may read beside the few that all may.
    """

    origins: frozenset[str]
    credentials: bool
    headers: str
    exposed: str

    @classmethod
    def from_settings(cls, settings: Settings) -> CorsPolicy | None:
        """Return the policy that ``settings`` describe, or None when they describe none.

        Raises:
            ConfigurationError: an origin is none that a browser would ever send.
        """
        if not settings.cors_origins:
            return None
        everyone = settings.cors_origins == ("*",)
        origins = settings.cors_origins if everyone else map(validate_trusted_origin, settings.cors_origins)
        return cls(
            origins=frozenset(origins),
            credentials=settings.cors_credentials,
            headers=", ".join(settings.cors_headers),
            exposed=", ".join(settings.cors_expose_headers),
        )

    def actual_headers(self, origin: str | None) -> dict[str, str]:
        """Return the headers that let ``origin`` read the answer; none when it may not.

        Args:
            origin: the request's ``Origin`` header, or None without one.
        """
        granted = self._grant(origin)
        if granted and self.exposed:
            granted["Access-Control-Expose-Headers"] = self.exposed
        return granted

    def preflight_headers(self, origin: str | None) -> dict[str, str]:
        """Return the headers that let ``origin`` send what it asked about; none when it may not.

        What it asked for need not be looked at: the browser compares, and our list is the same for all.
        """
        granted = self._grant(origin)
        if granted:
            granted["Access-Control-Allow-Methods"] = METHODS
            granted["Access-Control-Max-Age"] = str(PREFLIGHT_SECONDS)
            if self.headers:
                granted["Access-Control-Allow-Headers"] = self.headers
        return granted

    def _grant(self, origin: str | None) -> dict[str, str]:
        if "*" in self.origins:
            return {"Access-Control-Allow-Origin": "*"}
        found = None if origin is None else parse_origin(origin)
        if found is None or str(found) not in self.origins:
            return {}
        granted = {"Access-Control-Allow-Origin": str(found)}
        if self.credentials:
            granted["Access-Control-Allow-Credentials"] = "true"
        return granted


def is_preflight(*, method: str | None, origin: str | None, requested_method: str | None) -> bool:
    """Return whether a browser asks for leave, rather than an application for its OPTIONS.

    Args:
        method: of the request.
        origin: its ``Origin`` header, or None.
        requested_method: its ``Access-Control-Request-Method`` header, or None.
    """
    return method == "OPTIONS" and origin is not None and requested_method is not None
