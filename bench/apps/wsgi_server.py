"""gunicorn for the WSGI applications: one worker, threads, keep-alive, no access log."""

from __future__ import annotations

from typing import Any

from gunicorn.app.base import BaseApplication

OPTIONS = {
    "workers": 1,
    "worker_class": "gthread",  # the plain worker closes every connection after one answer
    "threads": 8,
    "worker_connections": 1000,
    "keepalive": 60,
    "backlog": 1024,
    "loglevel": "warning",
    "control_socket_disable": True,
}


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn, configured by a program instead of a command line."""

    def __init__(self, wsgi: Any, port: int) -> None:
        self._wsgi = wsgi
        self._bind = f"127.0.0.1:{port}"
        super().__init__()

    def load_config(self) -> None:
        self.cfg.set("bind", self._bind)
        for name, value in OPTIONS.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        return self._wsgi


def serve(wsgi: Any, port: int) -> None:
    """Serve until the process is ended."""
    Server(wsgi, port).run()
