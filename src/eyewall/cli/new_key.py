"""Make the secret file, or rotate it: a new key signs, the old ones go on verifying."""

from __future__ import annotations

import argparse

from eyewall.cli.keys import add_file, secret_file_of, table_of
from eyewall.core.store import utc_now
from eyewall.crypto.key_file import KEPT, MAX_KEYS, rotate_keys
from eyewall.crypto.keyring import Key


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, and how many old keys stay."""
    add_file(parser)
    parser.add_argument(
        "--keep",
        type=int,
        default=KEPT,
        metavar="N",
        help=f"retired keys to keep, at most {MAX_KEYS - 1} (default: {KEPT}); 0 voids every cookie",
    )


def run(arguments: argparse.Namespace) -> int:
    """Rotate, and print the key IDs, never a secret."""
    path = secret_file_of(arguments)
    rotation = rotate_keys(path, now=utc_now(), keep=arguments.keep)
    print(path)
    for line in table_of(rotation.keys):
        print(line)
    for key in rotation.dropped:
        print(f"dropped {Key(key.secret).id}: what it signed is void")
    print("Servers read the file when they start: restart them all to sign with the new key.")
    return 0
