"""Show the effective settings and what they mean, secrets masked."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import textwrap
from itertools import pairwise
from typing import Final

from eyewall.core.opening import keyring_for
from eyewall.settings import Settings

PREFIX: Final = "EYEWALL_"
_WIDTH: Final = 100
_ROLE: Final = re.compile(r":\w+:`([^`]*)`")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options: what is shown is what an application would get here."""


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - every command is run with its arguments
    """Print every setting: the variable, its effective value, its meaning."""
    meaning = meanings()
    settings = Settings.from_environment(PREFIX)
    if settings.cookie_secret is not None or settings.secret_file is not None:
        keyring_for(settings)  # a secret that an application would refuse is refused here, too
    for field, value in settings.describe().items():
        print(f"{PREFIX}{field.upper()} = {value}")
        for line in textwrap.wrap(meaning.get(field, ""), _WIDTH - 4):
            print(f"    {line}")
    return 0


def meanings() -> dict[str, str]:
    """Return what each setting means, read from the text under it in ``settings.py``.

    That text exists only in the source, so that is where it is read: one wording, which cannot drift. Empty
    where the source is not installed.
    """
    try:
        source = inspect.getsource(Settings)
    except OSError:
        return {}
    body = next(node.body for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef))
    return {
        field.target.id: _plain(text.value.value)
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _plain(text: str) -> str:
    return _ROLE.sub(r"\1", " ".join(text.split())).replace("``", "")
