"""What people and programs get to see of a cluster: status, metrics, the lock, a run's journal and report."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lab import ROOT, Lab, Play, eventually

HEAD, WORKER = "a1", "a2"
RUNS = ROOT / ".cache" / "lockstep" / "runs"
LOCK = "/var/lib/lockstep/lock.json"
PROM = "/var/lib/prometheus/node-exporter/lockstep.prom"
# Makes the prepare step of one host due, which disturbs nothing that serves.
FORGET = "rm -f /var/lib/lockstep/manifest/gpu_host.json"


@pytest.fixture(scope="module")
def serving(lab: Lab) -> Play:
    play = lab.play()
    assert play.rc == 0, play.explained()
    return play


def status(lab: Lab) -> dict[str, Any]:
    """The JSON form, cut out of the playbook's output as docs/status.md says."""
    play = lab.play("playbooks/status.yml", extra={"status_format": "json"})
    assert play.rc == 0, play.explained()
    text = re.sub(r"\x1b\[[0-9;]*m", "", play.text).replace("\r", "")
    found = re.search(r"^\{$.*?^\}$", text, re.MULTILINE | re.DOTALL)
    assert found, play.explained()
    loaded: dict[str, Any] = json.loads(found[0])
    return loaded


def test_status_of_a_cluster_that_serves(lab: Lab, serving: Play) -> None:
    (replica,) = status(lab)["replicas"]
    assert replica["serving"], replica
    assert replica["engine"] == "serving"
    assert replica["stamp"] == "valid"
    assert replica["gpus"] == {"total": 2, "used": 2, "missing": 0}
    assert [(host["host"], host["role"], host["ray"], host["stamp"]) for host in replica["hosts"]] == [
        (HEAD, "head", "joined", "valid"),
        (WORKER, "worker", "joined", "valid"),
    ]
    table = lab.play("playbooks/status.yml")
    assert "replica_a: serving" in table.text
    assert table.changed() == {}


def test_status_of_a_cluster_that_lost_its_worker(lab: Lab, serving: Play) -> None:
    lab.on(WORKER, "systemctl stop lockstep-ray")
    try:
        eventually("Ray misses the worker", lambda: status(lab)["replicas"][0]["gpus"]["missing"] == 1, 120)
        (replica,) = status(lab)["replicas"]
        assert replica["hosts"][1]["ray"] == "inactive"
        assert not replica["serving"]
    finally:
        lab.on(WORKER, "systemctl start lockstep-ray")
    eventually("the replica serves again", lambda: bool(status(lab)["replicas"][0]["serving"]), 300)


def test_metrics_of_real_hosts_are_sound(lab: Lab, serving: Play, promtool: str) -> None:
    play = lab.play("playbooks/metrics.yml")
    assert play.rc == 0, play.explained()
    for host in (HEAD, WORKER):
        eventually(f"{host} has written its metrics", lambda host=host: lab.on(host, f"cat {PROM} || true") != "", 90)  # type: ignore[misc]
        text = lab.on(host, f"cat {PROM}") + "\n"
        checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
        assert re.search(r"^lockstep_host_stamp_valid 1$", text, re.MULTILINE), text
        assert re.search(r"^lockstep_collect_errors 0$", text, re.MULTILINE), text
    assert re.search(r"^lockstep_engine_ready 1$", lab.on(HEAD, f"cat {PROM}"), re.MULTILINE)
    again = lab.play("playbooks/metrics.yml")
    assert again.changed() == {}


@pytest.fixture
def due(lab: Lab, serving: Play) -> Iterator[None]:
    """Something harmless is due on the worker; afterwards nothing is, and no lock is left."""
    lab.on(WORKER, FORGET)
    yield
    lab.on(HEAD, f"rm -f {LOCK} /var/lib/lockstep/rollout.json")
    assert lab.play().rc == 0


def leave_lock(lab: Lab) -> None:
    lock = {"run": "r1", "holder": "bob@ops2", "pid": 9, "controller": "ops2", "since": "2026-11-22T00:30:00Z"}
    lab.on(HEAD, f"echo '{json.dumps(lock)}' > {LOCK}")


def test_a_second_controller_is_refused_and_may_take_over_by_name(lab: Lab, due: None) -> None:
    leave_lock(lab)
    refused = lab.play()
    assert refused.rc != 0
    assert any("run r1 of bob@ops2 (pid 9)" in message for message in refused.failures()), refused.explained()
    assert lab.on(WORKER, "ls /var/lib/lockstep/manifest/gpu_host.json || true") == ""
    assert "run r1 of bob@ops2" in lab.play("playbooks/status.yml").text
    taken = lab.play(extra={"rollout_lock_take_over": "r1"})
    assert taken.rc == 0, taken.explained()
    assert lab.record(HEAD, LOCK) is None


def test_a_run_leaves_a_journal_and_a_report(lab: Lab, due: None) -> None:
    before = set(RUNS.glob("*"))
    play = lab.play()
    assert play.rc == 0, play.explained()
    (folder,) = set(RUNS.glob("*")) - before
    events = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    steps = {(event["host"], event["step"]) for event in events if event["event"] == "step_started"}
    assert steps == {(WORKER, "prepare")}
    assert events[-1]["outcome"] == "done"
    assert WORKER in (folder / "report.html").read_text()


def test_a_run_that_has_nothing_to_do_leaves_none(lab: Lab, serving: Play) -> None:
    before = set(RUNS.glob("*"))
    assert lab.play().rc == 0
    assert set(RUNS.glob("*")) == before
