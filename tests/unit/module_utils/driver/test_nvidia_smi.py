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


def test_every_exit_status_has_a_meaning() -> None:
    assert set(nvidia_smi.MEANINGS) == set(nvidia_smi.ExitStatus)
    for status in nvidia_smi.ExitStatus:
        failure = nvidia_smi.failure(CommandResult(status.value))
        assert failure is not None
        assert nvidia_smi.MEANINGS[status] in failure["text"]
    assert nvidia_smi.status_of(CommandResult(0)) is None
    assert nvidia_smi.status_of(CommandResult(77)) is None


XML = '<nvidia_smi_log><gpu id="0000:00:1E.0"/></nvidia_smi_log>\nWARNING: infoROM is corrupted at gpu 0000:00:1E.0\n'


@pytest.mark.parametrize(
    ("result", "warned"),
    [
        (CommandResult(14, XML), [("inforom_corrupt", "0000:00:1E.0")]),
        (CommandResult(14, "index, uuid\n0, GPU-1\n"), [("inforom_corrupt", None)]),
        (CommandResult(0, "index, uuid\n0, GPU-1\nWARNING: something of tomorrow\n"), [("other", None)]),
        (CommandResult(0, "index, uuid\n0, GPU-1\n"), []),
    ],
)
def test_warnings_beside_figures(result: CommandResult, warned: list[tuple[str, str | None]]) -> None:
    assert nvidia_smi.failure(result) is None
    assert [(warning["code"], warning["gpu"]) for warning in nvidia_smi.warnings(result)] == warned


@pytest.mark.parametrize("stdout", ["", "index, uuid\n", "No devices were found\n"])
def test_a_corrupt_inforom_without_figures_is_a_failure(stdout: str) -> None:
    assert nvidia_smi.failure(CommandResult(14, stdout)) is not None
