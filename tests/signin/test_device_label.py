"""A User-Agent header becomes a short name, whatever a stranger puts into it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyewall.signin import device_label
from eyewall.signin.device_label import LONGEST, MOST_READ, label_of

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0"
CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/141.0.0.0 Safari/537.36"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.5 Mobile/15E148 Safari/604.1"
)


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the extra were not installed: None in sys.modules is how Python itself says so."""
    monkeypatch.setitem(sys.modules, "ua_parser", None)
    device_label._parser.cache_clear()
    yield
    device_label._parser.cache_clear()


@pytest.mark.parametrize(
    ("header", "label"),
    [
        (FIREFOX, "Firefox 142 on Linux"),
        (CHROME, "Chrome 141 on Windows"),
        (IPHONE, "Mobile Safari 18 on iOS"),
        ("curl/8.15.0", "curl 8"),
        ("Mozilla/5.0 (X11; Linux x86_64)", "a browser on Linux"),
        ("our own kiosk", "our own kiosk"),
        ("", "a browser"),
        ("\r\n\x00", "a browser"),
    ],
)
def test_a_person_recognises_the_device(header: str, label: str) -> None:
    """Nobody finds the stranger among their devices in a list of raw headers."""
    assert label_of(header) == label


def test_without_the_library_the_header_itself_is_shown_shortened(without_library: None) -> None:
    """An optional library that is not there must not cost the list of devices."""
    assert label_of("curl/8.15.0") == "curl/8.15.0"
    assert label_of(FIREFOX * 2) == (FIREFOX * 2)[: LONGEST - 3] + "..."
    assert label_of("") == "a browser"


headers = st.one_of(
    st.text(max_size=2000),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Zs", "Nd"]), max_size=50),
    st.text(st.sampled_from("Firefox/1Androidbot(;) .Mozilla\r\n\u202e"), max_size=600),
    st.builds(lambda begin, end: FIREFOX[:begin] + end, st.integers(0, len(FIREFOX)), st.text(max_size=40)),
)


def is_safe(label: str) -> bool:
    """Whether it can go into a log, a terminal and a table."""
    return 0 < len(label) <= LONGEST and label.isprintable() and label == label.strip()


@given(headers)
def test_no_header_forges_a_line_of_a_log_or_fills_a_page(header: str) -> None:
    """CR, LF and escape sequences in a header would write what looks like somebody else's line."""
    assert is_safe(label_of(header))


@given(headers)
def test_no_header_does_so_without_the_library_either(header: str) -> None:
    """The fallback gets the same headers."""
    assert is_safe(device_label._shortened(device_label._plain(header[:MOST_READ])) or "a browser")


@pytest.mark.parametrize("piece", ["a", "1.", ";", " ", "Android ", "Bot bot", "Bot/Linux", "(compatible; "])
def test_the_library_sees_a_bounded_part_of_a_header_only(piece: str) -> None:
    """64 KB of header in patterns that backtrack would hold up everybody."""
    asked: list[int] = []

    def parse(user_agent: str) -> tuple[str, str, str]:
        asked.append(len(user_agent))
        return "", "", ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_label, "_parser", lambda: parse)
        label_of(piece * 10_000)
    assert asked[0] <= MOST_READ
