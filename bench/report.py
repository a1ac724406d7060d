"""``RESULTS.md``: the table, and all that is needed to read it and to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MEANING = """\
- **requests/s, p50, p99**: seen by the load generator; each connection has one request under way.
- **CPU us**: microseconds on a core per request, of the application's processes alone, from the kernel.
- **added us**: CPU us more than the same framework answering the same request without a session layer (and
  without the cookie), in the same round; the median of the rounds. **±** is half the distance between the
  highest and the lowest round: a difference smaller than that is noise.
- **ratio**: requests/s, divided by those of the bare application in the same round.
- **commands**: what one request costs Redis or Valkey, counted by the server (`MONITOR`) in a separate pass;
  blank where the store cannot tell.
- **kept of 100**: of a hundred parallel writes to one session, how many are there afterwards.

Compare systems by *added us* and *ratio*, never by absolute figures of different machines, and never
requests/s across frameworks: they serve differently."""

LOADS = """\
- W0 the bare handler. W1 a valid cookie, two values read out of a session of 500 bytes. W2 a counter read,
  one added, saved. W3 layer installed, no cookie, session untouched. W4 a forged cookie.
- W5 signing in, with a new session ID where the system has a verb for it. W6 a value of 8 KB stored. W7 a
  hundred writes at once to one session, each under a key of its own. W8 a new visitor's first write.

256 sessions in rotation, never two requests at once on the same one except in W7. What does not fit into a
cookie (W6), or cannot be merged in one (W7), is left out for systems that keep the session there."""

SERVING = """\
Each system is served as its documentation recommends, in one process without an access log: Tornado's own
HTTPServer on plain asyncio; uvicorn with uvloop and httptools; aiohttp's runner; gunicorn with one worker
and eight threads (its plain worker would close every connection). Redis clients have hiredis, and are
asynchronous where the framework is. Every setting of Eyewall is the default. Store and load generator share
the second core."""

ALONE = "\n**One core only**: requests/s and latencies mean little here.\n"


def report(table: str, notes: Sequence[str], facts: Mapping[str, object]) -> str:
    """Return the page."""
    own = facts["machine"]
    assert isinstance(own, dict)
    versions = ", ".join(f"{name} {value}" for name, value in own.items())
    warned = (
        "\n**One core only**: requests/s and latencies mean little here.\n" if facts["one core only"] else ""
    )
    noted = "\n".join(f"- {note}" for note in notes) or "- none"
    return f"""\
# Results of {facts["date"]}

Made by `make bench`; do not edit. {facts["rounds"]} rounds of {facts["seconds"]} s, alternating; medians.
Machine: {versions}.
{warned}
## How to read it

{MEANING}

{LOADS}

{SERVING}

To repeat it, on a machine that does nothing else: `make bench`. Each application must first count, keep
visitors apart and take a forged cookie for nobody's; what fails is not measured.

## What was noticed

{noted}

## Figures

{table}"""
