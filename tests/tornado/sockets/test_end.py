"""W02 and W03: when a session ends, so do its sockets, in every process; when it only moves, they go along.

The store announces within this event loop, and there is no re-check unless a test makes one: what closes
here closes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from tornado.websocket import WebSocketHandler

from eyewall.testing.client import Browser
from eyewall.tornado.websocket import SessionWebSocketMixin
from tests.signin.kit import Deployment, Process, copied, sign_in, user
from tests.tornado.sockets.kit import Told, connect, deafen, is_empty, refused, until

Ends = Callable[[Deployment, Process, Browser, Browser], Awaitable[Any]]


async def _sign_out(_site: Deployment, _process: Process, browser: Browser, _laptop: Browser) -> None:
    await browser.post("/out")


async def _sign_out_everywhere(
    _site: Deployment, _process: Process, _browser: Browser, laptop: Browser
) -> None:
    await laptop.post_form("/out", {"everywhere": "1"})


async def _others(_site: Deployment, _process: Process, _browser: Browser, laptop: Browser) -> None:
    await laptop.post("/others")


async def _password(_site: Deployment, _process: Process, _browser: Browser, laptop: Browser) -> None:
    await laptop.post("/password")


async def _device(site: Deployment, process: Process, browser: Browser, _laptop: Browser) -> None:
    for device in await process.sessions.of(site.ann):
        await process.sessions.revoke(device.handle, principal=site.ann)


async def _all(site: Deployment, process: Process, _browser: Browser, _laptop: Browser) -> None:
    await process.sessions.revoke_all(site.ann)


async def _destroy(_site: Deployment, _process: Process, browser: Browser, _laptop: Browser) -> None:
    await browser.post("/change/destroy")


async def _clear(_site: Deployment, _process: Process, browser: Browser, _laptop: Browser) -> None:
    await browser.post("/change/clear")


async def _somebody_else(site: Deployment, _process: Process, browser: Browser, _laptop: Browser) -> None:
    await sign_in(browser, site.bob)


@pytest.mark.parametrize(
    "ends",
    [_sign_out, _sign_out_everywhere, _others, _password, _device, _all, _destroy, _clear, _somebody_else],
)
async def test_every_end_closes_the_sockets_of_all_processes_at_once(
    here: Deployment, process: Process, other: Process, ends: Ends
) -> None:
    """A thief's socket that outlives the sign-out goes on reading (ASVS 7.4.1, 7.4.2, 7.4.3)."""
    browser = await here.signed_in(process, here.ann)
    laptop = await here.signed_in(process, here.ann)
    stranger = await here.signed_in(process, here.bob)
    sockets = [await connect(here, one, browser) for one in (process, other, other)]
    strangers = await connect(here, other, stranger)
    await ends(here, process, browser, laptop)
    for socket in sockets:
        code, reason = await socket.ended()
        assert code == 4401
        assert reason
    assert await strangers.is_open()
    await until(lambda: is_empty(process.sessions), "nothing is watched any more")


@pytest.mark.parametrize("verb", ["operator", "idle", "absolute"])
async def test_what_nobody_announces_is_found_by_the_re_check(
    here: Deployment, process: Process, other: Process, verb: str
) -> None:
    """An operator deletes the record by hand; time passes: nobody tells."""
    browser = await here.signed_in(process, here.ann)
    sockets = [await connect(here, one, browser) for one in (process, other)]
    if verb == "operator":
        await process.store.inner.delete_principal(here.ann)
    settings = process.sessions.settings
    if verb == "idle":
        here.clock.advance(settings.ttl)
    if verb == "absolute":
        end = here.clock() + settings.absolute_ttl
        while here.clock() < end:
            await sockets[0].ask("who")
            assert await user(browser) == here.ann
            here.clock.advance(settings.ttl * 0.9)
    for one, socket in zip((process, other), sockets, strict=True):
        await one.sessions.watch.check_all()
        assert await socket.ended() == (4401, "ended" if verb == "operator" else "expired")


async def test_the_re_check_comes_by_itself_within_five_seconds(process: Process) -> None:
    """The promise of row W02 is a number; the spread between processes must stay below it."""
    watch = type(process.sessions.watch)
    handles = []
    for _ in range(200):
        made = watch.__new__(watch)
        made.interval = timedelta(seconds=5)
        made._set_timer()
        assert made._timer is not None
        handles.append(made._timer)
    longest = max(handle.when() for handle in handles) - asyncio.get_running_loop().time()
    for handle in handles:
        handle.cancel()
    assert longest <= 5.0


async def test_a_message_after_the_expiry_is_not_served(here: Deployment, process: Process) -> None:
    """Between two re-checks it would be (W03)."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    here.clock.advance(process.sessions.settings.ttl)
    await socket.connection.write_message("set k too-late")
    assert await socket.read() is None
    assert (socket.connection.close_code, socket.connection.close_reason) == (4401, "expired")


async def test_a_socket_kept_alive_by_other_requests_stays(here: Deployment, process: Process) -> None:
    """What this process remembers of the session is old; only the store knows."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    for _ in range(3):
        here.clock.advance(process.sessions.settings.ttl * 0.7)
        assert await user(browser) == here.ann
    assert await socket.ask("who") == here.ann


async def test_a_new_id_takes_the_sockets_along(here: Deployment, process: Process, other: Process) -> None:
    """A step-up in another tab must not throw the first one out."""
    browser = await here.signed_in(process, here.ann)
    sockets = [await connect(here, one, browser) for one in (process, other)]
    for _ in range(3):
        await browser.post("/change/regenerate")
        for number, socket in enumerate(sockets):
            await socket.ask(f"set k{number} v")
            await socket.ask(f"save s{number} v")
            await socket.ask("add n")
    assert await user(browser) == here.ann
    assert await sockets[0].ask("add n") == 7
    await browser.post("/out")
    for socket in sockets:
        assert (await socket.ended())[0] == 4401


async def test_many_new_ids_between_two_looks_take_the_sockets_along(
    here: Deployment, process: Process
) -> None:
    """Some applications change the ID at every request, and not every store announces."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    deafen(process)
    for _ in range(8):
        await browser.post("/change/regenerate")
    await process.sessions.watch.check_all()
    assert await socket.is_open()


@pytest.mark.parametrize("ask", ["set k v", "save k v", "add n", "take m"])
async def test_every_write_goes_along_before_the_news_has_come(
    here: Deployment, process: Process, ask: str
) -> None:
    """The message that comes between the new ID and its announcement must not cost the connection."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    deafen(process)
    await browser.post("/change/regenerate")
    await socket.ask(ask)
    assert await socket.is_open()


async def test_signing_in_again_as_the_same_one_takes_the_sockets_along(
    here: Deployment, process: Process
) -> None:
    """Asking for the password once more is a step-up, not another person."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    await sign_in(browser, here.ann)
    assert await socket.ask("who") == here.ann
    await process.sessions.watch.check_all()
    assert await socket.is_open()


async def test_signing_in_closes_what_a_stranger_had_open(here: Deployment, process: Process) -> None:
    """The socket was opened for nobody; whoever listens may show one's data to the other."""
    browser = here.browser(process)
    await browser.post_form("/", {"key": "cart", "value": "1"})
    socket = await connect(here, process, browser)
    await sign_in(browser, here.ann)
    assert (await socket.ended())[0] == 4401


async def test_a_sign_out_beside_a_new_id_closes_at_once(here: Deployment, process: Process) -> None:
    """The sign-out was on its way under the old ID; the sockets are under the new one."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    late = process.sessions.open([copied(browser)], https=False)
    await process.sessions.load(late)
    (old,) = process.sessions.watch._by_digest
    await browser.post("/change/regenerate")
    await until(lambda: old not in process.sessions.watch._by_digest, "the socket went along")
    late.sign_out()
    await process.sessions.commit(late)
    assert (await socket.ended())[0] == 4401
    assert await refused(here, process, browser, "/members") == 401


# The hook


class Hooked(Told):
    """Says good-bye."""

    def on_session_end(self, reason: str) -> Awaitable[None] | None:
        self.write_message(f"bye: {reason}")
        return None


async def test_the_hook_may_write_a_last_message(here: Deployment, process: Process) -> None:
    """Whoever is thrown out without a word takes it for a broken line, and reconnects."""
    process.application.add_handlers(".*", [("/hooked", Hooked)])
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/hooked")
    await browser.post("/out")
    assert await socket.read() == "bye: signed out"
    assert await socket.ended() == (4401, "signed out")


async def _raise() -> None:
    raise ValueError("a bug")


async def _hang() -> None:
    await asyncio.Event().wait()


async def _wait_for_its_own_cancelled_task() -> None:
    ticker = asyncio.create_task(_hang())
    await asyncio.sleep(0)
    ticker.cancel()
    await ticker


@pytest.mark.parametrize("what", [_raise, _hang, _wait_for_its_own_cancelled_task])
async def test_a_hook_that_fails_keeps_no_socket_open(
    here: Deployment, process: Process, what: Callable[[], Awaitable[None]]
) -> None:
    """A bug in a farewell is no reason to stay."""
    logged: list[Any] = []

    class Buggy(SessionWebSocketMixin, WebSocketHandler):
        def on_session_end(self, reason: str) -> Awaitable[None] | None:
            return what()

        def on_message(self, message: str | bytes) -> None:
            """Nothing."""

        def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
            logged.append(typ)

    process.application.add_handlers(".*", [("/buggy", Buggy)])
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser, "/buggy")
    async with asyncio.timeout(5):
        await browser.post("/out")
        assert await socket.ended() == (4401, "signed out")
    assert len(logged) <= 1


async def test_a_reason_in_any_script_fits_into_a_close_frame(here: Deployment, process: Process) -> None:
    """A frame that is too long is a protocol error, and leaves the socket open."""
    browser = await here.signed_in(process, here.ann)
    socket = await connect(here, process, browser)
    await process.store.inner.delete_principal(here.ann)
    (digest,) = process.sessions.watch._by_digest
    process.sessions.watch.tell_ended(digest, "ä\x00\r\n\N{SNOWMAN}" * 100)
    code, reason = await socket.ended()
    assert code == 4401
    assert reason is not None
    assert len(reason.encode()) <= 123
