"""The ranks of vLLM on this host: which processes they are, what the kernel says of them, and their stacks.

``python -m lockstep.ray.ranks`` looks at them in a process of its own and prints what it saw: /proc of a process that is
stuck in a driver may never answer.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import stat
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..core import evidence, processes, records
from ..core.codes import as_json
from .codes import RankState

EVIDENCE = records.STATE / "engine" / "evidence"
KEPT = 10
"""Pieces of evidence that a host keeps, those of the engine's failures among them."""
MOST_RANKS = 64
TITLES = ("ray::RayWorkerProc", "ray::RayWorkerWrapper", "VLLM::Worker")
"""How vLLM's ranks call themselves (vLLM 0.32: the Ray executors' actors, and the workers of one host's own executor)."""

_SAMPLES, _PAUSE = 4, 0.15
_BUDGET = 2.0
_FRAMES, _LONGEST = 3, 160
_STACK_LIMIT, _LOG_LIMIT = 256 << 10, 1 << 20
_RANK = re.compile(r"\brank(?:=(\d{1,6}) local_rank=| (\d{1,6}) in world size )")
_THREAD = re.compile(r'Thread \S+ \([^)]*\): "(?P<name>[^"]*)"')


@dataclasses.dataclass(frozen=True)
class Rank:
    """One of vLLM's processes.

    Attributes:
        pid: on its host.
        state: the kernel's.
        rank: its number in the engine; None where its log does not say.
        frames: where its main thread is, innermost first: ``function (file:line)``; none where py-spy may not look.
    """

    pid: int
    state: RankState = RankState.RUNS
    rank: int | None = None
    frames: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Sight:
    """What a host saw of its ranks.

    Attributes:
        ranks: at most ``MOST_RANKS``.
        folder: where their stacks lie on that host; empty where none were saved.
    """

    ranks: tuple[Rank, ...] = ()
    folder: str = ""


def find() -> list[int]:
    """The ranks of this host that belong to this user, lowest process first."""
    mine = os.getuid()
    own = (process.pid for process in processes.everything() if process.alive and _owner(process.pid) == mine)
    return sorted(pid for pid in own if processes.command(pid).startswith(TITLES))[:MOST_RANKS]


def states(pids: Iterable[int]) -> dict[int, RankState]:
    """The state of each process that is still there; what is stopped or stuck is so each time that it is looked at."""
    seen: dict[int, list[str]] = {pid: [] for pid in pids}
    for sample in range(_SAMPLES):
        time.sleep(_PAUSE if sample else 0)
        for pid, letters in seen.items():
            process = processes.read(pid)
            if process is not None and process.alive:
                letters.append(process.state)
    return {pid: state_of(letters) for pid, letters in seen.items() if len(letters) == _SAMPLES}


def state_of(letters: Sequence[str]) -> RankState:
    """What a process is, from the letters that the kernel gave for it one after the other."""
    if letters and set(letters) <= {"T", "t"}:
        return RankState.STOPPED
    if letters and set(letters) == {"D"}:
        return RankState.UNKILLABLE
    return RankState.RUNS


def rank_in(log: str) -> int | None:
    """A rank's number, from the log in which vLLM writes it as it joins the others."""
    found = _RANK.search(log)
    return None if found is None else int(found[1] or found[2])


def frames_in(dump: str) -> tuple[str, ...]:
    """Where the main thread is, innermost first, from what ``py-spy dump`` prints; the first thread, where none is named so."""
    threads: dict[str, list[str]] = {}
    frames: list[str] | None = None
    for line in dump.splitlines():
        begins = _THREAD.match(line)
        if begins is not None:
            frames = threads.setdefault(begins["name"], [])
        elif frames is not None and line.startswith("    "):
            frames.append(line.strip()[:_LONGEST])
        else:
            frames = None
    main = threads.get("MainThread") or next(iter(threads.values()), [])
    return tuple(main[:_FRAMES])


def look(top: Path, name: str) -> Sight:
    """Save the stacks of this host's ranks in a new folder below ``top``, and say what was seen of them."""
    seen = states(find())
    if not seen:
        return Sight()
    try:
        folder = evidence.next_folder(top, name, KEPT)
    except OSError:
        return Sight(_ranks(seen, {}))
    saved = evidence.collect(seen, folder, budget=_BUDGET)
    frames = {pid: frames_in(_start_of(folder / evidence.stack_name(pid), _STACK_LIMIT)) for pid in seen}
    return Sight(_ranks(seen, frames), str(folder) if saved else "")


def _ranks(seen: Mapping[int, RankState], frames: Mapping[int, tuple[str, ...]]) -> tuple[Rank, ...]:
    return tuple(Rank(pid, state, _rank_of(pid), frames.get(pid, ())) for pid, state in seen.items())


def _rank_of(pid: int) -> int | None:
    """From the files that a process's output goes to: Ray gives every worker its own."""
    logs = (processes.PROC / str(pid) / "fd" / name for name in ("1", "2"))
    numbers = (rank_in(_start_of(log, _LOG_LIMIT)) for log in logs)
    return next((number for number in numbers if number is not None), None)


def _start_of(path: Path, limit: int) -> str:
    """The first ``limit`` bytes of a regular file; empty where it is none: what comes out of a pipe is another's."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return ""
        with path.open("rb") as stream:
            return stream.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def _owner(pid: int) -> int | None:
    try:
        return (processes.PROC / str(pid)).stat().st_uid
    except OSError:
        return None


def main(argv: list[str]) -> int:
    """Look, and print what was seen as JSON: arguments are the folder of evidence and the name of this piece of it."""
    print(json.dumps(as_json(look(Path(argv[0]), argv[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
