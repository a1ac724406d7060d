"""List the live sessions of one principal."""

from __future__ import annotations

import argparse
from datetime import datetime

from eyewall.cli.store_access import add_url, failed, one_line, run_with, settings_of
from eyewall.core.ids import shortened
from eyewall.core.record import Device, Record
from eyewall.core.store import PrincipalIndex, Store

_HEADINGS = ("SESSION", "CREATED (UTC)", "LAST SEEN (UTC)", "EXPIRES (UTC)", "DEVICE")
_ROW = "{:<12}  {:<19}  {:<19}  {:<19}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose, and in which store."""
    parser.add_argument("principal", help="who is signed in, as the application told sign_in()")
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per session, the one used last on top."""

    async def show(store: Store) -> int:
        if not isinstance(store, PrincipalIndex):
            return failed("this store cannot find the sessions of a principal")
        found = await store.find_principal(arguments.principal)
        sessions = sorted(
            (record for record in found if record.successor is None),
            key=lambda record: (record.seen_at, record.digest),
            reverse=True,
        )
        for line in table_of(sessions) or [f"no live session of {one_line(arguments.principal)}"]:
            print(line)
        return 0

    return run_with(show, settings_of(arguments))


def table_of(sessions: list[Record]) -> list[str]:
    """Return the lines of the list, with headings; empty when there is no session."""
    rows = [
        _ROW.format(
            shortened(record.digest),
            *(_utc(moment) for moment in (record.created_at, record.seen_at, record.expires_at)),
            _described(record.device),
        ).rstrip()
        for record in sessions
    ]
    return [_ROW.format(*_HEADINGS), *rows] if rows else []


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _described(device: Device | None) -> str:
    if device is None:
        return ""
    agent, address = one_line(device.user_agent, longest=80), one_line(device.address, longest=60)
    return f"{agent} ({address})" if agent and address else agent or address
