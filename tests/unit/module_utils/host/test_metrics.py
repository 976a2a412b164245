from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.host import metrics
from tests.unit.module_utils.host.host_states import HEAD, WORKER

ROOT = Path(__file__).parents[4]
ISSUES = [
    {"id": "x", "severity": "suspect", "when": {"uptime_days": ">=66"}, "effect": "e", "remediation": "r", "source": "s",
     "confidence": "low"}
]  # fmt: skip

SUSPECT = 'lockstep_engine_suspect{code="stopped",suspect="a2",rank="1"}'


def silent(code: str, *where: dict[str, Any]) -> dict[str, Any]:
    """A head whose engine generates nothing."""
    suspect = {"code": code, "reason": "", "where": [*where]}
    return {**HEAD, "engine": {**HEAD["engine"], "ready": False, "suspect": suspect}}


def values(state: dict[str, Any]) -> dict[str, float]:
    """Series to value, without the labels that every series has."""
    text = re.sub(r'\{host="\w+",replica="\w+"(?:,|\})', "{", metrics.render(metrics.samples(state, ISSUES)))
    text = re.sub(r"\{ ", " ", text)
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
        (HEAD, "lockstep_xid_errors", 3),
        (HEAD, "lockstep_reboot_pending", 1),
        (HEAD, 'lockstep_known_issue_days_left{issue="x"}', 65),
        ({**HEAD, "boot": {"error": "x"}}, 'lockstep_known_issue_days_left{issue="x"}', None),
        (HEAD, 'lockstep_files_drifted{role="gpu_host"}', 1),
        (HEAD, "lockstep_filter_ok", 1),
        ({**HEAD, "filter": {"wanted": True, "problem": "its table is not loaded"}}, "lockstep_filter_ok", 0),
        ({**HEAD, "filter": {"wanted": False, "problem": ""}}, "lockstep_filter_ok", None),
        (HEAD, "lockstep_tunnel_ok", 1),
        (HEAD, 'lockstep_tunnel_handshake_timestamp_seconds{peer="a2"}', 1795309790),
        (HEAD, 'lockstep_tunnel_handshake_timestamp_seconds{peer="a3"}', 0),
        (WORKER, "lockstep_tunnel_ok", None),
        ({**HEAD, "tunnel": {"wanted": True, "problem": "lockstep0 is not up"}}, "lockstep_tunnel_ok", 0),
        ({**HEAD, "tunnel": {"wanted": False, "problem": "", "handshakes": {}}}, "lockstep_tunnel_ok", None),
        ({**HEAD, "tunnel": {"error": "x"}}, "lockstep_tunnel_ok", None),
        (HEAD, "lockstep_ray_up", 1),
        (HEAD, 'lockstep_ray_host_joined{joined="a1"}', 1),
        (HEAD, 'lockstep_ray_host_joined{joined="a2"}', 0),
        (HEAD, "lockstep_ray_unexpected_nodes", 0),
        (
            {
                **HEAD,
                "ray": {
                    "head": "up",
                    "nodes": [
                        *HEAD["ray"]["nodes"],
                        {"host": None, "alive": True},
                        {"host": "a9", "alive": True},
                        {"host": "a8", "alive": False},
                    ],
                },
            },
            "lockstep_ray_unexpected_nodes",
            2,
        ),
        ({**HEAD, "host": None}, "lockstep_ray_unexpected_nodes", None),
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
        (HEAD, SUSPECT, 0),
        ({**HEAD, "engine": {**HEAD["engine"], "ready": False}}, SUSPECT, 1),
        (silent("silent_host", {"host": "a2"}), 'lockstep_engine_suspect{code="silent_host",suspect="a2",rank=""}', 1),
        (
            silent("stopped", {"host": "a1", "pid": 9}),
            'lockstep_engine_suspect{code="stopped",suspect="a1",rank=""}',
            1,
        ),
        (silent("unseen"), 'lockstep_engine_suspect{code="unseen",suspect="",rank=""}', 1),
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


def test_every_metric_is_produced_and_documented() -> None:
    names = {f"lockstep_{metric.name}" for metric in metrics.METRICS}
    assert {series.split("{")[0] for series in values(HEAD)} == names
    documented = re.findall(r"^\| `(lockstep_\w+)`", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE)
    assert documented == [f"lockstep_{metric.name}" for metric in metrics.METRICS]


def test_the_file_is_replaced_whole_and_readable(tmp_path: Path) -> None:
    output = tmp_path / "lockstep.prom"
    output.write_text("old")
    records.replace(output, "new\n")
    assert output.read_text() == "new\n"
    assert output.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [output]
