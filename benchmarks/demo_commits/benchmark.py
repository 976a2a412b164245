"""What `make demo` costs this machine, against another commit's: processor seconds and seconds, in turns.

Each commit has its own environment and builds what a demo needs (image, packages, wheels, model) in a first run that does not
count; of the others, `tools/demo up` is measured: containers, `site.yml`, `status.yml` and a completion. Processor seconds are
the whole machine's (`/proc/stat`, hosts of the testbed and all), so that nothing else may run beside it. What counts is their
ratio (goal: 1.05).

Without ``--against`` the other commit is the last one that guarded hosts against none of the adversaries of docs/security.md.
It starts vLLM three times where later ones start it twice, which the ratio contains.

Makes and ends the testbed that ``LOCKSTEP_TESTBED`` and ``LOCKSTEP_TESTBED_PREFIX`` name.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import commits  # noqa: E402

GOAL = 1.05
IDLE = slice(3, 5)
"""Of the figures of `/proc/stat`: idle, and waiting for a disk."""


def busy() -> float:
    """Seconds for which the processors of this machine have not been idle."""
    with open("/proc/stat", encoding="ascii") as stream:
        spent = [int(figure) for figure in stream.readline().split()[1:9]]
    return (sum(spent) - sum(spent[IDLE])) / os.sysconf("SC_CLK_TCK")


def run(tree: Path, *command: str) -> None:
    """Run one of a tree's own tools; what it prints is shown where it fails."""
    done = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"benchmark: {' '.join(command)} of {tree} ended with {done.returncode}:\n{done.stdout}")


def measure(trees: dict[str, Path], rounds: int) -> dict[str, object]:
    """Seconds and processor seconds of each tree's demo, by turns."""
    taken: dict[str, list[float]] = {name: [] for name in trees}
    used: dict[str, list[float]] = {name: [] for name in trees}
    for tree in trees.values():
        run(tree, "tools/bootstrap")
    for turn in range(rounds + 1):
        for name in trees if turn % 2 else reversed(trees):
            began, before = time.monotonic(), busy()
            run(trees[name], "tools/demo", "up")
            if turn:
                taken[name].append(round(time.monotonic() - began, 1))
                used[name].append(round(busy() - before, 1))
            print(name, turn, round(time.monotonic() - began, 1), round(busy() - before, 1), file=sys.stderr)
            run(trees[name], "testbed/testbed", "down")
    median = {name: statistics.median(times) for name, times in used.items()}
    return {
        "seconds": taken,
        "processor_seconds": used,
        "processor_after_to_before": round(median["after"] / median["before"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default=commits.UNGUARDED, help="commit to compare with")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lockstep-before-") as folder:
        found = measure({"before": commits.checkout(chosen.against, Path(folder)), "after": ROOT}, chosen.rounds)
    described = {"benchmark": "demo_commits", "against": chosen.against, "rounds": chosen.rounds}
    print(
        json.dumps({**described, **found, "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "goal": GOAL})
    )


if __name__ == "__main__":
    main()
