"""The parts of a command's work, each with a time and a folder for evidence of its own: for ``deadline``."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PARTS_HANDLE = "LOCKSTEP_PARTS_HANDLE"
"""Environment variable of a command of several parts: the number of the handle on which it tells that a part begins."""


class Part(NamedTuple):
    """The seconds that a part may take, and the folder for evidence, made only when there is something to save."""

    seconds: float
    evidence: Path | None = None


class PartsClock:
    """The guard's: which part the command is in, and when that must have ended.

    The command tells that part n begins, counted from 0, by writing the byte n. It cannot go back, so that all together it
    may take the sum of its parts' times and no more.
    """

    def __init__(self, seconds: Sequence[float]) -> None:
        self._seconds = seconds
        self.now = 0
        self.end = time.monotonic() + seconds[0]
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    @property
    def several(self) -> bool:
        return len(self._seconds) > 1

    def read(self) -> bool:
        """Read what the command reported. False when nobody is left who could report anything."""
        try:
            reported = os.read(self.reader, 4096)
        except BlockingIOError:
            return True
        latest = max((part for part in reported if part < len(self._seconds)), default=0)
        if latest > self.now:
            self.now, self.end = latest, time.monotonic() + self._seconds[latest]
        return bool(reported)


def tell(part: int) -> None:
    """The command's side: part ``part`` begins. Does nothing without a guard that asks."""
    handle = os.environ.get(PARTS_HANDLE)
    if handle is not None:
        os.write(int(handle), bytes([part]))
