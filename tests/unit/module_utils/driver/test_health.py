"""The health of GPUs, on output of several versions of nvidia-smi."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import health as gpu_health

FIXTURES = Path(__file__).parents[2] / "fixtures"


def text(name: str) -> str:
    return (FIXTURES / name).read_text()


def codes(gpu: gpu_health.GpuHealth) -> list[str]:
    return [flag.decision.code for flag in gpu.flags]


def test_health_on_550() -> None:
    good, sick = gpu_health.parse_smi_xml(text("nvidia-smi/550.127.05/q-x.xml"))
    assert (good.index, good.flags, good.unread, good.ecc_uncorrected) == (0, (), (), 0)
    assert (good.pcie_generation, good.pcie_generation_max) == (5, 5)
    assert (good.pcie_width, good.pcie_width_max) == (16, 16)
    assert (good.fabric_state, good.fabric_status) == ("Completed", "Success")
    assert sick.ecc_uncorrected == 4
    assert codes(sick) == ["throttled", "throttled"]


def test_health_on_535_which_named_slowdowns_otherwise() -> None:
    (gpu,) = gpu_health.parse_smi_xml(text("nvidia-smi/535.183.01/q-x.xml"))
    assert codes(gpu) == ["throttled", "throttled"]
    assert gpu.ecc_uncorrected == 0


def test_health_of_a_gpu_that_reports_little() -> None:
    (gpu,) = gpu_health.parse_smi_xml(text("nvidia-smi/580.95.05/q-x-gb10.xml"))
    assert (codes(gpu), gpu.unread) == (["persistence_off"], ())
    unknown = ("ecc_uncorrected", "pcie_width", "fabric_state")
    assert [getattr(gpu, key) for key in unknown] == [None] * len(unknown)


def test_health_refuses_what_is_no_xml() -> None:
    with pytest.raises(ValueError, match="gave no XML"):
        gpu_health.parse_smi_xml("Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error")


def test_nvlinks() -> None:
    links = gpu_health.parse_nvlink(text("nvidia-smi/550.127.05/nvlink-s.txt"))
    first, second = links
    assert (first.index, first.model, first.up) == (0, "NVIDIA H100 80GB HBM3", (True,) * 18)
    assert [number for number, up in enumerate(second.up) if not up] == [4]


def test_a_health_that_cannot_be_read_has_a_code() -> None:
    def run(argv: Sequence[str], _deadline: float) -> CommandResult:
        return CommandResult(0, "no XML" if "-x" in argv else text("nvidia-smi/550.127.05/nvlink-s.txt"))

    health = gpu_health.health(run=run)
    assert health.failure is not None
    assert health.failure["code"] == "unreadable"
    assert len(health.nvlink) == 2


def test_health_of_a_host_whose_nvidia_smi_warns_after_its_xml() -> None:
    def run(argv: Sequence[str], _deadline: float) -> CommandResult:
        answer = "nvidia-smi/550.127.05/q-x.xml" if "-x" in argv else "nvidia-smi/550.127.05/nvlink-s.txt"
        return CommandResult(14, text(answer) + "WARNING: infoROM is corrupted at gpu 00000000:19:00.0\n")

    health = gpu_health.health(run=run)
    assert (health.failure, len(health.gpus), len(health.nvlink)) == (None, 2, 2)
    assert [warning["code"] for warning in health.warnings] == ["inforom_corrupt"]
