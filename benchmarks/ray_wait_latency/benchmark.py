"""How soon after a cluster's resources exist the waiter reports it, against a plain sample every five seconds.

A real Ray head runs on loopback. Again and again a node joins it and leaves. Three sample the head's table at the same
time, each from a process of its own: a tight loop, which records the moment at which the node was there; the waiter
(``lockstep.ray.wait``); and a loop that sleeps five seconds. The processor time that the waiter spends is measured
while it waits for a host that never comes.

Ray is the version that the cpu lock pins, in an environment of its own under .cache/.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "roles" / "serving_runtime" / "files" / "locks" / "cpu.txt"
ENVIRONMENT = ROOT / ".cache" / "benchmarks" / "ray"
GOAL = 0.2
PLAIN_INTERVAL = 5.0
WAITING = 20.0


def prepare() -> Path:
    """The environment's Python; made with uv when it is not there."""
    version = re.search(r"^ray==([\w.]+)", LOCK.read_text(), re.MULTILINE)
    assert version, f"{LOCK} pins no ray"
    uv, python = str(Path(sys.executable).with_name("uv")), ENVIRONMENT / "bin" / "python"
    if not list(ENVIRONMENT.glob(f"lib/*/site-packages/ray-{version[1]}.dist-info")):
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", "3.11", str(ENVIRONMENT)], check=True)
        requirement = f"ray[default]=={version[1]}"
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), requirement], check=True)
    library = ENVIRONMENT / "library"
    library.mkdir(exist_ok=True)
    if not (library / "lockstep").is_symlink():
        (library / "lockstep").symlink_to(ROOT / "plugins" / "module_utils")
    return python


def observe(way: str, address: str, port: int) -> None:
    """For each line read, watch in one of three ways until two hosts are there, and report when, in seconds since the epoch."""
    from lockstep.ray import gcs
    from lockstep.ray import wait as ray_wait
    from lockstep.ray.assessment import Observation, assess
    from lockstep.ray.shape import Shape

    shape = Shape({"a1": address, "a2": address}, 2, head=address, head_host="a1", port=port)
    cluster = gcs.Cluster(address, port)
    for _ in sys.stdin:
        while assess(shape, Observation(cluster.table())).ready:  # the node of the last trial
            time.sleep(0.1)
        print("watching", flush=True)
        if way == "lockstep":
            waited = ray_wait.wait(shape, deadline=300)
            assert waited.ready, waited.reason
        else:
            time.sleep(random.uniform(0, PLAIN_INTERVAL) if way == "plain" else 0)
            while not assess(shape, Observation(cluster.table())).ready:
                time.sleep(PLAIN_INTERVAL if way == "plain" else 0.005)
        print(time.time(), flush=True)


def cost(address: str, port: int) -> None:
    """Wait for a host that does not come; report the share of one processor that it took."""
    from lockstep.ray import wait as ray_wait
    from lockstep.ray.shape import Shape

    peers = {"a1": address, "a3": "127.0.0.3"}
    shape = Shape(peers, 2, head=address, head_host="a1", port=port)
    ray_wait.wait(shape, deadline=0)
    before = time.process_time()
    ray_wait.wait(shape, deadline=WAITING)
    print((time.process_time() - before) / WAITING)


def trial(cluster: Any, watchers: Mapping[str, subprocess.Popen[str]]) -> dict[str, float]:
    """One node joins under the eyes of all three and leaves; their delays in seconds after the tight loop."""
    for child in watchers.values():
        assert child.stdin
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in watchers.values():
        assert _line(child) == "watching"
    node = cluster.add_node(num_cpus=1, num_gpus=1, labels={"lockstep.host": "a2"}, wait=False)
    seen = {way: float(_line(child)) for way, child in watchers.items()}
    cluster.remove_node(node)
    return {way: moment - seen["exact"] for way, moment in seen.items() if way != "exact"}


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout
    return child.stdout.readline().strip()


def _child(*arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, __file__, *arguments]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def measure(trials: int) -> dict[str, object]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "num_gpus": 1, "labels": {"lockstep.host": "a1"}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        address, _, port = cluster.gcs_address.rpartition(":")
        watchers = {way: _child("observe", way, address, port) for way in ("exact", "lockstep", "plain")}
        taken = [trial(cluster, watchers) for _ in range(trials)]
        for child in watchers.values():
            child.communicate(timeout=10)
        share = float(_child("cost", address, port).communicate(timeout=300)[0])
    finally:
        cluster.shutdown()
    delays = {way: sorted(one[way] for one in taken) for way in ("lockstep", "plain")}
    return {
        "trials": trials,
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "delay_seconds": {way: [round(value, 3) for value in values] for way, values in delays.items()},
        "median_delay_seconds": {way: round(statistics.median(values), 3) for way, values in delays.items()},
        "processor_share_while_waiting": round(share, 4),
        "goal_median_seconds": GOAL,
    }


def main() -> None:
    if sys.argv[1:2] == ["observe"]:
        return observe(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    if sys.argv[1:2] == ["cost"]:
        return cost(sys.argv[2], int(sys.argv[3]))
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps({"benchmark": "ray_wait_latency", **measure(int(sys.argv[2]))}))
        return None
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=12)
    chosen = parser.parse_args()
    python = prepare()
    environment = {**os.environ, "PYTHONPATH": str(ENVIRONMENT / "library"), "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_raylet_start_wait_time_s"] = "300"  # on a busy machine
    environment.pop("RAY_AUTH_MODE", None)
    done = subprocess.run(
        [python, __file__, "measure", str(chosen.trials)], env=environment, stdout=subprocess.PIPE, text=True
    )
    print(done.stdout, end="")
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
