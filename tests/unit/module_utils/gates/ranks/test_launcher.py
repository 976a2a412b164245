"""A host's ranks under their deadline, with a stand-in for the work; and the gates on top of it."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import deadline, records
from ansible_collections.lockstep.vllm.plugins.module_utils.driver import memory as gpu_memory
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import failure_analysis, runner
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks import events, launcher
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.ranks.job import Job, Part
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.request import Asked, Request
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import CannotRun
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ports import RENDEZVOUS
from tests.machine import ENDLESS, PATIENCE

STARTS_WITHIN = 6.0
"""Seconds in which a rank has begun its first part, also where the machine is busy: of a part that then hangs."""
RANKS = """
import json, os, signal, sys, time
job = json.load(sys.stdin)
def send(event, rank=0, **more): print(json.dumps({"event": event, "rank": rank, "host": job["host"], **more}), flush=True)
send("start", backend="gloo", device="cpu")
with open(os.environ["NCCL_DEBUG_FILE"].replace("%h", "a1").replace("%p", "1"), "w") as log: log.write("NCCL INFO")
PHASES = {"collectives": "check", "graphs": "capture"}
for number, part in enumerate(job["parts"]):
    todo, phase = part["params"].get("todo", "well"), PHASES[part["work"]]
    if number: os.write(int(os.environ["LOCKSTEP_PARTS_HANDLE"]), bytes([number]))
    step = dict(step=number + 1, phase=phase, waiting=False, part=part["name"])
    send("step", what="FULL batch 4", at=time.time() - (60 if todo == "hang" and not number else 0), **step)
    if todo.startswith("/"): open(todo, "w").write(json.dumps(dict(os.environ)))
    print("not an event", flush=True)
    if todo == "wrong": send("check", operation="all_reduce", dtype="bfloat16", bytes=64, wrong=1)
    if todo == "slow": time.sleep(0.5)
    if todo == "leave": sys.exit(0)
    if todo == "hang": time.sleep(ENDLESS)
    if todo == "killed": send("end", status=-9, at=time.time()); sys.exit(1)
    if todo == "error":
        send("error", step=number + 1, phase=phase, what="", code="own", exception="RuntimeError", message="CUDA error",
             at=time.time())
        sys.exit(1)
""".replace("ENDLESS", str(ENDLESS))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The caller waits for a guard that this machine lets starve; and a rank of ours that takes no step soon hangs."""
    monkeypatch.setattr(deadline, "EXTRA", PATIENCE)
    monkeypatch.setattr(failure_analysis, "HUNG_AFTER", 0.5)


@pytest.fixture
def library(tmp_path):
    """A package ``lockstep`` whose ranks do as their job demands."""
    package = tmp_path / "lib" / "lockstep" / "gates" / "ranks"
    package.mkdir(parents=True)
    (package / "main.py").write_text(RANKS)
    return str(tmp_path / "lib")


def job(todo, seconds=PATIENCE, **more):
    about = {"host": "a1", "first": 0, "here": 1, "world": 1, "master": ("127.0.0.1", 29600)}
    return Job([Part("graph", "graphs", {"todo": todo}, seconds)], **{**about, **more})


def run(todo, library, tmp_path, seconds=PATIENCE, environment=None):
    evidence = {"graph": tmp_path / "evidence"}
    launch = launcher.Launch(evidence, environment or {}, None, sys.executable, library)
    return launcher.run(job(todo, seconds), launch)


def test_events_come_back_and_nothing_is_kept(library, tmp_path):
    report = run("well", library, tmp_path)
    assert report.status == "done"
    assert [type(event) for event in report.events] == [events.Started, events.Step]
    assert not (tmp_path / "evidence").exists()


def test_a_hang_leaves_what_was_reported_and_evidence(library, tmp_path):
    report = run("hang", library, tmp_path, seconds=STARTS_WITHIN)
    assert report.status == "timeout"
    assert report.of(events.Step)[-1].phase == "capture"
    names = {Path(path).name for path in report.evidence}
    assert {"nccl.a1.1.log", "threads.txt", "stdout.log"} <= names
    assert all(Path(path).is_file() for path in report.evidence)


def test_ranks_see_the_units_nccl_variables_and_no_secrets(library, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("NCCL_IB_HCA", "mlx5_0")
    run(str(tmp_path / "environment.json"), library, tmp_path, environment={"NCCL_ALGO": "Ring"})
    seen = json.loads((tmp_path / "environment.json").read_text())
    assert (seen["NCCL_IB_HCA"], seen["NCCL_ALGO"]) == ("mlx5_0", "Ring")
    assert "SECRET_TOKEN" not in seen
    assert not Path(seen["HOME"]).exists()


def test_end_from_outside(library, tmp_path):
    running = launcher.begin(job("hang"), launcher.Launch(python=sys.executable, library=library))
    time.sleep(0.5)
    running.end()
    report = running.wait()
    assert report.status == "ended"
    assert report.seconds < PATIENCE


def test_free_port_is_in_the_range_and_free():
    port = launcher.free_port("127.0.0.1")
    assert port in RENDEZVOUS
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))


def test_free_port_refuses_a_foreign_address():
    with pytest.raises(OSError, match="assign"):
        launcher.free_port("192.0.2.1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NCCL_IB_HCA=mlx5_0\nRAY_AUTH_MODE=token\n", {"NCCL_IB_HCA": "mlx5_0"}),
        (
            '# NCCL_DEBUG=INFO\nNCCL_ALGO="Ring"\nGLOO_SOCKET_IFNAME=eth0\n',
            {"NCCL_ALGO": "Ring", "GLOO_SOCKET_IFNAME": "eth0"},
        ),
    ],
)
def test_ray_environment(tmp_path, text, expected):
    (tmp_path / "ray.env").write_text(text)
    assert launcher.ray_environment(tmp_path / "ray.env") == expected


def test_ray_environment_may_be_missing(tmp_path):
    assert launcher.ray_environment(tmp_path / "absent") == {}


@pytest.fixture
def host(tmp_path, monkeypatch, library):
    """This machine as host a1 of replica_a; gives a maker of requests."""
    monkeypatch.setattr(records, "EVIDENCE", tmp_path / "evidence")
    monkeypatch.setattr(records, "HOST", tmp_path / "host.json")
    monkeypatch.setattr(launcher, "RAY_ENVIRONMENT", tmp_path / "ray.env")
    peers = {"a1": "127.0.0.1", "a2": "127.0.0.2"}
    identity = {
        "host": "a1",
        "replica": "replica_a",
        "address": "127.0.0.1",
        "interface": "lo",
        "gpus": 1,
        "peers": peers,
    }
    identity["head"] = {"host": "a1", "address": "127.0.0.1"}
    records.HOST.write_text(json.dumps(identity))

    def request(todo, deadline=PATIENCE, nccl_deadline=PATIENCE, **more):
        about = {"python": sys.executable, "library": library, "run": "a run/1", **more}
        gates = [Asked("graph", deadline, {"todo": todo})]
        if (first := about.pop("nccl", None)) is not None:
            gates.insert(0, Asked("nccl", nccl_deadline, {"todo": first}, floor_gbps=0.0))
        return Request(about.pop("scope", "host"), tuple(gates), **about)

    return request


@pytest.mark.parametrize(
    ("todo", "deadline", "verdict", "code"),
    [
        ("well", PATIENCE, "pass", "ok"),
        ("hang", STARTS_WITHIN, "timeout", "capture_hangs"),
        ("killed", PATIENCE, "fail", "rank_killed"),
        ("error", PATIENCE, "fail", "capture_errors"),
    ],
)
def test_a_gate_on_a_host(host, todo, deadline, verdict, code, tmp_path):
    (result,) = runner.run(host(todo, deadline=deadline))
    assert (result.verdict, result.code, result.host, result.backend) == (verdict, code, "a1", "gloo")
    assert result.seconds < STARTS_WITHIN + PATIENCE
    assert all(path.startswith(str(tmp_path / "evidence" / "a_run_1" / "graph-host")) for path in result.evidence)
    assert bool(result.evidence) != result.passed


@pytest.mark.parametrize(
    ("nccl", "graph", "verdicts"),
    [
        ("well", "well", [("nccl", "ok"), ("graph", "ok")]),
        ("well", "hang", [("nccl", "ok"), ("graph", "capture_hangs")]),
        ("well", "killed", [("nccl", "ok"), ("graph", "rank_killed")]),
        ("well", "error", [("nccl", "ok"), ("graph", "capture_errors")]),
        ("hang", "well", [("nccl", "collective_hangs")]),
        ("error", "well", [("nccl", "collective_error")]),
        ("wrong", "well", [("nccl", "wrong_sum"), ("graph", "ok")]),
        ("wrong", "killed", [("nccl", "wrong_sum"), ("graph", "rank_killed")]),
        ("leave", "well", [("nccl", "ok"), ("graph", "could_not_run")]),
    ],
)
def test_two_gates_with_one_start(host, nccl, graph, verdicts, tmp_path):
    """Each has its own verdict, seconds and evidence; what ends the ranks belongs to the part that had begun last."""
    first = STARTS_WITHIN if nccl == "hang" else PATIENCE
    second = 2.0 if graph == "hang" else PATIENCE
    results = runner.run(host(graph, deadline=second, nccl=nccl, nccl_deadline=first))
    assert [(result.gate, result.code) for result in results] == verdicts
    for result in results:
        folder = tmp_path / "evidence" / "a_run_1" / f"{result.gate}-host"
        assert all(path.startswith(f"{folder}/") for path in result.evidence)
        ended = result.code not in ("ok", "wrong_sum", "could_not_run")
        assert bool(result.evidence) == folder.exists() == ended
        assert (result.verdict == "timeout") == (result.code.endswith("hangs"))


def test_the_time_of_a_part_begins_with_it(host):
    """The first takes some of its time; the second has all of its own."""
    first, second = runner.run(host("hang", deadline=4.0, nccl="slow"))
    assert first.passed
    assert 0.5 <= first.seconds < PATIENCE
    assert (second.code, second.verdict) == ("capture_hangs", "timeout")
    assert second.seconds >= 4.0


def test_a_host_without_gpus_gets_one_clear_message(host):
    identity = json.loads(records.HOST.read_text())
    records.HOST.write_text(json.dumps({**identity, "gpus": 0}))
    (result,) = runner.run(host("well"))
    assert (result.verdict, result.code) == ("fail", "no_gpus")
    assert "a1 declares no GPUs" in result.cause


def test_a_host_never_prepared_is_reported(host):
    request = host("well")
    records.HOST.unlink()
    with pytest.raises(CannotRun, match="never prepared") as raised:
        runner.run(request)
    assert raised.value.stop.next == "ansible-playbook site.yml"


def test_a_missing_environment_is_reported(host):
    with pytest.raises(CannotRun, match="no serving environment"):
        runner.run(host("well", python="/nonexistent/python"))


def test_an_unknown_host_of_the_replica_is_reported(host):
    with pytest.raises(CannotRun, match="a9: not in replica_a, whose hosts are a1, a2"):
        runner.run(Request("replica", (Asked("graph", 5.0, {}),), hosts=("a9",), python=sys.executable))


SMI = """#!/bin/sh
[ -e {flag} ] && echo "{pid}, ray::orphan, 71680"
exit 0
"""


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A stand-in nvidia-smi that lists one process while a flag file exists."""
    flag = tmp_path / "held"
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(SMI.format(flag=flag, pid=4242))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return flag


def test_memory_that_others_hold_fails_the_gate_before_it_starts(host, nvidia_smi):
    nvidia_smi.touch()
    (result,) = runner.run(host("well"))
    assert (result.verdict, result.code, result.host) == ("fail", "memory_held", "a1")
    assert "ray::orphan (pid 4242) holds 71680 MiB" in result.cause


def test_memory_left_behind_fails_the_gate(nvidia_smi):
    assert gpu_memory.left([]) == []
    nvidia_smi.touch()
    began = time.monotonic()
    assert [holder.pid for holder in gpu_memory.left([], within=0.5)] == [4242]
    assert time.monotonic() - began < PATIENCE
    assert gpu_memory.left(gpu_memory.holders(), within=0.5) == []


def test_holders_of_unknown_size():
    text = "12, python, [N/A]\nnot a row\n7, /opt/app, with comma, 12\n"
    assert gpu_memory.parse(text) == [gpu_memory.Holder(12, "python", None)]
