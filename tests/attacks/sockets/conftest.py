"""The site under attack."""

from __future__ import annotations

from tests.tornado.sockets.conftest import here, other, process  # noqa: F401 - pytest finds fixtures here
