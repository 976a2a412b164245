"""What a run that finds nothing to do costs, over 100 simulated hosts, against another commit's.

The probe of noop_fleet, on the same inventory, by the commits in turns and in new connections, so that other load meets both.
What counts is the ratio of processor seconds (goal: 1.05): controller, sshds and simulated hosts together.

Without ``--against`` the other commit is the last one that guarded hosts against none of the adversaries of docs/security.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import commits  # noqa: E402
from commits import noop_fleet  # noqa: E402

GOAL = 1.05


def measure(count: int, rounds: int, trees: dict[str, Path]) -> dict[str, object]:
    hosts = noop_fleet.addresses(count)
    with tempfile.TemporaryDirectory(prefix="lockstep-noop-") as name:
        folder = Path(name)
        port, options = noop_fleet.keys(folder, hosts)
        inventory = noop_fleet.write_inventory(folder, hosts, port, options)
        return commits.in_turns(
            lambda tree, home: noop_fleet.run_probe(inventory, home, tree), trees, rounds, folder, hosts, port
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default=commits.UNGUARDED, help="commit to compare with")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lockstep-before-") as folder:
        trees = {"before": commits.checkout(chosen.against, Path(folder)), "after": ROOT}
        found = measure(chosen.hosts, chosen.rounds, trees)
    described = {"benchmark": "noop_commits", "against": chosen.against, "rounds": chosen.rounds, "hosts": chosen.hosts}
    print(
        json.dumps({**described, **found, "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "goal": GOAL})
    )


if __name__ == "__main__":
    main()
