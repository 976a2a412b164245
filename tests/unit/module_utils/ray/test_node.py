"""What Ray is started with, and what must not stand in the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.admission import fingerprint, stamps
from ansible_collections.lockstep.vllm.plugins.module_utils.ray import node as ray_node
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.codes import Cause, StartCode
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.gcs import Table, Versions
from tests.machine import ENDLESS, PATIENCE

WORKER = {
    "host": "a2",
    "ray_role": "worker",
    "address": "10.0.0.12",
    "gpus": 8,
    "head": {"host": "a1", "address": "10.0.0.11"},
}
HEAD = {**WORKER, "host": "a1", "ray_role": "head", "address": "10.0.0.11"}
OWN = Versions("2.60.0", "3.11.2")
RUNS = "runs Ray 2.60.0 on Python 3.11.2, the head a1 runs Ray"
NOTHING_SET = {"ports": {"gcs": 6379}, "cpus": None, "object_store_bytes": None, "resources": {}, "labels": {}}


@pytest.mark.parametrize(
    ("address", "head", "code", "reason"),
    [
        (True, None, None, ""),
        (True, OWN, None, ""),
        (False, OWN, "address_absent", "its address 10.0.0.12 is on none of its interfaces"),
        (
            True,
            Table("down", error="connection refused"),
            "waiting_for_head",
            "waiting for the head a1 (connection refused)",
        ),
        (True, Table("refused"), "token_refused", "the head a1 refuses its token"),
        (True, Versions("2.59.0", "3.11.2"), "version_refused", f"{RUNS} 2.59.0 on Python 3.11.2"),
        (True, Versions("2.60.0", "3.11.9"), "version_refused", f"{RUNS} 2.60.0 on Python 3.11.9"),
    ],
)
def test_obstacles(address, head, code, reason):
    found = ray_node.obstacle(WORKER, OWN, address, head)
    assert (found.code, found.reason) == (code, reason) if code else found is None


def test_every_obstacle_is_a_cause_of_a_missing_host():
    assert {Cause(code.value) for code in set(StartCode) - {StartCode.STARTING}} <= set(Cause)


def test_worker():
    given = ray_node.arguments(WORKER, ray_node.settings_of(NOTHING_SET), "0123456789abcdef")
    assert given[:2] == ["start", "--address=10.0.0.11:6379"]
    assert "--node-ip-address=10.0.0.12" in given
    assert "--num-gpus=8" in given
    assert "--labels=lockstep.fingerprint=0123456789abcdef,lockstep.host=a2" in given
    assert "--block" in given
    assert not [one for one in given if one.startswith(("--head", "--dashboard-host", "--temp-dir", "--num-cpus"))]


def test_head_has_its_dashboard_on_loopback():
    given = ray_node.arguments(HEAD, ray_node.settings_of(NOTHING_SET), "d")
    assert given[:3] == ["start", "--head", "--port=6379"]
    assert {"--dashboard-host=127.0.0.1", "--dashboard-port=8265", "--temp-dir=/var/lib/lockstep/ray"} <= set(given)


def test_settings_reach_ray():
    record = {
        "ports": {"gcs": 7000, "metrics": 7001, "workers_first": 30000, "workers_last": 30999},
        "cpus": 32,
        "object_store_bytes": 1 << 30,
        "resources": {"license": 2},
        "labels": {"rack": "r7"},
    }
    given = ray_node.arguments(WORKER, ray_node.settings_of(record), "d")
    assert {
        "--address=10.0.0.11:7000",
        "--metrics-export-port=7001",
        "--min-worker-port=30000",
        "--max-worker-port=30999",
        "--num-cpus=32",
        "--object-store-memory=1073741824",
        "--labels=lockstep.fingerprint=d,lockstep.host=a2,rack=r7",
    } <= set(given)
    assert json.loads(next(one for one in given if one.startswith("--resources=")).partition("=")[2]) == {"license": 2}


def test_own_labels_cannot_be_overridden():
    settings = ray_node.settings_of({"labels": {"lockstep.host": "b7"}})
    assert "--labels=lockstep.fingerprint=d,lockstep.host=a2" in ray_node.arguments(WORKER, settings, "d")


@pytest.mark.parametrize("kernel", ["6.1.0", "6.1.1"])
def test_ray_is_started_with_the_digest_of_the_stamp_s_fingerprint(tmp_path, monkeypatch, kernel):
    """Not of what this process sees, which is in the unit: the label is compared with the replica's stamp before vLLM starts."""
    passed = {**dict.fromkeys(fingerprint.FIELDS, "1"), "kernel": kernel}
    gates = [{"gate": "driver", "verdict": "pass", "seconds": 1.0, "cause": ""}]
    stamp = stamps.host_stamp(gates, "r1", "2026-11-22T00:00:00Z", passed, fingerprint.digest(passed))
    files = {
        "host": {**HEAD, "address": "127.0.0.1"},
        "stamp": stamp,
        "ray": {**NOTHING_SET, "temp_dir": str(tmp_path)},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    for name, file in (("HOST", "host"), ("HOST_STAMP", "stamp"), ("TUNNEL", "none")):
        monkeypatch.setattr(ray_node.records, name, tmp_path / f"{file}.json")
    monkeypatch.setattr(ray_node, "RAY_SETTINGS", tmp_path / "ray.json")
    monkeypatch.setattr(ray_node.peer_status, "RAY_STATE", tmp_path / "state.json")
    monkeypatch.setattr(ray_node.caches, "prune", lambda: None)
    monkeypatch.setattr(ray_node.os, "environ", dict(os.environ))

    def become(_program, command):
        raise SystemExit(" ".join(command))

    monkeypatch.setattr(ray_node.os, "execv", become)
    with pytest.raises(SystemExit) as started:
        ray_node.main([])
    assert f" --labels=lockstep.fingerprint={fingerprint.digest(passed)},lockstep.host=a1 " in str(started.value)


def test_unknown_port_is_an_error():
    with pytest.raises(ValueError, match="nodemanager"):
        ray_node.settings_of({"ports": {"nodemanager": 1}})


def test_address_on_an_interface():
    assert ray_node._has_address("127.0.0.1")
    assert not ray_node._has_address("192.0.2.1")  # TEST-NET-1, nobody's


def test_old_sessions_go(tmp_path):
    for name in ("session_2026-01-01_a", "session_2026-01-02_b", "session_2026-01-03_c", "session_2026-01-04_d"):
        (tmp_path / name).mkdir()
    (tmp_path / "session_latest").symlink_to("session_2026-01-04_d")
    (tmp_path / "prom_metrics_service_discovery.json").touch()
    ray_node._prune_sessions(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "prom_metrics_service_discovery.json",
        "session_2026-01-03_c",
        "session_2026-01-04_d",
        "session_latest",
    ]


def test_unit_ends_with_its_daemon(tmp_path):
    """As after `ray stop`, which Ray's own blocking start takes for nothing to act on."""
    library = Path(ray_node.__file__).resolve().parents[1]
    (tmp_path / "lockstep").symlink_to(library)
    program = (
        "import os, subprocess, threading, time; from lockstep.ray import node; node.PAUSE = 0.1;"
        "os.symlink('/bin/sleep', 'raylet'); os.symlink('/bin/sleep', 'gcs_server');"
        "quiet = {'stdout': subprocess.DEVNULL};"  # else their end is waited for as well
        f"gcs, raylet = [subprocess.Popen(['./' + name, '{ENDLESS}'], **quiet) for name in ('gcs_server', 'raylet')];"
        "node._answer_for_stacks = raylet.terminate;"  # once both have been seen
        f"threading.Thread(target=node._watch, args=(True,), daemon=True).start(); time.sleep({PATIENCE})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as unit:
        try:
            assert unit.communicate()[0] == "raylet ended; this unit ends with it\n"
            assert unit.returncode == 143
        finally:
            os.killpg(unit.pid, signal.SIGKILL)


class _Asked:
    """The head's store with a request in it, which ends its reader after some reads, once the test has seen him."""

    def __init__(self):
        self.reads, self.put_in, self.seen = 0, {}, threading.Event()

    def get(self, key):
        assert self.seen.wait(PATIENCE)
        self.reads += 1
        if self.reads > 5:
            raise SystemExit
        return b'{"id": "ab12"}' if self.reads > 1 else None

    def put(self, key, value):
        self.put_in[key] = json.loads(value)
        return True


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("role", "host"), [("head", "a1"), ("worker", "a2")])
def test_every_host_answers_for_its_ranks(tmp_path, monkeypatch, role, host):
    (tmp_path / "host.json").write_text(json.dumps({**WORKER, "ray_role": role, "host": host}))
    store, asked = _Asked(), []
    monkeypatch.setattr(ray_node.records, "HOST", tmp_path / "host.json")
    monkeypatch.setattr(ray_node.gcs, "Cluster", lambda address, token: asked.append(address) or store)
    monkeypatch.setattr(ray_node.stacks, "PAUSE", 0.01)
    monkeypatch.setattr(ray_node.stacks, "look", lambda request, folder: ray_node.stacks.Answer(request.id))
    ray_node._answer_for_stacks()
    (responder,) = (thread for thread in threading.enumerate() if thread.name == "stacks")
    store.seen.set()
    responder.join(PATIENCE)
    assert asked == ["10.0.0.11"]
    assert store.put_in == {f"stacks/answer/{host}": {"id": "ab12", "sight": None}}


@pytest.mark.parametrize("content", [None, "{}", "no JSON"])
def test_a_host_that_is_not_set_up_answers_nothing_and_goes_on(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / "host.json").write_text(content)
    monkeypatch.setattr(ray_node.records, "HOST", tmp_path / "host.json")
    monkeypatch.setattr(ray_node.stacks, "Responder", None)
    ray_node._answer_for_stacks()


@pytest.mark.parametrize(
    ("seen", "lost"),
    [
        ("kkkk", False),
        ("uuuuuu", False),  # it has not joined yet
        ("kuu", False),
        ("kuuu", True),
        ("kuukuu", False),
        ("kddddd", False),  # a head that is away may come back as it was
        ("kuduu", True),
    ],
)
def test_head_that_forgot_this_node(seen, lost):
    from ansible_collections.lockstep.vllm.plugins.module_utils.ray.gcs import Node

    tables = {
        "k": Table("up", (Node("id", "10.0.0.12", host="a2"),)),
        "u": Table("up", (Node("id", "10.0.0.12", host="a2", alive=False), Node("id", "10.0.0.11", host="a1"))),
        "d": Table("down"),
    }
    membership = object.__new__(ray_node._Membership)
    membership._host, membership._joined, membership._unknown = "a2", False, 0
    samples = iter(seen)
    membership._cluster = type("Cluster", (), {"table": lambda self: tables[next(samples)]})()
    assert [membership.lost() for _ in seen][-1] is lost
