"""Read a model into the page cache, so that an engine that starts soon waits less for its disk."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from . import store
from .codes import Result
from .request import Answer, Request
from .stage import gib

SHARE_KEPT = 10
"""Of the memory that is available, one part in so many stays."""
MEMINFO = Path("/proc/meminfo")


def why_not(size: int, available: int) -> str | None:
    """Why a model of ``size`` bytes is not read with so many bytes of memory ``available``; None where it is.

    What does not fit as a whole would push out its own beginning, and what serves besides: nothing of it is read then.
    """
    room = available - available // SHARE_KEPT
    if size > room:
        return f"it has {gib(size)}, and {gib(room)} of memory can be had: the page cache would not hold it"
    return None


def available(meminfo: str) -> int:
    """Bytes that can be had without swapping, from the text of /proc/meminfo; 0 where it does not say."""
    for line in meminfo.splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) << 10
    return 0


def warm(request: Request, now: Callable[[], float] = time.monotonic, meminfo: Path = MEMINFO) -> Answer:
    """Read the files at the path that is asked for, until all are read or the time is over; never a failure."""
    folder = Path(request.path)
    files = _files(folder)
    total = sum(files.values())
    reason = (
        why_not(total, available(meminfo.read_text(encoding="ascii"))) if files else "there is nothing at that path"
    )
    if reason or request.dry:
        return Answer(Result.DONE, f"{folder} was not read: {reason}" if reason else "", bytes=total)
    ends, read = now() + request.seconds, 0
    buffer = bytearray(store.BLOCK)
    for path in files:
        with open(path, "rb", buffering=0) as stream:
            while count := stream.readinto(buffer):
                read += count
                if now() > ends:
                    return Answer(
                        Result.DONE, f"{gib(read)} of {gib(total)} were read in {request.seconds:g} s", bytes=read
                    )
    return Answer(Result.DONE, "", bytes=read)


def _files(path: Path) -> dict[str, int]:
    """The files at a path with their sizes; links lead where they lead, as they do for the engine."""
    found: dict[str, int] = {}
    if path.is_file():
        return {str(path): path.stat().st_size}
    for top, folders, names in os.walk(path, followlinks=False):
        folders.sort()
        for name in sorted(names):
            each = os.path.join(top, name)
            with contextlib.suppress(OSError):
                about = os.stat(each)
                if stat.S_ISREG(about.st_mode):
                    found[each] = about.st_size
    return found
