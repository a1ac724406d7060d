"""Stores on this machine's disk: full (F16), locked (F31), taken away (F32), spoilt (F17), and slow (F27).

The full disk is a small tmpfs, which only the application sees: it runs in a mount namespace of its own.
"""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from tests.examples.pair import SECRET
from tests.examples.program import LAB, Program
from tests.faults.kit import User, check_log, passer_by, report, running, users

QUIET = 12
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
IN_NAMESPACE = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
MOUNT = 'mount -t tmpfs -o size=1m,mode=700 tmpfs "$0" && exec "$@"'

Open = Callable[[Path], Program]


def on_file(folder: Path) -> Program:
    """A lab whose sessions are files."""
    return Program(*LAB, folder=folder, EYEWALL_PATH=str(folder / "disk" / "data"))


def on_sqlite(folder: Path) -> Program:
    """A lab whose sessions are in SQLite."""
    url = f"sqlite:///{folder}/disk/s.db"
    return Program(*LAB, folder=folder, EYEWALL_URL=url, EYEWALL_COOKIE_SECRET=SECRET)


STORES = {"file": on_file, "sqlite": on_sqlite}


@pytest.fixture(params=sorted(STORES))
def open_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """What makes a lab on the disk of a folder."""
    (tmp_path / "disk").mkdir(mode=0o700)
    return STORES[request.param]


def may_mount() -> bool:
    """Whether this user may have a mount namespace."""
    found = shutil.which("unshare") is not None
    return found and subprocess.run([*NAMESPACE, "true"], check=False).returncode == 0


@asynccontextmanager
async def on_small_disk(open_lab: Open, folder: Path) -> AsyncIterator[tuple[Program, Path]]:
    """Run a lab on a disk of 1 MiB; yields also the way to that disk from out here."""
    if not may_mount():
        pytest.skip("needs unshare and user namespaces to mount a small disk")
    lab = open_lab(folder)
    disk = folder / "disk"
    shell = ("sh", "-c", MOUNT, str(disk))
    lab._words = ("-c", IN_NAMESPACE, *NAMESPACE, *shell, sys.executable, *lab._words)
    async with running(lab):
        yield lab, Path(f"/proc/{lab.pid}/root{disk}")


def fill(disk: Path) -> Path:
    """Take all the space there is; return what to remove to give it back."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - nothing else may stop it
    return ballast


async def test_a_full_disk_refuses_what_is_new_and_keeps_what_is_there(
    open_lab: Open, tmp_path: Path
) -> None:
    """F16. Harm: the log of another program fills the disk, and all sessions are damaged or gone."""
    async with (
        on_small_disk(open_lab, tmp_path) as (lab, disk),
        users([lab], "alice", "bob", "carol") as people,
    ):
        alice, bob, carol = people
        ballast = fill(disk)
        codes = [await alice.put(f"k{number % 3}") for number in range(60)]
        assert codes[-1] == 503, "what is written goes somewhere"
        assert {await user.read("first") for user in people} == {200}
        assert await carol.sign_in() == 503
        signed_out = await bob.sign_out()
        assert signed_out == (204 if open_lab is on_file else 503), "SQLite writes also when it deletes"
        ballast.unlink()
        await alice.recovered()
        if signed_out == 204:
            await bob.check_ended()
            await bob.sign_in()


async def test_a_locked_database_is_503_for_writers_only(tmp_path: Path) -> None:
    """F31. Harm: a backup holds every page for as long as it runs."""
    (tmp_path / "disk").mkdir(mode=0o700)
    async with running(on_sqlite(tmp_path)) as lab, users([lab], "alice", "bob") as people:
        with closing(sqlite3.connect(tmp_path / "disk" / "s.db", isolation_level=None)) as backup:
            backup.execute("BEGIN EXCLUSIVE")
            async with passer_by(lab):
                asked = [user.put("lost") for user in people for _ in range(5)]
                asked += [user.read("first") for user in people]
                assert await asyncio.gather(*asked) == [503] * 10 + [200] * 2
            assert {await user.sign_out() for user in people} == {503}
            backup.execute("ROLLBACK")
        for user in people:
            await user.recovered()
        report(f"sqlite locked: 503 after {max(user.slowest for user in people):.2f} s at most")
        check_log(lab, most=QUIET)


async def test_a_disk_that_is_not_mounted_signs_nobody_out(tmp_path: Path) -> None:
    """F32. Harm: "no such session" for everybody, because a folder was missing for a minute."""
    (tmp_path / "disk").mkdir(mode=0o700)
    data = tmp_path / "disk" / "data"
    async with running(on_file(tmp_path)) as lab, users([lab], "alice", "bob") as people:
        data.rename(data.with_name("away"))
        assert {await user.read("first") for user in people} == {503}
        assert {await user.put("lost") for user in people} == {503}
        assert {await user.sign_out() for user in people} == {503}
        data.with_name("away").rename(data)
        for user in people:
            await user.recovered()
        check_log(lab, most=QUIET)


class Bomb:
    """What somebody plants who can write where sessions are kept, and not run programs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self._path),)


def _plant_in_files(disk: Path, planted: bytes) -> None:
    for record in (disk / "data" / "records").iterdir():
        record.write_bytes(planted)


def _plant_in_sqlite(disk: Path, planted: bytes) -> None:
    with closing(sqlite3.connect(disk / "s.db", isolation_level=None)) as rival:
        rival.execute("UPDATE eyewall_session SET payload = ?", (planted,))


PLANT: dict[Open, Callable[[Path, bytes], None]] = {on_file: _plant_in_files, on_sqlite: _plant_in_sqlite}


@pytest.mark.parametrize("what", ["pickle", "nothing", "garbage"])
async def test_what_is_planted_in_a_record_makes_a_stranger(
    what: str, open_lab: Open, tmp_path: Path
) -> None:
    """F17. Harm: whoever can write a file runs programs (Tomcat's CVE-2025-24813), or every page is a 500."""
    exploded = tmp_path / "exploded"
    planted = {"pickle": pickle.dumps(Bomb(exploded)), "nothing": b"", "garbage": bytes(range(256))}[what]
    async with running(open_lab(tmp_path)) as lab:
        people = [User([lab], name) for name in ("alice", "bob")]
        for user in people:
            assert await user.sign_in() == 200
            assert await user.put("first") == 204
        PLANT[open_lab](tmp_path / "disk", planted)
        for user in people:
            assert await user.principal() is None
            user.lost_session()
            assert await user.sign_in() == 200, "and can sign in again"
            assert await user.put("second") == 204
            await user.check()
            user.close()
        assert not exploded.exists()
        assert "damaged" in lab.errors
        check_log(lab, most=3)


async def test_writers_keep_nobody_from_the_loop(open_lab: Open, tmp_path: Path) -> None:
    """F27, I7. Harm: whoever saves makes all others wait for the disk."""
    async with running(open_lab(tmp_path)) as lab, users([lab], *["user"] * 8) as people:
        async with passer_by(lab) as waits:
            for turn in range(15):
                await asyncio.gather(*(user.put(f"k{turn % 3}") for user in people))
        report(
            f"{open_lab.__name__}: beside 8 writers p50 {waits.share(0.5) * 1000:.1f} ms, "
            f"p99 {waits.share(0.99) * 1000:.1f} ms"
        )
