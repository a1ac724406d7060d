"""What the documentation shows is run: its programs, its commands, its tables, the names it cites.

Every block of Python in the README and in ``docs/`` is run, the blocks of one page in order and in one
namespace, in an empty folder. An HTML comment before a block says more about it:

- ``<!-- serve`` and then lines like ``GET /path 200 text``: the application that the block makes is served,
  and these requests of one browser must give these answers;
- ``<!-- fragment -->``: not a whole program; it is compiled only.

A page that defines tests is run by pytest as a reader would.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application

from eyewall import Sessions, Settings
from eyewall.cli.main import COMMANDS, typed_name
from eyewall.testing.client import Browser
from tests.examples.program import environment
from tests.servers.process import free_port

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = [*PAGES, ROOT / "SECURITY.md"]
BLOCK = re.compile(
    r"(?:^<!-- *(?P<note>(?:(?!-->).)*?)\s*-->\n)?^```python\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
COOKIE_VALUE = re.compile(r"ew1\.[\w-]{8}\.[\w-]{43}\.[\w-]{43}")


@dataclass(frozen=True)
class Block:
    """One block of Python, and what the comment before it says."""

    code: str
    note: str

    @property
    def is_fragment(self) -> bool:
        return self.note == "fragment"

    @property
    def is_program(self) -> bool:
        return "__main__" in self.code

    @property
    def visits(self) -> list[list[str]]:
        """The requests to make: method, path, status, and perhaps what the body must hold."""
        first, *lines = self.note.splitlines() or [""]
        return [line.split(maxsplit=3) for line in lines] if first == "serve" else []


def blocks_of(page: Path) -> list[Block]:
    """The blocks of Python on ``page``, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["code"], match["note"] or "") for match in found]


def name_of(page: Path) -> str:
    """What the reader calls it."""
    return page.relative_to(ROOT).as_posix()


def has_tests(page: Path) -> bool:
    """Whether pytest is to run the page."""
    return any("def test_" in block.code for block in blocks_of(page))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's machine: no settings, nothing in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)
    return tmp_path


@asynccontextmanager
async def serving(application: Application, **options: Any) -> AsyncIterator[int]:
    """Serve ``application`` on a free port."""
    server = HTTPServer(application, **options)
    socket, port = bind_unused_port()
    server.add_socket(socket)
    try:
        yield port
    finally:
        server.stop()
        await server.close_all_connections()
        await Sessions.serving(application).aclose()


async def visit(base: str, visits: list[list[str]]) -> None:
    """Make the requests; each must have the answer that the page says."""
    with closing(Browser(base)) as browser:
        for method, path, status, *text in visits:
            answer = await browser.request(method, path, b"" if method == "POST" else None)
            assert answer.code == int(status), f"{method} {path}"
            assert "".join(text) in answer.body.decode(), f"{method} {path}"


@contextmanager
def running(code: str, folder: Path) -> Iterator[int]:
    """Run a whole program as the reader does, on a free port."""
    port = free_port()
    program = folder / "program.py"
    program.write_text(code.replace("8888", str(port)), encoding="utf-8")
    with subprocess.Popen([sys.executable, program], cwd=folder, env=environment()) as process:
        try:
            yield port
        finally:
            process.kill()


async def until_listening(port: int) -> None:
    """Wait until somebody answers on ``port``."""
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return


@pytest.mark.parametrize("page", [page for page in PAGES if not has_tests(page)], ids=name_of)
async def test_the_programs_of_a_page_work(page: Path, empty_folder: Path) -> None:
    """A reader copies an example that fails, and believes it."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks_of(page):
        if block.is_fragment:
            continue
        exec(compile(block.code, name_of(page), "exec"), namespace)  # noqa: S102 - our own pages
        if block.visits and block.is_program:
            with running(block.code, empty_folder) as port:
                await until_listening(port)
                await visit(f"http://127.0.0.1:{port}", block.visits)
        elif block.visits:
            made = namespace["make_app"]() if "def make_app" in block.code else namespace["app"]
            async with serving(made) as port:
                await visit(f"http://127.0.0.1:{port}", block.visits)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fragments_are_python(page: Path) -> None:
    """A half example with a typing error is no example."""
    for block in blocks_of(page):
        if block.is_fragment:
            compile("async def fragment():\n" + textwrap.indent(block.code, "    "), name_of(page), "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if has_tests(page)], ids=name_of)
def test_the_tests_of_a_page_pass(page: Path, empty_folder: Path) -> None:
    """A reader copies a test that cannot pass, and looks for the fault at home."""
    program = "\n".join(block.code for block in blocks_of(page) if not block.is_fragment)
    (empty_folder / "test_page.py").write_text(program, encoding="utf-8")
    (empty_folder / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    pytest_on_page = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_page.py"]
    done = subprocess.run(
        pytest_on_page, cwd=empty_folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout


def test_the_first_program_of_the_readme_is_the_example() -> None:
    """Two versions of one program drift apart."""
    assert blocks_of(README)[0].code == (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")


async def test_the_set_cookie_line_of_the_readme_is_what_is_sent_over_https() -> None:
    """A reader compares the line with the browser's and finds another one."""
    shown = re.search(r"^Set-Cookie: (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown is not None
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(blocks_of(README)[0].code, namespace)  # noqa: S102 - our own page
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(server)
    authority.configure_trust(client)
    async with serving(Application([("/", namespace["Counter"])]), ssl_options=server) as port:
        with closing(Browser(f"https://localhost:{port}", ssl_options=client)) as browser:
            first, second = await browser.get("/"), await browser.get("/")
    (sent,) = first.headers.get_list("Set-Cookie")
    assert COOKIE_VALUE.sub("VALUE", sent) == COOKIE_VALUE.sub("VALUE", shown[1])
    assert "VALUE" in COOKIE_VALUE.sub("VALUE", sent)
    assert second.headers.get_list("Set-Cookie") == []


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_every_command_on_a_page_exists(page: Path) -> None:
    """The first thing a newcomer types is not found."""
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    known = {"make": set(targets), "eyewall": {typed_name(each) for each in COMMANDS}}
    text = page.read_text(encoding="utf-8")
    for program, word in re.findall(r"(?:^\$ |`)(make|eyewall) ([a-z-]+)", text, re.MULTILINE):
        assert word in known[program], f"{program} {word}"


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_every_test_and_file_named_on_a_page_is_there(page: Path) -> None:
    """A promise cites a test that was renamed away, and nobody holds it any more."""
    text = page.read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py")]
    defined = {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}
    assert set(re.findall(r"`(test_\w+)`", text)) <= defined
    for name in re.findall(r"`((?:tests|examples)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(([\w./-]+\.md)(?:#[\w-]+)?\)", text):
        assert (page.parent / link).is_file(), link


def test_every_setting_is_told_with_its_variable_and_its_default() -> None:
    """An operator searches the page for a setting that is missing, or trusts a default that is another."""
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE)
    told = {name: (variable, default.strip().strip("`")) for name, variable, default in rows}
    assert told == {
        name: (f"EYEWALL_{name.upper()}", default) for name, default in Settings().describe().items()
    }
