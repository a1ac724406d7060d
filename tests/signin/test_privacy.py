"""Canaries: no secret is in a log, a traceback, a repr, an error page, an event or a store."""

from __future__ import annotations

import base64
import gc
import hashlib
import logging
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse

from eyewall.core.events import EventKind
from eyewall.core.ids import digest_of
from eyewall.errors import EyewallError, StoreUnavailable
from eyewall.signin.passwords import Passwords
from eyewall.testing.client import Browser
from tests.signin.kit import REMEMBER, SESSION, Deployment, Process, cookies, drop, replayed
from tests.signin.pages import Page
from tests.tornado.site import SECRET

PASSWORD = "canary-pässword-four-quiet-boats"
PRE_SESSION = "session-pre"
WHOLE_LINE = 15
"""Shorter pieces of a cookie are its format and the key's public name."""


class Canaries:
    """Collects every secret that passes, and everything that is shown to anybody but its owner."""

    def __init__(self) -> None:
        self.secrets: set[str] = {SECRET, PASSWORD}
        self.shown: list[tuple[str, str]] = []

    def note(self, value: str) -> None:
        """Note a cookie's value, or a token, with its parts."""
        self.secrets |= {piece for piece in (value, *value.split(".")) if len(piece) > WHOLE_LINE}

    def see(self, where: str, text: object) -> None:
        """Note what is shown."""
        self.shown.append((where, str(text)))

    def leaks(self, *, among_locals: bool = False) -> list[str]:
        """Every line that shows a secret, in any spelling; of the pages and logs, or of frames."""
        spelt = {form for secret in self.secrets for form in spellings(secret)}
        lines = {(where, line) for where, text in self.shown for line in text.splitlines()}
        lines = {one for one in lines if (one[0] == "locals") is among_locals}
        return sorted(f"{where}: {line[:200]}" for where, line in lines if any(s in line for s in spelt))


def spellings(secret: str) -> Iterator[str]:
    """A secret as it is, and as encodings show it."""
    octets = secret.encode()
    yield secret
    yield octets.hex()
    yield base64.b64encode(octets).decode()
    yield ascii(secret)[1:-1]


class Form(Page):
    """A form, and all that can go wrong behind it."""

    passwords: Passwords
    canaries: Canaries

    def get(self) -> None:
        token = self.xsrf_token.decode()
        self.canaries.note(token)
        self.write(token)

    async def post(self) -> None:
        await self.count_attempt(self.get_argument("name"))
        how = self.get_argument("how", "")
        if how != "quick":
            stored = await self.passwords.hash(self.get_body_argument("password"))
            assert await self.passwords.verify(self.get_body_argument("password"), stored)
        await self.attempt_succeeded(self.get_argument("name"))
        self.sign_in(self.get_argument("name"), remember=True)
        session, draft, manager = self.session, self.session.draft, self.sessions  # shown as locals
        if how == "bug":
            raise RuntimeError(f"a bug with {session} {draft} {manager}")
        if how == "unstorable":
            session["k"] = object()
        if how == "principal":
            session.sign_in("")
        if how == "password":
            await self.passwords.hash(self.get_body_argument("password") * 1_000)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log as always, and with the locals of every frame, as error collectors do."""
        super().log_exception(typ, value, tb)
        shown = traceback.TracebackException(typ, value, tb, capture_locals=True)
        self.canaries.see("locals", "".join(shown.format()))

    def on_finish(self) -> None:
        """Show everything that one can get hold of in a handler."""
        manager, session = self.sessions, self.session
        for each in (
            self, self.request, self.request.connection, session, session.draft, session.draft.record,
            session.draft.payload, session.draft.identity, session.draft.changes, session.flash, self.jar,
            manager, manager.settings, manager.devices, manager.attempts, manager.csrf_tokens,
            manager.cookie_formats, manager.events, manager.key_use(), manager.store,
        ):  # fmt: skip
            self.canaries.see(f"repr of {type(each).__name__}", repr(each))


async def _visit(browser: Browser, canaries: Canaries, name: str, **fields: str) -> HTTPResponse:
    """Get the form, send it, and note every secret that came by."""
    token = (await browser.get("/form")).body.decode()
    note_cookies(browser, canaries)
    sent = {"name": name, "password": PASSWORD, "_xsrf": token, **fields}
    answer = await browser.post_form("/form", sent)
    note_cookies(browser, canaries)
    if answer.code >= 400:
        canaries.see(f"error page {answer.code}", answer.body.decode())
    return answer


def note_cookies(browser: Browser, canaries: Canaries) -> None:
    """The values that the browser holds now."""
    for value in cookies(browser).values():
        canaries.note(value)


async def _walk(site: Deployment, process: Process, canaries: Canaries) -> None:
    """Everything that may happen to somebody who signs in."""
    browser = site.browser(process)
    await browser.get("/form")
    note_cookies(browser, canaries)
    assert (await _visit(browser, canaries, site.ann)).code == 200
    for how in ("bug", "unstorable", "principal", "password"):
        assert (await _visit(browser, canaries, site.ann, how=how)).code == 500
    assert (await _visit(browser, canaries, site.ann, _xsrf="A" * 104)).code == 403
    stolen = cookies(browser)
    drop(browser, SESSION)  # brought back
    assert (await browser.get("/form")).code == 200
    note_cookies(browser, canaries)
    site.clock.advance(timedelta(hours=2))  # and again, and the copy comes after that
    await browser.get("/form")
    note_cookies(browser, canaries)
    site.clock.advance(timedelta(minutes=2))
    await replayed(browser, f"{REMEMBER}={stolen[REMEMBER]}")
    for forged in (stolen[SESSION][:-1] + "_", stolen[SESSION].swapcase()):
        await replayed(browser, f"{SESSION}={forged}")
    await replayed(browser, f"{SESSION}={stolen[SESSION]}; {REMEMBER}={stolen[REMEMBER][:-1]}_")
    for verb in ("load", "create", "replace", "delete"):
        for after in range(4):
            await _in_an_outage(site, process, canaries, verb, after)
    process.application.settings["disabled"] = None  # the table of users is gone
    canaries.see("error page", (await _visit(browser, canaries, site.ann)).body.decode())


async def _in_an_outage(
    site: Deployment, process: Process, canaries: Canaries, verb: str, after: int
) -> None:
    browser = site.browser(process)
    assert (await _visit(browser, canaries, site.bob, how="quick")).code == 200
    drop(browser, SESSION)
    process.store.fail(verb, StoreUnavailable("connection refused"), after=after)
    answer = await browser.get("/form")
    if answer.code >= 400:
        canaries.see("error page", answer.body.decode())
    else:
        await _visit(browser, canaries, site.bob, how="quick")
    note_cookies(browser, canaries)
    process.store.meddle = None
    await process.sessions.attempts.forgive(site.bob)


async def _watched(here: Deployment, *, serve_traceback: bool = False) -> tuple[Process, Canaries]:
    canaries, passwords = Canaries(), Passwords()

    class Watched(Form):
        pass

    Watched.canaries, Watched.passwords = canaries, passwords
    here.at_end(passwords.close)
    settings = {"serve_traceback": serve_traceback}
    process = await here.process([("/form", Watched)], settings, strict=True)
    process.sessions.events.subscribe(lambda event: canaries.see("event", repr(event)))
    return process, canaries


@pytest.mark.parametrize("serve_traceback", [False, True])
async def test_no_secret_is_shown_to_anybody(
    here: Deployment, caplog: pytest.LogCaptureFixture, *, serve_traceback: bool
) -> None:
    """Whoever reads a log or an error page must not be able to become a user (ASVS 16.2.5)."""
    for name in ("", "tornado.access", "tornado.application", "tornado.general", "eyewall", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    process, canaries = await _watched(here, serve_traceback=serve_traceback)
    await _walk(here, process, canaries)
    for record in caplog.records:
        canaries.see(f"log {record.name}", f"{record.getMessage()} {record.args} {record.exc_text}")
    canaries.see("log as written", caplog.text)
    told = {event.kind for event in process.events}
    assert {EventKind.THEFT, EventKind.CSRF_REFUSED, EventKind.STORE_DOWN, EventKind.REMEMBERED} <= told
    assert {"tornado.access", "tornado.application", "eyewall"} <= {record.name for record in caplog.records}
    assert any(where.startswith("error page 500") for where, _ in canaries.shown)
    assert any("a bug" in text for where, text in canaries.shown if where == "locals")
    assert len(canaries.secrets) > 30
    assert canaries.leaks() == []


async def test_no_secret_is_a_local_of_a_frame_that_fails(here: Deployment) -> None:
    """Error collectors send the locals of every frame to somebody else's server."""
    process, canaries = await _watched(here)
    browser = here.browser(process)
    for how in ("", "bug", "unstorable", "principal"):
        await _visit(browser, canaries, here.ann, how=how)
    for verb in ("load", "create", "replace"):
        for after in range(3):
            token = (await browser.get("/form")).body.decode()
            process.store.fail(verb, StoreUnavailable("connection refused"), after=after)
            await browser.post_form("/form", {"name": here.ann, "how": "quick", "_xsrf": token})
            process.store.meddle = None
            note_cookies(browser, canaries)
    assert sum(where == "locals" for where, _ in canaries.shown) > 5
    assert canaries.leaks(among_locals=True) == []


async def test_the_canary_sings() -> None:
    """A search that finds nothing anywhere proves nothing."""
    canaries = Canaries()
    canaries.note("ew1.AAAAAAAA.this-is-a-session-id-of-a-visitor.mac")
    canaries.see("log", "session 'this-is-a-session-id-of-a-visitor' not found")
    canaries.see("page", b"this-is-a-session-id-of-a-visitor".hex())
    canaries.see("log", f"digest {digest_of('x').hex()}")
    assert [leak.partition(":")[0] for leak in canaries.leaks()] == ["log", "page"]


async def test_no_error_of_ours_carries_a_secret(here: Deployment) -> None:
    """Errors travel farther than logs: into pages, mails and trackers."""
    process = await here.process()
    browser = await here.signed_in(process, here.ann, remember="1")
    secrets = [
        part for value in cookies(browser).values() for part in value.split(".") if len(part) > WHOLE_LINE
    ]
    process.store.fail("load", StoreUnavailable("connection refused"))
    await browser.get("/")
    errors = [each for each in gc.get_objects() if isinstance(each, EyewallError)]
    assert errors
    for error in errors:
        text = f"{error!r} {error} {error.__dict__}"
        assert not [secret for secret in secrets if secret in text]


async def test_what_is_stored_holds_no_secret(site: Deployment) -> None:
    """A dump of any store must open nothing: neither sessions nor remembered browsers (CVE-2019-16782)."""
    process = await site.process()
    browser = await site.signed_in(process, site.ann, remember="1")
    drop(browser, SESSION)
    await browser.get("/")
    found = await process.store.inner.find_principal(site.ann)
    assert len(found) == 3
    dump = b"".join(repr(record).encode() + record.payload + record.digest for record in found)
    for value in cookies(browser).values():
        for part in value.split(".")[2:]:
            octets = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
            for shown in (part.encode(), octets, octets.hex().encode(), base64.b64encode(octets)):
                assert shown not in dump
    for record in found:
        for key in (record.digest.hex(), base64.urlsafe_b64encode(record.digest).decode().rstrip("=")):
            for name in (SESSION, REMEMBER):
                assert await replayed(site.browser(process), f"{name}={key}") is None
    digest = hashlib.sha256(cookies(browser)[SESSION].split(".")[2].encode()).digest()
    assert digest in {record.digest for record in found}
