"""The ``eyewall`` command, run as a user runs it."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from eyewall import Settings, __version__
from eyewall.cli import demo
from eyewall.cli.main import COMMANDS, main, typed_name
from eyewall.cli.settings import meanings
from tests.examples.program import DEMO, Program, environment


def eyewall(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run ``eyewall words`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "eyewall.cli.main", *words],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Harm: a bug report cannot say what was used."""
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"eyewall {__version__}\n"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """Harm: a command nobody finds."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert typed_name(command) in shown


def test_no_command_is_a_clear_error(tmp_path: Path) -> None:
    """Harm: a traceback for a word that was forgotten."""
    done = eyewall(tmp_path)
    assert done.returncode == 2
    assert "COMMAND" in done.stderr
    assert "Traceback" not in done.stderr


# --- settings --------------------------------------------------------------------------------------------


def test_settings_shows_every_setting_with_its_meaning(tmp_path: Path) -> None:
    """Harm: an operator guesses what is in force."""
    done = eyewall(tmp_path, "settings", EYEWALL_TTL="900")
    assert done.returncode == 0
    assert "EYEWALL_TTL = 900 s\n    Idle timeout" in done.stdout
    for field in Settings().describe():
        assert f"EYEWALL_{field.upper()} = " in done.stdout
        assert meanings()[field]


def test_settings_masks_secrets(tmp_path: Path) -> None:
    """Harm: a password in a terminal's scrollback or a support ticket."""
    secret, url = "kY7-wq0Zr4Bn_81xTfLs3vHd6GmCe5Ju", "redis://user:hunter2@cache/0"
    done = eyewall(tmp_path, "settings", EYEWALL_COOKIE_SECRET=secret, EYEWALL_URL=url)
    assert done.returncode == 0
    assert secret not in done.stdout + done.stderr
    assert "hunter2" not in done.stdout + done.stderr


def test_a_bad_setting_is_one_line_and_exit_2(tmp_path: Path) -> None:
    """Harm: a typing mistake hidden in a traceback."""
    for command in ("settings", "demo"):
        done = eyewall(tmp_path, command, EYEWALL_TTTL="900")
        assert done.returncode == 2
        assert done.stderr == "eyewall: unknown setting EYEWALL_TTTL; did you mean EYEWALL_TTL?\n"


# --- demo ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_says_where_it_listens_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    """Harm: a newcomer does not find the page, or the data; stopping looks like a crash."""
    with Program(*DEMO, folder=tmp_path) as shop:
        place = tmp_path.resolve() / ".eyewall"
        assert shop.first_line == f"Shopping cart at {shop.url}/cart, sessions in {place}\n"
        connection = http.client.HTTPConnection("127.0.0.1", shop.port)
        connection.request("GET", "/")
        assert connection.getresponse().headers["Location"] == "/cart"
        connection.close()
        assert shop.end(number) == 0
    assert shop.errors == ""
    assert (place / "secret").is_file()


def test_demo_keeps_its_data_where_it_is_told(tmp_path: Path) -> None:
    """Harm: data somewhere else than asked."""
    with Program(*DEMO, "--data", "here", folder=tmp_path):
        assert (tmp_path / "here" / "secret").is_file()
        assert not (tmp_path / ".eyewall").exists()


def test_demo_options_win_over_the_environment(tmp_path: Path) -> None:
    """Harm: an option that was given is not obeyed."""
    elsewhere = {"EYEWALL_BACKEND": "redis", "EYEWALL_HOST": "cache", "EYEWALL_PASSWORD": "hunter2"}
    with Program(*DEMO, "--url", "memory://", folder=tmp_path, **elsewhere) as shop:
        assert shop.first_line.endswith("sessions in memory://\n")


def test_demo_honours_the_environment(tmp_path: Path) -> None:
    """Harm: settings that are set are not obeyed."""
    with Program(*DEMO, folder=tmp_path, EYEWALL_BACKEND="memory") as shop:
        assert shop.first_line.endswith("sessions in memory (gone when this process ends)\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--url", "nonsense"), 2, "--url is not a URL"),
        (("--url", "gopher://x"), 2, "--url has a scheme no store knows"),
        (("--data", "/dev/null/x"), 2, "/dev/null/x"),
        (("--url", "memory://", "--data", "x"), 2, "not allowed with"),
        (("--port", "70000"), 2, "'70000' is not a port"),
        (("--port", "-1"), 2, "not a port"),
        (("--port", "http"), 2, "'http' is not a port"),
        (("--host", "192.0.2.1", "--port", "0"), 1, "cannot listen on 192.0.2.1"),
    ],
)
def test_demo_refuses_in_one_clear_line(tmp_path: Path, words: tuple[str, ...], code: int, said: str) -> None:
    """Harm: a traceback where a sentence would do."""
    done = eyewall(tmp_path, "demo", *words)
    assert done.returncode == code
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_demo_on_a_port_in_use(tmp_path: Path) -> None:
    """Harm: the second start of the demo looks broken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = eyewall(tmp_path, "demo", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == f"eyewall: port {port} on 127.0.0.1 is in use; choose another with --port\n"


def test_demo_finds_the_example_where_a_wheel_puts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Harm: the demo works in a checkout only."""
    installed = tmp_path / "eyewall" / "cli" / "cart_example"
    installed.mkdir(parents=True)
    (installed / "cart.py").write_text("")
    monkeypatch.setattr(demo, "__file__", str(tmp_path / "eyewall" / "cli" / "demo.py"))
    assert demo.cart_folder() == installed
