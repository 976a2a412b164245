"""Processes as /proc shows them: who descends from whom, what state they are in, and ending all that descend from this one.

The probe sends this file to every host, so it imports little.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_PAUSE = 0.02


class Process(NamedTuple):
    """One process.

    Attributes:
        pid: its number.
        parent: its parent's number.
        state: the kernel's letter: ``R``, ``S``, ``D`` (cannot be killed), ``Z`` (dead, not reaped), ``T``, …
        name: the kernel's short name, 15 characters at most.
        started: when it was started, in clock ticks after the machine's boot.
    """

    pid: int
    parent: int
    state: str
    name: str
    started: int

    @property
    def alive(self) -> bool:
        """False for one that is dead and not reaped yet."""
        return self.state not in "ZX"

    @property
    def stopped(self) -> bool:
        """By a signal, or by whoever traces it."""
        return self.state in "Tt"

    def __str__(self) -> str:
        return f"{self.pid} {self.name} {self.state}"


def parse_stat(text: str) -> Process:
    """One process from the text of ``/proc/<pid>/stat``, whose name may hold blanks and brackets."""
    before, _, after = text.rpartition(")")
    pid, _, name = before.partition(" (")
    fields = after.split()
    return Process(int(pid), int(fields[1]), fields[0], name, int(fields[19]))


def read(pid: int | str, proc: Path = PROC) -> Process | None:
    """One process; None when there is no such process."""
    try:
        return parse_stat((proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace"))
    except (OSError, IndexError, ValueError):
        return None


def everything(proc: Path = PROC) -> list[Process]:
    """Every process that can be seen. One that ends meanwhile is left out."""
    found = (read(entry.name, proc) for entry in proc.iterdir() if entry.name.isdigit())
    return [process for process in found if process is not None]


def children(parent: int) -> set[str]:
    """Names of the living children of a process."""
    return {process.name for process in everything() if process.parent == parent and process.alive}


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


def catches(pid: int, signum: signal.Signals) -> bool:
    """Whether the process has a handler of its own for this signal, so that the signal will not end it."""
    try:
        for line in (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) & (1 << (signum - 1)))
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


def send(pid: int, signum: signal.Signals) -> None:
    """Send a signal to a process that may be gone by now."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def become_subreaper() -> None:
    """Have orphans among this process's descendants become its children, so that none can leave its tree."""
    import ctypes

    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_descendants(
    *, term_grace: float = 0.0, kill_grace: float = 10.0, spare_from_reaping: int | None = None
) -> list[Process]:
    """End everything below this process and reap it. Returns what even SIGKILL did not end: stuck in the kernel.

    Args:
        term_grace: seconds between SIGTERM and SIGKILL; with 0, SIGKILL comes at once.
        kill_grace: seconds to wait for the end after SIGKILL.
        spare_from_reaping: a child that somebody else will ask for its exit status.
    """
    steps = [(signal.SIGKILL, kill_grace)]
    if term_grace:
        steps.insert(0, (signal.SIGTERM, term_grace))
    alive: list[Process] = []
    for signum, grace in steps:
        limit = time.monotonic() + grace
        signalled: set[int] = set()
        while True:
            alive = _reap_below(spare_from_reaping)
            if not alive:
                return []
            for process in alive:
                if process.pid not in signalled or signum == signal.SIGKILL:
                    send(process.pid, signum)
                    send(process.pid, signal.SIGCONT)  # a stopped process gets SIGTERM only when it goes on
                    signalled.add(process.pid)
            if time.monotonic() >= limit:
                break
            time.sleep(_PAUSE)
    return alive


def _reap_below(spare: int | None) -> list[Process]:
    """Reap the dead below this process; returns the living."""
    living = []
    for process in below(os.getpid()):
        if process.alive:
            living.append(process)
        elif process.pid != spare:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    return living
