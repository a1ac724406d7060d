"""The site with accounts, as those see it who send more than its forms do."""

from __future__ import annotations

import re
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import bcrypt
import pytest
from tornado.httpclient import HTTPResponse

from eyewall.core.store import utc_now
from eyewall.testing.client import Browser
from tests.examples.program import EXAMPLES, Program
from tests.servers.process import free_port

SITE = (str(EXAMPLES / "site" / "site.py"),)
PASSWORD = "four quiet green boats"
NUMBERS = count(1)
TOKEN = re.compile(r'name="_xsrf" value="([\w-]+)"')

Visit = Callable[[], Browser]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site runs."""
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def folder(place: Path) -> Path:
    """Where the site keeps its data."""
    return place / ".eyewall" / "site"


@pytest.fixture(scope="module")
def site(place: Path) -> Iterator[Program]:
    """One running site for the whole file. Each test has accounts of its own; failed sign-ins add up."""
    with Program(*SITE, folder=place) as program:
        yield program
        assert "Traceback" not in program.errors


@pytest.fixture
async def visit(site: Program) -> AsyncIterator[Visit]:
    """Open browsers nobody has seen before."""
    browsers: list[Browser] = []

    def visit() -> Browser:
        browsers.append(Browser(site.url))
        return browsers[-1]

    yield visit
    for browser in browsers:
        browser.close()


async def send(browser: Browser, page: str, to: str = "", **fields: str) -> HTTPResponse:
    """Open ``page`` and send its form to ``to``, which is itself unless given."""
    shown = await browser.get(page, follow=True)
    token = TOKEN.search(shown.body.decode())
    assert token is not None
    return await browser.post_form(to or page, {"_xsrf": token[1], **fields})


async def registered(browser: Browser, name: str = "") -> str:
    """Register; return the account's name."""
    name = name or f"user-{next(NUMBERS)}"
    assert (await send(browser, "/register", name=name, password=PASSWORD)).code == 303
    return name


async def sign_in(browser: Browser, name: str, password: str = PASSWORD, **fields: str) -> HTTPResponse:
    """Send the sign-in form."""
    return await send(browser, "/sign-in", name=name, password=password, **fields)


def end_session(browser: Browser, url: str) -> None:
    """What a closed browser, or the idle timeout, leaves behind: the remember token alone."""
    browser.jar.receive(url, ["session=; Max-Age=0; Path=/"], utc_now())


async def is_signed_in(browser: Browser) -> bool:
    """Whether the start page is shown."""
    return (await browser.get("/")).code == 200


async def test_a_wrong_name_and_a_wrong_password_are_answered_alike(visit: Visit) -> None:
    """Harm: one finds out who has an account here, by the words or by the clock (ASVS 6.3.8)."""
    browser = visit()
    took: dict[str, list[float]] = {"known": [], "unknown": []}
    pages: dict[str, str] = {}
    for number in range(5):
        names = {"known": await registered(visit(), f"known-{number}"), "unknown": f"nobody-{number}"}
        for kind, name in names.items():
            shown = await browser.get("/sign-in")
            token = TOKEN.search(shown.body.decode())
            assert token is not None
            began = time.perf_counter()
            answer = await browser.post_form(
                "/sign-in", {"_xsrf": token[1], "name": name, "password": "wrong"}
            )
            took[kind].append(time.perf_counter() - began)
            pages[kind] = TOKEN.sub("", answer.body.decode()).replace(name, "")
            assert answer.code == 422
    assert pages["known"] == pages["unknown"]
    assert "Name or password is wrong." in pages["known"]
    known, unknown = (statistics.median(times) for times in took.values())
    assert unknown > known / 2, "the password of nobody must be hashed too"


async def test_guessing_is_stopped(visit: Visit) -> None:
    """Harm: a program tries a million passwords (ASVS 6.3.1)."""
    name = await registered(visit())
    thief = visit()
    answers = [await sign_in(thief, name, f"guess {number}") for number in range(6)]
    assert [answer.code for answer in answers] == [422] * 5 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 60
    assert "Please try again in" in answers[-1].body.decode()
    assert (await sign_in(thief, name)).code == 429, "not even the right one counts now"


@pytest.mark.parametrize("path", ["/register", "/sign-in", "/confirm", "/password", "/sign-out"])
async def test_a_form_without_its_token_does_nothing(visit: Visit, path: str) -> None:
    """Harm: another page sends our forms (also that of signing in, as somebody else)."""
    browser = visit()
    await registered(browser)
    fields = {"name": "eve", "password": PASSWORD}
    assert (await browser.post_form(path, fields)).code == 403
    assert (await browser.post_form(path, fields, from_origin="https://evil.example")).code == 403
    assert await is_signed_in(browser)


@pytest.mark.parametrize("path", ["/sign-out", "/sign-out?everywhere=yes", "/devices/revoke-others"])
async def test_a_link_ends_nothing(visit: Visit, path: str) -> None:
    """Harm: an image in a forum signs everybody out (ASVS 3.5.3)."""
    browser = visit()
    await registered(browser)
    assert (await browser.get(path)).code == 405
    assert await is_signed_in(browser)


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "evil"])
async def test_signing_in_leads_to_no_other_site(visit: Visit, target: str) -> None:
    """Harm: a link to our sign-in page ends on its copy, which asks again (CWE-601)."""
    browser = visit()
    name = await registered(visit())
    assert (await sign_in(browser, name, next=target)).headers["Location"] == "/"


async def test_nobody_ends_the_devices_of_others(visit: Visit) -> None:
    """Harm: one user signs out another (ASVS 8.2.2)."""
    ann, bob = visit(), visit()
    name = await registered(ann)
    second = visit()
    await sign_in(second, name)
    handles = re.findall(r'name="handle" value="(\w+)"', (await ann.get("/devices")).body.decode())
    assert len(handles) == 1
    await registered(bob)
    for handle in (handles[0], "nothing", ""):
        assert (await send(bob, "/devices", "/devices/revoke", handle=handle)).code == 404
    assert await is_signed_in(second)
    assert (await send(ann, "/devices", "/devices/revoke", handle=handles[0])).code == 303
    assert not await is_signed_in(second)


async def test_the_password_page_asks_who_has_not_proved_it_lately(site: Program, visit: Visit) -> None:
    """Harm: a page that only the link is hidden of."""
    browser = visit()
    name = await registered(visit())
    await sign_in(browser, name, remember="yes")
    end_session(browser, site.url)
    answer = await send(browser, "/", "/password", password="seven loud yellow kites")
    assert (answer.code, answer.headers["Location"]) == (303, "/confirm?next=%2Fpassword")
    assert (await sign_in(visit(), name)).code == 303, "the password is the old one"


async def test_a_device_is_ended_only_by_who_has_proved_it_lately(site: Program, visit: Visit) -> None:
    """Harm: whoever finds the browser open throws its owner out everywhere else."""
    browser, other = visit(), visit()
    name = await registered(other)
    await sign_in(browser, name, remember="yes")
    end_session(browser, site.url)
    asked = await send(browser, "/devices", "/devices/revoke-others")
    assert asked.headers["Location"] == "/devices/confirm"
    assert (await browser.get("/devices/confirm")).headers["Location"].startswith("/confirm?next=%2Fdevices")
    assert await is_signed_in(other)
    await send(browser, "/confirm", password=PASSWORD)
    await send(browser, "/devices", "/devices/revoke-others")
    assert not await is_signed_in(other)


async def test_a_hash_of_an_older_application_is_replaced_at_sign_in(visit: Visit, folder: Path) -> None:
    """Harm: weak hashes stay for ever, or their owners must choose new passwords."""
    old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    with closing(sqlite3.connect(folder / "users.db")) as connection, connection:
        connection.execute("INSERT INTO users (name, password) VALUES ('ann', ?)", [old])
    assert (await sign_in(visit(), "Ann")).code == 303
    with closing(sqlite3.connect(folder / "users.db")) as connection:
        (stored,) = connection.execute("SELECT password FROM users WHERE name = 'ann'").fetchone()
    assert stored.startswith("$argon2id$")
    assert (await sign_in(visit(), "ann")).code == 303


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("a", PASSWORD),
        ("a" * 33, PASSWORD),
        ("<script>", PASSWORD),
        ("äöü", PASSWORD),
        ("ann", "too short"),
        ("ann", ""),
        ("ann", "x" * 5000),
    ],
)
async def test_a_bad_registration_is_explained(visit: Visit, name: str, password: str) -> None:
    """Harm: a 500, or an account nobody can use."""
    answer = await send(visit(), "/register", name=name, password=password)
    assert answer.code == 422
    assert 'role="alert"' in answer.body.decode()
    assert "<script>" not in answer.body.decode()


async def test_a_name_is_given_once(visit: Visit) -> None:
    """Harm: two people share an account."""
    name = await registered(visit())
    answer = await send(visit(), "/register", name=name.upper(), password="another good long one")
    assert answer.code == 422
    assert "This name is taken." in answer.body.decode()
    assert (await sign_in(visit(), name)).code == 303


async def test_an_account_that_is_gone_is_nobody(visit: Visit, folder: Path) -> None:
    """Harm: whoever was deleted goes on."""
    browser = visit()
    name = await registered(browser)
    with closing(sqlite3.connect(folder / "users.db")) as connection, connection:
        connection.execute("DELETE FROM users WHERE name = ?", [name])
    assert not await is_signed_in(browser)


async def test_sessions_and_accounts_survive_a_restart(site: Program, visit: Visit) -> None:
    """Harm: a deployment signs everybody out, or takes the secret along."""
    browser = visit()
    name = await registered(browser)
    assert site.end() == 0
    site.start()
    assert await is_signed_in(browser)
    assert (await sign_in(visit(), name)).code == 303


def test_what_it_keeps_is_for_its_owner_only(site: Program, folder: Path) -> None:
    """Harm: other users of the machine read the secret and the hashes."""
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "secret").stat().st_mode & 0o077 == 0


async def test_an_outage_is_explained_by_a_page(tmp_path: Path) -> None:
    """Harm: an empty window, and a traceback for each visitor."""
    with Program(*SITE, folder=tmp_path) as site, closing(Browser(site.url)) as browser:
        await registered(browser)
        jar = browser.jar
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    with (
        Program(*SITE, folder=tmp_path, EYEWALL_URL=nobody) as site,
        closing(Browser(site.url, jar=jar)) as back,
    ):
        for path in ("/", "/sign-in", "/devices", "/password"):
            answer = await back.get(path)
            assert (answer.code, "Retry-After" in answer.headers) == (503, True)
            assert "Please try again in a moment" in answer.body.decode()
        assert "Traceback" not in site.errors


@pytest.mark.parametrize("body", [b"name=%ff&password=%ff", b"everywhere=%ff&handle=%ff", b"\xff", b"&=&="])
@pytest.mark.parametrize("path", ["/sign-in", "/register", "/confirm", "/password", "/devices/revoke"])
async def test_bytes_that_are_no_form_are_refused(visit: Visit, path: str, body: bytes) -> None:
    """Harm: whoever sends bytes causes a 500."""
    browser = visit()
    await registered(browser)
    token = TOKEN.search((await browser.get("/")).body.decode())
    assert token is not None
    headers = {"X-XSRFToken": token[1], "Content-Type": "application/x-www-form-urlencoded"}
    assert (await browser.post(path, body, headers=headers)).code in (400, 404, 422)


def test_the_environment_may_put_the_sessions_elsewhere(tmp_path: Path) -> None:
    """Harm: the setting that everybody uses is ignored."""
    with Program(*SITE, folder=tmp_path, EYEWALL_URL=f"sqlite:///{tmp_path}/elsewhere.db") as site:
        assert site.first_line == f"Site at {site.url}/\n"
    assert not (tmp_path / ".eyewall" / "site" / "sessions.db").exists()
