"""Several servers that act as one: a cluster of three masters, and a master watched by sentinels."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.process import READY_SECONDS, ServerFailedError, free_port
from tests.servers.resp import RespServer, Valkey9

MASTERS = 3
SLOTS = 16384
SERVICE = "eyewall"


def wait_for(what: str, condition: Callable[[], bool]) -> None:
    """Wait until ``condition()`` holds.

    Raises:
        ServerFailedError: it did not within 20 seconds; the message names ``what``.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise ServerFailedError(f"{what} did not happen within {READY_SECONDS:.0f} s")
        time.sleep(0.02)


class ServerGroup:
    """Servers started, paused, killed and stopped together."""

    def __init__(self) -> None:
        self.members: list[RespServer] = []

    @property
    def pids(self) -> list[int]:
        """The processes of all members."""
        return [pid for member in self.members for pid in member.pids]

    def start(self) -> Self:
        """Start every member, form the group, and wait until it serves."""
        try:
            self.form()
        except BaseException:
            self.stop()
            raise
        return self

    def form(self) -> None:
        """Start the members and join them; what each kind of group does in its own way."""
        raise NotImplementedError

    def stop(self) -> None:
        """End every member and remove its folder."""
        for member in self.members:
            member.stop()

    def kill(self) -> None:
        """Crash every member."""
        for member in self.members:
            member.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def pause(self) -> None:
        """Freeze every member."""
        for member in self.members:
            member.pause()

    def resume(self) -> None:
        """Let every member run on."""
        for member in self.members:
            member.resume()


class Cluster(ServerGroup):
    """Three Valkey masters that share the slots."""

    @property
    def url(self) -> str:
        """The address as the store's settings take it."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{member.port}" for member in self.members)

    def form(self) -> None:
        masters = [ClusterMember() for _ in range(MASTERS)]
        self.members += masters
        for epoch, member in enumerate(masters, 1):
            member.start()
            member.ask("CLUSTER", "ADDSLOTSRANGE", *_share(epoch - 1))
            member.ask("CLUSTER", "SET-CONFIG-EPOCH", str(epoch))
        first, *others = masters
        for other in others:
            first.ask("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(other.bus_port))
        wait_for("forming the cluster", lambda: all(member.sees_all() for member in masters))


class ClusterMember(Valkey9):
    """One master of a cluster."""

    def __init__(self) -> None:
        super().__init__()
        self.bus_port = free_port()

    def command(self) -> Sequence[str | Path]:
        return [
            *super().command(), "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf",
            "--cluster-node-timeout", "1000", "--cluster-announce-ip", "127.0.0.1",
            "--cluster-port", str(self.bus_port),
        ]  # fmt: skip

    def sees_all(self) -> bool:
        """Tell whether this member knows every other and every slot."""
        info = self.ask("CLUSTER", "INFO")
        return "cluster_state:ok" in info and f"cluster_known_nodes:{MASTERS}" in info


def _share(index: int) -> tuple[str, str]:
    """Return the first and the last slot of the master ``index``."""
    return str(SLOTS * index // MASTERS), str(SLOTS * (index + 1) // MASTERS - 1)


class SentinelGroup(ServerGroup):
    """A master, two replicas, and the three sentinels that would promote one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.sentinels: list[SentinelMember] = []

    @property
    def url(self) -> str:
        """The address as the store's settings take it."""
        addresses = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{addresses}/{SERVICE}/0"

    @property
    def master_port(self) -> int:
        """The port of the server the first sentinel holds for the master."""
        answer = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(answer.split("\r\n")[4])

    def form(self) -> None:
        master = _data_server().start()
        self.members.append(master)
        for _ in range(2):
            self.members.append(_data_server("--replicaof", "127.0.0.1", str(master.port)).start())
        # A sentinel asks a new master for its replicas at once, but again only after ten seconds.
        wait_for(
            "attaching the replicas", lambda: master.ask("INFO", "replication").count("state=online") == 2
        )
        for _ in range(3):
            sentinel = SentinelMember(master.port).start()
            self.members.append(sentinel)
            self.sentinels.append(sentinel)
        wait_for("finding each other", lambda: all(sentinel.is_complete() for sentinel in self.sentinels))

    def kill_master(self) -> None:
        """Crash the server that is the master now."""
        port = self.master_port
        next(member for member in self.members if member.port == port).kill()


def _data_server(*options: str) -> RespServer:
    return Valkey9("--repl-diskless-sync-delay", "0", "--replica-announce-ip", "127.0.0.1", *options)


class SentinelMember(Valkey9):
    """One sentinel, made impatient: it takes a master for dead after half a second."""

    def __init__(self, master_port: int) -> None:
        super().__init__()
        self._master_port = master_port

    def command(self) -> Sequence[str | Path]:
        config = self.folder / "sentinel.conf"
        config.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._master_port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 1000\n"
        )
        return [self._binary, config, "--sentinel"]

    def settle(self) -> None:
        self.ask("SENTINEL", "DEBUG", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "200", "PING-PERIOD", "100")

    def is_complete(self) -> bool:
        """Tell whether this sentinel knows both replicas and both other sentinels."""
        info = self.ask("INFO", "sentinel")
        return "slaves=2" in info and "sentinels=3" in info and "status=ok" in info
