from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.host import metrics

ROOT = Path(__file__).parents[3]
RULES = ROOT / "docs" / "alerts.yml"
RUNS = {"driver": "550.127.05", "driver_packages": "550.127.05", "kernel": '6.1"0', "ray": "2.60.0"}

HEAD: dict[str, Any] = {
    "clock": 1795309800.5,
    "host": {
        "host": "a1",
        "replica": "replica_a",
        "ray_role": "head",
        "gpus": 8,
        "peers": {"a1": "10.0.0.11", "a2": "10.0.0.12"},
    },
    "fingerprint": RUNS,
    "fingerprint_digest": "d1",
    "stamps": {
        "host": {"fingerprint": RUNS, "at": "2026-11-22T01:00:00Z"},
        "replica": {"hosts": {"a1": "d1", "a2": "d2"}},
    },
    "quarantine": {"kind": "failed", "at": "2026-11-22T01:00:00Z", "reason": "x"},
    "units": {
        "lockstep-ray.service": {"load": "loaded", "active": "active", "restarts": 2},
        "haproxy.service": {"load": "not-found", "active": "inactive", "restarts": 0},
    },
    "driver": {
        "loaded_version": "550.127.05",
        "package_version": "550.127.05",
        "smi_failure": None,
        "gpus": [{}] * 7,
        "xids": [{"xid": 79}],
        "pending_reboot": True,
    },
    "manifest": {"gpu_host": {"inputs": "x", "drifted": ["/etc/hosts"]}},
    "ray": {
        "head": "up",
        "nodes": [
            {"host": "a1", "alive": True, "gpus": 8.0, "gpus_free": 0.5},
            {"host": "a2", "alive": False, "gpus": 8.0, "gpus_free": 8.0},
        ],
    },
    "engine": {
        "phase": "serving",
        "ready": True,
        "since": "2026-11-22T01:00:00Z",
        "last_completion": "2026-11-22T01:09:58Z",
        "layout": "wide",
        "tensor_parallel_size": 8,
        "pipeline_parallel_size": 2,
        "rung": "full",
        "restarts": 1,
        "failures": 0,
    },
    "lock": {"run": "r1", "heartbeat": "2026-11-22T01:00:00Z"},
    "request": {"action": "pause"},
    "runtime": {"error": "no such folder"},
}
WORKER = {
    **{
        key: HEAD[key]
        for key in ("clock", "fingerprint", "fingerprint_digest", "units", "driver", "manifest", "runtime")
    },
    "host": {**HEAD["host"], "host": "a2", "ray_role": "worker"},
    "stamps": {"host": {"fingerprint": {**RUNS, "kernel": "5.15"}}, "replica": None},
    "quarantine": None,
    "engine": None,
    "lock": None,
    "request": None,
}


def values(state: dict[str, Any]) -> dict[str, float]:
    text = metrics.render(metrics.samples(state))
    return {
        line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if not line.startswith("#")
    }


@pytest.mark.parametrize(
    ("state", "series", "value"),
    [
        (HEAD, "lockstep_host_stamp_valid", 1),
        (WORKER, "lockstep_host_stamp_valid", 0),
        (HEAD, "lockstep_host_stamp_timestamp_seconds", 1795309200),
        (HEAD, 'lockstep_host_quarantined{kind="failed"}', 1),
        (WORKER, "lockstep_host_quarantined", 0),
        (HEAD, "lockstep_replica_stamp_valid", 1),
        ({**HEAD, "fingerprint_digest": "d9"}, "lockstep_replica_stamp_valid", 0),
        (WORKER, "lockstep_replica_stamp_valid", None),
        (HEAD, 'lockstep_unit_active{unit="lockstep-ray.service"}', 1),
        (HEAD, 'lockstep_unit_active{unit="haproxy.service"}', None),
        (HEAD, 'lockstep_unit_restarts_total{unit="lockstep-ray.service"}', 2),
        (HEAD, "lockstep_driver_consistent", 1),
        ({**HEAD, "driver": {**HEAD["driver"], "loaded_version": "550.90.07"}}, "lockstep_driver_consistent", 0),
        (
            {**HEAD, "driver": {**HEAD["driver"], "loaded_version": None, "package_version": None}},
            "lockstep_driver_consistent",
            0,
        ),
        ({**HEAD, "driver": {"error": "x"}}, "lockstep_driver_consistent", None),
        (HEAD, "lockstep_gpus_declared", 8),
        (HEAD, "lockstep_gpus_found", 7),
        (HEAD, "lockstep_xid_errors", 1),
        (HEAD, "lockstep_reboot_pending", 1),
        (HEAD, 'lockstep_files_drifted{role="gpu_host"}', 1),
        (HEAD, "lockstep_ray_up", 1),
        (HEAD, 'lockstep_ray_host_joined{joined="a1"}', 1),
        (HEAD, 'lockstep_ray_host_joined{joined="a2"}', 0),
        (HEAD, "lockstep_ray_gpus", 8),
        (HEAD, "lockstep_ray_gpus_used", 7.5),
        (WORKER, "lockstep_ray_gpus", None),
        (HEAD, 'lockstep_engine_phase{phase="serving"}', 1),
        (HEAD, 'lockstep_engine_phase{phase="given_up"}', 0),
        (HEAD, "lockstep_engine_last_completion_timestamp_seconds", 1795309798),
        (WORKER, "lockstep_engine_ready", None),
        (
            HEAD,
            'lockstep_engine_info{layout="wide",tensor_parallel_size="8",pipeline_parallel_size="2",rung="full"}',
            1,
        ),
        (HEAD, "lockstep_rollout_lock_held", 1),
        (WORKER, "lockstep_rollout_lock_held", None),
        (HEAD, 'lockstep_rollout_requested{action="pause"}', 1),
        (HEAD, "lockstep_collect_errors", 1),
        (HEAD, "lockstep_collect_timestamp_seconds", 1795309800.5),
        ({}, "lockstep_collect_errors", 0),
        ({}, "lockstep_host_quarantined", None),
    ],
)
def test_values(state: dict[str, Any], series: str, value: float | None) -> None:
    assert values(state).get(series) == value


def test_a_quote_in_a_label_is_escaped() -> None:
    assert 'kernel="6.1\\"0"' in metrics.render(metrics.samples(HEAD))


def test_an_unknown_metric_is_a_fault() -> None:
    with pytest.raises(ValueError, match="no such metric: surprise"):
        metrics.render([metrics.Sample("surprise", 1)])


@pytest.mark.parametrize("state", [HEAD, WORKER, {}], ids=["head", "worker", "nothing known"])
def test_promtool_finds_nothing_to_complain_of(promtool: str, state: dict[str, Any]) -> None:
    text = metrics.render(metrics.samples(state))
    checked = subprocess.run([promtool, "check", "metrics"], input=text, text=True, capture_output=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_every_metric_is_produced_and_documented() -> None:
    names = {f"lockstep_{metric.name}" for metric in metrics.METRICS}
    assert {series.split("{")[0] for series in values(HEAD)} == names
    documented = re.findall(r"^\| `(lockstep_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    assert documented == [f"lockstep_{metric.name}" for metric in metrics.METRICS]


def test_rules_are_sound(promtool: str) -> None:
    checked = subprocess.run([promtool, "check", "rules", str(RULES)], text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_rules_fire_when_they_should_and_not_else(promtool: str) -> None:
    cases = Path(__file__).with_name("alerts_test.yml")
    tested = subprocess.run([promtool, "test", "rules", str(cases)], text=True, capture_output=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_rules_use_metrics_that_exist_and_every_rule_has_a_case() -> None:
    text = RULES.read_text()
    used = set(re.findall(r"lockstep_\w+", text))
    assert used <= {f"lockstep_{metric.name}" for metric in metrics.METRICS}
    cases = Path(__file__).with_name("alerts_test.yml").read_text()
    assert [rule for rule in re.findall(r"alert: (\w+)", text) if f'alertname="{rule}"' not in cases] == []


def test_the_file_is_replaced_whole_and_readable(tmp_path: Path) -> None:
    output = tmp_path / "lockstep.prom"
    output.write_text("old")
    metrics.write(output, "new\n")
    assert output.read_text() == "new\n"
    assert output.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [output]
