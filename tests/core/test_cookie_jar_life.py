"""Signed and encrypted values end by themselves, and outlive the keys that made them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.core.exchange import MANNERS, NEW, OLD, Exchange, value_of

# -- time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", MANNERS)
@pytest.mark.parametrize(("max_age", "life"), [(60, 60), (timedelta(hours=1), 3600), (None, 31 * 86400)])
def test_a_value_ends_by_itself_whatever_the_browser_does(
    manner: str, max_age: int | timedelta | None, life: int
) -> None:
    """Harm: a copied cookie works for ever, because only the browser was asked to forget it."""
    exchange = Exchange()
    (line,) = exchange.end(getattr(exchange.jar(), manner).set("v", 1, max_age=max_age))
    replayed = line.partition(";")[0]
    exchange.clock.advance(life - 1)
    assert getattr(exchange.jar(replayed), manner).get("v") == 1
    exchange.clock.advance(1)
    assert getattr(exchange.jar(replayed), manner).get("v") is None


@pytest.mark.parametrize("manner", MANNERS)
def test_a_value_from_the_future_is_nothing_beyond_the_skew_of_clocks(manner: str) -> None:
    """Harm: a value made ahead while a clock was wrong outlives its end."""
    exchange = Exchange()
    (line,) = exchange.end(getattr(exchange.jar(), manner).set("v", 1))
    exchange.clock.advance(-60)
    assert getattr(exchange.jar(line.partition(";")[0]), manner).get("v") == 1
    exchange.clock.advance(-1)
    assert getattr(exchange.jar(line.partition(";")[0]), manner).get("v") is None


def test_a_permanent_cookie_lasts_as_long_as_browsers_allow() -> None:
    """Harm: a year asked for is cut by the browser, or refused by us."""
    exchange = Exchange()
    lines = exchange.end(
        exchange.jar().permanent.signed.set("a", 1).set("b", 2, max_age=5).permanent.set("c", 3)
    )
    assert [line.split("; ")[1] for line in lines] == ["Max-Age=34560000", "Max-Age=5", "Max-Age=34560000"]
    exchange.end(exchange.jar().signed.permanent.set("d", 1))
    exchange.clock.advance(timedelta(days=400) - timedelta(seconds=1))
    assert exchange.jar().signed.get("d") == 1


# -- rotation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", MANNERS)
def test_rotation_loses_nobody_and_a_dropped_key_is_dead(manner: str) -> None:
    """Harm: rotating keys signs everybody out, or the old key goes on being trusted."""
    exchange = Exchange(OLD)
    (line,) = exchange.end(getattr(exchange.jar(), manner).set("v", 7, max_age=1000, path="/a"))
    exchange.url += "a"
    exchange.clock.advance(400)
    exchange.use(NEW, OLD)
    jar = exchange.jar()
    assert getattr(jar, manner).get("v") == 7
    (renewed,) = exchange.end(jar)
    assert value_of(renewed).split(".")[1] == NEW.id
    assert renewed.partition(";")[2] == line.partition(";")[2].replace("1000", "600")
    assert len(exchange.browser.cookies) == 1
    jar = exchange.jar()
    assert getattr(jar, manner).get("v") == 7
    assert exchange.end(jar) == []
    exchange.use(NEW)
    assert getattr(exchange.jar(), manner).get("v") == 7
    assert getattr(exchange.jar(line.partition(";")[0]), manner).get("v") is None
    exchange.clock.advance(600)
    assert getattr(exchange.jar(renewed.partition(";")[0]), manner).get("v") is None


def test_a_renewal_gives_way_to_what_the_handler_sets() -> None:
    """Harm: reading before writing makes the second set of a cookie in one response, refused at random."""
    exchange = Exchange(OLD)
    exchange.end(exchange.jar().signed.set("v", 7))
    exchange.use(NEW, OLD)
    jar = exchange.jar()
    jar.signed.get("v")
    jar.delete("v", path="/other")
    assert [line.split(";")[0] for line in jar.outgoing.leave(200)] == ["v="]
    jar = exchange.jar()
    jar.signed.get("v")
    assert jar.outgoing.leave(200, {"v"}) == []


def test_a_renewal_keeps_a_cookie_that_ends_with_the_browser_so() -> None:
    """Harm: a cookie for one evening becomes one for a month."""
    exchange = Exchange(OLD)
    exchange.end(exchange.jar().signed.set("v", 7))
    exchange.use(NEW, OLD)
    jar = exchange.jar()
    jar.signed.get("v")
    (line,) = exchange.end(jar)
    assert "Max-Age" not in line


def test_an_old_value_sent_over_the_wrong_connection_is_no_error() -> None:
    """Harm: a client that sends an HTTPS cookie over plain http gets a 500 out of its renewal."""
    exchange = Exchange(OLD)
    (line,) = exchange.end(exchange.jar().signed.set("__Host-v", 7))
    plain = Exchange(NEW, OLD, https=False)
    jar = plain.jar(line.partition(";")[0])
    assert jar.signed.get("__Host-v") == 7
    assert plain.end(jar) == []
