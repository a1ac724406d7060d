"""A small browser for tests: a strict cookie jar, ``Sec-Fetch-*`` headers and redirects, over real sockets.

It sends what a browser would send and keeps what a browser would keep; it runs no scripts. Two browsers are
two devices. Who causes a request is said per request: by default the user, or a page of the same origin;
``from_origin`` puts the attacker's page, or a sibling subdomain's, in that place.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypedDict, Unpack
from urllib.parse import urlencode, urljoin, urlsplit

from tornado.httpclient import HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from eyewall.core.store import Clock, utc_now
from eyewall.testing.cookie_jar import RequestFrom, StrictCookieJar

MAX_REDIRECTS: Final = 10
"""Redirects followed before giving up; browsers allow 20."""

_SITES: Final = ("none", "same-origin", "same-site", "cross-site")
"""The values of ``Sec-Fetch-Site``, from near to far."""


class How(TypedDict, total=False):
    """How a request comes about.

    Args:
        from_origin: origin (``https://host[:port]``) of the page that causes it. Without one: the user for a
            GET that navigates, else a page of the origin it goes to.
        navigate: whether the address bar changes, as with links and forms; False for fetches and images.
        headers: more headers; they win over the browser's own.
        follow: follow redirects, applying cookies at each hop. Off by default.
    """

    from_origin: str | None
    navigate: bool
    headers: Mapping[str, str]
    follow: bool


class Browser:
    """One browser: the requests made through it share their cookies.

    Args:
        base: address that paths are relative to, for instance ``https://127.0.0.1:8443``.
        ssl_options: for HTTPS; trust a private authority with ``ssl.create_default_context(cafile=...)``.
        hosts: where host names really lead, for instance ``{"shop.example": "127.0.0.1"}``.
        jar: its cookies; an empty :class:`StrictCookieJar` by default.
        clock: tells the jar the time.
        fetch_metadata: False makes it a browser from before 2023, without ``Sec-Fetch-*`` headers.

    Attributes:
        jar: the cookies; ``jar.rejected`` says which were refused and why.
    """

    def __init__(  # noqa: PLR0913 - every one has a default
        self,
        base: str = "",
        *,
        ssl_options: ssl.SSLContext | None = None,
        hosts: Mapping[str, str] | None = None,
        jar: StrictCookieJar | None = None,
        clock: Clock = utc_now,
        fetch_metadata: bool = True,
    ) -> None:
        self.jar = StrictCookieJar() if jar is None else jar
        self._base = base
        self._ssl_options = ssl_options
        self._clock = clock
        self._fetch_metadata = fetch_metadata
        self._client = SimpleAsyncHTTPClient(force_instance=True, hostname_mapping=dict(hosts or {}))

    def close(self) -> None:
        """Release what the client holds. Closing twice does nothing more."""
        self._client.close()

    async def get(self, url: str, **how: Unpack[How]) -> HTTPResponse:
        """Open ``url``: typed in, or following a link when ``from_origin`` is given."""
        return await self.request("GET", url, **how)

    async def post(self, url: str, body: bytes | str = b"", **how: Unpack[How]) -> HTTPResponse:
        """Post ``body`` as it is, as a script's fetch would unless ``navigate`` is given."""
        how.setdefault("navigate", False)
        return await self.request("POST", url, body, **how)

    async def post_form(self, url: str, fields: Mapping[str, str], **how: Unpack[How]) -> HTTPResponse:
        """Submit a form with ``fields``; forms navigate."""
        how["headers"] = {"Content-Type": "application/x-www-form-urlencoded", **how.get("headers", {})}
        return await self.request("POST", url, urlencode(fields), **how)

    async def post_json(self, url: str, data: Any, **how: Unpack[How]) -> HTTPResponse:
        """Post ``data`` as JSON, as a script's fetch would unless ``navigate`` is given."""
        how["headers"] = {"Content-Type": "application/json", **how.get("headers", {})}
        return await self.post(url, json.dumps(data), **how)

    async def request(
        self, method: str, url: str, body: bytes | str | None = None, **how: Unpack[How]
    ) -> HTTPResponse:
        """Send one request and take in the cookies of its response.

        Args:
            method: any method, in upper case.
            url: absolute, or relative to ``base``.
            body: what to send, or None.
            how: see :class:`How`.

        Returns:
            The response, whatever its status; with ``follow``, the last one.

        Raises:
            tornado.httpclient.HTTPError, OSError: there was no response.
            RuntimeError: more than :data:`MAX_REDIRECTS` redirects.
        """
        url = urljoin(self._base, url)
        navigate = how.get("navigate", True)
        typed_in = navigate and method in ("GET", "HEAD")
        initiator = how.get("from_origin") or (None if typed_in else origin_of(url))
        visit = _Visit(method, url, body, initiator, navigate)
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send(visit, how.get("headers", {}))
            if not (how.get("follow", False) and visit.follow(response)):
                return response
        raise RuntimeError(f"more than {MAX_REDIRECTS} redirects, the last to {visit.url}")

    async def _send(self, visit: _Visit, more: Mapping[str, str]) -> HTTPResponse:
        headers = HTTPHeaders(visit.headers(fetch_metadata=self._fetch_metadata))
        cookies = self.jar.header_for(visit.url, self._clock(), visit.request_from, visit.method)
        if cookies is not None:
            headers["Cookie"] = cookies
        headers.update(more)
        request = HTTPRequest(
            visit.url,
            method=visit.method,
            headers=headers,
            body=visit.body,
            follow_redirects=False,
            ssl_options=self._ssl_options,
            allow_nonstandard_methods=True,
        )
        response = await self._client.fetch(request, raise_error=False)
        lines = response.headers.get_list("Set-Cookie")
        self.jar.receive(visit.url, lines, self._clock(), visit.request_from)
        return response


@dataclass
class _Visit:
    """A request and the redirects that follow from it; ``site`` is the farthest it has been on the way."""

    method: str
    url: str
    body: bytes | str | None
    initiator: str | None
    navigate: bool
    site: str = "none"
    tainted: bool = False

    def __post_init__(self) -> None:
        self._note_site()

    @property
    def request_from(self) -> RequestFrom:
        if self.site != "cross-site":
            return RequestFrom.SAME_SITE
        return RequestFrom.CROSS_SITE_NAVIGATION if self.navigate else RequestFrom.CROSS_SITE_SUBRESOURCE

    def headers(self, *, fetch_metadata: bool) -> dict[str, str]:
        """The headers a browser adds by itself."""
        headers = {}
        if self.initiator and (self.method not in ("GET", "HEAD") or self._is_cors()):
            headers["Origin"] = "null" if self.tainted else self.initiator
        if fetch_metadata and _is_trustworthy(self.url):
            headers["Sec-Fetch-Site"] = self.site
            headers["Sec-Fetch-Mode"] = "navigate" if self.navigate else "cors"
            headers["Sec-Fetch-Dest"] = "document" if self.navigate else "empty"
        return headers

    def follow(self, response: HTTPResponse) -> bool:
        """Turn into the request that ``response`` redirects to; False when it does not redirect."""
        location = response.headers.get("Location")
        if response.code not in (301, 302, 303, 307, 308) or location is None:
            return False
        if response.code == 303 or (response.code in (301, 302) and self.method == "POST"):
            self.method, self.body = ("HEAD" if self.method == "HEAD" else "GET"), None
        target = urljoin(self.url, location)
        if self.initiator and origin_of(self.url) not in (self.initiator, origin_of(target)):
            self.tainted = True  # a third party had its hand in (Fetch: "redirect-tainted origin")
        self.url = target
        self._note_site()
        return True

    def _is_cors(self) -> bool:
        return not self.navigate and self.site != "same-origin"

    def _note_site(self) -> None:
        self.site = max(self.site, _site_between(self.initiator, self.url), key=_SITES.index)


def origin_of(url: str) -> str:
    """Return the origin of ``url``, spelt as in an ``Origin`` header."""
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, default) else f":{parts.port}")


def _site_between(initiator: str | None, url: str) -> str:
    if initiator is None:
        return "none"
    if initiator == origin_of(url):
        return "same-origin"
    return "same-site" if _site_of(initiator) == _site_of(url) else "cross-site"


def _site_of(url: str) -> tuple[str, str]:
    """Scheme and the last two labels of the host: near enough without the list of public suffixes."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    is_address = ":" in host or host.rpartition(".")[2].isdigit()
    return parts.scheme, host if is_address else ".".join(host.split(".")[-2:])


def _is_trustworthy(url: str) -> bool:
    """Whether browsers send ``Sec-Fetch-*`` there: HTTPS and this machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")
