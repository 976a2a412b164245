"""A time bomb in what a host runs: from its probed state to status and metrics, before it goes off."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.host import metrics, running_issues
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import cluster_status, status_table

ISSUES = data_tables.read("known_issues")
BOOT = 1795000000
STATE: dict[str, Any] = {
    "clock": BOOT + 60 * 86400.0,
    "boot": {"since": str(BOOT), "id": "x"},
    "os": {"kernel": "6.8.0-60-generic", "arch": "x86_64"},
    "host": {"host": "a1", "replica": "ra"},
    "driver": {
        "loaded_version": "580.105.08",
        "loaded_flavor": "open",
        "gpus": [{"name": "NVIDIA B200"}] * 8,
        "nvswitches": 0,
    },
    "machine": {"links": ["infiniband"]},
    "runtime": {"nccl": "2.30.7"},
}


def test_facts_of_a_state() -> None:
    facts = running_issues.facts(STATE)
    assert {name: value for name, value in facts.items() if value is not None} == {
        "driver": "580.105.08",
        "flavor": "open",
        "gpu": "NVIDIA B200",
        "arch": "x86_64",
        "kernel": "6.8.0-60-generic",
        "link": "infiniband",
        "nccl": "2.30.7",
        "uptime_days": "60.0",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"boot": {"error": "x"}},
        {"clock": None},
        {"driver": {"error": "x"}},
        {"driver": {**STATE["driver"], "loaded_version": None}},
        {"driver": {**STATE["driver"], "loaded_flavor": "proprietary"}},
    ],
)
def test_what_is_not_known_or_not_loaded_is_no_time_bomb(changes: dict[str, Any]) -> None:
    assert running_issues.time_bombs({**STATE, **changes}, ISSUES) == []


def test_the_metric_counts_the_days() -> None:
    found = [sample for sample in metrics.samples(STATE, ISSUES) if sample.metric == "known_issue_days_left"]
    assert [(sample.value, sample.labels["issue"], sample.labels["host"]) for sample in found] == [
        (6.0, "smi-hang-66-days", "a1")
    ]
    assert 'lockstep_known_issue_days_left{host="a1",replica="ra",issue="smi-hang-66-days"} 6' in metrics.render(found)


def test_status_says_it_before_it_goes_off() -> None:
    probe: Any = {
        "hosts": {"a1": {"state": STATE, "reachable": True}},
        "replicas": {"ra": {"head": "a1", "hosts": ["a1"]}},
        "routers": [],
    }
    status = cluster_status.build(probe, ISSUES)
    (advice,) = status["replicas"][0]["advice"]
    assert advice.startswith("a1: after 66 days of uptime, in 6.0 days: nvidia-smi and all new work hang on B200")
    assert f"  advice: {advice}" in status_table.as_text(status)
    assert cluster_status.build(probe)["replicas"][0]["advice"] == []
