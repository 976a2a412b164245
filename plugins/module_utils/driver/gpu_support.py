"""Which kernel modules a card can run on, by its PCI id: so that a flavour that never loads is refused beforehand.

Ids: NVIDIA's list of supported GPUs (supported-gpus.json of every driver) and pci-ids.ucw.cz. Open modules begin with Turing
(they need the GPU System Processor: https://github.com/NVIDIA/open-gpu-kernel-modules, "Compatible GPUs"); Blackwell
and Grace Hopper have no others (NVIDIA's "Driver Installation Guide", kernel modules); 580 is the last branch for Maxwell,
Pascal and Volta (release notes of 580).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ..core.system import read_text
from . import fabric

FIRST_TURING = 0x1E00
FIRST_BLACKWELL = 0x2900
GRACE_HOPPER = (0x2342, 0x2343, 0x2345, 0x2348)
LAST_BRANCH_BEFORE_TURING = 580


def cards(root: Path = Path("/")) -> dict[str, int]:
    """NVIDIA's GPUs on the PCI bus: address to device id."""
    return {card.name: int(read_text(card / "device").strip(), 16) for card in fabric.cards(root)}


def refusals(devices: Iterable[int], branch: int, flavor: str) -> list[str]:
    """Why cards of these device ids cannot run a driver of this branch and flavour; a line for each kind of reason."""
    ids = sorted(set(devices))
    before_turing = [one for one in ids if one < FIRST_TURING]
    open_alone = [one for one in ids if one >= FIRST_BLACKWELL or one in GRACE_HOPPER]
    lines = []
    if before_turing and open_alone:
        lines.append(
            f"GPUs {_shown(before_turing)} run on proprietary modules alone, {_shown(open_alone)} on open ones alone"
        )
        return lines
    if before_turing and flavor == "open":
        lines.append(
            f"open kernel modules begin with Turing, and GPU {_shown(before_turing)} is older: set "
            f"nvidia_driver_flavor: proprietary (branch {LAST_BRANCH_BEFORE_TURING} at most)"
        )
    elif before_turing and branch > LAST_BRANCH_BEFORE_TURING:
        lines.append(
            f"GPU {_shown(before_turing)} is older than Turing, and {LAST_BRANCH_BEFORE_TURING} is the last branch for it: "
            f"set nvidia_driver_version to one of that branch or before, with nvidia_driver_flavor: proprietary"
        )
    if open_alone and flavor == "proprietary":
        lines.append(f"GPU {_shown(open_alone)} runs on open kernel modules alone: set nvidia_driver_flavor: open")
    return lines


def _shown(ids: Sequence[int]) -> str:
    return ", ".join(f"10de:{one:04x}" for one in ids)
