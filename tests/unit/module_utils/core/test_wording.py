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
        ([f"gpu{n:03}.example" for n in range(98, 110)] + ["ctl"], "gpu[098-109].example, ctl"),
        ([f"a{n}" for n in range(1, 13)], "a[1-12]"),  # numbers without leading zeros grow in width
        ([f"{letter}1" for letter in "abcdefghij"], "a1, b1, c1, d1, e1, f1, g1, h1 and 2 others"),
    ],
)
def test_names(names: list[str], text: str) -> None:
    assert wording.names(names) == text
