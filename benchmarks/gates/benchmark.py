"""The gates of a healthy host that need its GPUs, as the role ``admission`` asks for them, against another checkout's.

Each checkout's ``roles/admission/tasks/verify_host.yml`` says which modules that is (the driver gate apart, which needs a
driver and takes 0.2 s); each module runs as Ansible would run it, in a Python of its own, with the ranks on CPU over gloo. What
Ansible itself adds for each task is not in it. Checkouts take turns, so that other load meets both. Without ``--against`` the
yardstick is the parent of the commit that gave both gates one start.

torch is the version that the cpu lock pins, in an environment of its own under .cache/.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "roles" / "serving_runtime" / "files" / "locks" / "cpu.txt"
ENVIRONMENT = ROOT / ".cache" / "benchmarks" / "torch"
BEFORE = "9ec5d55e9be0053b21e877d3a4961cb8e708fa6c"
GOAL = 0.4
WITHOUT_GPU = ("driver_verify",)


def prepare(find_links: str | None) -> Path:
    """The environment with torch; made with uv when it is not there."""
    version = re.search(r"^torch==([\w.+]+)", LOCK.read_text(), re.MULTILINE)
    assert version, f"{LOCK} pins no torch"
    uv, python = str(Path(sys.executable).with_name("uv")), ENVIRONMENT / "bin" / "python"
    if not list(ENVIRONMENT.glob(f"lib/*/site-packages/torch-{version[1]}.dist-info")):
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", str(ENVIRONMENT)], check=True)
        where = ["--find-links", find_links] if find_links else ["--index", "https://download.pytorch.org/whl/cpu"]
        requirements = [f"torch=={version[1]}", "numpy", "setuptools"]
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *where, *requirements], check=True)
    return ENVIRONMENT


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """The tree of a commit, for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix="lockstep-before-") as name:
        tree = subprocess.run(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(["tar", "x", "-C", name], input=tree, check=True)
        yield Path(name)


def modules(tree: Path) -> list[str]:
    """The modules that the role runs within a host, in their order."""
    tasks = yaml.safe_load((tree / "roles/admission/tasks/verify_host.yml").read_text())
    names = [key.rpartition(".")[2] for task in tasks for key in task if key.startswith("lockstep.vllm.")]
    return [name for name in names if name not in WITHOUT_GPU]


def one(tree: Path, module: str, scratch: Path) -> dict[str, Any]:
    """What a module of a tree answers, run in this process."""
    sys.path.insert(0, str(tree / "collections"))
    from ansible.module_utils.testing import patch_module_args

    from ansible_collections.lockstep.vllm.plugins.module_utils.core import records

    records.HOST, records.EVIDENCE = scratch / "host.json", scratch / "evidence"
    records.RUNTIME, records.LIB = ENVIRONMENT, scratch / "lib"
    records.LIB.mkdir(exist_ok=True)
    (records.LIB / "lockstep").unlink(missing_ok=True)
    (records.LIB / "lockstep").symlink_to(tree / "plugins" / "module_utils")
    local = {"host": "h1", "address": "127.0.0.1"}
    records.HOST.write_text(
        json.dumps({**local, "replica": "r", "interface": "lo", "gpus": 1, "peers": {}, "head": local})
    )
    name = f"ansible_collections.lockstep.vllm.plugins.modules.{module}"
    with patch_module_args({"scope": "host", "backend": "gloo", "deadline": 900, "run": "benchmark"}):
        __import__(name, fromlist=["main"]).main()
    raise AssertionError("a module ends its process")


def timed(tree: Path, scratch: Path) -> tuple[float, float]:
    """Seconds of the clock and of the processor for all gates of a host."""
    began, before = time.monotonic(), os.times()
    for module in modules(tree):
        command = [sys.executable, __file__, "one", str(tree), module, str(scratch)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        gates = [part["gate"] for part in answer.get("results", [answer])]
        assert done.returncode == 0, answer
        assert all(gate["verdict"] == "pass" for gate in gates), answer
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - began, spent


def measure(trees: Mapping[str, Path], rounds: int) -> dict[str, Any]:
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory(prefix="lockstep-gates-") as scratch:
        for tree in trees.values():  # once for the page cache
            timed(tree, Path(scratch))
        for _ in range(rounds):
            for name, tree in trees.items():
                taken[name].append(timed(tree, Path(scratch)))
    median = {
        place: {name: round(statistics.median(each[index] for each in values), 2) for name, values in taken.items()}
        for index, place in enumerate(("seconds", "processor_seconds"))
    }
    return {
        "rounds": rounds,
        "cpus": os.cpu_count(),
        "load": [round(value, 1) for value in os.getloadavg()],
        "modules": {name: modules(tree) for name, tree in trees.items()},
        **median,
        "ratio": round(median["seconds"]["after"] / median["seconds"]["before"], 2),
        "processor_ratio": round(median["processor_seconds"]["after"] / median["processor_seconds"]["before"], 2),
        "goal_ratio": GOAL,
    }


def main() -> None:
    if sys.argv[1:2] == ["one"]:
        one(Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="checkout to compare with")
    parser.add_argument("--find-links", default=os.environ.get("UV_FIND_LINKS"), help="where torch's wheel lies")
    chosen = parser.parse_args()
    prepare(chosen.find_links)
    if chosen.against:
        print(json.dumps({"benchmark": "gates", **measure({"before": chosen.against, "after": ROOT}, chosen.rounds)}))
        return
    with checkout(BEFORE) as before:
        print(json.dumps({"benchmark": "gates", **measure({"before": before, "after": ROOT}, chosen.rounds)}))


if __name__ == "__main__":
    main()
