"""The CSRF token: bound to one session, worthless in any other, and nothing stored for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.core.csrf_token import PRE_SESSION_LIFE, CsrfTokens
from eyewall.core.manager import Manager
from eyewall.core.session import Session
from eyewall.core.signed_envelope import SignedEnvelope
from eyewall.crypto.keyring import KeyRing
from eyewall.crypto.signer import Signer
from eyewall.errors import StoreUnavailable
from eyewall.settings import Settings
from eyewall.stores.memory import MemoryStore
from eyewall.testing.clock import ManualClock
from tests.core.world import SECRET, World

OTHER_SECRET = "pL5-x9Qe2Wc7Uz0mHt4Ry8Bn1Vk6Jd3FgAsZoXi"
PRE_SESSION = "__Host-session-pre"


class Visitor:
    """A browser that keeps every cookie it is sent."""

    def __init__(self, manager: Manager, *, https: bool = True) -> None:
        self.manager = manager
        self.https = https
        self.cookies: dict[str, str] = {}
        self.lines: list[str] = []

    async def open(self) -> Session:
        """Begin a request."""
        sent = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        session = self.manager.open([sent] if sent else [], https=self.https)
        await self.manager.load(session)
        return session

    async def end(self, session: Session, status: int = 200) -> None:
        """End a request as the adapter does."""
        if self.manager.needs_commit(session, status=status):
            await self.manager.commit(session, status=status)
        session.close()
        self.lines = self.manager.set_cookie_lines(session, https=self.https)
        for line in self.lines:
            name, _, value = line.partition(";")[0].partition("=")
            if "Max-Age=0" in line:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    async def page(self) -> str:
        """Load a page with a form; returns its token."""
        session = await self.open()
        token = self.manager.csrf_tokens.make(session)
        await self.end(session)
        return token

    async def sends(self, token: str) -> bool:
        """Send a form; returns whether its token counts."""
        session = await self.open()
        accepted = self.manager.csrf_tokens.accepts(session, token)
        await self.end(session)
        return accepted

    async def does(self, verb: str, *arguments: Any) -> None:
        """One request in which the session is told ``verb``."""
        session = await self.open()
        getattr(session, verb)(*arguments)
        await self.end(session)


class Csrf(World):
    """The world, its visitors, and other processes with other keys."""

    def visitor(self) -> Visitor:
        """A fresh visitor."""
        return Visitor(self.manager)

    def process_with(self, secret: str | dict[int, str]) -> Manager:
        """Another process over the same store, with these keys."""
        manager = Manager(self.settings, self.store, self.clock)
        manager.use_keyring(KeyRing.from_secret(secret))
        return manager


@pytest.fixture
def csrf() -> Csrf:
    """A world whose clock stands still."""
    return Csrf()


# -- the token ----------------------------------------------------------------------------------------------


async def test_two_pages_have_two_texts_of_one_token(csrf: Csrf) -> None:
    """BREACH: a secret that a compressed page repeats can be guessed letter by letter."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    tokens = {await visitor.page() for _ in range(20)}
    assert len(tokens) == 20
    assert len({token[-52:] for token in tokens}) == 20
    assert [await visitor.sends(token) for token in tokens] == [True] * 20


async def test_the_format_is_frozen() -> None:
    """A deployment that changes it refuses every form that is open in a browser."""
    ring = KeyRing.from_secret(SECRET)
    manager = Manager(Settings(backend="memory"), MemoryStore(), ManualClock())
    manager.use_keyring(ring)
    session = manager.open([], https=True)
    session.sign_in("alice")
    identity = session.draft.identity
    session.draft.pending.identity = type(identity)("alice", identity.authenticated_at, bytes(range(16)))
    assert manager.csrf_tokens.accepts(session, FROZEN)


FROZEN = (
    "ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1-f4CBgoOEhYaHiImKZe5GSXUMPtNnoP2PYW_qioGKmalMfYrRWlgSpRXEOe0yTAQP8UrW"
)


@given(st.text() | st.text("ABCDab01-_=", min_size=100, max_size=108))
def test_whatever_is_sent_is_refused_without_an_error(text: str) -> None:
    """A stranger's bytes become a 500."""
    manager = Csrf().manager
    session = manager.open([], https=True)
    session.sign_in("alice")
    assert not manager.csrf_tokens.accepts(session, text)


async def test_a_token_has_exactly_one_spelling(csrf: Csrf) -> None:
    """A second spelling hides a replay from whoever compares texts, and any bent one must fail."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    token = await visitor.page()
    session = await visitor.open()
    for at, character in enumerate(token):
        bent = token[:at] + ("A" if character != "A" else "B") + token[at + 1 :]
        assert not csrf.manager.csrf_tokens.accepts(session, bent), at
    for bent in (token + "=", token + "\n", " " + token, token[:-1], token * 2, ""):
        assert not csrf.manager.csrf_tokens.accepts(session, bent)
    assert csrf.manager.csrf_tokens.accepts(session, token)


# -- bound to the session (S04) -----------------------------------------------------------------------------


async def test_the_attackers_own_token_is_refused_in_the_victims_session(csrf: Csrf) -> None:
    """The attacker signs in to their own account and puts its token into the forged form."""
    victim, attacker = csrf.visitor(), csrf.visitor()
    await victim.does("sign_in", "alice")
    await attacker.does("sign_in", "mallory")
    assert not await victim.sends(await attacker.page())


async def test_another_device_of_the_same_principal_has_another_token(csrf: Csrf) -> None:
    """A token read on a shared computer works against the user's phone."""
    phone, desk = csrf.visitor(), csrf.visitor()
    await phone.does("sign_in", "alice")
    await desk.does("sign_in", "alice")
    assert not await phone.sends(await desk.page())


async def test_the_token_of_the_session_before_is_refused(csrf: Csrf) -> None:
    """What was read before a sign-out is used after the next sign-in."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    old = await visitor.page()
    await visitor.does("sign_out")
    assert not await visitor.sends(old)
    await visitor.does("sign_in", "alice")
    assert not await visitor.sends(old)


async def test_clearing_the_session_ends_its_token(csrf: Csrf) -> None:
    """Signing out by ``clear()`` leaves the old forms working for whoever comes next."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    old = await visitor.page()
    await visitor.does("clear")
    assert not await visitor.sends(old)


async def test_whoever_takes_over_the_browser_gets_another_token(csrf: Csrf) -> None:
    """A form that alice left open is sent as bob."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    old = await visitor.page()
    await visitor.does("sign_in", "bob")
    assert not await visitor.sends(old)


async def test_an_anonymous_session_does_not_accept_anothers_token(csrf: Csrf) -> None:
    """A cart is a session too."""
    victim, attacker = csrf.visitor(), csrf.visitor()
    await victim.does("set", "cart", 1)
    await attacker.does("set", "cart", 2)
    assert not await victim.sends(await attacker.page())
    assert await victim.sends(await victim.page())


async def test_the_token_of_an_anonymous_session_is_gone_at_sign_in(csrf: Csrf) -> None:
    """Fixation: a token planted before the sign-in is good after it."""
    visitor = csrf.visitor()
    await visitor.does("set", "cart", 1)
    before = await visitor.page()
    await visitor.does("sign_in", "alice")
    assert not await visitor.sends(before)


async def test_forms_in_other_tabs_go_on_working_after_a_regeneration(csrf: Csrf) -> None:
    """Proving oneself again, or getting a new ID, must not throw away what was typed elsewhere."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    open_form = await visitor.page()
    await visitor.does("regenerate")
    assert await visitor.sends(open_form)
    await visitor.does("sign_in", "alice")
    assert await visitor.sends(open_form)


async def test_a_page_that_regenerates_an_anonymous_session_has_a_token_that_works(csrf: Csrf) -> None:
    """The token is bound to the ID that the browser is just losing."""
    visitor = csrf.visitor()
    await visitor.does("set", "cart", 1)
    session = await visitor.open()
    session.regenerate()
    token = csrf.manager.csrf_tokens.make(session)
    await visitor.end(session)
    assert await visitor.sends(token)


async def test_the_page_that_signs_in_has_the_new_token(csrf: Csrf) -> None:
    """A page rendered in answer to the sign-in form has a form that cannot be sent."""
    visitor = csrf.visitor()
    session = await visitor.open()
    session.sign_in("alice")
    token = csrf.manager.csrf_tokens.make(session)
    await visitor.end(session)
    assert await visitor.sends(token)


async def test_a_session_signed_in_before_devices_had_ids_has_a_token(csrf: Csrf) -> None:
    """After the upgrade nobody who stayed signed in can send a form."""
    visitor, stranger = csrf.visitor(), csrf.visitor()
    for each in (visitor, stranger):
        session = await each.open()
        session.sign_in("alice")
        who = session.draft.identity
        session.draft.pending.identity = type(who)(who.principal, who.authenticated_at)
        await each.end(session)
    assert await visitor.sends(await visitor.page())
    assert not await visitor.sends(await stranger.page())


# -- keys ---------------------------------------------------------------------------------------------------


async def test_a_token_of_another_key_is_refused(csrf: Csrf) -> None:
    """Whoever runs another installation of the program can make tokens for ours."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    session = await visitor.open()
    foreign = CsrfTokens(KeyRing.from_secret(OTHER_SECRET), csrf.settings, csrf.clock)
    assert not csrf.manager.csrf_tokens.accepts(session, foreign.make(session))


@pytest.mark.parametrize("purpose", ["session", "cookie", "pre-session"])
async def test_a_mac_made_for_another_purpose_is_refused(csrf: Csrf, purpose: str) -> None:
    """A value that we sign on request elsewhere is passed off as a token."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    session = await visitor.open()
    tokens = CsrfTokens(KeyRing.from_secret(SECRET), csrf.settings, csrf.clock)
    assert csrf.manager.csrf_tokens.accepts(session, tokens.make(session))
    tokens._signer = Signer(KeyRing.from_secret(SECRET), purpose)
    assert not csrf.manager.csrf_tokens.accepts(session, tokens.make(session))


async def test_rotating_the_keys_refuses_no_open_form(csrf: Csrf) -> None:
    """Operators put off rotating keys because every form fails; and a dropped key must count no more."""
    visitor, newcomer = csrf.visitor(), csrf.visitor()
    await visitor.does("sign_in", "alice")
    tokens = {visitor: await visitor.page(), newcomer: await newcomer.page()}
    rotated = csrf.process_with({1: SECRET, 2: OTHER_SECRET})
    for each, token in tokens.items():
        each.manager = rotated
        assert await each.sends(token)
        each.manager = csrf.process_with(OTHER_SECRET)
        assert not await each.sends(token)


# -- the pre-session (S06, L15) -----------------------------------------------------------------------------


async def test_a_stranger_who_opens_the_sign_in_page_writes_nothing(csrf: Csrf) -> None:
    """A crawler on the sign-in page fills the store."""
    visitor = csrf.visitor()
    assert await visitor.sends(await visitor.page())
    assert await csrf.records() == []
    assert list(visitor.cookies) == [PRE_SESSION]


HOST_ONLY = "__Host-session-pre=V; Path=/; Secure; HttpOnly; SameSite"


@pytest.mark.parametrize(
    ("https", "options", "expected"),
    [
        (True, {}, f"{HOST_ONLY}=Lax"),
        (False, {}, "session-pre=V; Path=/; HttpOnly; SameSite=Lax"),
        (True, {"domain": "a.example", "samesite": "Strict"}, f"{HOST_ONLY}=Lax"),
        (True, {"samesite": "None", "secure": True}, f"{HOST_ONLY}=None"),
    ],
)
async def test_the_pre_sessions_cookie_is_this_hosts_alone(
    https: bool, options: dict[str, Any], expected: str
) -> None:
    """A sibling subdomain plants its own pair of cookie and token."""
    visitor = Visitor(Csrf(**options).manager, https=https)
    await visitor.page()
    (line,) = visitor.lines
    (value,) = visitor.cookies.values()
    assert value.startswith("ew1s.")
    assert line.replace(value, "V") == expected


async def test_a_page_without_a_token_sets_no_cookie(csrf: Csrf) -> None:
    """Every visitor of a public page is given a cookie, which needs their consent."""
    visitor = csrf.visitor()
    await visitor.does("get", "anything")
    assert visitor.lines == []
    assert not await visitor.sends("x")
    assert visitor.lines == []


async def test_a_forged_sign_in_fails_with_a_token_of_the_attackers_pre_session(csrf: Csrf) -> None:
    """Login CSRF: the victim is signed in to the attacker's account, and types a card number there."""
    attacker, victim = csrf.visitor(), csrf.visitor()
    token = await attacker.page()
    assert not await victim.sends(token)
    await victim.page()
    assert not await victim.sends(token)


async def test_a_planted_pre_session_beside_the_visitors_own_counts_for_nothing(csrf: Csrf) -> None:
    """Cookie tossing: the attacker's pair is sent first, or second, and theirs is the one that is read."""
    attacker, victim = csrf.visitor(), csrf.visitor()
    stolen, own = await attacker.page(), await victim.page()
    pairs = [f"{PRE_SESSION}={each.cookies[PRE_SESSION]}" for each in (attacker, victim)]
    for first, second in (pairs, reversed(pairs)):
        session = csrf.manager.open([f"{first}; {second}"], https=True)
        assert not csrf.manager.csrf_tokens.accepts(session, stolen)
        assert not csrf.manager.csrf_tokens.accepts(session, own)


async def test_a_pre_session_ends_after_fifteen_minutes(csrf: Csrf) -> None:
    """A sign-in page left open in a library is filled in by the next reader."""
    visitor = csrf.visitor()
    token = await visitor.page()
    csrf.clock.advance(PRE_SESSION_LIFE - timedelta(seconds=1))
    assert await visitor.sends(token)
    csrf.pass_time(seconds=1)
    assert not await visitor.sends(token)


async def test_opening_more_pages_does_not_prolong_a_pre_session(csrf: Csrf) -> None:
    """A script that reloads the page keeps an old token alive for ever."""
    visitor = csrf.visitor()
    tokens = []
    for _ in range(8):  # one page every two minutes, the last after 14
        tokens.append(await visitor.page())
        csrf.pass_time(minutes=2)
    accepted = [await visitor.sends(token) for token in tokens]
    assert accepted == [False, False, False, True, True, True, True, True]


async def test_every_page_has_ten_minutes_at_least(csrf: Csrf) -> None:
    """The page is opened in the last minute of a pre-session, and nobody can type that fast."""
    visitor = csrf.visitor()
    for minutes in range(0, 15, 3):
        token = await visitor.page()
        csrf.pass_time(minutes=10)
        assert await visitor.sends(token), minutes
        csrf.pass_time(minutes=3)


async def test_the_pre_sessions_cookie_does_not_grow(csrf: Csrf) -> None:
    """Cookies that pile up until the server refuses the request's headers."""
    visitor = csrf.visitor()
    for _ in range(200):
        await visitor.page()
        csrf.pass_time(seconds=97)
    assert len(visitor.cookies[PRE_SESSION]) < 160


async def test_a_pre_session_from_the_future_is_refused(csrf: Csrf) -> None:
    """A value made while a clock was wrong is good for years."""
    visitor = csrf.visitor()
    csrf.pass_time(minutes=5)
    token = await visitor.page()
    csrf.pass_time(minutes=-1)
    assert await visitor.sends(token)  # as far as the clocks of two of our servers may differ
    csrf.pass_time(seconds=-1)
    assert not await visitor.sends(token)


async def test_a_pre_session_is_deleted_at_sign_in_and_a_copy_opens_nothing(csrf: Csrf) -> None:
    """Replay: the pair from before the sign-in is used in the session that it became."""
    visitor = csrf.visitor()
    token = await visitor.page()
    copy = visitor.cookies[PRE_SESSION]
    await visitor.does("sign_in", "alice")
    assert f"{PRE_SESSION}=; Max-Age=0" in "\n".join(visitor.lines)
    assert PRE_SESSION not in visitor.cookies
    visitor.cookies[PRE_SESSION] = copy
    assert not await visitor.sends(token)
    assert PRE_SESSION not in visitor.cookies  # and whoever brings it back loses it again


async def test_a_sign_in_without_a_pre_session_deletes_none(csrf: Csrf) -> None:
    """A header nobody needs, in every answer."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    assert [line.partition("=")[0] for line in visitor.lines] == ["__Host-session"]


@pytest.mark.parametrize("cart", [True, False])
async def test_a_sign_in_that_was_not_stored_keeps_the_pre_session(csrf: Csrf, cart: bool) -> None:
    """The sign-in failed for want of luck, and now the form cannot be sent again."""
    visitor = csrf.visitor()
    token = await visitor.page()
    if cart:
        await visitor.does("set", "cart", 1)
    session = await visitor.open()
    session.sign_in("alice")
    await visitor.end(session, status=500)
    assert await visitor.sends(token)


async def test_a_token_made_before_the_sign_in_of_the_same_request_sets_no_pre_session(csrf: Csrf) -> None:
    """The response sets what it ought to delete."""
    visitor = csrf.visitor()
    session = await visitor.open()
    csrf.manager.csrf_tokens.make(session)
    session.sign_in("alice")
    await visitor.end(session)
    assert list(visitor.cookies) == ["__Host-session"]


async def test_a_page_rendered_before_the_first_write_can_still_be_sent(csrf: Csrf) -> None:
    """The cart is filled in another tab, and the form in this one fails."""
    visitor = csrf.visitor()
    token = await visitor.page()
    await visitor.does("set", "cart", 1)
    assert await visitor.sends(token)


async def test_a_pre_session_moved_to_the_other_name_is_nothing(csrf: Csrf) -> None:
    """What was planted over plain http is moved to the name that only HTTPS can set."""
    plain, visitor = Visitor(csrf.manager, https=False), csrf.visitor()
    token = await plain.page()
    visitor.cookies[PRE_SESSION] = plain.cookies["session-pre"]
    assert not await visitor.sends(token)


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 25, b"x" * 24, b"\xff" * 2400])
async def test_a_signed_pre_session_of_another_layout_is_nothing(csrf: Csrf, payload: bytes) -> None:
    """A later version's cookie, met after a roll-back, becomes a 500."""
    visitor = csrf.visitor()
    envelope = SignedEnvelope(KeyRing.from_secret(SECRET), "pre-session")
    visitor.cookies[PRE_SESSION] = envelope.seal(payload, PRE_SESSION)
    assert not await visitor.sends("A" * 104)
    assert await visitor.sends(await visitor.page())


# -- what else must not happen ------------------------------------------------------------------------------


async def test_an_outage_is_told_and_not_taken_for_a_forgery(csrf: Csrf) -> None:
    """The store is down for a second, and every form says that it was forged."""
    visitor = csrf.visitor()
    await visitor.does("sign_in", "alice")
    token = await visitor.page()
    session = await visitor.open()
    session.failure = StoreUnavailable("down")
    with pytest.raises(StoreUnavailable):
        csrf.manager.csrf_tokens.accepts(session, token)
    with pytest.raises(StoreUnavailable):
        csrf.manager.csrf_tokens.make(session)


async def test_a_sealed_session_has_a_token_that_outlives_its_changes() -> None:
    """With the session in its own cookie, each change would end the forms in other tabs."""
    pytest.importorskip("cryptography")
    settings = Settings(backend="cookie", cookie_secret=SECRET)
    clock = ManualClock()
    manager = Manager(settings, MemoryStore(clock=clock), clock)
    manager.use_keyring(KeyRing.from_secret(SECRET))
    visitor = Visitor(manager)
    await visitor.does("set", "cart", 1)
    token = await visitor.page()
    await visitor.does("set", "cart", 2)
    assert await visitor.sends(token)
    await visitor.does("sign_in", "alice")
    assert not await visitor.sends(token)
    assert await visitor.sends(await visitor.page())


async def test_neither_token_nor_pre_session_is_in_a_repr_an_event_or_a_record(csrf: Csrf) -> None:
    """H03: what is printed for debugging ends up in a log that many can read."""
    visitor = csrf.visitor()
    token = await visitor.page()
    number = visitor.cookies[PRE_SESSION]
    await visitor.does("set", "cart", 1)
    session = await visitor.open()
    assert csrf.manager.csrf_tokens.accepts(session, token)
    shown = [repr(each) for each in (session, csrf.manager.csrf_tokens, csrf.events, session.draft)]
    stored = b"".join([msgspec.msgpack.encode(record) for record in await csrf.records()])
    for secret in (token, number):
        assert secret not in "".join(shown)
        assert secret.encode() not in stored
