"""Who holds apt's and dpkg's locks, and waiting until they are free, at most to a deadline."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..core import processes
from ..core.grouping import grouped

LOCKS = (
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/lock",
    "var/lib/apt/lists/lock",
    "var/cache/apt/archives/lock",
)
_FLOCK = "hhqqi4x"  # struct flock of Linux on 64 bits: type, whence, start, length, pid


class Locked(Exception):
    """A lock was not free before the deadline; the message names who holds it, and ``held`` all of them."""

    def __init__(self, message: str, held: str) -> None:
        super().__init__(message)
        self.held = held


def holder(path: Path) -> int | None:
    """The process that holds the lock file ``path`` for writing; None when it is free or does not exist."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        query = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _whence, _start, _length, pid = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, query))
    finally:
        os.close(handle)
    return None if kind == fcntl.F_UNLCK else int(pid)


def holders(root: Path = Path("/")) -> dict[str, int]:
    """The processes that hold any of apt's locks, by lock file."""
    pids = {f"/{name}": holder(root / name) for name in LOCKS}
    return {name: pid for name, pid in pids.items() if pid is not None}


def wait(
    deadline: float,
    *,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Wait until all locks are free; returns the seconds that it took.

    Raises:
        Locked: they were not free after ``deadline`` seconds.
    """
    start = clock()
    while held := holders(root):
        if clock() - start >= deadline:
            who = shown({name: describe(pid) for name, pid in held.items()})
            raise Locked(f"apt's locks were not free within {deadline:g} s: {who}", who)
        sleep(min(1.0, max(0.05, deadline - (clock() - start))))
    return clock() - start


def shown(held: Mapping[str, str]) -> str:
    """Who holds which lock; one that holds several is named once."""
    files = grouped((who, name) for name, who in sorted(held.items()))
    return "; ".join(f"{', '.join(names)} by {who}" for who, names in files.items())


def describe(pid: int) -> str:
    """A process as a person would look it up: ``pid 812 (/usr/bin/python3 /usr/bin/unattended-upgrade)``."""
    command = processes.command(pid)
    return f"pid {pid} ({command[:160]})" if command else f"pid {pid}"
