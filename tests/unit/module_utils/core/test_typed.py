"""JSON becomes the types that its class names, or is refused with the place where it does not fit."""

from __future__ import annotations

import dataclasses
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
        ({}, "it lacks count"),
        ([], "it is list, expected object"),
        ({"count": 1, "more": 1}, "it has an unknown more"),
        ({"count": True}, "it.count is bool, expected whole number"),
        ({"count": 1.0}, "it.count is float, expected whole number"),
        ({"count": 1, "ratio": "1"}, "it.ratio is str, expected number"),
        ({"count": 1, "ratio": True}, "it.ratio is bool, expected number"),
        ({"count": 1, "up": 1}, "it.up is int, expected bool"),
        ({"count": 1, "pair": ["a"]}, "it.pair has 1 items, expected 2"),
        ({"count": 1, "many": {"code": "red"}}, "it.many is dict, expected list"),
        ({"count": 1, "many": [{"code": "blue"}]}, "it.many[0].code is 'blue', which is no Colour"),
        ({"count": 1, "many": [{"code": []}]}, "it.many[0].code is [], which is no Colour"),
        ({"count": 1, "by_name": {"x": 1}}, "it.by_name.x is int, expected object"),
        ({"count": 1, "peers": [{}]}, "it.peers[0] lacks name"),
        ({"count": 1, "peers": [{"name": 1}]}, "it.peers[0].name is int, expected text"),
        ({"count": 1, "kind": "c"}, "it.kind is 'c', expected one of a, b"),
        ({"count": 1, "kind": ["a"]}, "it.kind is ['a'], expected one of a, b"),
    ],
)  # fmt: skip
def test_a_refusal_says_where(value: Any, refusal: str) -> None:
    with pytest.raises(typed.ShapeError) as raised:
        typed.parse(Thing, value)
    assert str(raised.value) == refusal


def test_keys_that_a_newer_writer_adds_may_be_passed_over() -> None:
    assert typed.parse(Thing, {"count": 1, "more": 1}, known_only=True) == Thing(1)
    with pytest.raises(typed.ShapeError, match=r"it\.many\[0\] has an unknown more"):
        typed.parse(Thing, {"count": 1, "many": [{"code": "red", "more": 1}]}, known_only=True)
