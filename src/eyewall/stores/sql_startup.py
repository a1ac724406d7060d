"""What went wrong at the start, said so that somebody can mend it."""

from __future__ import annotations

import socket
from typing import Final

from eyewall.errors import ConfigurationError, EyewallError, StoreUnavailable
from eyewall.stores.sql_calls import chain_of, codes_of, reason_of

_OTHER_LAYOUT: Final = "the table is of another layout; `eyewall schema` shows the right one"
_NO_RIGHT: Final = "grant the right, or make the table with `eyewall schema`"

ADVICE: Final = {
    "1044": "check the database's name and the user's rights",
    "1045": "check the name and the password",
    "1049": "create the database, or correct its name in the URL",
    "1054": _OTHER_LAYOUT,
    "1142": _NO_RIGHT,
    "28P01": "check the name and the password",
    "28000": "check the name, and the server's pg_hba.conf",
    "3D000": "create the database, or correct its name in the URL",
    "42501": _NO_RIGHT,
    "42703": _OTHER_LAYOUT,
}
"""The databases' codes that trying again will not mend. MySQL's numbers come first: they say more than the
SQLSTATE beside them."""

SAID_BY_SQLITE: Final = {
    "no such column": _OTHER_LAYOUT,
    "unable to open database file": "check the path and its folder's permissions",
    "file is not a database": "the file belongs to something else; name another",
    "readonly database": "let the process write to the file and its folder",
}


def explained(error: StoreUnavailable) -> EyewallError:
    """Return a ConfigurationError if a setting is to blame for ``error``, else ``error`` itself."""
    advice = _advice(error)
    return ConfigurationError(f"{error}; {advice}") if advice else error


def _advice(error: StoreUnavailable) -> str | None:
    codes = codes_of(error)
    for code, advice in ADVICE.items():
        if code in codes:
            return advice
    for link in chain_of(error):
        if isinstance(link, socket.gaierror):
            return "check the host's name"
        if isinstance(link, PermissionError):
            return SAID_BY_SQLITE["readonly database"]
    return next((advice for said, advice in SAID_BY_SQLITE.items() if said in reason_of(error)), None)
