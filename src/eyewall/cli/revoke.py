"""Sign one principal out, on one device or everywhere."""

from __future__ import annotations

import argparse

from eyewall.cli.list import CANNOT_FIND, devices_in
from eyewall.cli.store_access import add_url, failed, one_line, run_with, settings_of
from eyewall.core.store import PrincipalIndex, Store
from eyewall.signin.devices import Devices


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose, which device, and in which store."""
    parser.add_argument("principal", help="who is signed in, as the application told sign_in()")
    parser.add_argument(
        "handle", nargs="?", metavar="HANDLE", help="the device, as `eyewall list` shows it (default: all)"
    )
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    """End the sessions and remember tokens; say what ended."""
    settings = settings_of(arguments)
    principal: str = arguments.principal

    async def revoke(store: Store) -> int:
        if not isinstance(store, PrincipalIndex):
            return failed(CANNOT_FIND)
        devices = devices_in(store, settings)
        if arguments.handle is not None:
            return await _revoke_one(devices, principal, arguments.handle)
        ended = await devices.revoke_all(principal)
        print(f"{one_line(principal)} signed out on {ended} device{'' if ended == 1 else 's'}")
        return 0

    return run_with(revoke, settings)


async def _revoke_one(devices: Devices, principal: str, handle: str) -> int:
    if await devices.revoke(principal, handle):
        print(f"{one_line(principal)} signed out on device {one_line(handle)}")
        return 0
    return failed(f"{one_line(principal)} has no device {one_line(handle)}; see: eyewall list")
