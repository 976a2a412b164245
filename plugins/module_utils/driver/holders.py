"""Which processes have an NVIDIA device open or mapped: what keeps the kernel modules from being unloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TypedDict

from ..core import processes
from ..core.system import read_text

_UNIT = r"(?m)/([\w@.:-]+\.service)(?:/|$)"


class Holder(TypedDict):
    """A process, its systemd unit if it has one, and the NVIDIA devices that it holds."""

    pid: int
    command: str
    unit: str | None
    devices: list[str]


def holders(root: Path = Path("/")) -> list[Holder]:
    """Every holder, by pid, but for what this process started itself (nvidia-smi). Needs root to see other users'."""
    result: list[Holder] = []
    for folder in (root / "proc").glob("[0-9]*"):
        devices = _devices(folder) if not _own_child(folder) else set()
        if devices:
            command = read_text(folder / "cmdline").replace("\0", " ").strip() or read_text(folder / "comm").strip()
            unit = re.search(_UNIT, read_text(folder / "cgroup"))
            result.append(
                {
                    "pid": int(folder.name),
                    "command": command[:200],
                    "unit": unit.group(1) if unit else None,
                    "devices": sorted(devices),
                }
            )
    return sorted(result, key=lambda holder: holder["pid"])


def describe(holder: Holder) -> str:
    """A holder as an operator would look it up."""
    unit = f", {holder['unit']}" if holder["unit"] else ""
    return f"pid {holder['pid']} ({holder['command']}{unit}) holds {', '.join(holder['devices'])}"


def _own_child(process: Path) -> bool:
    found = processes.read(process.name, process.parent)
    return found is not None and found.parent == os.getpid()


def _devices(process: Path) -> set[str]:
    devices = set()
    try:
        for entry in os.scandir(process / "fd"):
            try:
                target = os.readlink(entry.path)
            except OSError:
                continue
            if target.startswith("/dev/nvidia") or target.startswith("/dev/gdrdrv"):
                devices.add(target)
        with open(process / "maps", encoding="utf-8", errors="replace") as maps:
            devices |= {line.split()[-1] for line in maps if "/dev/nvidia" in line}
    except OSError:
        pass
    return devices
