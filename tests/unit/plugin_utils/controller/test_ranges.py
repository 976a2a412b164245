"""Which numbers fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import known_variables, ranges


def numbers(options: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, option in options.items():
        if option.get("type") in ("int", "float"):
            yield above + name
        yield from numbers(option.get("options", {}), f"{above}{name}.")


def test_every_number_has_a_range_and_every_range_a_number() -> None:
    assert set(ranges.RANGES) == set(numbers(known_variables.options()))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("vllm_server_port", 1, []),
        ("vllm_server_port", 65535, []),
        ("vllm_server_port", 0, ["vllm_server_port is 0: expected a port, 1 to 65535"]),
        ("vllm_server_port", 65536, ["vllm_server_port is 65536: expected a port, 1 to 65535"]),
        ("gpu_host_gpus", 0, ["gpu_host_gpus is 0: expected a number, 1 or more"]),
        ("gpu_host_gpus", -1, ["gpu_host_gpus is -1: expected a number, 1 or more"]),
        ("rollout_bake_error_share", 0.02, []),
        ("rollout_bake_error_share", 2.0, ["rollout_bake_error_share is 2.0: expected a share, 0 to 1"]),
        ("vllm_server_start_deadline", 0.0, ["vllm_server_start_deadline is 0.0: expected seconds, more than 0"]),
        ("vllm_server_start_deadline", math.inf, ["vllm_server_start_deadline is inf: expected seconds, more than 0"]),
        ("vllm_server_start_deadline", math.nan, ["vllm_server_start_deadline is nan: expected seconds, more than 0"]),
        ("vllm_server_heartbeat", {"period": 0, "stale": 10, "wedged": None}, [
            "vllm_server_heartbeat.period is 0: expected seconds, more than 0",
        ]),
        ("vllm_server_layouts", [{"tensor_parallel_size": 8}, {"tensor_parallel_size": 0}], [
            "vllm_server_layouts.tensor_parallel_size is 0: expected a number, 1 or more",
        ]),
        ("vllm_server_args", {"port": 0}, []),
        ("serving_runtime_extra_requirements", ["a"], []),
    ],
)  # fmt: skip
def test_outside(name: str, value: Any, said: list[str]) -> None:
    assert list(ranges.outside(name, value)) == said
