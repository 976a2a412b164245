"""Processes as /proc shows them: who descends from whom, and what state they are in.

The guard of ``deadline`` carries this file's text to a fresh interpreter: no relative imports here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")


@dataclasses.dataclass(frozen=True)
class Process:
    """One process.

    Attributes:
        pid: its number.
        parent: its parent's number.
        state: the kernel's letter: ``R``, ``S``, ``D`` (cannot be killed), ``Z`` (dead, not reaped), ``T``, …
        name: the kernel's short name, 15 characters at most.
    """

    pid: int
    parent: int
    state: str
    name: str


def parse_stat(text: str) -> Process:
    """One process from the text of ``/proc/<pid>/stat``, whose name may hold blanks and brackets."""
    before, _, after = text.rpartition(")")
    pid, _, name = before.partition(" (")
    fields = after.split()
    return Process(int(pid), int(fields[1]), fields[0], name)


def everything() -> list[Process]:
    """Every process that can be seen. One that ends meanwhile is left out."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                found.append(parse_stat((entry / "stat").read_text(encoding="utf-8", errors="replace")))
            except (OSError, IndexError, ValueError):
                continue
    return found


def below(root: int, processes: Iterable[Process] | None = None) -> list[Process]:
    """All descendants of ``root``, without itself, parents before their children."""
    children: dict[int, list[Process]] = {}
    for process in everything() if processes is None else processes:
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    level = [root]
    while level:
        born = [child for parent in level for child in children.get(parent, [])]
        found += born
        level = [child.pid for child in born]
    return found


def catches(pid: int, wanted: signal.Signals) -> bool:
    """Whether the process has a handler of its own for this signal, so that the signal will not end it."""
    try:
        for line in (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) & (1 << (wanted - 1)))
    except (OSError, IndexError, ValueError):
        pass
    return False


def command(pid: int) -> str:
    """The command line, its arguments joined by blanks; empty for kernel threads and the dead."""
    try:
        raw = (PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode("utf-8", "replace").strip()


def send(pid: int, wanted: signal.Signals) -> None:
    """Send a signal to a process that may be gone by now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, wanted)
