"""The site with accounts in a real browser: two profiles, which are two devices of one user."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.examples.chromium import PATIENCE_MS, running_chromium
from tests.examples.program import EXAMPLES, Program
from tests.examples.test_cart_page import CONTRASTS, DESK, PHONE, SMALL, WITHOUT_SCRIPTS, click

pytestmark = pytest.mark.browser

SITE = (str(EXAMPLES / "site" / "site.py"),)
PASSWORD = "four quiet green boats"
OTHER_PASSWORD = "seven loud yellow kites"
NUMBERS = count(1)

Profile = Callable[..., Page]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser process for the whole file."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One running site for the whole file; each test has an account of its own. Nothing goes wrong in it."""
    with Program(*SITE, folder=tmp_path_factory.mktemp("site")) as program:
        yield program
        assert "Traceback" not in program.errors


@pytest.fixture
def profile(chromium: Browser, site: Program) -> Iterator[Profile]:
    """Open the site with a new profile, scripts off unless asked for: nothing here needs them."""
    contexts: list[BrowserContext] = []

    def profile(**device: Any) -> Page:
        contexts.append(chromium.new_context(base_url=site.url, **{**WITHOUT_SCRIPTS, **device}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto("/")
        return page

    yield profile
    for context in contexts:
        context.close()


def registered(page: Page) -> str:
    """Register an account nobody has had before; return its name."""
    name = f"user-{next(NUMBERS)}"
    page.goto("/register")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    click(page, "Register")
    expect(page.get_by_role("heading", name=f"Hello, {name}")).to_be_visible()
    return name


def sign_in(page: Page, name: str, password: str = PASSWORD, *, remember: bool = True) -> None:
    """Fill in the form that is shown, and send it."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_label("Remember me on this device").set_checked(remember)
    click(page, "Sign in")


def two_devices(profile: Profile) -> tuple[Page, Page, str]:
    """One user on two devices, remembered on both."""
    here, there = profile(), profile(**PHONE)
    name = registered(here)
    click(here, "Sign out")
    for page in (here, there):
        sign_in(page, name)
        expect(page.get_by_role("heading", name=f"Hello, {name}")).to_be_visible()
    return here, there, name


def follow(page: Page, name: str) -> None:
    """Click a link."""
    page.get_by_role("link", name=name, exact=True).click()


def is_asked_to_sign_in(page: Page) -> bool:
    """Whether the sign-in page is shown."""
    expect(page.get_by_role("heading")).not_to_have_text("")
    return page.get_by_role("heading", name="Sign in").is_visible()


def cookies_of(page: Page) -> set[str]:
    """The names of the cookies that the profile has."""
    return {cookie.get("name", "") for cookie in page.context.cookies()}


def end_session(page: Page) -> None:
    """What a closed browser, or the idle timeout, leaves behind: the remember token alone."""
    page.context.clear_cookies(name="session")


def test_one_device_signs_out_the_other(profile: Profile) -> None:
    """Harm: a lost phone stays signed in, or its remember token brings it right back."""
    here, there, _ = two_devices(profile)
    follow(here, "Devices")
    devices = here.get_by_role("listitem")
    expect(devices).to_have_count(2)
    expect(devices.filter(has_text="This device")).to_have_count(1)
    expect(devices.filter(has_text="Remembered")).to_have_count(2)
    devices.filter(has_not_text="This device").get_by_role("button").click()
    expect(here.get_by_role("status")).to_contain_text("Signed out: ")
    expect(devices).to_have_count(1)

    follow(there, "Devices")
    assert is_asked_to_sign_in(there)
    assert "session-remember" not in cookies_of(there)
    there.goto("/")
    assert is_asked_to_sign_in(there)
    here.reload()
    expect(devices).to_have_count(1)


def test_a_revoked_device_is_not_brought_back_by_its_token(profile: Profile) -> None:
    """Harm: whoever deletes the session cookie only is let in again by the other one."""
    here, there, _ = two_devices(profile)
    follow(here, "Devices")
    click(here, "Sign out all other devices")
    expect(here.get_by_role("status")).to_have_text("Other devices signed out: 1")
    end_session(there)
    there.goto("/")
    assert is_asked_to_sign_in(there)


def test_a_new_password_ends_the_other_devices(profile: Profile) -> None:
    """Harm: a thief who signed in with the old password stays."""
    here, there, name = two_devices(profile)
    follow(here, "Change password")
    here.get_by_label("New password").fill(OTHER_PASSWORD)
    click(here, "Change password")
    expect(here.get_by_role("status")).to_have_text("Password changed. Other devices signed out: 1.")

    there.reload()
    assert is_asked_to_sign_in(there)
    sign_in(there, name, PASSWORD)
    expect(there.get_by_role("alert")).to_have_text("Name or password is wrong.")
    sign_in(there, name, OTHER_PASSWORD)
    expect(there.get_by_role("heading", name=f"Hello, {name}")).to_be_visible()


def test_who_is_brought_back_by_a_token_is_asked_before_anything_important(profile: Profile) -> None:
    """Harm: whoever finds the browser open a week later changes the password."""
    here, _, name = two_devices(profile)
    end_session(here)
    here.goto("/")
    expect(here.get_by_role("heading", name=f"Hello, {name}")).to_be_visible()
    expect(here.get_by_text("Before you change something important")).to_be_visible()

    follow(here, "Change password")
    expect(here.get_by_role("heading", name=f"Is it you, {name}?")).to_be_visible()
    here.get_by_label("Password").fill("not the password")
    click(here, "Go on")
    expect(here.get_by_role("alert")).to_have_text("The password is wrong.")
    here.get_by_label("Password").fill(PASSWORD)
    click(here, "Go on")
    expect(here.get_by_role("heading", name="Change password")).to_be_visible()


def test_without_remember_me_the_end_of_the_session_is_the_end(profile: Profile) -> None:
    """Harm: a browser in a library remembers who never asked for it."""
    page = profile()
    name = registered(page)
    click(page, "Sign out")
    sign_in(page, name, remember=False)
    expect(page.get_by_role("heading", name=f"Hello, {name}")).to_be_visible()
    end_session(page)
    page.reload()
    assert is_asked_to_sign_in(page)


@pytest.mark.parametrize("scripts", [{"java_script_enabled": True}, WITHOUT_SCRIPTS], ids=["scripts", "none"])
def test_after_signing_out_the_back_button_shows_nothing_private(
    profile: Profile, scripts: dict[str, Any]
) -> None:
    """Harm: the next person at this computer reads on where the last one left."""
    page = profile(**scripts)
    name = registered(page)
    follow(page, "Devices")
    expect(page.get_by_text("This device")).to_be_visible()
    click(page, "Sign out")
    assert is_asked_to_sign_in(page)
    page.go_back()
    assert is_asked_to_sign_in(page)
    assert name not in page.content()
    assert cookies_of(page) <= {"session-pre"}


def test_signing_out_everywhere_does(profile: Profile) -> None:
    """Harm: somebody believes to be signed out."""
    here, there, _ = two_devices(profile)
    click(here, "Sign out everywhere")
    assert is_asked_to_sign_in(here)
    there.goto("/")
    assert is_asked_to_sign_in(there)


def test_signing_in_leads_to_where_one_wanted_to_go(profile: Profile) -> None:
    """Harm: a link to the devices ends on another page."""
    page = profile()
    name = registered(page)
    click(page, "Sign out")
    page.goto("/devices")
    sign_in(page, name, "wrong at first")
    expect(page.get_by_role("alert")).to_be_visible()
    sign_in(page, name)
    expect(page.get_by_role("heading", name="Your devices")).to_be_visible()


# --- looks -----------------------------------------------------------------------------------------------

PAGES = ["/", "/devices", "/password", "/confirm", "/nothing-here"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(profile: Profile, scheme: str) -> None:
    """Harm: people with weak eyes, or in the sun, cannot read it (WCAG 1.4.3, AA)."""
    page = profile(**DESK, color_scheme=scheme, java_script_enabled=True)
    measured = page.evaluate(CONTRASTS)
    registered(page)
    for path in PAGES:
        page.goto(path)
        measured += page.evaluate(CONTRASTS)
    assert len(measured) > 30
    assert [(text, ratio) for text, ratio in measured if ratio < 4.5] == []


@pytest.mark.parametrize("device", [SMALL, PHONE], ids=["360", "390"])
def test_it_can_be_used_with_a_thumb(profile: Profile, device: dict[str, Any]) -> None:
    """Harm: one scrolls sideways to reach a button, or hits the wrong one (WCAG 2.5.5)."""
    page = profile(**device)
    check_controls(page, device["viewport"]["width"])
    registered(page)
    for path in PAGES:
        page.goto(path)
        check_controls(page, device["viewport"]["width"])


def check_controls(page: Page, width: int) -> None:
    """All that one can press lies within the window, and is 44 pixels high."""
    for control in page.locator(
        "button:visible, a:visible, input:not([type=checkbox], .unseen):visible"
    ).all():
        box = control.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["height"] >= 44
