"""What preflight costs, over 2 and over 100 simulated hosts, against another commit's.

sshds of our own stand for the hosts, as in noop_fleet: all of them are one machine, so no plan comes of it. Preflight asks all
hosts, examines the request, and refuses; that is its work where no driver is due. The commits take turns on the same inventory,
in new connections, so that other load meets both; the ratio of the medians is what counts (goal: 1.3), in seconds and in
processor seconds of all that took part, sshds and simulated hosts included.

Without ``--against`` the other commit is the last one whose preflight knew nothing of the request.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import commits  # noqa: E402
from commits import noop_fleet  # noqa: E402

BEFORE = "4935275^"
ASKED = "package absent"
"""What preflight says of such hosts, once it has asked them."""
GOAL = 1.3


def preflight(tree: Path, inventory: Path, home: Path) -> None:
    environment = os.environ | {
        "ANSIBLE_CONFIG": str(tree / "ansible.cfg"),
        "ANSIBLE_FORKS": str(noop_fleet.FORKS),
        "ANSIBLE_HOME": str(home),
        "ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none",
        "LOCKSTEP_RUNS": str(home / "runs"),
    }
    command = ["ansible-playbook", "-i", inventory, tree / "playbooks/preflight.yml"]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=600, check=False)
    said = done.stdout + done.stderr
    asked = ASKED in said if tree == ROOT else "Traceback" not in said
    if done.returncode not in (0, 2) or "is unreachable" in said or not asked:
        sys.exit(f"benchmark: preflight of {tree} (exit {done.returncode}) did not ask its hosts\n{said[-4000:]}")


def write_inventory(folder: Path, hosts: list[str], port: int, options: list[str]) -> Path:
    """That of noop_fleet, with a token that passes."""
    path = noop_fleet.write_inventory(folder, hosts, port, options)
    content = yaml.safe_load(path.read_text())
    content["lockstep"]["vars"]["ray_node_token"] = "not-a-secret-and-of-more-than-32-characters"
    path.write_text(yaml.safe_dump(content))
    return path


def measure(count: int, rounds: int, trees: dict[str, Path]) -> dict[str, object]:
    hosts = noop_fleet.addresses(count)
    with tempfile.TemporaryDirectory(prefix="lockstep-preflight-") as name:
        folder = Path(name)
        port, options = noop_fleet.keys(folder, hosts)
        inventory = write_inventory(folder, hosts, port, options)
        return commits.in_turns(lambda tree, home: preflight(tree, inventory, home), trees, rounds, folder, hosts, port)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 100])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", default=BEFORE, help="commit to compare with")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lockstep-before-") as folder:
        trees = {"before": commits.checkout(chosen.against, Path(folder)), "after": ROOT}
        found = {str(count): measure(count, chosen.rounds, trees) for count in chosen.hosts}
    result = {"benchmark": "preflight", "against": chosen.against, "rounds": chosen.rounds, "cpus": os.cpu_count()}
    print(json.dumps({**result, "hosts": found, "load": round(os.getloadavg()[0], 1), "goal": GOAL}))


if __name__ == "__main__":
    main()
