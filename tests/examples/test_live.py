"""The chat in a real browser: two tabs of one profile, and somebody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.examples.chromium import PATIENCE_MS, running_chromium
from tests.examples.pair import SECRET
from tests.examples.program import EXAMPLES, Program
from tests.examples.test_cart_page import CONTRASTS, DESK, PHONE, SMALL, click
from tests.examples.test_site import check_controls
from tests.servers.fixtures import Server

pytestmark = pytest.mark.browser

LIVE = (str(EXAMPLES / "live" / "live.py"),)
NOTES = """
window.closes = [];
window.opens = 0;
window.WebSocket = class extends WebSocket {
  constructor(...words) {
    super(...words);
    this.addEventListener("open", () => { window.opens += 1; });
    this.addEventListener("close", ({ code, reason }) => {
      window.closes.push({ code, reason, at: Date.now() });
    });
  }
};
"""
"""Notes when the page's sockets open and close; Date.now() is the same clock in all tabs."""

CLICKS = """
addEventListener("submit", () => { localStorage.setItem("clicked", Date.now()); });
"""

Profile = Callable[..., BrowserContext]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """One browser process for the whole file."""
    with running_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A running chat for the whole file. Nothing goes wrong in it."""
    folder = tmp_path_factory.mktemp("live")
    variables = {"EYEWALL_BACKEND": "memory", "EYEWALL_COOKIE_SECRET": SECRET}
    with Program(*LIVE, folder=folder, **variables) as program:
        yield program
        assert "Traceback" not in program.errors


@pytest.fixture
def profile(chromium: Browser) -> Iterator[Profile]:
    """Make a new profile: somebody with cookies of their own."""
    contexts: list[BrowserContext] = []

    def profile(**device: Any) -> BrowserContext:
        contexts.append(chromium.new_context(**device))
        contexts[-1].set_default_timeout(PATIENCE_MS)
        contexts[-1].add_init_script(NOTES + CLICKS)
        return contexts[-1]

    yield profile
    for context in contexts:
        context.close()


def signed_in(context: BrowserContext, chat: Program, name: str) -> Page:
    """Sign in; return the tab, connected."""
    page = context.new_page()
    page.goto(chat.url)
    page.get_by_label("Name").fill(name)
    click(page, "Sign in")
    return connected(page)


def another_tab(context: BrowserContext, chat: Program) -> Page:
    """One more tab of the same profile, connected."""
    page = context.new_page()
    page.goto(chat.url)
    return connected(page)


def connected(page: Page) -> Page:
    """Wait until the page says that it is."""
    expect(page.get_by_role("status")).to_have_text("Connected")
    return page


def closes(page: Page) -> list[dict[str, Any]]:
    """How the sockets of this page were closed."""
    noted: list[dict[str, Any]] = page.evaluate("window.closes")
    return noted


def wait_for_close(page: Page) -> dict[str, Any]:
    """How its only socket was closed.

    Asked again and again from here: the Content-Security-Policy lets the page itself look once only.
    """
    deadline = monotonic() + PATIENCE_MS / 1000
    while not (noted := closes(page)):
        assert monotonic() < deadline, "the socket is still open"
        page.wait_for_timeout(10)
    (only,) = noted
    return only


def say(page: Page, text: str) -> None:
    """Write into the chat."""
    page.get_by_role("textbox", name="Message").fill(text)
    click(page, "Send")


def test_signing_out_everywhere_closes_the_other_tab_within_a_second(chat: Program, profile: Profile) -> None:
    """Harm: who signed out on a shared computer goes on talking, and listening, in a forgotten tab."""
    anns, bobs = profile(), profile()
    a = signed_in(anns, chat, "Ann")
    b, bob = another_tab(anns, chat), signed_in(bobs, chat, "Bob")
    expect(bob.get_by_role("listitem").filter(has_text="2 tabs")).to_have_text("Ann2 tabs")

    click(a, "Sign out everywhere")
    closed = wait_for_close(b)
    assert (closed["code"], closed["reason"]) == (4401, "signed out")
    expect(b.get_by_role("alert")).to_contain_text("You are signed out. You signed out in another tab.")
    expect(b.get_by_role("button", name="Send")).to_be_disabled()

    clicked = int(b.evaluate("localStorage.getItem('clicked')"))
    assert closed["at"] - clicked < 3000  # some tens as a rule; a machine that is busy may stumble

    say(bob, "Is anybody here?")
    expect(bob.get_by_role("log")).to_contain_text("Is anybody here?")
    assert closes(bob) == []
    assert b.get_by_text("Is anybody here?").count() == 0
    b.get_by_role("link", name="Sign in again").click()
    expect(b.get_by_role("heading", name="Sign in")).to_be_visible()


def test_other_devices_of_the_same_person_are_told_too(chat: Program, profile: Profile) -> None:
    """Harm: "everywhere" means this browser only."""
    here, there = signed_in(profile(), chat, "Eve"), signed_in(profile(**PHONE), chat, "Eve")
    click(here, "Sign out everywhere")
    closed = wait_for_close(there)
    assert (closed["code"], closed["reason"]) == (4401, "ended from another device")
    expect(there.get_by_role("alert")).to_contain_text("You signed out this device from another one.")
    there.reload()
    expect(there.get_by_role("heading", name="Sign in")).to_be_visible()


def test_signing_out_here_leaves_the_other_device_alone(chat: Program, profile: Profile) -> None:
    """Harm: one cannot leave the library's computer without hanging up at home."""
    here, there = signed_in(profile(), chat, "Joy"), signed_in(profile(), chat, "Joy")
    click(here, "Sign out")
    expect(here.get_by_role("heading", name="Sign in")).to_be_visible()
    say(there, "still here")
    expect(there.get_by_role("log")).to_contain_text("still here")
    assert closes(there) == []


def test_a_tab_is_closed_when_somebody_else_signs_in(chat: Program, profile: Profile) -> None:
    """Harm: a forgotten tab writes under the name of who sat here before, in the session of the next."""
    context = profile()
    first = signed_in(context, chat, "Kim")
    second = context.new_page()
    second.goto(f"{chat.url}/sign-in")
    second.get_by_label("Name").fill("Lee")
    click(second, "Sign in")
    assert wait_for_close(first)["code"] == 4401
    expect(first.get_by_role("alert")).to_contain_text("Somebody else signed in with this browser.")
    connected(second)


def test_what_is_said_is_text_and_never_html(chat: Program, profile: Profile) -> None:
    """Harm: a message runs in everybody's browser (XSS)."""
    ann, bob = signed_in(profile(), chat, "Uma"), signed_in(profile(), chat, "Val")
    say(ann, "<img src=x onerror=alert(1)>&amp;")
    expect(bob.get_by_role("log")).to_contain_text("<img src=x onerror=alert(1)>&amp;")
    bob.reload()
    expect(bob.get_by_role("log")).to_contain_text("<img src=x onerror=alert(1)>&amp;")
    assert bob.locator("main img").count() == 0


def test_it_connects_again_when_the_server_was_away(tmp_path: Path, profile: Profile) -> None:
    """Harm: a deployment ends every conversation. Over the default store, a folder, nobody signs in again."""
    with Program(*LIVE, folder=tmp_path) as chat:
        page = signed_in(profile(), chat, "Tom")
        chat.kill()
        expect(page.get_by_role("status")).to_have_text("Not connected. Trying again …")
        expect(page.get_by_role("alert")).to_be_hidden()
        chat.start()
        expect(page.get_by_role("status")).to_have_text("Connected", timeout=20_000)
        assert 4401 not in [closed["code"] for closed in closes(page)]


def test_it_says_so_when_the_session_ended_while_it_was_not_connected(
    tmp_path: Path, profile: Profile
) -> None:
    """Harm: a page tries for ever what will be refused for ever."""
    with memory_chat(tmp_path) as chat:
        page = signed_in(profile(), chat, "Sue")
        chat.kill()
        chat.start()  # its sessions were in its memory
        expect(page.get_by_role("alert")).to_contain_text("You are signed out.", timeout=20_000)
        page.wait_for_timeout(1500)
        assert page.evaluate("window.opens") == 1


@contextmanager
def memory_chat(folder: Path) -> Iterator[Program]:
    """A chat of its own."""
    with Program(*LIVE, folder=folder, EYEWALL_BACKEND="memory", EYEWALL_COOKIE_SECRET=SECRET) as chat:
        yield chat


def test_another_process_closes_it_as_quickly(redis7: Server, tmp_path: Path, profile: Profile) -> None:
    """Harm: behind a load balancer the promise holds only if both tabs happen to be at one process."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    variables = {"EYEWALL_URL": redis7.url, "EYEWALL_COOKIE_SECRET": SECRET}
    with (
        Program(*LIVE, folder=tmp_path / "one", **variables) as one,
        Program(*LIVE, folder=tmp_path / "two", **variables) as two,
    ):
        context = profile()
        a = signed_in(context, one, "Zoe")
        b = another_tab(context, two)  # cookies do not tell ports apart
        clicked = int(a.evaluate("Date.now()"))
        click(a, "Sign out everywhere")
        closed = wait_for_close(b)
        assert closed["code"] == 4401
        assert closed["at"] - clicked < 3000


# --- looks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(chat: Program, profile: Profile, scheme: str) -> None:
    """Harm: people with weak eyes, or in the sun, cannot read it (WCAG 1.4.3, AA)."""
    context = profile(**DESK, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{chat.url}/sign-in")
    measured = page.evaluate(CONTRASTS)
    a, b = signed_in(context, chat, f"Ida {scheme}"), another_tab(context, chat)
    say(b, "Good morning")
    expect(b.get_by_role("log")).to_contain_text("Good morning")
    measured += b.evaluate(CONTRASTS)
    click(a, "Sign out everywhere")
    expect(b.get_by_role("alert")).to_be_visible()
    measured += b.evaluate(CONTRASTS)
    assert len(measured) > 20
    assert [(text, ratio) for text, ratio in measured if ratio < 4.5] == []


@pytest.mark.parametrize("device", [SMALL, PHONE], ids=["360", "390"])
def test_it_can_be_used_with_a_thumb(chat: Program, profile: Profile, device: dict[str, Any]) -> None:
    """Harm: one scrolls sideways to reach a button, or hits the wrong one (WCAG 2.5.5)."""
    context, width = profile(**device), device["viewport"]["width"]
    page = context.new_page()
    page.goto(f"{chat.url}/sign-in")
    check_controls(page, width)
    a, b = signed_in(context, chat, f"Max {width}"), another_tab(context, chat)
    check_controls(b, width)
    click(a, "Sign out everywhere")
    expect(b.get_by_role("alert")).to_be_visible()
    check_controls(b, width)


def test_the_page_keeps_within_its_own_policy(chat: Program, profile: Profile) -> None:
    """Harm: the policy of the page forbids what the page itself does, or forbids nothing."""
    complaints: list[str] = []
    page = profile().new_page()
    page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{chat.url}/sign-in")
    page.get_by_label("Name").fill("Pia")
    click(page, "Sign in")
    connected(page)
    assert complaints == []
    answer = page.request.get(chat.url)
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert "<script>" not in answer.text()
