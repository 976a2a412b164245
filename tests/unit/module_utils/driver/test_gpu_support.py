"""Which kernel modules which card runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.driver import gpu_support

V100, P100, T4, A100, H100, GH200, L40S, B200, B300 = (
    0x1DB5,
    0x15F8,
    0x1EB8,
    0x20B2,
    0x2330,
    0x2342,
    0x26B9,
    0x2901,
    0x3182,
)


@pytest.mark.parametrize(
    ("devices", "branch", "flavor", "fragments"),
    [
        ([V100] * 8, 580, "open", ["10de:1db5 is older: set nvidia_driver_flavor: proprietary (branch 580 at most)"]),
        ([P100], 550, "open", ["10de:15f8"]),
        ([V100], 580, "proprietary", []),
        ([V100], 590, "proprietary", ["580 is the last branch for it"]),
        ([T4, A100, H100, L40S], 550, "open", []),
        ([T4, A100, H100, L40S], 550, "proprietary", []),
        ([B200], 570, "proprietary", ["10de:2901 runs on open kernel modules alone: set nvidia_driver_flavor: open"]),
        ([B300], 580, "open", []),
        ([GH200], 550, "proprietary", ["10de:2342"]),
        ([V100, B200], 580, "open", ["10de:1db5 run on proprietary modules alone, 10de:2901 on open ones alone"]),
        ([], 580, "open", []),
    ],
)
def test_flavor_against_card(devices: list[int], branch: int, flavor: str, fragments: list[str]) -> None:
    lines = gpu_support.refusals(devices, branch, flavor)
    assert len(lines) == len(fragments)
    assert all(fragment in line for fragment, line in zip(fragments, lines, strict=True))


def test_cards_are_nvidias_gpus_and_no_other_device(tmp_path: Path) -> None:
    for address, vendor, device, kind in (
        ("0000:af:00.0", "0x10de", "0x1db5", "0x030200"),
        ("0000:af:00.1", "0x10de", "0x10f0", "0x040300"),  # its audio
        ("0000:01:00.0", "0x1a03", "0x2000", "0x030000"),  # the board's own display
        ("0000:02:00.0", "0x10de", "0x1af1", "0x068000"),  # an NVSwitch
    ):
        folder = tmp_path / "sys/bus/pci/devices" / address
        folder.mkdir(parents=True)
        for name, text in (("vendor", vendor), ("device", device), ("class", kind)):
            (folder / name).write_text(f"{text}\n")
    assert gpu_support.cards(tmp_path) == {"0000:af:00.0": 0x1DB5}
