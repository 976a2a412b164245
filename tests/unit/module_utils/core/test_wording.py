from __future__ import annotations

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import wording


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (187.9, "3:07"), (3729, "1:02:09"), (360000, "100:00:00")])
def test_clock(seconds: float, text: str) -> None:
    assert wording.clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (187, "3 min 7 s"),
        (599.6, "10 min"),
        (850, "14 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    assert wording.span(seconds) == text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a1", "a2"], "a1, a2"),
        ([f"gpu{n:03}" for n in range(1, 17)], "gpu[001-016]"),
        ([f"gpu{n:03}.example" for n in range(98, 110)] + ["ctl"], "ctl, gpu[098-109].example"),
        ([f"gpu{n}" for n in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)], "gpu[0-11]"),  # as Ansible sorts names of groups
        ([f"a{n}" for n in range(1, 13)], "a[1-12]"),  # numbers without leading zeros grow in width
        ([f"{letter}1" for letter in "abcdefghij"], "a1, b1, c1, d1, e1, f1, g1, h1 and 2 others"),
    ],
)
def test_names(names: list[str], text: str) -> None:
    assert wording.names(names) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, äöü, 漢字, \U0001f600", "plain, äöü, 漢字, \U0001f600"),
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb\rc\u2028d\u0085e", "a\nb\nc\nd\ne"),
        ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07\x1b]8;;http://x\x1b\\link", "red link"),
        ("\x1bc\x9b2J\x00\x08\x7f", "\ufffdc\ufffd2J\ufffd\ufffd\ufffd"),
        ("user\u202egnp.exe\u2066\u200b", "user\ufffdgnp.exe\ufffd\ufffd"),
        ("half \ud800", "half \ufffd"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert wording.printable(text) == shown
    assert wording.printable(shown) == shown
