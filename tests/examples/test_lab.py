"""The lab: each route does what its promise says, as a real process."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse

from eyewall.testing.client import Browser
from tests.examples.pair import SECRET
from tests.examples.program import LAB, Program
from tests.examples.test_site_api import end_session


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One running lab for the whole file; each test is a visitor of its own."""
    with Program(*LAB, folder=tmp_path_factory.mktemp("lab")) as program:
        yield program


@pytest.fixture
async def visitor(lab: Program) -> AsyncIterator[Browser]:
    """A browser nobody has seen before."""
    browser = Browser(lab.url)
    yield browser
    browser.close()


async def read(visitor: Browser, path: str) -> Any:
    """GET ``path``; return its JSON."""
    return json.loads((await visitor.get(path)).body)


async def put(visitor: Browser, key: str, value: Any) -> HTTPResponse:
    """Store a value."""
    return await visitor.post_json("/kv", {"k": key, "v": value})


async def test_public_uses_no_session(visitor: Browser) -> None:
    """Harm: a page without sessions pays for them, or cannot be cached."""
    await put(visitor, "a", 1)
    answer = await visitor.get("/public")
    assert answer.body == b"public"
    assert "Vary" not in answer.headers
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("value", [1, -5, 1.5, "text", "ü\n", True, None, [1, [2]], {"a": {"b": [None]}}, ""])
async def test_kv_gives_back_what_was_stored(visitor: Browser, value: Any) -> None:
    """Harm: a value comes back as another one."""
    assert (await put(visitor, "a", value)).code == 204
    assert await read(visitor, "/kv?k=a") == {"value": value}
    assert await read(visitor, "/kv?k=b") == {"value": None}


async def test_incr_loses_nothing(lab: Program, visitor: Browser) -> None:
    """Harm: parallel requests overwrite each other."""
    await visitor.post("/incr?k=n")
    tabs = [Browser(lab.url, jar=visitor.jar) for _ in range(20)]
    answers = await asyncio.gather(*[tab.post("/incr?k=n") for tab in tabs])
    assert sorted(json.loads(answer.body)["value"] for answer in answers) == list(range(2, 22))
    for tab in tabs:
        tab.close()


async def test_login_gives_a_new_cookie_and_keeps_the_data(visitor: Browser) -> None:
    """Harm: session fixation, or a lost cart."""
    before = (await put(visitor, "a", 1)).headers["Set-Cookie"]
    assert await read(visitor, "/whoami") == {"principal": None, "fresh": False}
    answer = await visitor.post_json("/login", {"user": "ann"})
    assert json.loads(answer.body) == {"principal": "ann"}
    assert answer.headers["Set-Cookie"] != before
    assert await read(visitor, "/whoami") == {"principal": "ann", "fresh": True}
    assert await read(visitor, "/kv?k=a") == {"value": 1}


async def test_logout_ends_the_session_for_whoever_has_the_cookie(lab: Program, visitor: Browser) -> None:
    """Harm: a stolen cookie outlives signing out."""
    signed_in = await visitor.post_json("/login", {"user": "ann"})
    stolen = {"Cookie": signed_in.headers["Set-Cookie"].partition(";")[0]}
    thief = Browser(lab.url)
    assert json.loads((await thief.get("/whoami", headers=stolen)).body)["principal"] == "ann"
    assert (await visitor.post("/logout")).code == 204
    assert json.loads((await thief.get("/whoami", headers=stolen)).body)["principal"] is None
    thief.close()


async def test_flash_messages_are_read_once(visitor: Browser) -> None:
    """Harm: a message appears twice, or never."""
    for message, category in (("Saved", "success"), ("Beware", "warning")):
        sent = await visitor.post_json("/flash", {"message": message, "category": category})
        assert sent.code == 204
    assert await read(visitor, "/flash") == {"messages": [["success", "Saved"], ["warning", "Beware"]]}
    assert await read(visitor, "/flash") == {"messages": []}


@pytest.mark.parametrize("route", ["/slow?ms=1&write=w", "/stream?write=w", "/redirect?write=w"])
async def test_what_an_answer_tells_is_stored(visitor: Browser, route: str) -> None:
    """Harm: the next request, faster than the save, finds old state."""
    answer = await visitor.get(route)
    stored = (await read(visitor, "/kv?k=w"))["value"]
    assert stored
    if answer.code == 302:
        assert answer.headers["Location"] == "/kv?k=w"
    else:
        assert stored in answer.body.decode()


async def test_stream_sends_three_chunks_of_one_document(visitor: Browser) -> None:
    """Harm: the route that shows streaming does not stream."""
    answer = await visitor.get("/stream?write=w")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert json.loads(answer.body)["chunks"] == 3


async def test_slow_reads_waits_and_then_writes(lab: Program, visitor: Browser) -> None:
    """Harm: the route that shows slow requests shows something else."""
    await put(visitor, "w", "old")
    await put(visitor, "other", 1)
    tab = Browser(lab.url, jar=visitor.jar)
    slow = asyncio.create_task(visitor.get("/slow?ms=400&write=w"))
    await asyncio.sleep(0.1)
    assert not slow.done()
    await put(tab, "other", 2)
    told = json.loads((await slow).body)
    assert told["before"] == "old"
    assert await read(tab, "/kv?k=w") == {"value": told["value"]}
    assert await read(tab, "/kv?k=other") == {"value": 2}
    tab.close()


async def test_boom_stores_nothing(visitor: Browser) -> None:
    """Harm: half of a failed request's changes stay."""
    await put(visitor, "w", "old")
    answer = await visitor.get("/boom?write=w")
    assert answer.code == 500
    assert json.loads(answer.body)["key"] == "w"
    assert await read(visitor, "/kv?k=w") == {"value": "old"}


async def test_regenerate_keeps_the_data_and_kills_the_old_id(lab: Program, visitor: Browser) -> None:
    """Harm: an ID that leaked before works after."""
    old = {"Cookie": (await put(visitor, "a", 1)).headers["Set-Cookie"].partition(";")[0]}
    assert (await visitor.post("/regenerate")).code == 204
    assert await read(visitor, "/kv?k=a") == {"value": 1}
    thief = Browser(lab.url)
    assert json.loads((await thief.get("/kv?k=a", headers=old)).body) == {"value": None}
    thief.close()


async def test_clear_empties_the_session(visitor: Browser) -> None:
    """Harm: something of the last user stays."""
    await put(visitor, "a", 1)
    await visitor.post_json("/login", {"user": "ann"})
    assert (await visitor.post("/clear")).code == 204
    assert await read(visitor, "/kv?k=a") == {"value": None}
    assert (await read(visitor, "/whoami"))["principal"] is None


# --- signing in ------------------------------------------------------------------------------------------


async def signed_in(lab: Program, user: str, **fields: Any) -> Browser:
    """A browser of ``user``; the caller closes it."""
    browser = Browser(lab.url)
    assert (await browser.post_json("/login", {"user": user, **fields})).code == 200
    return browser


async def devices(visitor: Browser) -> list[dict[str, Any]]:
    """What the visitor's list of devices says."""
    found: list[dict[str, Any]] = (await read(visitor, "/devices"))["devices"]
    return found


async def test_the_list_of_devices_tells_what_one_needs_to_choose(lab: Program) -> None:
    """Harm: one cannot tell the stranger's device from one's own, or is shown a key to it."""
    first, second = await signed_in(lab, "dora"), await signed_in(lab, "dora", remember=True)
    with closing(first), closing(second):
        found = await devices(first)
        assert [one["current"] for one in found] == [False, True]
        assert [one["remembered"] for one in found] == [True, False]
        assert {one["address"] for one in found} == {"127.0.0.1"}
        assert {one["method"] for one in found} == {"password"}
        told = json.dumps(found)
        assert not any(part in told for cookie in second.jar.cookies for part in cookie.value.split("."))


async def test_a_revoked_device_is_out_and_stays_out(lab: Program) -> None:
    """Harm: a lost phone goes on, or its remember token brings it back."""
    first, second = await signed_in(lab, "rita"), await signed_in(lab, "rita", remember=True)
    with closing(first), closing(second):
        (other,) = [one["id"] for one in await devices(first) if not one["current"]]
        assert (await first.post_json("/devices/revoke", {"id": other})).code == 204
        assert (await first.post_json("/devices/revoke", {"id": other})).code == 404
        for _ in range(2):
            assert (await read(second, "/whoami"))["principal"] is None
        assert (await read(first, "/whoami"))["principal"] == "rita"


async def test_nobody_revokes_the_device_of_somebody_else(lab: Program) -> None:
    """Harm: one user signs out another (ASVS 8.2.2)."""
    ann, eve = await signed_in(lab, "anna"), await signed_in(lab, "eve")
    with closing(ann), closing(eve):
        (device,) = await devices(ann)
        assert (await eve.post_json("/devices/revoke", {"id": device["id"]})).code == 404
        assert (await read(ann, "/whoami"))["principal"] == "anna"


@pytest.mark.parametrize("route", ["/logout-others", "/password"])
async def test_all_other_devices_end_and_this_one_goes_on(lab: Program, route: str) -> None:
    """Harm: a thief stays, or one signs out oneself."""
    here, *others = [await signed_in(lab, f"owner of {route}", remember=True) for _ in range(3)]
    assert json.loads((await here.post(route)).body) == {"ended": 2}
    for other in others:
        assert (await read(other, "/whoami"))["principal"] is None
        other.close()
    assert (await read(here, "/whoami"))["principal"] == f"owner of {route}"
    assert len(await devices(here)) == 1
    here.close()


async def test_signing_out_everywhere_leaves_nobody(lab: Program) -> None:
    """Harm: somebody believes to be signed out."""
    here, there = [await signed_in(lab, "eva", remember=True) for _ in range(2)]
    with closing(here), closing(there):
        assert (await here.post("/logout-everywhere")).code == 204
        assert here.jar.cookies == []
        assert (await read(there, "/whoami"))["principal"] is None


async def test_the_id_from_before_a_change_of_password_is_dead(lab: Program) -> None:
    """Harm: a session that leaked before the change goes on after it (ASVS 7.4.3)."""
    here, thief = await signed_in(lab, "olga"), Browser(lab.url)
    with closing(here), closing(thief):
        old = {"Cookie": "; ".join(f"{cookie.name}={cookie.value}" for cookie in here.jar.cookies)}
        await here.post("/password")
        assert json.loads((await thief.get("/whoami", headers=old)).body)["principal"] is None


async def test_a_remember_token_brings_back_but_proves_nothing(lab: Program) -> None:
    """Harm: one is asked every day, or never before something important."""
    browser = await signed_in(lab, "remy", remember=True)
    with closing(browser):
        assert (await browser.get("/fresh-only")).code == 200
        end_session(browser, lab.url)
        assert await read(browser, "/whoami") == {"principal": "remy", "fresh": False}
        assert (await browser.get("/fresh-only")).code == 401
        assert json.loads((await browser.post("/reauthenticate")).body) == {"principal": "remy"}
        assert await read(browser, "/fresh-only") == {"principal": "remy"}
        (device,) = await devices(browser)
        assert device["remembered"]


async def test_without_being_remembered_nobody_is_brought_back(lab: Program) -> None:
    """Harm: a browser in a library remembers who never asked for it."""
    browser = await signed_in(lab, "lib", remember=False)
    with closing(browser):
        end_session(browser, lab.url)
        assert (await read(browser, "/whoami"))["principal"] is None


@pytest.mark.parametrize("route", ["/reauthenticate", "/role"])
async def test_a_change_of_privilege_gives_a_new_id(lab: Program, route: str) -> None:
    """Harm: whoever knew the ID before has the new rights too (ASVS 7.2.4)."""
    browser, thief = await signed_in(lab, "rolf"), Browser(lab.url)
    with closing(browser), closing(thief):
        (cookie,) = browser.jar.cookies
        assert (await browser.post_json(route, {"role": "admin"})).code == 200
        old = {"Cookie": f"{cookie.name}={cookie.value}"}
        assert json.loads((await thief.get("/whoami", headers=old)).body)["principal"] is None
        assert (await read(browser, "/whoami"))["principal"] == "rolf"


async def test_the_role_is_stored(lab: Program) -> None:
    """Harm: the route that shows a change of privilege changes none."""
    browser = await signed_in(lab, "rosa")
    with closing(browser):
        await browser.post_json("/role", {"role": "admin"})
        assert await read(browser, "/kv?k=role") == {"value": "admin"}


async def test_a_transfer_needs_no_token_unless_that_is_asked_for(visitor: Browser) -> None:
    """Harm: the lenient default is not the one that is documented."""
    assert json.loads((await visitor.post_form("/transfer", {"amount": "5"})).body) == {"transferred": "5"}
    assert json.loads((await visitor.post_json("/transfer", {"amount": 5})).body) == {"transferred": 5}
    assert (await visitor.post_json("/transfer", {}, from_origin="https://evil.example")).code == 403


async def test_strictly_a_transfer_needs_the_token_of_its_own_session(tmp_path: Path) -> None:
    """Harm: a token of any session opens every other one."""
    with Program(*LAB, folder=tmp_path, EYEWALL_STRICT="true") as lab:
        mine, hers = Browser(lab.url), Browser(lab.url)
        with closing(mine), closing(hers):
            tokens = [(await read(browser, "/csrf"))["token"] for browser in (mine, hers)]
            assert [await transfer(mine, token) for token in tokens] == [[200, 200, 200], [403, 403, 403]]
            assert await transfer(mine, "") == [403, 403, 403]
            query = await mine.post_json(f"/transfer?_xsrf={tokens[0]}", {})
            assert query.code == 403
            token = {"X-XSRFToken": tokens[0]}
            assert (await mine.post_json("/login", {"user": "ann"}, headers=token)).code == 200
            assert await transfer(mine, tokens[0]) == [403, 403, 403], "it is of the time before signing in"
            assert await transfer(mine, (await read(mine, "/csrf"))["token"]) == [200, 200, 200]


async def transfer(browser: Browser, token: str) -> list[int]:
    """Send the token in a form, and beside a form and JSON."""
    answers = [
        await browser.post_form("/transfer", {"amount": "5", "_xsrf": token}),
        await browser.post_form("/transfer", {"amount": "5"}, headers={"X-XSRFToken": token}),
        await browser.post_json("/transfer", {"amount": 5}, headers={"X-CSRFToken": token}),
    ]
    return [answer.code for answer in answers]


NEEDS_SOMEBODY = [
    ("GET", "/devices"),
    ("GET", "/fresh-only"),
    ("POST", "/logout-others"),
    ("POST", "/logout-everywhere"),
    ("POST", "/password"),
    ("POST", "/devices/revoke"),
    ("POST", "/reauthenticate"),
    ("POST", "/role"),
]


@pytest.mark.parametrize(("method", "path"), NEEDS_SOMEBODY)
async def test_nobody_is_told_to_sign_in(visitor: Browser, method: str, path: str) -> None:
    """Harm: strangers cause a 500, or something."""
    answer = await visitor.request(method, path, None if method == "GET" else b'{"id": "x", "role": "x"}')
    assert answer.code == 401
    assert "error" in json.loads(answer.body)
    assert "Set-Cookie" not in answer.headers


POST_ONLY = [
    "/login",
    "/logout",
    "/logout-others",
    "/logout-everywhere",
    "/password",
    "/devices/revoke",
    "/transfer",
    "/reauthenticate",
    "/role",
]


@pytest.mark.parametrize("path", POST_ONLY)
async def test_a_link_changes_nothing(lab: Program, path: str) -> None:
    """Harm: an image in a forum signs everybody out (ASVS 3.5.3)."""
    browser = await signed_in(lab, "link")
    with closing(browser):
        assert (await browser.get(path)).code == 405
        assert (await read(browser, "/whoami"))["principal"] == "link"


async def test_sessions_in_their_own_cookies_say_what_they_cannot_do(tmp_path: Path) -> None:
    """Harm: a 500 without a reason, or a promise nobody keeps."""
    variables = {"EYEWALL_BACKEND": "cookie", "EYEWALL_COOKIE_SECRET": SECRET}
    with Program(*LAB, folder=tmp_path, **variables) as lab, closing(Browser(lab.url)) as browser:
        assert (await browser.post_json("/login", {"user": "ann", "remember": True})).code == 400
        assert (await browser.post_json("/login", {"user": "ann"})).code == 200
        assert (await browser.get("/devices")).code == 501
        for path in ("/logout-others", "/password", "/devices/revoke"):
            assert (await browser.post_json(path, {"id": "x"})).code == 501
        assert (await read(browser, "/whoami")) == {"principal": "ann", "fresh": True}


# --- bad input -------------------------------------------------------------------------------------------

BAD = {
    "no JSON": ("POST", "/kv", b"{", 400),
    "a list": ("POST", "/kv", b"[1]", 400),
    "no body": ("POST", "/kv", b"", 400),
    "deep": ("POST", "/kv", b'{"k": "a", "v": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400),
    "quite deep": ("POST", "/kv", b'{"k": "a", "v": ' + b"[" * 900 + b"]" * 900 + b"}", 400),
    "invalid UTF-8": ("POST", "/kv", b'{"k": "\xff", "v": 1}', 400),
    "half a surrogate": ("POST", "/kv", b'{"k": "a", "v": "\\ud800"}', 400),
    "half a surrogate as key": ("POST", "/kv", b'{"k": "\\ud800", "v": 1}', 400),
    "NaN": ("POST", "/kv", b'{"k": "a", "v": NaN}', 400),
    "infinite": ("POST", "/kv", b'{"k": "a", "v": 1e999}', 400),
    "no key": ("POST", "/kv", b'{"v": 1}', 400),
    "no value": ("POST", "/kv", b'{"k": "a"}', 400),
    "number as key": ("POST", "/kv", b'{"k": 1, "v": 1}', 400),
    "too large": ("POST", "/kv", b'{"k": "a", "v": "' + b"x" * 70_000 + b'"}', 413),
    "kv without a key": ("GET", "/kv", None, 400),
    "incr without a key": ("POST", "/incr", b"", 400),
    "nobody": ("POST", "/login", b"{}", 400),
    "no name": ("POST", "/login", b'{"user": ""}', 400),
    "number as name": ("POST", "/login", b'{"user": 1}', 400),
    "half a surrogate as name": ("POST", "/login", b'{"user": "\\ud800"}', 400),
    "remember a number": ("POST", "/login", b'{"user": "ann", "remember": 1}', 400),
    "no message": ("POST", "/flash", b'{"category": "info"}', 400),
    "list as category": ("POST", "/flash", b'{"message": "m", "category": []}', 400),
    "large message": ("POST", "/flash", b'{"message": "' + b"x" * 70_000 + b'"}', 413),
    "a long wait": ("GET", "/slow?ms=30001", None, 400),
    "no number": ("GET", "/slow?ms=soon", None, 400),
    "wrong method": ("GET", "/login", None, 405),
    "wrong method of kv": ("DELETE", "/kv", None, 405),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
async def test_bad_input_is_refused(
    lab: Program, visitor: Browser, case: tuple[str, str, bytes | None, int]
) -> None:
    """Harm: bytes of a stranger cause a 500 or a session."""
    method, path, body, status = case
    answer = await visitor.request(method, path, body)
    assert answer.code == status
    assert "error" in json.loads(answer.body)
    assert "Set-Cookie" not in answer.headers


async def test_incr_of_something_else_is_refused(visitor: Browser) -> None:
    """Harm: a value is destroyed by counting it."""
    for value in ("text", True, [1]):
        await put(visitor, "a", value)
        assert (await visitor.post("/incr?k=a")).code == 400
        assert await read(visitor, "/kv?k=a") == {"value": value}


@pytest.mark.parametrize("number", [2**62, 2**63, 2**64, 2**200])
async def test_large_numbers_are_kept_or_refused_but_never_changed(visitor: Browser, number: int) -> None:
    """Harm: a number comes back rounded, or causes a 500."""
    stored = await put(visitor, "a", number - 1)
    if stored.code == 204:
        assert await read(visitor, "/kv?k=a") == {"value": number - 1}
        assert (await visitor.post("/incr?k=a")).code in (200, 400)
    else:
        assert stored.code == 400


def test_sigterm_lets_a_request_under_way_finish(tmp_path: Path) -> None:
    """Harm: a deployment cuts off whoever is waiting, and loses what they were told."""
    with Program(*LAB, folder=tmp_path) as lab, socket.socket() as slow, socket.socket() as quick:
        for client in (slow, quick):
            client.connect(("127.0.0.1", lab.port))
        slow.sendall(b"GET /slow?ms=700&write=w HTTP/1.1\r\nHost: lab\r\n\r\n")
        quick.sendall(b"GET /public HTTP/1.1\r\nHost: lab\r\n\r\n")
        assert quick.recv(100).startswith(b"HTTP/1.1 200")  # so the slow one has been taken up before
        assert lab.end(signal.SIGTERM) == 0
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
    assert lab.errors == ""


def test_several_labs_share_a_store(tmp_path: Path) -> None:
    """Harm: settings of the environment do not reach it."""
    with Program(*LAB, folder=tmp_path, EYEWALL_PATH=str(tmp_path / "elsewhere")) as lab:
        assert lab.first_line == f"Lab at {lab.url}\n"
    assert (tmp_path / "elsewhere" / "secret").is_file()
