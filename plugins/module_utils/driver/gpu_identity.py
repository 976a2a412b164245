"""Which GPUs a host has: their UUIDs, which go with the card and stay over reboots, drivers and slots.

Read of ``/proc/driver/nvidia`` by a child that has a deadline, as the driver answers there and may hang. A driver that has not
initialised a GPU yet shows question marks in place of its UUID (no daemon keeps its state, and nobody has used the card since
boot); nvidia-smi, which initialises it, is then asked. So the answer is the same before and after.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from ..core.commands import Run, run_command
from . import nvidia_smi

READ_DEADLINE = 5.0
INITIALISE_DEADLINE = 60.0
"""Seconds: without a daemon that keeps the driver's state, nvidia-smi initialises eight GPUs one after the other."""
UNKNOWN = "unknown"
"""In place of a UUID that the driver does not tell. A card that was gated has one, so that this voids a stamp."""
_UUID = re.compile(r"^GPU UUID:\s*(GPU-[0-9a-fA-F-]+)\s*$", re.MULTILINE)


def uuids(
    listed: Callable[[], Iterable[nvidia_smi.Gpu]] | None = None, *, root: Path = Path("/"), run: Run = run_command
) -> tuple[str, ...] | None:
    """The UUIDs of this host's GPUs, sorted; None where the driver shows no GPU, or is not loaded.

    Args:
        listed: the GPUs as nvidia-smi lists them, where they were asked for anyway; it is asked here otherwise.
    """
    files = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    if not files:
        return None
    found = [match[1] for match in _UUID.finditer(run(["cat", *map(str, files)], READ_DEADLINE).stdout)]
    if len(found) < len(files):
        asked = listed or (lambda: nvidia_smi.parse_gpus(run(nvidia_smi.QUERY, INITIALISE_DEADLINE).stdout))
        found = [gpu["uuid"] for gpu in asked() if gpu["uuid"]]
    return tuple(sorted([*found, *[UNKNOWN] * (len(files) - len(found))]))
