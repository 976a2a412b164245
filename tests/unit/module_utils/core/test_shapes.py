"""Text and values by somebody else: what comes through, and where it says that something does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import shapes
from ansible_collections.lockstep.vllm.plugins.module_utils.core.shapes import BadAnswer


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
    assert shapes.loads(text) == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ("[" * 33 + "]" * 33, "is nested deeper than 32 levels"),
        ("[" * 200_000, "is nested deeper than 32 levels"),
        ("9223372036854775808", "holds a number of 19 digits"),
        ("1" + "0" * 5000, "holds a number of 5001 digits"),
        ("NaN", "holds NaN, which is no number"),
        ("[-Infinity]", "holds -Infinity, which is no number"),
        ("1e400", "holds a number that is not finite"),
    ],
)
def test_what_does_not(text: str, problem: str) -> None:
    with pytest.raises(BadAnswer) as raised:
        shapes.loads(text)
    assert str(raised.value).startswith(problem)


SHAPE = shapes.record(
    {
        "name": shapes.text,
        "count": shapes.maybe(shapes.whole),
        "share": shapes.number,
        "on": shapes.flag,
        "kind": shapes.one_of(("a", "b")),
        "list": shapes.items(shapes.text),
        "table": shapes.table(shapes.items(shapes.whole)),
    },
    needed=("name",),
)


@pytest.mark.parametrize(
    "value",
    [
        {"name": ""},
        {"name": "x", "count": None, "share": 1, "on": False, "kind": "b", "list": [], "table": {"x": [1]}, "new": {}},
    ],
)
def test_values_of_the_shape(value: Any) -> None:
    SHAPE(value)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "is null, expected an object"),
        ([], "is a list, expected an object"),
        ({}, "has no name"),
        ({"name": 7}, "name is a number, expected text"),
        ({"name": "x", "count": True}, "count is true or false, expected a whole number of 64 bits"),
        ({"name": "x", "count": 10**400}, "count is a number, expected a whole number of 64 bits"),
        ({"name": "x", "count": 1.0}, "count is a number, expected a whole number of 64 bits"),
        ({"name": "x", "share": float("nan")}, "share is a number that is too large or not finite"),
        ({"name": "x", "share": 10**400}, "share is a number that is too large or not finite"),
        ({"name": "x", "on": 1}, "on is a number, expected true or false"),
        ({"name": "x", "kind": "\x1b[2J"}, "kind is '', expected one of a, b"),
        ({"name": "x", "kind": []}, "kind is a list, expected text"),
        ({"name": "x", "list": ["y", {}]}, "list.1 is an object, expected text"),
        ({"name": "x", "table": {"\x1b[2Jz": [1, "2"]}}, "table.z.1 is text, expected a whole number of 64 bits"),
    ],
)
def test_what_is_wrong_and_where(value: Any, problem: str) -> None:
    with pytest.raises(BadAnswer) as raised:
        SHAPE(value)
    assert str(raised.value) == problem
