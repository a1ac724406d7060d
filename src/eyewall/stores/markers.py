"""Which records belong to which principal, as empty files beside the records.

``principals/<SHA-256 of the principal>/<digest in hex>`` says that the record *may* be the principal's. The
record decides: a marker is written before its record and removed after it, so a crash in between leaves a
marker too many, never one too few. Whoever meets one that is wrong removes it.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path


class PrincipalMarkers:
    """The markers in one folder. The caller holds the lock of the digest while adding or removing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, principal: str, digest: bytes) -> None:
        """Suggest that the record of ``digest`` is ``principal``'s. Adding twice does nothing more."""
        path = self._path(principal, digest)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            with suppress(FileNotFoundError):
                return os.close(os.open(path, flags, 0o600))
            # Nearly always the folder is there; another process may find it empty and remove it again.
            path.parent.mkdir(mode=0o700, exist_ok=True)

    def remove(self, principal: str, digest: bytes) -> None:
        """Take the suggestion back. Removing what is not there does nothing."""
        path = self._path(principal, digest)
        with suppress(FileNotFoundError):
            path.unlink()
        with suppress(OSError):  # not empty, or gone already
            path.parent.rmdir()

    def digests(self, principal: str) -> list[bytes]:
        """The digests of the records that may be ``principal``'s."""
        try:
            names = [path.name for path in self._folder_of(principal).iterdir()]
        except FileNotFoundError:
            self._folder.stat()  # the principal has no markers; but is the index itself there?
            return []
        return [digest for name in names if (digest := digest_named(name)) is not None]

    def _folder_of(self, principal: str) -> Path:
        # Lone surrogates are no text, but whoever asks for them gets an empty list, not an error.
        return self._folder / hashlib.sha256(principal.encode("utf-8", "surrogatepass")).hexdigest()

    def _path(self, principal: str, digest: bytes) -> Path:
        return self._folder_of(principal) / digest.hex()


def digest_named(name: str) -> bytes | None:
    """The digest that a file is named by, or None when the name is not 64 lower-case hex digits."""
    try:
        digest = bytes.fromhex(name)
    except ValueError:
        return None
    return digest if len(digest) == 32 and digest.hex() == name else None
