"""The launcher of a replica's ranks as a whole, on a Ray of threads: actors, trials, evidence by part, the answer that it writes."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from types import ModuleType, SimpleNamespace

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import deadline
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import failure_analysis, runner
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import ray_launcher
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.job import Part
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.request import Asked, Request
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.gcs import Node, Table
from tests.machine import ENDLESS, PATIENCE

RANKS = """
import json, os, sys, time
job = json.load(sys.stdin)
def send(event, **more): print(json.dumps({"event": event, "rank": job["first"], "host": job["host"], **more}), flush=True)
send("start", backend="gloo", device="cpu", local_link="cpu", network_link="cpu")
for number, part in enumerate(job["parts"]):
    if number: os.write(int(os.environ["LOCKSTEP_PARTS_HANDLE"]), bytes([number]))
    phase = {"collectives": "check", "graphs": "capture"}[part["work"]]
    sick = job["host"] == part["params"].get("kernel")
    send("step", step=number + 1, phase=phase, what="", waiting=not sick, at=time.time(), part=part["name"])
    if part["params"].get("kernel") and job["world"] > 1: time.sleep(ENDLESS)
""".replace("ENDLESS", str(ENDLESS))


class Method:
    """A method of an actor, called in a thread."""

    def __init__(self, pool, method):
        self.remote = lambda *given: pool.submit(method, *given)


class Actor:
    def __init__(self, pool, kind):
        actor = kind()
        for name in ("existing_gpu_processes", "free_port", "run", "end"):
            setattr(self, name, Method(pool, getattr(actor, name)))


@pytest.fixture
def ray(monkeypatch):
    """What the launcher uses of Ray; gives what it was asked to remove."""
    pool = ThreadPoolExecutor(8)
    removed = []
    fake = ModuleType("ray")
    fake.init = lambda **_: None
    fake.shutdown = lambda: removed.append("driver")
    fake.exceptions = SimpleNamespace(RayError=RuntimeError)
    fake.get = lambda future, timeout: future.result(timeout)
    fake.remote = lambda kind: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: Actor(pool, kind)))

    def wait(futures, num_returns, timeout):
        done, _ = wait_for(futures, timeout, FIRST_COMPLETED if num_returns == 1 else "ALL_COMPLETED")
        first = list(done)[:num_returns]
        return first, [future for future in futures if future not in first]

    fake.wait = wait
    groups, strategies = ModuleType("groups"), ModuleType("strategies")
    groups.placement_group = lambda bundles, strategy: SimpleNamespace(wait=lambda seconds: True)
    groups.remove_placement_group = lambda placed: removed.append("placement group")
    strategies.PlacementGroupSchedulingStrategy = lambda placed, placement_group_bundle_index: None
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.util.placement_group", groups)
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
    nodes = tuple(Node(f"n{n}", f"127.0.0.{n}", resources={"GPU": 1.0}, free={"GPU": 1.0}) for n in (1, 2))
    monkeypatch.setattr(ray_launcher.gcs, "Cluster", lambda *_: SimpleNamespace(table=lambda: Table("up", nodes)))
    return removed


@pytest.fixture
def library(tmp_path):
    package = tmp_path / "lib" / "lockstep" / "gates" / "ranks"
    package.mkdir(parents=True)
    (package / "main.py").write_text(RANKS)
    return str(tmp_path / "lib")


def answers(monkeypatch, capsys, library, sick=None):
    graph = Asked("graph", 6.0, {"kernel": sick}) if sick else Asked("graph", PATIENCE, {})
    gates = (Asked("nccl", PATIENCE, {}, floor_gbps=0.0), graph)
    request = Request("replica", gates, user=None, python=sys.executable, library=library)
    hosts = {"a1": "127.0.0.1", "a2": "127.0.0.2"}
    ask = {"request": dataclasses.asdict(request), "hosts": hosts, "head": "127.0.0.1", "address": "127.0.0.1"}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps({**ask, "port": 6379, "interface": "lo"})))
    assert ray_launcher.main() == 0
    return runner._answers(capsys.readouterr().out)


def test_both_gates_pass_with_one_start(ray, monkeypatch, capsys, library):
    found = answers(monkeypatch, capsys, library)
    assert [(answer["result"].gate, str(answer["result"].code)) for answer in found] == [
        ("nccl", "ok"),
        ("graph", "ok"),
    ]
    assert all(answer["files"] == {} for answer in found)
    assert ray == ["placement group", "driver"]


def test_a_hang_in_the_second_part_is_the_second_gate_s_with_its_evidence(ray, monkeypatch, capsys, library):
    monkeypatch.setattr(failure_analysis, "HUNG_AFTER", 0.5)
    monkeypatch.setattr(deadline, "EXTRA", PATIENCE)
    nccl, graph = answers(monkeypatch, capsys, library, sick="a2")
    assert nccl["result"].passed
    assert nccl["files"] == {}
    assert (graph["result"].verdict, graph["result"].code, graph["result"].host) == ("timeout", "capture_hangs", "a2")
    assert {name.split("/")[1] for name in graph["files"]} == {"a1", "a2"}
    assert any(name.endswith("threads.txt") for name in graph["files"])


def test_a_part_has_a_name_of_its_own():
    parts = Request("host", (Asked("nccl", 1.0, {}), Asked("graph", 1.0, {}, capture=("plain", "compiled")))).parts()
    assert len({part.name for part in parts}) == len(parts) == 3
    assert all(isinstance(part, Part) for part in parts)
