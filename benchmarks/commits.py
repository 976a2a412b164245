"""Two commits of this repository at the same work, in turns: for the benchmarks that compare with an earlier one."""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "noop_fleet"))

import benchmark as noop_fleet  # noqa: E402

UNGUARDED = "7213c205"
"""The last commit that guarded hosts against none of the adversaries of docs/security.md."""

Work = Callable[[Path, Path], None]
"""What is measured, of a tree; the second folder is for what it leaves behind."""


def checkout(commit: str, folder: Path) -> Path:
    """The tree of a commit of this repository."""
    tree = subprocess.run(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE, check=False)
    if tree.returncode:
        sys.exit(
            f"benchmark: there is no commit {commit} here. Next: git fetch --unshallow, or name one with --against"
        )
    with tarfile.open(fileobj=io.BytesIO(tree.stdout)) as archive:
        archive.extractall(folder, filter="tar")
    return folder


def in_turns(
    work: Work, trees: dict[str, Path], rounds: int, folder: Path, hosts: list[str], port: int
) -> dict[str, object]:
    """Seconds, and processor seconds of all that took part, of each tree (``before`` and ``after``), with sshds of its own."""
    taken: dict[str, list[float]] = {name: [] for name in trees}
    used: dict[str, list[float]] = {name: [] for name in trees}
    for turn in range(rounds + 1):
        for name in trees if turn % 2 else reversed(trees):
            before = noop_fleet.processor_seconds()
            with noop_fleet.sshds(folder, hosts, port):
                seconds = noop_fleet.seconds(lambda name=name: work(trees[name], folder / name))
            if turn:  # the first one warms caches
                taken[name].append(seconds)
                used[name].append(noop_fleet.processor_seconds() - before)
    median = {name: statistics.median(times) for name, times in taken.items()}
    processor = {name: statistics.median(times) for name, times in used.items()}
    return {
        "seconds": {name: [round(value, 2) for value in times] for name, times in taken.items()},
        "after_to_before": round(median["after"] / median["before"], 2),
        "processor_seconds": {name: [round(value, 2) for value in times] for name, times in used.items()},
        "processor_median": {name: round(value, 2) for name, value in processor.items()},
        "processor_after_to_before": round(processor["after"] / processor["before"], 3),
    }
