"""What a policy allows: shares of the replicas, the maintenance window, and the ranges of its options."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.core.window import Window
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import RANGES, Policy, Share
from ansible_collections.lockstep.vllm.plugins.modules import plan

OPTIONS: dict[str, Any] = {"wave_size": "25%", "capacity_floor": None, "window": None, "order": []}


@pytest.mark.parametrize(
    ("text", "total", "most", "least"),
    [
        ("3", 8, 3, 3),
        ("25%", 8, 2, 2),
        ("25%", 9, 2, 3),
        (" 10 %", 4, 0, 1),
        ("100%", 7, 7, 7),
        ("0%", 7, 0, 0),
        ("76%", 4, 3, 4),
        ("50%", 200, 100, 100),
        ("100%", 200, 200, 200),
    ],
)
def test_share(text: str, total: int, most: int, least: int) -> None:
    share = Share.parse(text)
    assert (share.at_most(total), share.at_least(total)) == (most, least)
    assert str(share) == text.replace(" ", "")


@pytest.mark.parametrize(
    ("floor", "total", "kept"),
    [(None, 0, 0), (None, 1, 0), (None, 2, 1), (None, 9, 1), ("0", 9, 0), ("50%", 3, 2), ("2", 1, 2)],
)
def test_floor(floor: str | None, total: int, kept: int) -> None:
    assert Policy.parse(**{**OPTIONS, "capacity_floor": floor}).floor(total) == kept


@pytest.mark.parametrize(("size", "total", "most"), [("25%", 3, 1), ("25%", 8, 2), ("2", 1, 2), ("1%", 0, 1)])
def test_size(size: str, total: int, most: int) -> None:
    assert Policy.parse(**{**OPTIONS, "wave_size": size}).size(total) == most


@pytest.mark.parametrize(
    ("values", "policy"),
    [
        ({}, Policy()),
        ({"wave_size": "", "window": ""}, Policy()),
        ({"wave_size": "3", "canary": 2, "capacity_floor": "50%"}, Policy(2, Share(3), Share(50, percent=True))),
        ({"order": ["b", " a"], "window": "02:00-04:30"}, Policy(order=("b", "a"), window=Window(120, 270))),
    ],
)
def test_a_policy_from_options(values: dict[str, Any], policy: Policy) -> None:
    assert Policy.parse(**{**OPTIONS, **values}) == policy


def test_where_nothing_is_said_the_documented_defaults_hold() -> None:
    options = yaml.safe_load(plan.DOCUMENTATION)["options"]["policy"]["suboptions"]
    documented: dict[str, Any] = {**OPTIONS, **{name: about.get("default") for name, about in options.items()}}
    assert Policy.parse(**documented) == Policy()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("canary", 0),
        ("wave_size", "0"),
        ("wave_size", "0%"),
        ("wave_size", "101%"),
        ("wave_size", "some"),
        ("wave_size", "1.5"),
        ("capacity_floor", "-1"),
        ("capacity_floor", "101%"),
        ("window", "25:00-26:00"),
        ("window", "2:00-4:00"),
        ("pause_between", -1),
        ("pause_between", float("inf")),
        ("bake_seconds", -0.5),
        ("bake_seconds", float("inf")),
        ("bake_seconds", float("nan")),
        ("bake_latency_factor", 0.9),
        ("bake_error_share", -0.1),
        ("bake_error_share", 1.1),
        ("bake_requests", 0),
    ],
)
def test_an_option_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"rollout_{name} is .*: expected ") as error:
        Policy.parse(**{**OPTIONS, name: value})
    assert str(error.value).endswith(RANGES[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("canary", 1),
        ("wave_size", "1"),
        ("wave_size", "100%"),
        ("capacity_floor", "0"),
        ("capacity_floor", "100%"),
        ("pause_between", 0),
        ("bake_latency_factor", 1),
        ("bake_error_share", 0),
        ("bake_error_share", 1),
        ("bake_requests", 1),
    ],
)
def test_an_option_at_the_edge_of_its_range(name: str, value: Any) -> None:
    Policy.parse(**{**OPTIONS, name: value})


def test_every_fault_is_named() -> None:
    with pytest.raises(ValueError, match="rollout_wave_size is some") as error:
        Policy.parse(**{**OPTIONS, "wave_size": "some", "canary": 0, "bake_seconds": -2})
    assert [line.split(" is ")[0] for line in str(error.value).splitlines()] == [
        "rollout_wave_size",
        "rollout_canary",
        "rollout_bake_seconds",
    ]
