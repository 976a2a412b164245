"""nvidia-smi's figures and failures, on output of several versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult, run_command
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import nvidia_smi

FIXTURES = Path(__file__).parents[2] / "fixtures"


def text(name: str) -> str:
    return (FIXTURES / name).read_text()


def test_gpus() -> None:
    gpus = nvidia_smi.parse_gpus(text("nvidia-smi/550.127.05/query-gpu.csv"))
    assert [gpu["index"] for gpu in gpus] == [0, 1]
    assert gpus[0] == {
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "uuid": "GPU-5a10e6e5-95f7-2785-ed63-6f6147f304f7",
        "memory_mib": 81559,
        "pci": "00000000:19:00.0",
        "persistence": True,
    }


def test_gpu_that_does_not_report_its_memory() -> None:
    (gpu,) = nvidia_smi.parse_gpus(text("nvidia-smi/580.95.05/query-gpu-gh200.csv"))
    assert (gpu["memory_mib"], gpu["persistence"]) == (None, False)


@pytest.mark.parametrize("garbage", ["", "No devices were found", 'Field "x" is not a valid field to query.\n'])
def test_gpus_of_a_text_without_any(garbage: str) -> None:
    assert nvidia_smi.parse_gpus(garbage) == []


@pytest.mark.parametrize(
    ("result", "failure"),
    [
        (CommandResult(0, "index"), None),
        (CommandResult(18, "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 580.95\n"),
         {"code": "failed", "text": "Failed to initialize NVML: Driver/library version mismatch"}),
        (CommandResult(None, timed_out=True, seconds=5.0),
         {"code": "timed_out", "text": "nvidia-smi gave no answer within 5 s: the driver or a GPU hangs"}),
        (CommandResult(15, "", ""), {"code": "failed", "text": "nvidia-smi ended with 15: a card has fallen off the bus or cannot be reached"}),
    ],
)  # fmt: skip
def test_failure(result: CommandResult, failure: nvidia_smi.Failure | None) -> None:
    assert nvidia_smi.failure(result) == failure


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["sh", "-c", "echo 'RM gave no answer within 5 s'; exit 9"], "failed"),
        (["sh", "-c", "echo 'No devices were found'; exit 6"], "no_devices"),
        (["sleep", "30"], "timed_out"),
        (["no-such-command-of-nvidia"], "not_found"),
    ],
)
def test_the_code_comes_from_how_the_command_ended_not_from_its_text(argv: list[str], code: str) -> None:
    failure = nvidia_smi.failure(run_command(argv, 0.5))
    assert failure is not None
    assert failure["code"] == code
