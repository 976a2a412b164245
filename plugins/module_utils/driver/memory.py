"""Who holds GPU memory, by nvidia-smi's list of compute processes."""

from __future__ import annotations

import csv
import dataclasses
import time
from collections.abc import Callable, Iterable

from ..core.commands import Run, run_command
from . import nvidia_smi

DEADLINE = 5.0


@dataclasses.dataclass(frozen=True)
class Holder:
    """A process with memory on a GPU; ``mib`` is None where the driver does not report it."""

    pid: int
    name: str
    mib: int | None

    def __str__(self) -> str:
        amount = "an unknown amount" if self.mib is None else f"{self.mib} MiB"
        return f"{self.name} (pid {self.pid}) holds {amount}"


def parse(text: str) -> list[Holder]:
    """From ``nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv,noheader,nounits``."""
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [
        Holder(int(row[0]), row[1], int(row[2]) if row[2].isdigit() else None)
        for row in rows
        if len(row) == 3 and row[0].isdigit()
    ]


def holders(run: Run = run_command) -> list[Holder]:
    """The holders now; nothing where there is no nvidia-smi, or it fails: that is for the driver gate to report."""
    query = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader,nounits"]
    result = run(query, DEADLINE)
    return parse(result.stdout) if nvidia_smi.answered(result) else []


def left(
    before: Iterable[Holder],
    *,
    within: float = 3.0,
    now: Callable[[], list[Holder]] = holders,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Holder]:
    """Holders that were not there ``before`` and are not gone ``within`` seconds: the driver takes a moment to free."""
    known = {holder.pid for holder in before}
    end = clock() + within
    while True:
        new = [holder for holder in now() if holder.pid not in known]
        if not new or clock() >= end:
            return new
        sleep(0.2)
