"""List the devices that one principal is signed in on."""

from __future__ import annotations

import argparse
import contextlib
from datetime import datetime
from typing import Final

from eyewall.cli.store_access import add_url, failed, one_line, run_with, settings_of
from eyewall.core.announcements import encode_ended
from eyewall.core.announcing import announcer_of
from eyewall.core.background import Background
from eyewall.core.events import EventStream
from eyewall.core.opening import SECRET_FILE, encrypted_store, keyring_for
from eyewall.core.record import Record
from eyewall.core.store import PrincipalIndex, Store, utc_now
from eyewall.core.stored_sessions import Limits
from eyewall.core.timeouts import Timeouts
from eyewall.core.writer import Writer
from eyewall.crypto.keyring import KeyRing
from eyewall.errors import ConfigurationError, StoreUnavailable
from eyewall.settings import Settings
from eyewall.signin.devices import Devices, SignedInDevice
from eyewall.signin.remember import token_in

CANNOT_FIND: Final = "this store cannot find the sessions of a principal"

_HEADINGS: Final = (
    "HANDLE",
    "SIGNED IN (UTC)",
    "LAST SEEN (UTC)",
    "STATE",
    "METHOD",
    "DEVICE",
)
_ROW: Final = "{:<26}  {:<19}  {:<19}  {:<18}  {:<10}  {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose, and in which store."""
    parser.add_argument("principal", help="who is signed in, as the application told sign_in()")
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one line per device, the one used last on top."""
    settings = settings_of(arguments)

    async def show(store: Store) -> int:
        if not isinstance(store, PrincipalIndex):
            return failed(CANNOT_FIND)
        devices = await devices_in(store, settings).of(arguments.principal)
        for line in table_of(devices) or [f"{one_line(arguments.principal)} is signed in nowhere"]:
            print(line)
        return 0

    return run_with(show, settings)


def devices_in(store: Store, settings: Settings) -> Devices:
    """Return the devices in ``store``, as the site of ``settings`` sees them.

    Raises:
        ConfigurationError: the records are sealed, and nobody gave the keys of the site.
    """
    if settings.encrypt:
        store = encrypted_store(store, _keys_of_site(settings))
    timeouts = Timeouts(settings.ttl, settings.absolute_ttl)
    limits = Limits(settings.max_size, settings.store_timeout.total_seconds())
    writer = Writer(store, timeouts, utc_now, limits, Background().spawn)
    announcer = announcer_of(store)

    async def end(record: Record) -> None:
        ended = await writer.end_record(record)
        for message in encode_ended(ended, "ended by an operator"):
            if announcer is not None:  # so that sockets are closed at once
                with contextlib.suppress(StoreUnavailable):
                    await announcer.announce(message)

    return Devices(store, end=end, lineage=writer.lineage, token_in=token_in, events=EventStream(utc_now))


def _keys_of_site(settings: Settings) -> KeyRing:
    given = settings.cookie_secret is not None or settings.secret_file is not None
    if not given and not (settings.path / SECRET_FILE).is_file():  # never made here: it would open nothing
        raise ConfigurationError(
            "EYEWALL_ENCRYPT is on, so the sessions are sealed; set EYEWALL_COOKIE_SECRET or "
            "EYEWALL_SECRET_FILE to the keys of the site"
        )
    return keyring_for(settings)


def table_of(devices: list[SignedInDevice]) -> list[str]:
    """Return the lines of the list, with headings; empty when there is no device."""
    rows = [
        _ROW.format(
            device.handle,
            _utc(device.signed_in_at),
            _utc(device.seen_at),
            _state_of(device),
            one_line(device.method or "", longest=40),
            _described(device),
        ).rstrip()
        for device in devices
    ]
    return [_ROW.format(*_HEADINGS), *rows] if rows else []


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def _state_of(device: SignedInDevice) -> str:
    states = {"active": device.active, "remembered": device.remembered}
    return ", ".join(name for name, is_so in states.items() if is_so)


def _described(device: SignedInDevice) -> str:
    address = one_line(device.address, longest=60)
    label = one_line(device.label, longest=80) if device.user_agent else ""
    return f"{label} ({address})" if label and address else label or address
