"""The plan action: its options, what it returns, and that the report reads what it returns."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.lockstep.vllm.plugins.action import plan as action
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import needs, plan, topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode
from ansible_collections.lockstep.vllm.plugins.modules import plan as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import Cluster
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events, page, timeline, tracker

ROOT = Path(__file__).parents[3]
NOON = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
ROLES = ("gpu_host", "nvidia_driver", "serving_runtime", "ray_node", "vllm_server")
NAMES = ("replica_a", "replica_b", "replica_c")


def state(host: str, **changes: Any) -> dict[str, Any]:
    """A replica of one host that serves and is up to date."""
    return {
        "os": {"distribution": "debian", "version": "12", "kernel": "6.1"},
        "driver": {"package_version": "550.127.05", "loaded_version": "550.127.05", "packages": {}, "gpus": []},
        "runtime": {},
        "fingerprint": {"driver": "550.127.05"},
        "fingerprint_digest": f"digest-{host}",
        "units": {name: {"active": "active"} for name in ("lockstep-ray.service", "lockstep-vllm.service")},
        "stamps": {"host": {"digest": f"digest-{host}"}, "replica": {"hosts": {host: f"digest-{host}"}}},
        "quarantine": None,
        "engine": {"phase": "serving"},
        "manifest": {role: {"current": True, "drifted": []} for role in ROLES},
        "addresses": {"eth0": ["10.0.0.1"]},
        **changes,
    }


def result(
    states: dict[str, dict[str, Any]], limit: set[str] | None = None, unreachable: Collection[str] = ()
) -> dict[str, Any]:
    """What the action returns of a cluster whose hosts answer so."""
    replicas = tuple(topology.Replica(name, f"{name[-1]}1", (), {f"{name[-1]}1": "10.0.0.1"}) for name in NAMES)
    settings = {
        "nvidia_driver_version": "550.127.05",
        "gpu_host_gpus": 1,
        "gpu_host_address": "10.0.0.1",
        "gpu_host_interface": "eth0",
    }
    desired = {replica.head: needs.Desired(settings, dict.fromkeys(ROLES, "same")) for replica in replicas}
    observed = {host: Observed.parse(answer, None, True) for host, answer in states.items()}
    observed |= {host: Observed(None, "no route", False) for host in unreachable}
    run = plan.Run(Mode.UPGRADE, Policy(), NOON, limit or set(desired))
    fingerprints = {host: answer["fingerprint"] for host, answer in states.items()}
    return action.result(Cluster(topology.Topology(replicas), desired, ()), observed, run, fingerprints)


OLD = {"package_version": "550.90.07", "loaded_version": "550.90.07", "packages": {}, "gpus": []}
STATES = {
    "a1": state("a1", driver=OLD),
    "b1": state("b1"),
    "c1": state("c1", quarantine={"kind": "failed", "reason": "Xid 79"}, engine=None),
}


def test_skipped_and_quarantined_replicas_are_in_the_report() -> None:
    track = tracker.Tracker(lambda: 0.0)
    journal = [
        {"at": "2026-11-22T12:00:00.000Z", **event}
        for event in track.task_ends(events.TaskReport.parse("a1", "Plan", "ok", result(STATES)))
    ]
    read = timeline.build(journal)
    assert set(read.skipped) == {"replica_b", "replica_c"}
    assert read.skipped["replica_b"] == "up to date"
    assert read.skipped["replica_c"].startswith("quarantined (c1: gates: in quarantine: Xid 79")
    assert [wave.replicas for wave in read.waves] == [("replica_a",)]
    text = page.render(journal)
    assert "in quarantine: Xid 79" in text
    assert "up to date" in text


def test_a_result_is_no_skipped_task() -> None:
    """Ansible reads ``skipped`` of a result as "this task was skipped"."""
    returned = result(STATES)
    assert set(returned) == {"changed", "lockstep_plan", "fingerprints"}
    assert returned["fingerprints"] == {"a1": {"driver": "550.127.05"}}


def test_everything_that_is_returned_is_documented() -> None:
    documentation = yaml.safe_load(documented.RETURN)
    assert set(result(STATES)["lockstep_plan"]) == set(documentation["lockstep_plan"]["contains"])


def test_a_refused_run_has_its_reasons_and_no_waves() -> None:
    refused = result({**STATES, "b1": state("b1", addresses={"eth0": ["10.9.9.9"]})})
    assert refused["failed"]
    assert refused["msg"].startswith("Refused before anything was changed, for 1 reason:\n  - b1: gpu_host_address")
    track = tracker.Tracker(lambda: 0.0)
    track.task_ends(events.TaskReport.parse("a1", "Plan", "failed", refused))
    assert len(track.plan.refusals) == 1


def test_a_refused_run_says_what_to_type_next() -> None:
    cut = result(STATES, unreachable={"b1"})
    assert "b1 (replica_b) is unreachable: no route" in cut["msg"]
    told = tracker.Tracker(lambda: 0.0)
    told.task_ends(events.TaskReport.parse("a1", "Plan", "failed", cut))
    assert told.next == "ansible b1 -m ansible.builtin.ping"


def validated(policy: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    checked = ArgumentSpecValidator(action.SPEC).validate({"policy": policy} if policy else {})
    return checked.validated_parameters["policy"], checked.error_messages


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, {}),
        ({"wave_size": 3, "canary": "2", "capacity_floor": "50%"}, {"wave_size": "3", "canary": 2, "capacity_floor": "50%"}),
        ({"order": "b, a", "bake_seconds": "60"}, {"order": ["b", "a"], "bake_seconds": 60}),
        ({"include_quarantined": "yes", "leave_serving": False}, {"include_quarantined": True}),
    ],
)  # fmt: skip
def test_policy_from_variables(given: dict[str, Any], policy: dict[str, Any]) -> None:
    values, faults = validated(given)
    assert faults == []
    defaults, _none = validated({})
    assert Policy.parse(**values) == Policy.parse(**{**defaults, **policy})


def test_the_documented_defaults_are_those_of_the_policy() -> None:
    defaults, _none = validated({})
    assert Policy.parse(**defaults) == Policy()
    assert set(defaults) == set(Policy.__dataclass_fields__)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"wave": 1}, "policy.wave"),
        ({"canary": "many"}, "canary"),
        ({"bake_requests": "few"}, "bake_requests"),
        ({"include_quarantined": "perhaps"}, "include_quarantined"),
    ],
)
def test_policy_from_wrong_variables(given: dict[str, Any], fault: str) -> None:
    _values, faults = validated(given)
    assert len(faults) == 1
    assert fault in faults[0]


def test_the_documented_modes_are_all_modes() -> None:
    assert action.SPEC["mode"]["choices"] == [mode.value for mode in Mode]


def test_every_variable_of_the_playbooks_is_documented() -> None:
    text = "\n".join(path.read_text() for path in sorted((ROOT / "playbooks").rglob("*.yml")))
    used = set(re.findall(r"\b(?:rollout|diagnose|verify|status)_[a-z_]+\b", re.sub(r"lockstep\.vllm\.\w+", "", text)))
    of_roles = {"verify_host", "verify_replica"}
    named = set(re.findall(r"C\((\w+)\)", documented.DOCUMENTATION))
    assert used - of_roles <= named
    assert {"rollout_wave_size", "rollout_lock_without", "diagnose_disturb", "status_format"} <= used
