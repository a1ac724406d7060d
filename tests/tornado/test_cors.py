"""CORS on the wire: preflights are answered before anything runs, and every answer says who may read it."""

from __future__ import annotations

from typing import Any, Final

import pytest
from tornado.httpclient import HTTPResponse
from tornado.web import HTTPError, stream_request_body

from eyewall import Settings
from eyewall.errors import StoreUnavailable
from tests.tornado.site import SECRET, Handler, ServeSite

FRONTEND: Final = "http://localhost:3000"
CORS: Final = Settings(
    backend="memory", cookie_secret=SECRET, cors_origins=(FRONTEND,), cors_credentials=True
)
PREFLIGHT: Final = {"Origin": FRONTEND, "Access-Control-Request-Method": "POST"}


class Cart(Handler):
    ran: list[str] = []  # noqa: RUF012 - shared on purpose: the handler lives for one request

    def prepare(self) -> None:
        self.ran.append(f"prepare {self.request.method}")

    def get(self) -> None:
        self.set_header("Vary", "Accept")
        self.write({"n": self.s.get("n", 0)})

    def post(self) -> None:
        self.s["n"] = self.s.get("n", 0) + 1
        self.write({"n": self.s["n"]})

    def options(self) -> None:
        self.write("my own OPTIONS")


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    Cart.ran.clear()


def granted(response: HTTPResponse) -> dict[str, str]:
    """The CORS headers of an answer."""
    return {name: value for name, value in response.headers.get_all() if name.startswith("Access-Control-")}


def varies(response: HTTPResponse) -> list[str]:
    """What the answer varies by."""
    return [field.strip() for field in response.headers.get("Vary", "").split(",")]


ACTUAL: Final = {
    "Access-Control-Allow-Origin": FRONTEND,
    "Access-Control-Allow-Credentials": "true",
}


async def test_a_preflight_is_answered_before_anything_runs(serve: ServeSite) -> None:
    """It carries no cookies: sign-in, XSRF check or prepare() would refuse it, and the request behind it."""
    site = await serve([("/", Cart)], settings=CORS, xsrf_cookies=True)
    await site.sign_on()
    response = await site.fetch("/", "OPTIONS", headers={**PREFLIGHT, "Sec-Fetch-Site": "cross-site"})
    assert (response.code, response.body) == (204, b"")
    assert granted(response)["Access-Control-Allow-Headers"] == "Content-Type, X-XSRFToken, X-CSRFToken"
    assert ACTUAL.items() <= granted(response).items()
    assert varies(response) == ["Origin"]
    assert Cart.ran == []
    assert site.store.calls == []
    assert "Set-Cookie" not in response.headers


async def test_a_preflight_of_a_stranger_runs_nothing_and_grants_nothing(serve: ServeSite) -> None:
    """Otherwise any page could make the visitor's browser send what it announces."""
    site = await serve([("/", Cart)], settings=CORS)
    for origin in ("https://evil.example", "null", "http://localhost:3000.evil.example"):
        response = await site.fetch("/", "OPTIONS", headers={**PREFLIGHT, "Origin": origin})
        assert (response.code, granted(response), varies(response)) == (204, {}, ["Origin"])
    assert Cart.ran == []


async def test_a_connection_lives_on_after_a_preflight(serve: ServeSite) -> None:
    """Browsers send the request behind it on the same connection."""
    site = await serve([("/", Cart)], settings=CORS)
    head = f"Host: localhost\r\nOrigin: {FRONTEND}\r\n"
    ask = f"OPTIONS / HTTP/1.1\r\n{head}Access-Control-Request-Method: PUT\r\n\r\n"
    answer = await site.raw(f"{ask}{ask}GET / HTTP/1.1\r\n{head}Connection: close\r\n\r\n".encode())
    assert answer.count(b"HTTP/1.1 204") == 2
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.count(b"Access-Control-Allow-Origin: http://localhost:3000\r\n") == 3


async def test_an_application_s_own_options_still_run(serve: ServeSite) -> None:
    """OPTIONS without the preflight's header is an ordinary request."""
    site = await serve([("/", Cart)], settings=CORS)
    assert await site.text("/", "OPTIONS", headers={"Origin": FRONTEND}) == "my own OPTIONS"
    assert Cart.ran == ["prepare OPTIONS"]


async def test_the_frontend_posts_with_its_session(serve: ServeSite) -> None:
    """The chapter's third gotcha: a cart that is empty at every click."""
    site = await serve([("/", Cart)], settings=CORS)
    from_frontend = {"Origin": FRONTEND, "Sec-Fetch-Site": "same-site"}
    for n in (1, 2):
        response = await site.fetch("/", "POST", headers=from_frontend)
        assert (response.code, granted(response)) == (200, ACTUAL)
        assert response.body == b'{"n": %d}' % n
    assert (
        await site.fetch("/", "POST", headers={**from_frontend, "Origin": "http://localhost:3001"})
    ).code == 403


async def test_an_origin_without_credentials_may_read_and_not_post(serve: ServeSite) -> None:
    """An origin that was not given the visitor's cookies must not act with them."""
    settings = Settings(backend="memory", cookie_secret=SECRET, cors_origins=(FRONTEND,))
    site = await serve([("/", Cart)], settings=settings)
    response = await site.fetch("/", headers={"Origin": FRONTEND})
    assert (response.code, granted(response)) == (200, {"Access-Control-Allow-Origin": FRONTEND})
    response = await site.fetch("/", "POST", headers={"Origin": FRONTEND, "Sec-Fetch-Site": "cross-site"})
    assert (response.code, granted(response)) == (403, {"Access-Control-Allow-Origin": FRONTEND})
    assert Cart.ran == ["prepare GET"]


async def test_every_answer_varies_by_origin(serve: ServeSite) -> None:
    """A shared cache would hand an answer without the header to the frontend, or one with it to others."""
    site = await serve([("/", Cart)], settings=CORS)
    for origin, expected in ((None, {}), ("https://evil.example", {}), (FRONTEND, ACTUAL)):
        response = await site.fetch("/", headers={"Origin": origin} if origin else {})
        assert granted(response) == expected
        assert varies(response) == ["Accept", "Cookie", "Origin"]


class Failing(Handler):
    def get(self) -> None:
        raise RuntimeError("a bug")

    def put(self) -> None:
        raise HTTPError(404)

    def post(self) -> None:
        self.s["n"] = 1


@pytest.mark.parametrize(("method", "status"), [("GET", 500), ("PUT", 404), ("DELETE", 405), ("POST", 503)])
async def test_an_error_can_be_read_too(serve: ServeSite, method: str, status: int) -> None:
    """Without the headers a script sees a network error, and its author looks for one."""
    site = await serve([("/", Failing)], settings=CORS, log_function=print)
    site.store.failures["create"] = StoreUnavailable("gone")
    response = await site.fetch("/", method, headers={"Origin": FRONTEND})
    assert (response.code, granted(response)) == (status, ACTUAL)
    assert varies(response).count("Origin") == 1


class ByHand(Handler):
    def set_default_headers(self) -> None:
        self.set_header("Access-Control-Allow-Origin", "https://old.example")
        self.set_header("Vary", "origin")

    def get(self) -> None:
        self.write("x")


async def test_a_handler_s_own_header_does_not_make_two(serve: ServeSite) -> None:
    """Browsers refuse an answer with two; for other origins the application may decide as it did."""
    site = await serve([("/", ByHand)], settings=CORS)
    response = await site.fetch("/", headers={"Origin": FRONTEND})
    assert response.headers.get_list("Access-Control-Allow-Origin") == [FRONTEND]
    assert response.headers["Vary"] == "origin"
    assert granted(await site.fetch("/")) == {"Access-Control-Allow-Origin": "https://old.example"}


async def test_without_settings_nothing_changes(serve: ServeSite) -> None:
    """An application that does CORS itself goes on doing it, preflights included."""
    site = await serve([("/", ByHand), ("/cart", Cart)])
    assert await site.text("/cart", "OPTIONS", headers=PREFLIGHT) == "my own OPTIONS"
    response = await site.fetch("/", headers={"Origin": FRONTEND})
    assert granted(response) == {"Access-Control-Allow-Origin": "https://old.example"}


class Upload(Handler):
    def data_received(self, chunk: bytes) -> Any:
        raise AssertionError("a preflight's body is nobody's")


async def test_a_preflight_with_a_streamed_body_is_answered(serve: ServeSite) -> None:
    """A handler that reads its body as it comes would wait for prepare() for ever."""
    site = await serve([("/", stream_request_body(Upload))], settings=CORS)
    head = f"OPTIONS / HTTP/1.1\r\nHost: x\r\nOrigin: {FRONTEND}\r\nAccess-Control-Request-Method: PUT\r\n"
    answer = await site.raw(f"{head}Content-Length: 3\r\nConnection: close\r\n\r\nabc".encode())
    assert answer.startswith(b"HTTP/1.1 204")
