"""Reading ``Cookie`` lines: only the exact name, from every line, in linear time."""

from __future__ import annotations

import re
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders

from eyewall.core.cookie import MAX_CHARACTERS_READ, MOST_VALUES, cookie_values

NAME = "__Host-session"
TOKENS = st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1, max_size=8)
VALUES = st.text(string.ascii_letters + string.digits + "=!@[]()/:?-", max_size=12)


def test_finds_a_cookie_among_others() -> None:
    """Harm: a session is lost because other cookies stand around it."""
    assert cookie_values(["_ga=GA1.2.3; __Host-session=ew1.k.id.mac; theme=dark"], NAME) == ["ew1.k.id.mac"]


@pytest.mark.parametrize(
    "forged",
    [
        "\xa0__Host-session=evil",
        "\x85__Host-session=evil",
        "__Host-session\xa0=evil",
        "__Host-session\x85=evil",
        "\u2000__Host-session=evil",
        "\xe2\x80\x80__Host-session=evil",  # U+2000 as the bytes of UTF-8, the way Tornado shows them
        "\x0b__Host-session=evil",
        "\x0c__Host-session=evil",
        "\x1c__Host-session=evil",
        "\x00__Host-session=evil",
        "\r\n__Host-session=evil",
        "__%48ost-session=evil",
        "%5F%5FHost-session=evil",
        "=__Host-session=evil",
        "==__Host-session=evil",
        "__host-session=evil",
        "__HOST-SESSION=evil",
        "x__Host-session=evil",
        "__Host-session2=evil",
        '"__Host-session"=evil',
        "__Host-session",
        "__Host-session evil",
        "$Version=1, __Host-session=evil",
        'theme="dark, __Host-session=evil"',
        "a=b,__Host-session=evil",
        "$__Host-session=evil",
    ],
)
def test_look_alike_never_becomes_our_cookie(forged: str) -> None:
    """Harm: a sibling subdomain forges a name it could never set (the prefix bypasses of 2020 and 2025)."""
    assert cookie_values([forged], NAME) == []
    assert cookie_values([f"a=1;{forged}; {NAME}=good"], NAME) == ["good"]


def test_version_cookie_does_not_switch_the_parser() -> None:
    """Harm: ``$Version`` turns on RFC 2965 parsing, where commas and quotes separate cookies."""
    line = '$Version=1; __Host-session="a; $Path=/; __Host-session=b, __Host-session=c"'
    assert cookie_values([line], NAME) == ['"a', 'b, __Host-session=c"']


def test_nameless_cookie_is_never_found() -> None:
    """Harm: ``=x`` is taken for a cookie of any name, or of an empty one."""
    assert cookie_values(["=x; y; ; =", ""], "") == []
    assert cookie_values(["=x; y; ; =", ""], "x") == []


def test_spaces_and_tabs_around_name_and_value_are_not_part_of_them() -> None:
    """Harm: a proxy that adds a blank signs everybody out."""
    assert cookie_values(["a=1;\t __Host-session \t= \tv \t;b=2"], NAME) == ["v"]
    assert cookie_values(["__Host-session=v\xa0"], NAME) == ["v\xa0"]


def test_value_keeps_its_equals_signs_and_quotes() -> None:
    """Harm: a value is changed before its signature is checked."""
    assert cookie_values(['__Host-session==a=b==; __Host-session="q"'], NAME) == ["=a=b==", '"q"']


def test_tossed_duplicate_does_not_hide_ours() -> None:
    """Harm: a sibling subdomain's cookie of the same name wins, and the visitor is signed out or fixated."""
    assert cookie_values(["session=ours; session=tossed"], "session") == ["ours", "tossed"]
    assert cookie_values(["session=tossed; a=1; session=ours"], "session") == ["tossed", "ours"]


def test_several_cookie_lines_from_the_wire_are_all_read() -> None:
    """Harm: HTTP/2 proxies split the line, and the cookies of the second are lost (RFC 6265bis 4.2.1)."""
    raw = b"Cookie: a=1; __Host-session=one\r\nCookie: __Host-session=two; \xa0__Host-session=evil\r\n"
    headers = HTTPHeaders.parse(raw.decode("latin-1"))
    assert cookie_values(headers.get_list("Cookie"), NAME) == ["one", "two"]


def test_cookie_that_ends_at_the_limit_is_read_and_one_beyond_is_not() -> None:
    """Harm: a value cut in two is taken for a whole one."""
    tail = "; session=abc"
    line = "a=" + "x" * (MAX_CHARACTERS_READ - len(tail) - 2) + tail
    assert len(line) == MAX_CHARACTERS_READ
    assert cookie_values([line], "session") == ["abc"]
    assert cookie_values([line + "; b=1"], "session") == ["abc"]
    assert cookie_values([line + "d"], "session") == []


def test_limit_counts_all_lines_together() -> None:
    """Harm: many lines do what one long line may not."""
    filler = "a=" + "x" * (MAX_CHARACTERS_READ // 2 - 2)
    assert cookie_values([filler, "session=seen", filler, "session=unseen"], "session") == ["seen"]
    assert cookie_values([filler, filler, "session=unseen"], "session") == []
    assert cookie_values([filler + "x" * 9, filler, "session=unseen"], "session") == []
    after = "session=unseen; " + "a" * 99
    assert cookie_values([filler, f"session=seen; {filler}", after], "session") == ["seen"]


def test_more_cookies_of_one_name_than_any_browser_keeps_are_not_looked_at() -> None:
    """Harm: each forged one of thousands costs a MAC, and the server does nothing else."""
    sent = [f"s={number}" for number in range(3 * MOST_VALUES)]
    first = [str(number) for number in range(MOST_VALUES)]
    assert cookie_values(["; ".join(sent)], "s") == first
    assert cookie_values(sent, "s") == first


@pytest.mark.parametrize(
    "unit", [";", " ", "=", "session", "session;", "session=;", " ;\t", "a=b; ", '"\\', "sessio"]
)
def test_long_header_costs_linear_time(unit: str) -> None:
    """Harm: one 64 KB header holds the event loop (Tornado's CVE-2024-52804 was quadratic)."""

    def seconds(size: int) -> float:
        line = (unit * size)[:size]
        started = time.process_time()
        cookie_values([line], "session")
        return time.process_time() - started

    single, double = min(seconds(65_536) for _ in range(3)), min(seconds(131_072) for _ in range(3))
    assert single < 0.05
    assert double < 4 * single + 0.01


@given(st.lists(st.tuples(TOKENS, VALUES), max_size=12), TOKENS)
def test_every_well_formed_header_reads_back(pairs: list[tuple[str, str]], name: str) -> None:
    """Harm: some well-formed cookie is not found, or is found under another's name."""
    line = "; ".join(f"{key}={value}" for key, value in pairs)
    for wanted in {name, *(key for key, _ in pairs)}:
        assert cookie_values([line], wanted) == [value for key, value in pairs if key == wanted]


@settings(max_examples=300)
@given(st.lists(st.text(st.sampled_from('sid=; \t\xa0\x85,"$%\\\x00\r\nx\u2000')), max_size=4))
def test_any_bytes_at_all_agree_with_the_rule_in_one_regex(lines: list[str]) -> None:
    """Harm: some odd sequence slips past the exact match, or raises."""
    rule = re.compile(r"(?:\A|;)[ \t]*sid[ \t]*=([^;]*)")
    assert cookie_values(lines, "sid") == [m.strip(" \t") for line in lines for m in rule.findall(line)]
