"""What a plan says of the driver that is asked for: ended branches, modules that are gone, known issues, PTX."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import driver_request
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.driver_request import Known
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import HostState

CASES = Path(__file__).parents[2] / "fixtures/cases"
KNOWN = Known(
    data_tables.read("known_issues"),
    data_tables.read("driver_branches"),
    data_tables.read("cuda_minimum_driver"),
    datetime.date(2026, 11, 27),
)
ANSWER: dict[str, Any] = {
    "os": {"distribution": "ubuntu", "version": "24.04", "kernel": "6.8.0-60-generic", "arch": "x86_64"},
    "boot": {"since": "1000000"},
    "clock": 1000000.0 + 54 * 86400,
    "driver": {"gpus": [{"name": "NVIDIA B200"}], "loaded_version": "580.105.08"},
    "machine": {"links": ["roce"]},
    "runtime": {},
}


def said(
    version: str, runtime: dict[str, str] | None = None, settings: Any = (), **changes: Any
) -> tuple[list[str], list[str]]:
    state = HostState.parse({**ANSWER, **changes})
    wanted = {
        "nvidia_driver_version": version,
        "nvidia_driver_source": "nvidia",
        "nvidia_driver_flavor": "open",
        "gpu_host_gpus": 8,
        **dict(settings),
    }
    refusals, warnings = driver_request.findings("gpu-01", wanted, state, KNOWN, runtime)
    return list(map(str, refusals)), list(map(str, warnings))


def test_nothing_is_said_of_a_driver_that_is_well() -> None:
    assert said("580.159.04") == ([], [])


def test_an_ended_branch_warns() -> None:
    refusals, warnings = said("570.211.01")
    assert refusals == []
    assert len(warnings) == 1
    assert warnings[0].startswith("gpu-01: branch 570, a production branch, reached its end of life in February 2026")


def test_proprietary_modules_are_refused_where_they_are_gone() -> None:
    refusals, _ = said("620.12.01", settings={"nvidia_driver_flavor": "proprietary"})
    assert len(refusals) == 1
    assert "branch 620 has open kernel modules alone" in refusals[0]
    assert said("620.12.01", settings={"nvidia_driver_flavor": "proprietary", "nvidia_driver_source": "verify"}) == (
        [],
        [],
    )


def test_a_branch_that_came_after_the_table_has_no_proprietary_modules_either() -> None:
    refusals, _ = said("630.12.01", settings={"nvidia_driver_flavor": "proprietary"})
    assert len(refusals) == 1
    assert "branch 630 has open kernel modules alone" in refusals[0]
    assert said("630.12.01") == ([], [])


def test_a_branch_that_nvidia_does_not_list_any_more_warns() -> None:
    refusals, warnings = said("525.147.05")
    assert refusals == []
    assert [line for line in warnings if "branch 525 is none that NVIDIA supports" in line]


def test_a_driver_that_does_not_build_for_the_kernel_is_refused() -> None:
    """The plan's half of case dkms-reason-in-make-log: driver and kernel are those of its make.log."""
    kernel = "6.19.3-amd64"
    assert kernel in (CASES / "dkms-reason-in-make-log/make.log").read_text()
    system = {**ANSWER["os"], "kernel": kernel}
    refusals, _ = said("550.163.01", os=system)
    assert len(refusals) == 1
    assert "do not build for kernels from 6.19 on" in refusals[0]
    assert '-e \'{"nvidia_driver_allow_known_bad": ["driver-550.163-kernel-6.19"]}\'' in refusals[0]
    allowed = said("550.163.01", os=system, settings={"nvidia_driver_allow_known_bad": ["driver-550.163-kernel-6.19"]})
    assert allowed[0] == []
    assert "do not build" in allowed[1][0]
    assert said("580.159.04", os=system) == ([], [])


def test_a_driver_older_than_the_cuda_of_the_environment_warns() -> None:
    facts = yaml.safe_load((CASES / "log-ptx-toolchain/facts.yml").read_text())
    refusals, warnings = said(
        facts["driver"], {"torch": facts["torch"], "torch_cuda": facts["cuda"], "vllm": facts["vllm"]}
    )
    assert refusals == []
    assert any(
        line.startswith(
            "gpu-01: driver 550.144.03 is older than 570.26, which CUDA 12.8 of the serving environment came with"
        )
        and "cannot be compiled" in line
        for line in warnings
    )


def test_a_time_bomb_is_reported_with_the_days_that_are_left() -> None:
    refusals, warnings = said("580.105.08")
    assert refusals == []
    assert len(warnings) == 1
    assert warnings[0].startswith(
        "gpu-01: after 66 days of uptime, in 12.0 days: nvidia-smi and all new work hang on B200"
    )
    _, late = said("580.105.08", clock=1000000.0 + 67 * 86400)
    assert len(late) == 1
    assert "smi-hang-66-days" in late[0]
    assert said("580.105.08", settings={"nvidia_driver_flavor": "proprietary"}, boot={}) == ([], [])


@pytest.mark.parametrize(
    ("vllm", "size", "fits"),
    [
        ("0.26.1rc1.dev148", 16, True),
        ("0.28.0", 16, True),
        ("0.28.0", 8, False),
        ("0.26.1rc1.dev78", 16, False),
        ("0.26.0", 16, False),
        ("0.32.0", 16, False),
    ],
)
def test_a_vllm_that_waits_for_ever_over_two_hosts_warns(vllm: str, size: int, fits: bool) -> None:
    """The plan's half of case log-gloo-barrier-half-hour."""
    _, warnings = said("580.159.04", {"vllm": vllm}, settings={"vllm_server_tensor_parallel_size": size})
    assert any("in_the_same_node_as" in line for line in warnings) is fits


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        ({}, None),
        ({"gpu_host_gpus": 8}, None),
        ({"gpu_host_gpus": 8, "vllm_server_tensor_parallel_size": 8}, 1),
        ({"gpu_host_gpus": 8, "vllm_server_tensor_parallel_size": 16}, 2),
        ({"gpu_host_gpus": 8, "vllm_server_layouts": [{"tensor_parallel_size": 4}, {"tensor_parallel_size": 12}]}, 2),
        ({"gpu_host_gpus": 0, "vllm_server_tensor_parallel_size": 2}, None),
        ({"gpu_host_gpus": "x", "vllm_server_layouts": ["y"], "vllm_server_tensor_parallel_size": 2}, None),
    ],
)
def test_hosts_of_a_tensor_parallel_group(settings: dict[str, Any], hosts: int | None) -> None:
    assert driver_request.tensor_parallel_hosts(settings) == hosts
