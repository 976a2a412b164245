"""Which GPUs a host has, on a host made of files: the capture of one that serves, and what the driver shows of one that sleeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.commands import CommandResult, run_command
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import gpu_identity, nvidia_smi

CAPTURED = (Path(__file__).parents[4] / "docs/evidence/2026-11-26-h100-580.159.04/proc-gpu.txt").read_text()
OF_CAPTURE = "GPU-00000000-0000-0000-0000-000000000001"
FIRST, SECOND = "GPU-1f0c2f9e-0000-4d1c-9a61-5b7a2c9e0001", "GPU-8a7de421-0000-4d1c-9a61-5b7a2c9e0002"
ASLEEP = "GPU-????????-????-????-????-????????????"


def host(root: Path, *shown: str) -> Path:
    """A host whose driver shows these in place of UUIDs."""
    for number, uuid in enumerate(shown):
        file = root / f"proc/driver/nvidia/gpus/0000:{number:02x}:00.0/information"
        file.parent.mkdir(parents=True)
        file.write_text(CAPTURED.replace(OF_CAPTURE, uuid))
    return root


def gpu(uuid: str) -> nvidia_smi.Gpu:
    return {"index": 0, "name": "", "uuid": uuid, "memory_mib": None, "pci": None, "persistence": False}


def nobody() -> list[nvidia_smi.Gpu]:
    raise AssertionError("nvidia-smi is asked")


def test_the_driver_is_read_and_nvidia_smi_is_not_asked(tmp_path: Path) -> None:
    assert gpu_identity.uuids(nobody, root=host(tmp_path, OF_CAPTURE)) == (OF_CAPTURE,)


def test_slots_make_no_difference(tmp_path: Path) -> None:
    one, other = host(tmp_path / "one", FIRST, SECOND), host(tmp_path / "other", SECOND, FIRST)
    assert gpu_identity.uuids(nobody, root=one) == gpu_identity.uuids(nobody, root=other) == (FIRST, SECOND)


def test_a_host_without_a_driver_has_none(tmp_path: Path) -> None:
    assert gpu_identity.uuids(nobody, root=tmp_path) is None


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ((SECOND, FIRST), (FIRST, SECOND)),
        ((SECOND,), (SECOND, "unknown")),
        ((FIRST, ""), (FIRST, "unknown")),
        ((), ("unknown", "unknown")),
    ],
)
def test_of_cards_that_nobody_has_used_since_boot_nvidia_smi_is_asked(
    tmp_path: Path, listed: Sequence[str], expected: Sequence[str]
) -> None:
    asleep = host(tmp_path, FIRST, ASLEEP)
    assert gpu_identity.uuids(lambda: map(gpu, listed), root=asleep) == expected


def test_a_driver_that_hangs_is_a_card_without_a_uuid(tmp_path: Path) -> None:
    asked: list[str] = []

    def hangs(argv: Sequence[str], deadline: float) -> CommandResult:
        asked.append(argv[0])
        assert deadline <= gpu_identity.INITIALISE_DEADLINE
        return run_command(["sleep", "60"], 0.05)

    assert gpu_identity.uuids(root=host(tmp_path, FIRST), run=hangs) == ("unknown",)
    assert asked == ["cat", "nvidia-smi"]
