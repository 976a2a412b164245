"""Text and values by somebody else: they become the types that a class names, or are refused with the place and the reason."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import typed
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import Code


class Colour(Code):
    RED = "red"


class Clock(TypedDict, total=False):
    skew: float


class Peer(Clock):
    name: str | None


@dataclasses.dataclass(frozen=True)
class Inner:
    code: Colour
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Thing:
    count: int
    ratio: float = 0.0
    up: bool = False
    pair: tuple[str, str] | None = None
    many: tuple[Inner, ...] = ()
    by_name: Mapping[str, Inner] = dataclasses.field(default_factory=dict)
    peers: list[Peer] = dataclasses.field(default_factory=list)
    kind: Literal["a", "b"] = "a"
    size: int | float = 0
    free: dict[str, Any] = dataclasses.field(default_factory=dict)


def test_all_of_it() -> None:
    found = typed.parse(
        Thing,
        {
            "count": 1, "ratio": 2, "up": True, "pair": ["a", "b"], "many": [{"code": "red"}], "kind": "b", "size": 3,
            "by_name": {"x": {"code": "red", "note": "n"}}, "peers": [{"name": None, "skew": 1}, {"name": "p"}], "free": {"k": [None]},
        },
    )  # fmt: skip
    assert found == Thing(
        1, 2.0, True, ("a", "b"), (Inner(Colour.RED),), {"x": Inner(Colour.RED, "n")},
        [{"name": None, "skew": 1.0}, {"name": "p"}], "b", 3, {"k": [None]},
    )  # fmt: skip
    assert isinstance(found.ratio, float)
    assert isinstance(found.size, int)
    assert isinstance(found.many[0].code, Colour)


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        ({}, "has no count"),
        (None, "is null, expected an object"),
        ([], "is a list, expected an object"),
        ({"count": 1, "more": 1, "\x1b[2Jz": 1}, "has an unknown more, z"),
        ({"count": True}, "count is true or false, expected a whole number of 64 bits"),
        ({"count": 1.0}, "count is a number, expected a whole number of 64 bits"),
        ({"count": 10**400}, "count is a number, expected a whole number of 64 bits"),
        ({"count": 2**63}, "count is a number, expected a whole number of 64 bits"),
        ({"count": 1, "ratio": "1"}, "ratio is text, expected a number"),
        ({"count": 1, "ratio": True}, "ratio is true or false, expected a number"),
        ({"count": 1, "ratio": 10**400}, "ratio is a number that is too large or not finite"),
        ({"count": 1, "up": 1}, "up is a number, expected true or false"),
        ({"count": 1, "pair": ["a"]}, "pair has 1 items, expected 2"),
        ({"count": 1, "many": {"code": "red"}}, "many is an object, expected a list"),
        ({"count": 1, "many": [{"code": "blue"}]}, "many.0.code is 'blue', expected one of red"),
        ({"count": 1, "many": [{"code": []}]}, "many.0.code is a list, expected text"),
        ({"count": 1, "by_name": {"x": 1}}, "by_name.x is a number, expected an object"),
        ({"count": 1, "by_name": {"\x1b[2Jz": 1}}, "by_name.z is a number, expected an object"),
        ({"count": 1, "peers": [{}]}, "peers.0 has no name"),
        ({"count": 1, "peers": [{"name": 1}]}, "peers.0.name is a number, expected text"),
        ({"count": 1, "kind": "c"}, "kind is 'c', expected one of a, b"),
        ({"count": 1, "kind": "\x1b[2J"}, "kind is '', expected one of a, b"),
        ({"count": 1, "kind": ["a"]}, "kind is a list, expected text"),
    ],
)  # fmt: skip
def test_a_refusal_says_where(value: Any, refusal: str) -> None:
    with pytest.raises(typed.BadAnswer) as raised:
        typed.parse(Thing, value)
    assert str(raised.value) == refusal


NAN = float("nan")


@pytest.mark.parametrize(
    ("strictness", "value", "found"),
    [
        (typed.NEWER, {"count": 1, "more": 1, "many": [{"code": "red", "more": 1}]}, Thing(1, many=(Inner(Colour.RED),))),
        (typed.NEWER, {"count": 1, "peers": [{}]}, "peers.0 has no name"),
        (typed.NEWER, {"count": 1, "ratio": NAN}, "ratio is a number that is too large or not finite"),
        (typed.PARTIAL, {"count": 1, "more": 1, "peers": [{}]}, Thing(1, peers=[{}])),
        (typed.PARTIAL, {}, "has no count"),
        (typed.PARTIAL, {"count": 1, "ratio": NAN}, "ratio is a number that is too large or not finite"),
    ],
)  # fmt: skip
def test_what_is_passed_over(strictness: typed.Strictness, value: Any, found: Any) -> None:
    if not isinstance(found, str):
        assert typed.parse(Thing, value, strictness) == found
        return
    with pytest.raises(typed.BadAnswer) as raised:
        typed.parse(Thing, value, strictness)
    assert str(raised.value) == found


def test_what_we_measured_may_be_no_number() -> None:
    assert str(typed.parse(float, NAN)) == "nan"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -1.5, true, null, "x"]}', {"a": [1, -1.5, True, None, "x"]}),
        ("9223372036854775807", 2**63 - 1),
        ('"tab\\tand\\nline"', "tab\tand\nline"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\ud83d \\u0000 \\u001b[1mx"', "\ufffd \ufffd x"),
        ('{"\\u009b": 1}', {"\ufffd": 1}),
        ("[" * 32 + "]" * 32, json.loads("[" * 32 + "]" * 32)),
    ],
)
def test_what_comes_through(text: str, value: Any) -> None:
    assert typed.loads(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ("[" * 33 + "]" * 33, "is nested deeper than 32 levels"),
        ("[" * 200_000, "is nested deeper than 32 levels"),
        ("9223372036854775808", "holds a number of more than 64 bits"),
        ("1" + "0" * 5000, "is not JSON: Exceeds the limit"),
        ("NaN", "holds a number that is not finite: nan"),
        ("[-Infinity]", "holds a number that is not finite: -inf"),
        ("1e400", "holds a number that is not finite: inf"),
    ],
)
def test_what_does_not(text: str, problem: str) -> None:
    with pytest.raises(typed.BadAnswer) as raised:
        typed.loads(text)
    assert str(raised.value).startswith(problem)
