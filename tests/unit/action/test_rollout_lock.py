"""The lock's actions against real hosts: this machine, with a /var/lib of its own for each (a mount namespace).

What depends on Ansible's command line or on the controller's process is tried in runs of ansible-playbook; the rest calls the
actions in this process, which takes a tenth of the time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.playbook.play_context import PlayContext
from ansible.plugins.loader import connection_loader

from ansible_collections.lockstep.vllm.plugins.action import rollout_lock, rollout_request
from tests.machine import ENDLESS, until
from tests.unit import inventory

ROOT = Path(__file__).parents[3]
HEADS = ("a1", "b1", "c1")


def can_unshare() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not can_unshare(), reason="mount namespaces need root")


class Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        children = {}
        for n, head in enumerate(HEADS, 11):
            state = folder / head
            (state / "lockstep").mkdir(parents=True)
            python = folder / f"python-{head}"
            inside = f'mount --bind {state} /var/lib && exec {sys.executable} "$@"'
            python.write_text(f"#!/bin/sh\nexec unshare --mount sh -c '{inside}' sh \"$@\"\n")
            python.chmod(0o755)
            host = {
                "ansible_connection": "local",
                "ansible_python_interpreter": str(python),
                "gpu_host_address": f"10.0.0.{n}",
                "gpu_host_interface": "eth0",
                "ray_node_role": "head",
            }
            children[f"replica_{head[0]}"] = {"hosts": {head: host}}
        (folder / "inventory.yml").write_text(
            yaml.safe_dump({"all": {"children": {"lockstep": {"children": children}}}})
        )
        (folder / "runner").mkdir()
        (folder / "ansible.cfg").write_text(
            f"[defaults]\ncollections_path = {ROOT}/collections\nlocal_tmp = {folder}/tmp\nforks = 8\n"
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def playbook(self, tasks: list[dict[str, Any]]) -> Path:
        path = self.folder / f"play-{time.monotonic_ns()}.yml"
        path.write_text(yaml.safe_dump([{"name": "Play", "hosts": "all", "gather_facts": False, "tasks": tasks}]))
        return path

    def lock(self, check_mode: bool = False, **arguments: Any) -> dict[str, Any]:
        """The result of ``rollout_lock``, called in this process."""
        return self._act(rollout_lock, arguments, check_mode)

    def request(self, action: str, check_mode: bool = False) -> dict[str, Any]:
        """The result of ``rollout_request``, called in this process."""
        return self._act(rollout_request, {"action": action, "reason": "peak"}, check_mode)

    def _act(self, module: Any, arguments: dict[str, Any], check_mode: bool = False) -> dict[str, Any]:
        read = inventory.read(self.folder / "inventory.yml")
        task = types.SimpleNamespace(args=arguments, check_mode=check_mode, become=False, async_val=0)
        context = PlayContext()
        action = module.ActionModule(
            task, connection_loader.get("local", context), context, read.loader, read.templar, None
        )
        try:
            result: dict[str, Any] = action.run(None, read.task_vars)
        except AnsibleActionFail as error:
            return {**error.result, "failed": True}
        return {"failed": False, **result}

    def run(self, *tasks: dict[str, Any], cmdline: str = "") -> list[dict[str, Any]]:
        """Results of the tasks in a run of ansible-playbook, in order, up to the first that failed."""
        run = ansible_runner.run(
            private_data_dir=str(self.folder / "runner"),
            playbook=str(self.playbook(list(tasks))),
            inventory=str(self.folder / "inventory.yml"),
            project_dir=str(self.folder),
            cmdline=cmdline or None,
            envvars=self.environment,
            quiet=True,
        )
        ends = {"runner_on_ok": False, "runner_on_failed": True}
        return [
            {**event["event_data"]["res"], "failed": ends[event["event"]]}
            for event in run.events
            if event["event"] in ends
        ]

    def record(self, head: str, name: str = "lock") -> dict[str, Any] | None:
        path = self.folder / head / "lockstep" / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def leave(self, head: str, **lock: Any) -> None:
        (self.folder / head / "lockstep" / "lock.json").write_text(json.dumps(lock))


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def lock(**arguments: Any) -> dict[str, Any]:
    return {"name": "Lock", "lockstep.vllm.rollout_lock": arguments}


THEIRS = {"run": "r1", "holder": "bob@ops2", "pid": 9, "controller": "ops2", "since": "2026-11-22T00:30:00Z"}


def test_held_on_every_head_and_released_whatever_the_limit(cluster: Cluster) -> None:
    held, renewed, read, released, gone = cluster.run(
        lock(run="r1"),
        lock(run="r1"),
        lock(state="read"),
        lock(state="released", run="r1"),
        lock(state="read"),
        cmdline="--limit b1",
    )
    assert held["changed"]
    assert sorted(held["locks"]) == list(HEADS)
    assert not renewed["changed"]
    assert read["lock"]["run"] == "r1"
    assert released["changed"]
    assert gone["locks"] == {}


@pytest.mark.parametrize("held_by_another", ["a1", "b1", "c1"])
def test_all_or_none(cluster: Cluster, held_by_another: str) -> None:
    cluster.leave(held_by_another, **THEIRS)
    refused = cluster.lock(run="r2")
    assert refused["failed"]
    assert refused["refused"]
    assert "run r1 of bob@ops2 (pid 9)" in refused["msg"]
    assert {head: (cluster.record(head) or {}).get("run") for head in HEADS} == {
        head: "r1" if head == held_by_another else None for head in HEADS
    }


def test_a_renewal_that_is_refused_keeps_what_it_had(cluster: Cluster) -> None:
    cluster.lock(run="r2")
    cluster.leave("c1", **THEIRS)
    assert cluster.lock(run="r2")["failed"]
    assert [(cluster.record(head) or {})["run"] for head in HEADS] == ["r2", "r2", "r1"]


def test_taken_over_by_name(cluster: Cluster) -> None:
    for head in HEADS:
        cluster.leave(head, **THEIRS)
    assert cluster.lock(run="r2", take_over="r0")["failed"]
    held = cluster.lock(run="r2", take_over="r1")
    assert {found["taken_over"] for found in held["locks"].values()} == {"r1"}


@pytest.mark.parametrize("lost", ["a1", "b1"])
def test_a_lock_on_a_head_that_could_not_be_reached_ends_with_its_run(cluster: Cluster, lost: str) -> None:
    """A whole wave is lost, its run releases the lock elsewhere and ends; the host comes back, and so does another controller."""
    for head in HEADS:  # held by a process of which this machine knows nothing
        cluster.leave(head, **THEIRS)
    python = cluster.folder / f"python-{lost}"
    reachable = python.read_text()
    python.write_text("#!/bin/sh\necho no route >&2\nexit 255\n")
    released = cluster.lock(state="released", run="r1")
    assert (released["changed"], list(released["silent"])) == (True, [lost])
    python.write_text(reachable)
    assert cluster.lock(state="read")["locks"] == {lost: THEIRS}
    taken = cluster.lock(run="r2")
    assert not taken["failed"], taken
    assert {head: found.get("taken_over") for head, found in taken["locks"].items()} == {
        head: "r1" if head == lost else None for head in HEADS
    }


def test_an_unreachable_head_has_to_be_left_out_by_name(cluster: Cluster) -> None:
    (cluster.folder / "python-b1").write_text("#!/bin/sh\necho no route >&2\nexit 255\n")
    refused = cluster.lock(run="r1")
    assert "b1: no route" in refused["msg"]
    assert "rollout_lock_without" in refused["msg"]
    assert cluster.record("a1") is None
    assert cluster.record("c1") is None
    unknown = cluster.lock(run="r1", without=["z9"])
    assert unknown["failed"]
    assert "z9" in unknown["msg"]
    held = cluster.lock(run="r1", without=["b1"])
    assert sorted(held["locks"]) == ["a1", "c1"]


@pytest.mark.parametrize("arguments", [{}, {"state": "released"}, {"run": "r1", "state": "kept"}])
def test_arguments_are_checked(cluster: Cluster, arguments: dict[str, Any]) -> None:
    assert cluster.lock(**arguments)["failed"]


def test_check_mode_only_reads(cluster: Cluster) -> None:
    seen, request = cluster.run(
        lock(run="r1"),
        {"name": "Request", "lockstep.vllm.rollout_request": {"action": "abort"}},
        cmdline="--check",
    )
    assert not seen["changed"]
    assert seen["locks"] == {}
    assert seen["unready"] == dict.fromkeys(HEADS, "no engine is configured"), (
        "who would be asked by the real run is asked"
    )
    assert request["changed"]
    assert [cluster.record(head, name) for head in HEADS for name in ("lock", "rollout")] == [None] * 6


def test_check_mode_is_refused_where_the_run_would_be(cluster: Cluster) -> None:
    cluster.leave("b1", **THEIRS)
    tried = cluster.lock(check_mode=True, run="r2")
    assert tried["failed"]
    assert "run r1 of bob@ops2 (pid 9)" in tried["msg"]
    assert not cluster.lock(check_mode=True, run="r2", take_over="r1")["failed"]
    assert [cluster.record(head) for head in HEADS] == [None, THEIRS, None]


def test_a_dead_run_of_this_controller_gives_way_and_a_living_one_does_not(cluster: Cluster) -> None:
    wait = {"name": "Wait", "ansible.builtin.command": f"sleep {ENDLESS}", "delegate_to": "localhost", "run_once": True}
    first = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ansible",
            "playbook",
            "-i",
            "inventory.yml",
            str(cluster.playbook([lock(run="r1"), wait])),
        ],
        cwd=cluster.folder,
        env={**os.environ, **cluster.environment},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )

    def held() -> bool:
        assert first.poll() is None
        return cluster.record("c1") is not None

    until(held, "the lock")
    assert (cluster.record("a1") or {})["pid"] == first.pid
    refused = cluster.lock(run="r2")
    assert "run r1 of" in refused["msg"]
    assert "run this again with -e rollout_lock_take_over=r1" in refused["msg"]
    assert "playbooks/status.yml" in refused["next"]
    forced = cluster.lock(run="r2", take_over="r1")
    assert "it is alive on this controller" in forced["msg"]
    assert "playbooks/status.yml" in forced["next"]
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    held = cluster.lock(run="r2")
    assert {found["taken_over"] for found in held["locks"].values()} == {"r1"}


def test_requests(cluster: Cluster) -> None:
    assert cluster.request("pause")["changed"]
    assert not cluster.request("pause")["changed"]
    held = cluster.lock(run="r1")
    assert (held["request"]["action"], held["request"]["reason"]) == ("pause", "peak")
    assert cluster.request("resume")["changed"]
    assert not cluster.request("resume")["changed"]
    assert cluster.lock(run="r1")["request"] is None
    assert cluster.request("abort", check_mode=True)["changed"]
    assert cluster.record("a1", "rollout") is None


def test_evidence_is_fetched_beside_the_report(cluster: Cluster) -> None:
    (cluster.folder / "ansible.cfg").write_text(
        (cluster.folder / "ansible.cfg").read_text() + "callbacks_enabled = lockstep.vllm.rollout\n"
    )
    for head in ("a1", "b1"):
        stacks = cluster.folder / head / "lockstep" / "evidence" / "r1" / "graph" / "stacks.txt"
        stacks.parent.mkdir(parents=True)
        stacks.write_text(f"stacks of {head}")
    (cluster.folder / "python-c1").write_text("#!/bin/sh\nexit 255\n")
    fetch = {"name": "Fetch", "lockstep.vllm.fetch_evidence": {"run": "r1", "hosts": list(HEADS)}}
    (fetched,) = cluster.run(fetch)
    assert not fetched["failed"], fetched
    assert list(fetched["silent"]) == ["c1"]
    beside = cluster.folder / ".cache/lockstep/runs/r1/evidence"
    for head in ("a1", "b1"):
        kept = beside / head / "var/lib/lockstep/evidence/r1/graph/stacks.txt"
        assert kept.read_text() == f"stacks of {head}"
        assert kept.stat().st_mode & 0o777 == 0o600
