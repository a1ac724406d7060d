"""The soak in twenty seconds, and its judge, who must notice each way to break the application.

``make soak`` has the two hours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.kit import ABANDONING, let_go_of_abandoned_connections
from tests.servers.fixtures import Server
from tests.soak.crowd import Rhythm
from tests.soak.place import Limits
from tests.soak.report import lines
from tests.soak.run import Plan, Soak, servers
from tests.soak.verdict import is_machines_doing, verdict

HURRIED = Limits(idle=8, absolute=24, remember=60, margin=2)


@contextmanager
def soaking(plan: Plan, addresses: Mapping[str, str], folder: Path) -> Iterator[Soak]:
    """A soak whose servers run."""
    with servers(plan, addresses, folder) as programs:
        yield Soak(plan, addresses, programs, folder / "soak.json")
    let_go_of_abandoned_connections()  # of users who were cut off by the end


def twenty_seconds(results: dict[str, Any]) -> bool:
    """Whether it has lasted for so long, and long enough for a machine that is busy with other tests."""
    answers = results["ledger"]["answers"]
    if min(answers.get(store, 0) for store in results["stores"]) <= 100:
        return False
    return bool(results["samples"][-1]["at"] > 20)


@ABANDONING
@pytest.mark.timeout(180)
def test_twenty_seconds_with_all_stores_break_no_promise(
    redis7: Server, postgres: Server, tmp_path: Path
) -> None:
    """Harm: what no single test does, many users at once do: somebody sees another's session."""
    addresses = {
        "redis": redis7.url,
        "postgres": postgres.url,
        "sqlite": f"sqlite:///{tmp_path}/sessions.db",
        "file": f"file://{tmp_path}/sessions",
    }
    rhythm = Rhythm(think=(0.0, 0.3), rest=(0.1, 1.0), things=(3, 30))
    plan = Plan(seconds=60, users=16, every=0.5, most_cpu=1.0, limits=HURRIED, rhythm=rhythm)
    with soaking(plan, addresses, tmp_path) as soak:
        results = asyncio.run(soak.run(twenty_seconds))
    assert verdict(results) == []
    assert "Passed." in list(lines(results))


@ABANDONING
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        ("swap", "somebody else's session or data"),
        ("forget", "an acknowledged write is lost"),
        ("stay", "an ended session is there again"),
        ("fail", "tracebacks"),
        ("hold", "was held"),
        ("leak", "grows by"),
    ],
)
def test_the_judge_notices(broken: str, noticed: str, tmp_path: Path) -> None:
    """Harm: a soak that cannot fail, whatever goes wrong."""
    rhythm = Rhythm(think=(0.0, 0.02), rest=(0.0, 0.1), things=(1, 20))
    plan = Plan(seconds=30, users=8, every=0.5, most_cpu=2.0, limits=HURRIED, rhythm=rhythm, broken=broken)

    def is_noticed(results: dict[str, Any]) -> bool:
        return any(noticed in complaint for complaint in results["verdict"])

    with soaking(plan, {"file": f"file://{tmp_path}/sessions"}, tmp_path) as soak:
        results = asyncio.run(soak.run(is_noticed))
    assert is_noticed(results), results["verdict"]


def two_hours(**growth: float) -> dict[str, Any]:
    """Results of two quiet hours, in which the ``growth`` of a process or store is so much an hour."""
    names, lag = ("file 1", "file 2"), {"worst": [], "greatest": 1.0, "p99.99": 2}
    samples = [
        {
            "at": 30.0 * number,
            "processes": {
                name: {
                    "rss": 80 + number % 5 * 0.1 + growth.get("memory", 0) * number / 120,
                    "files": 40 + number % 9 + growth.get("files", 0) * number / 120,
                    "lag": lag,
                }
                for name in names
            },
            "stores": {"file": {"records": 300 + number % 20 + growth.get("records", 0) * number / 120}},
        }
        for number in range(1, 241)
    ]
    return {
        "samples": samples,
        "stores": ["file"],
        "ledger": {"complaints": {}, "examples": {}, "answers": {"file": 1}},
        "tracebacks": {},
        "fallen": 0,
    }


@pytest.mark.parametrize(
    ("growth", "complaints"),
    [({}, 0), ({"memory": 1.0}, 0), ({"memory": 3.0}, 2), ({"files": 200.0}, 2), ({"records": 400.0}, 1)],
)
def test_two_hours_are_judged_by_their_slope(growth: dict[str, float], complaints: int) -> None:
    """Harm: a leak too slow for a short run fills the machine in a month."""
    assert len(verdict(two_hours(**growth))) == complaints


@pytest.mark.parametrize(
    ("threads_waited", "stolen", "beside", "excused"),
    [
        (0.0, 0.0, [], False),
        (60.0, 0.0, [], True),
        (0.0, 60.0, [], True),
        (10.0, 10.0, [], False),
        (0.0, 0.0, [(100.1, 90.0)], True),
        (0.0, 0.0, [(100.1, 20.0), (103.0, 90.0)], False),
    ],
)
def test_a_held_loop_is_excused_by_the_machine_only(
    threads_waited: float, stolen: float, beside: list[tuple[float, float]], *, excused: bool
) -> None:
    """Harm: a busy machine is blamed on us, or we blame it for what we do."""
    event = {"at": 100.0, "held": 150.0, "threads_waited": threads_waited, "stolen": stolen}
    others = [{"at": at, "held": held} for at, held in beside]
    assert is_machines_doing(event, others) is excused
