"""A server that stops in an orderly way must know what is under way, however it was set up."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest
from tornado.web import Application, RequestHandler

from eyewall.tornado.stopping import UnderWay
from tests.tornado.site import Handler, serving


async def test_sessions_installed_after_under_way_let_a_server_cut_its_answers() -> None:
    """install() takes the place of what notes the requests, so the server believes that nothing is left."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    class Slow(Handler):
        async def get(self) -> None:
            arrived.set()
            await go_on.wait()
            self.write("whole")

    async with serving("mixin", [("/", Slow)]) as site:
        under_way = UnderWay(site.application)
        site.sessions.install(site.application)
        answer = asyncio.ensure_future(site.fetch("/"))
        await arrived.wait()
        stopping = asyncio.ensure_future(under_way.finished(timedelta(seconds=5)))
        done, _ = await asyncio.wait({stopping}, timeout=0.3)
        go_on.set()
        await answer
        await stopping
        assert not done


async def test_stopping_an_application_without_sessions_makes_some_and_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the very end a folder and a secret appear, or an error keeps the last answers from being sent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("EYEWALL_")]:
        monkeypatch.delenv(name)
    application = Application([("/", RequestHandler)])
    under_way = UnderWay(application)
    await under_way.finished(timedelta(seconds=1))
    assert "sessions" not in application.settings
