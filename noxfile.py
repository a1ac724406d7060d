"""The matrix: every Python found here, each with every Tornado we promise. Run it with ``make matrix``."""

from __future__ import annotations

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
TORNADOS = ["6.4", "6.5", "6.6"]

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"  # "every Python found here" means found, not fetched
nox.options.sessions = ["tests", "oldest"]


@nox.session(python=PYTHONS)
@nox.parametrize("tornado", TORNADOS)
def tests(session: nox.Session, tornado: str) -> None:
    """Run the tests with one Tornado."""
    install(session, f"tornado=={tornado}.*")
    run_tests(session)


@nox.session(python=[PYTHONS[0], PYTHONS[-1]])
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest libraries that pyproject.toml allows."""
    lowest = ("--upgrade", "--resolution", "lowest-direct")
    install(session, *lowest, "--requirements", "pyproject.toml", "--all-extras")
    run_tests(session)


def install(session: nox.Session, *other_versions: str) -> None:
    """Install the pinned libraries, then Eyewall itself, then the versions this session is about."""
    session.install("--require-hashes", "--requirements", "requirements/dev.txt")
    session.install("--no-deps", "--no-build-isolation", "--editable", ".")
    session.install(*other_versions)


def run_tests(session: nox.Session) -> None:
    """Run pytest; what stands behind ``--`` on the command line picks the tests."""
    parallel = ("-n", "auto", "--maxprocesses", "8", "--dist", "loadfile", "--no-loadscope-reorder")
    session.run("pytest", *parallel, *session.posargs)
