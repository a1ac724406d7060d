"""A ready page, "Your devices": where one is signed in, and a button to end each (ASVS 7.5.2).

::

    app = Application([*routes, *device_pages(base=BaseHandler)], login_url="/sign-in", sessions=sessions)

The page needs no JavaScript, and no style or script inside it, so that a strict ``Content-Security-Policy``
lets it be. Its looks are the application's to replace; see :class:`DevicePage`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Final

from tornado.routing import URLSpec
from tornado.template import Loader
from tornado.web import HTTPError, RequestHandler, StaticFileHandler, authenticated

from eyewall.errors import ConfigurationError
from eyewall.signin.devices import SignedInDevice
from eyewall.tornado.fresh import fresh
from eyewall.tornado.mixin import SessionMixin
from eyewall.tornado.sessions import Sessions
from eyewall.tornado.xsrf import XsrfMixin

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Sent with our own template unless the handler has set one. Nothing on ``form-action``: browsers apply it to
the redirect after a form, and proving who one is may happen on another host."""

FLASH_KEY: Final = "message"
"""Key of the flash messages that the page writes and shows."""

_TEMPLATES: Final = Path(__file__).parent / "templates"
_LOADER: Final = Loader(str(_TEMPLATES))


def device_pages(prefix: str = "/devices", *, base: type[RequestHandler] = RequestHandler) -> list[URLSpec]:
    """Return the routes of the page, for an ``Application``'s handlers.

    ``GET prefix`` shows the list; ``POST prefix/revoke`` (field ``handle``) and ``POST prefix/revoke-others``
    end what is on it; ``GET prefix/confirm`` is the list after proving who one is; ``prefix/devices.css`` is
    its style.

    Args:
        prefix: path of the page.
        base: your own base class: its ``load_user``, ``set_default_headers``, ``write_error`` and so on hold
            for the page. A subclass of :class:`DevicePage` changes the looks as well.

    Raises:
        ConfigurationError: ``prefix`` is no path, or ends with a slash.
    """
    if not re.fullmatch(r"(/[^/?#\s]+)+", prefix):
        raise ConfigurationError(f"the path of the devices page is like '/devices', not {prefix!r}")
    pages = {
        "": DevicesHandler,
        "/confirm": ConfirmHandler,
        "/revoke": RevokeHandler,
        "/revoke-others": RevokeOthersHandler,
    }
    routes = [URLSpec(re.escape(prefix + end), _on(base, page, prefix)) for end, page in pages.items()]
    style = URLSpec(re.escape(prefix) + r"/(devices\.css)", StaticFileHandler, {"path": str(_TEMPLATES)})
    return [*routes, style]


class DevicePage(SessionMixin, RequestHandler):
    """What the handlers of the page share. Subclass it for other looks, and pass that as ``base``.

    ::

        class Devices(DevicePage, BaseHandler):
            devices_template = "devices.html"  # in your template_path

        app = Application([*routes, *device_pages(base=Devices)], ...)
    """

    devices_url: ClassVar[str] = "/devices"
    """Path of the page; :func:`device_pages` sets it."""

    devices_template: ClassVar[str | None] = None
    """Name of a template of yours, found as ``self.render()`` finds it; None takes Eyewall's.

    It gets what every template gets, and the arguments of :meth:`render_devices` beside ``devices_url``."""

    def render_devices(self, devices: list[SignedInDevice], messages: list[Any]) -> None:
        """Write the page; override it to give a template more, or to answer with something else.

        Args:
            devices: of who is signed in, this one first, then the one used last. ``label``, ``user_agent``
                and ``address`` are strangers' text: escape them.
            messages: what there is to say: flash messages, each with ``category`` and ``value``.
        """
        values = {"devices": devices, "messages": messages, "devices_url": self.devices_url}
        if self.devices_template is not None:
            self.render(self.devices_template, **values)
            return
        if "Content-Security-Policy" not in self._headers:
            self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        names = {**self.get_template_namespace(), **values}
        self.finish(_LOADER.load("devices.html").generate(**names))

    async def find_devices(self) -> list[SignedInDevice]:
        """Return the devices of who is signed in, this one first, then the one used last.

        Raises:
            HTTPError: 403 when ``current_user`` is known by other means than the session.
            StoreUnavailable: answered as 503.
        """
        sessions = Sessions.serving(self.application)
        devices = await sessions.of(self.signed_in(), current=self.session)
        return sorted(devices, key=lambda device: not device.current)

    def signed_in(self) -> str:
        """Return the principal of the session.

        Raises:
            HTTPError: 403 when ``current_user`` is known by other means than the session.
        """
        principal = self.session.principal
        if principal is None:
            raise HTTPError(403, "who is known without a session has no devices")
        return principal

    async def show_devices(self) -> None:
        """Write the list as it is now."""
        devices = await self.find_devices()
        self.render_devices(devices, self.session.flash.messages(FLASH_KEY))


class DevicesHandler(DevicePage):
    """``GET``: the list. Who is not signed in is sent to the ``login_url``."""

    @authenticated
    async def get(self) -> None:
        """Show the list."""
        await self.show_devices()


class ConfirmHandler(DevicePage):
    """``GET``: the list again, for who had to prove first who they are.

    A page of its own, because the form that was refused cannot be sent again by a redirect: ``next`` leads
    here, and not to an address that answers POST only.
    """

    @authenticated
    @fresh()
    async def get(self) -> None:
        """Show the list, or send away to prove it."""
        self.session.flash.now(FLASH_KEY, "Thank you. Now choose once more what to sign out.")
        await self.show_devices()


class _Revoking(DevicePage):
    """``POST`` only: a link or an image elsewhere must end nothing."""

    @authenticated
    async def post(self) -> None:
        """End it, for who has a token of this session and has proved lately who they are."""
        XsrfMixin.check_xsrf_cookie(self)  # always, and even where a base class exempts itself
        is_fresh = self.session.is_fresh()
        if is_fresh:
            await self.revoke()
        self.redirect(self.devices_url if is_fresh else f"{self.devices_url}/confirm", status=303)

    async def revoke(self) -> None:
        """End what was asked for, and leave a message."""
        raise NotImplementedError


class RevokeHandler(_Revoking):
    """``POST handle=…``: end one device, its session and its remember token; for this one, sign out."""

    async def revoke(self) -> None:
        """End the device.

        Raises:
            HTTPError: 404 for a handle of somebody else's, as for one that nobody has (ASVS 8.2.2).
            StoreUnavailable: whether it ended is unknown (answered as 503); it can be asked for again.
        """
        handle = self.get_body_argument("handle", "")
        device = next((one for one in await self.find_devices() if one.handle == handle), None)
        if device is None:
            raise HTTPError(404, "no such device of who is signed in")
        if device.current:
            self.sign_out()
            return
        await Sessions.serving(self.application).revoke(handle, principal=self.signed_in())
        self.session.flash(FLASH_KEY, f"Signed out: {device.label}", category="success")


class RevokeOthersHandler(_Revoking):
    """``POST``: end every device but this one."""

    async def revoke(self) -> None:
        """End them.

        Raises:
            StoreUnavailable: whether all ended is unknown (answered as 503); it can be asked for again.
        """
        ended = await Sessions.serving(self.application).revoke_others(self.session)
        self.session.flash(FLASH_KEY, f"Other devices signed out: {ended}", category="success")


def _on(base: type[RequestHandler], page: type[DevicePage], prefix: str) -> type[RequestHandler]:
    """Return ``page`` with ``base`` behind it, so that what ``base`` defines holds."""
    return type(page.__name__, (page, base), {"devices_url": prefix})
