"""Arguments of ``vllm serve`` as data, and as a command line."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import arguments as vllm_arguments


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({}, []),
        ({"max_model_len": 64}, ["--max-model-len", "64"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"seed": None}, []),
        ({"lora_modules": ["a=b", "c=d"]}, ["--lora-modules", "a=b", "c=d"]),
        (
            {"compilation_config": {"cudagraph_mode": "PIECEWISE"}},
            ["--compilation-config", '{"cudagraph_mode": "PIECEWISE"}'],
        ),
    ],
)
def test_flags(arguments: dict[str, Any], line: list[str]) -> None:
    assert vllm_arguments.flags(arguments) == line


@pytest.mark.parametrize("name", vllm_arguments.OWNED)
def test_what_lockstep_owns_is_named_with_what_to_use(name: str) -> None:
    given = vllm_arguments.normalised({f"--{name.replace('_', '-')}": 1})
    (line,) = vllm_arguments.owned(given, "vllm_server_args")
    assert line.startswith(f"vllm_server_args sets {name.replace('_', '-')}; ")
    assert "leave it out: " in line or line.endswith(" instead")


def test_what_is_the_operator_s_is_not_owned() -> None:
    theirs = {
        "max_model_len": 1,
        "data_parallel_size": 2,
        "data_parallel_backend": "ray",
        "enable_expert_parallel": True,
    }
    assert list(vllm_arguments.owned(theirs, "vllm_server_args")) == []
