"""The session is there wherever Tornado runs code of the application's."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from tornado.web import HTTPError, RequestHandler, authenticated

from eyewall import SessionError, SessionMixin, WeakSecretError, session_of
from eyewall.tornado import Sessions
from tests.servers.patience import until
from tests.tornado.site import SECRET, Handler, ServeSite, serving


class Who(Handler):
    def get_current_user(self) -> Any:
        return self.s.principal

    @authenticated
    def get(self) -> None:
        self.write(f"hello {self.current_user}")


class SignIn(Handler):
    def post(self) -> None:
        self.s.sign_in("alice")
        self.redirect("/")


async def test_get_current_user_and_authenticated_see_the_session(serve: ServeSite) -> None:
    """Tornado's own way of asking who it is."""
    site = await serve([("/", Who), ("/in", SignIn)], login_url="/login")
    assert (await site.fetch("/")).headers["Location"].startswith("/login")
    await site.fetch("/in", "POST")
    assert await site.text("/") == "hello alice"


async def test_check_xsrf_cookie_sees_the_session(serve: ServeSite) -> None:
    """It runs before prepare(); sessions loaded in prepare() come too late for it."""
    seen = []

    class Form(Handler):
        def check_xsrf_cookie(self) -> None:
            seen.append(self.s.get("k"))

        def post(self) -> None:
            self.write("ok")

    site = await serve([("/", Form)], xsrf_cookies=True)
    await site.sign_on(k="early")
    assert await site.text("/", "POST") == "ok"
    assert seen == ["early"]


async def test_tornados_own_xsrf_protection_still_works(serve: ServeSite) -> None:
    """The mixin must not weaken what an application has switched on."""

    class Form(Handler):
        def get(self) -> None:
            self.s["k"] = "v"
            self.write(self.xsrf_token)

        def post(self) -> None:
            self.write("ok")

    site = await serve([("/", Form)], xsrf_cookies=True, cookie_secret=SECRET)
    page = await site.fetch("/")
    lines = page.headers.get_list("Set-Cookie")
    assert len(lines) == 2
    cookies = "; ".join(line.partition(";")[0] for line in lines)
    assert (await site.fetch("/", "POST")).code == 403
    good = {"Cookie": cookies, "X-XSRFToken": page.body.decode()}
    assert (await site.fetch("/", "POST", headers=good)).code == 200


async def test_signing_in_changes_the_id_and_the_old_one_is_dead(serve: ServeSite) -> None:
    """Session fixation: whoever planted the old ID must gain nothing (ASVS 7.2.4)."""
    site = await serve([("/", Who), ("/in", SignIn)], login_url="/login")
    await site.sign_on(cart=[1])
    planted = site.cookie
    await site.fetch("/in", "POST")
    assert site.cookie != planted
    assert (await site.fetch("/", headers={"Cookie": planted})).code == 302
    assert (await site.stored())["cart"] == [1]


async def test_a_handler_can_opt_out(serve: ServeSite) -> None:
    """Health checks and metrics want nothing of sessions."""

    class Health(Handler):
        uses_session = False

        def get(self) -> None:
            self.write(type(getattr(self.request, "session", None)).__name__)

    site = await serve([("/", Health)])
    await site.sign_on()
    assert await site.text("/") == "NoneType"
    assert site.store.calls == []


async def test_session_of_finds_the_session_or_says_what_to_do() -> None:
    """An application that is not ours has no ``self.session``."""

    class Plain(RequestHandler):
        def get(self) -> None:
            try:
                session_of(self)["k"] = "v"
                self.write("stored")
            except SessionError as error:
                self.write(str(error))

    async with serving("install", [("/", Plain)]) as site:
        assert await site.text("/") == "stored"
        site.sessions.uninstall(site.application)
        assert "sessions.install(app)" in await site.text("/")


async def test_install_and_mixin_together_load_once() -> None:
    """Installing over an application whose handlers have the mixin already."""

    class Both(SessionMixin, Handler):
        def get(self) -> None:
            self.write(str(self.session.get("k")))

    async with serving("install", [("/", Both)]) as site:
        await site.sign_on(k="v")
        assert await site.text("/") == "v"
        assert site.store.calls == ["load"]


async def test_zero_configuration_works(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An Application with no settings of ours keeps its sessions in a folder."""
    monkeypatch.chdir(tmp_path)

    class Counter(SessionMixin, Handler):
        def get(self) -> None:
            self.session["n"] = self.session.get("n", 0) + 1
            self.write(str(self.session["n"]))

    async with serving("mixin", [("/", Counter)]) as site:
        del site.application.settings["sessions"]
        try:
            assert [await site.text("/") for _ in range(3)] == ["1", "2", "3"]
            assert (tmp_path / ".eyewall").stat().st_mode & 0o777 == 0o700
        finally:
            await site.application.settings["sessions"].aclose()


async def test_a_wrong_setting_is_an_error_page_that_names_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A misconfigured deployment must neither hang nor run without sessions."""

    class Read(SessionMixin, Handler):
        def get(self) -> None:
            self.write(str(self.session.get("n")))

    monkeypatch.setenv("EYEWALL_SAMSITE", "Lax")
    async with serving("mixin", [("/", Read)]) as site:
        del site.application.settings["sessions"]
        assert (await site.fetch("/")).code == 500
    assert "EYEWALL_SAMSITE" in caplog.text


async def test_a_weak_cookie_secret_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Two thirds of all hosts ran a product with the secret its documentation shipped (CVE-2023-27524)."""

    class Read(SessionMixin, Handler):
        def get(self) -> None:
            self.write("ok")

    async with serving("mixin", [("/", Read)], cookie_secret="super-secret-key") as site:
        site.application.settings["sessions"] = Sessions(backend="memory")
        assert (await site.fetch("/")).code == 500
    assert "WeakSecretError" in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://other.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://trusted.example"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_a_post_from_another_site_is_refused_before_anything_runs(
    serve: ServeSite, headers: dict[str, str], status: int
) -> None:
    """The browser sends the cookie along, so only the headers tell who asked."""
    from eyewall import Settings

    ran = []

    class Transfer(Handler):
        def prepare(self) -> None:
            ran.append("prepare")

        def post(self) -> None:
            ran.append("post")

    settings = Settings(backend="memory", cookie_secret=SECRET, trusted_origins=("https://trusted.example",))
    site = await serve([("/", Transfer)], settings=settings)
    await site.sign_on()
    assert (await site.fetch("/", "POST", headers={"Cookie": site.cookie, **headers})).code == status
    assert ran == (["prepare", "post"] if status == 200 else [])


async def test_a_handler_can_trust_origins_of_its_own() -> None:
    """Tornado 6.6's hook is honoured, and works on older versions too."""

    class Webhook(SessionMixin, Handler):
        def check_trusted_origin(self, origin: str) -> bool:
            return origin == "https://partner.example"

        def post(self) -> None:
            self.write("ok")

    class Open(SessionMixin, Handler):
        cross_origin_protection = False

        def post(self) -> None:
            self.write("ok")

    async with serving("mixin", [("/", Webhook), ("/open", Open)]) as site:
        cross = {"Sec-Fetch-Site": "cross-site"}
        good = {**cross, "Origin": "https://partner.example"}
        bad = {**cross, "Origin": "https://evil.example"}
        assert (await site.fetch("/", "POST", headers=good)).code == 200
        assert (await site.fetch("/", "POST", headers=bad)).code == 403
        assert (await site.fetch("/open", "POST", headers=bad)).code == 200


async def test_a_handler_that_raises_in_prepare_is_answered_as_usual(serve: ServeSite) -> None:
    """Our own detour over prepare() must not swallow the application's."""

    class Refuse(Handler):
        async def prepare(self) -> None:
            await asyncio.sleep(0)
            raise HTTPError(418)

        def get(self) -> None:
            self.write("never")

    site = await serve([("/", Refuse)])
    assert (await site.fetch("/")).code == 418


def test_settings_in_the_program_that_silence_the_environment_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis was configured, and sessions went into a folder of one machine."""
    monkeypatch.setenv("EYEWALL_URL", "redis://cache")
    Sessions(backend="memory")
    assert "EYEWALL_URL" in caplog.text


def test_an_unsafe_secret_of_our_own_is_refused_when_sessions_are_made() -> None:
    """Before the first visitor, not with the first visitor's error page."""
    with pytest.raises(WeakSecretError):
        Sessions(backend="memory", cookie_secret="changeme" * 5)


async def test_a_request_leaves_nothing_to_the_collector_of_cycles(serve: ServeSite) -> None:
    """When every request is a cycle, collecting them stops the process for tens of milliseconds."""
    seen: list[weakref.ref[Any]] = []

    class Page(Handler):
        def get(self) -> None:
            seen.append(weakref.ref(self.request))
            self.write(str(self.s.get("k")))

    site = await serve([("/", Page)])
    await site.sign_on(k="v")
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await site.fetch("/")
        await until(lambda: all(one() is None for one in seen[:-1]))
        assert [one() is None for one in seen[:-1]] == [True] * 4
    finally:
        gc.enable()
