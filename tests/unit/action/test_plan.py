"""The plan action: its options, what it returns, and that the report reads what it returns."""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.lockstep.vllm.plugins.action import plan as action
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import (
    findings,
    needs,
    plan,
    refusals,
    topology,
)
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.unexpected import Unexpected, UnexpectedCode
from ansible_collections.lockstep.vllm.plugins.modules import plan as documented
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import driver_preflight
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import Cluster
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events, page, timeline, tracker
from tests.unit.networks import networks

ROOT = Path(__file__).parents[3]
NOON = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
ROLES = ("gpu_host", "nvidia_driver", "serving_runtime", "ray_node", "vllm_server")
NAMES = ("replica_a", "replica_b", "replica_c")


def state(host: str, **changes: Any) -> dict[str, Any]:
    """A replica of one host that serves and is up to date."""
    return {
        "os": {"distribution": "debian", "version": "12", "kernel": "6.1"},
        "driver": {
            "package_version": "550.127.05",
            "loaded_version": "550.127.05",
            "packages": {},
            "gpus": [{"name": "NVIDIA H200"}],
        },
        "runtime": {},
        "fingerprint": {"driver": "550.127.05"},
        "fingerprint_digest": f"digest-{host}",
        "units": {name: {"active": "active"} for name in ("lockstep-ray.service", "lockstep-vllm.service")},
        "stamps": {"host": {"digest": f"digest-{host}"}, "replica": {"hosts": {host: f"digest-{host}"}}},
        "quarantine": None,
        "engine": {"phase": "serving"},
        "manifest": {role: {"current": True, "drifted": []} for role in ROLES},
        "networks": networks(eth0="10.0.0.1"),
        **changes,
    }


def result(
    states: dict[str, dict[str, Any]],
    limit: set[str] | None = None,
    unreachable: Collection[str] = (),
    warnings: Sequence[str] = (),
    examine: action.Examine = lambda _due: driver_preflight.Findings(),
    unwanted: Sequence[Unexpected] = (),
) -> dict[str, Any]:
    """What the action returns of a cluster whose hosts answer so."""
    replicas = tuple(topology.Replica(name, f"{name[-1]}1", (), {f"{name[-1]}1": "10.0.0.1"}) for name in NAMES)
    settings = {
        "nvidia_driver_version": "550.127.05",
        "gpu_host_gpus": 1,
        "gpu_host_address": "10.0.0.1",
        "gpu_host_interface": "eth0",
        "vllm_server_model": "owner/model",
    }
    desired = {replica.head: needs.Desired(settings, dict.fromkeys(ROLES, "same")) for replica in replicas}
    observed = {host: Observed.parse(answer, None, True) for host, answer in states.items()}
    observed |= {host: Observed(None, "no route", False) for host in unreachable}
    run = plan.Run(Mode.UPGRADE, Policy(), NOON, limit or set(desired))
    fingerprints = {host: answer["fingerprint"] for host, answer in states.items()}
    cluster = Cluster(topology.Topology(replicas), desired, ())
    return action.result(cluster, observed, run, fingerprints, warnings, examine, unwanted=unwanted)


OLD = {"package_version": "550.90.07", "loaded_version": "550.90.07", "packages": {}, "gpus": [{"name": "NVIDIA H200"}]}
STATES = {
    "a1": state("a1", driver=OLD),
    "b1": state("b1"),
    "c1": state("c1", quarantine={"kind": "failed", "reason": "Xid 79"}, engine=None),
}


@pytest.mark.parametrize(
    ("extra", "mode", "named"),
    [
        ({"nvidia_driver_version": "580.95.05", "rollout_canary": 1}, Mode.UPGRADE, "nvidia_driver_version"),
        ({"vllm_server_model": "m", "vllm_server_port": 1}, Mode.CONVERGE, "vllm_server_model and vllm_server_port"),
        ({"nvidia_driver_version": "580.95.05"}, Mode.VERIFY, ""),
        ({"rollout_canary": 1, "nvidia_driver_apt_lock_deadline": 1800}, Mode.CONVERGE, ""),
    ],
)
def test_what_only_the_command_line_says_is_named(extra: dict[str, Any], mode: Mode, named: str) -> None:
    rest = "for this run alone: unless the inventory says the same, write it there, or the next site.yml takes it back"
    assert action.for_this_run_alone(extra, mode) == ([f"-e sets {named} {rest}"] if named else [])


def test_skipped_and_quarantined_replicas_are_in_the_report() -> None:
    track = tracker.Tracker(lambda: 0.0)
    journal = [
        {"at": "2026-11-22T12:00:00.000Z", **event}
        for event in track.task_ends(events.TaskReport.parse("a1", "Plan", "ok", result(STATES), "lockstep.vllm.plan"))
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


def test_a_warning_of_the_request_stands_in_the_plan() -> None:
    planned = result(STATES, warnings=["every host: rollout_hurry is set"])["lockstep_plan"]
    assert planned["warnings"][0] == "every host: rollout_hurry is set"
    assert planned["text"].startswith("warning: every host: rollout_hurry is set\n")


def test_what_serves_outside_of_the_inventory_is_reported_before_the_routers_forget_it() -> None:
    command = "ansible-playbook playbooks/remove.yml --limit replica_z"
    z, drained = (
        Unexpected(UnexpectedCode.ROUTER_SERVER, name, "r1", up, f"HAProxy on r1 has {name}", command)
        for name, up in (("replica_z", True), ("replica_y", False))
    )
    planned = result(STATES, unwanted=[z, drained])["lockstep_plan"]
    assert [line for line in planned["warnings"] if "HAProxy" in line] == [
        f"HAProxy on r1 has replica_z. Next: {command}"
    ]


def test_a_refused_run_has_its_reasons_and_no_waves() -> None:
    refused = result({**STATES, "b1": state("b1", networks=networks(eth0="10.9.9.9"))})
    assert refused["failed"]
    assert refused["msg"] == "Refused before anything was changed, for 1 reason"
    assert refused["reasons"].startswith("- b1: gpu_host_address")
    track = tracker.Tracker(lambda: 0.0)
    track.task_ends(events.TaskReport.parse("a1", "Plan", "failed", refused, "lockstep.vllm.plan"))
    assert track.plan.refused


def test_a_refused_run_says_what_to_type_next() -> None:
    cut = result(STATES, unreachable={"b1"})
    reason = "b1: unreachable: bring it back or remove it from the inventory (no route)"
    assert cut["reasons"].splitlines(keepends=True)[0] == f"- {reason}. Next: ansible b1 -m ansible.builtin.ping\n"
    track = tracker.Tracker(lambda: 0.0)
    track.task_ends(events.TaskReport.parse("a1", "Plan", "failed", cut, "lockstep.vllm.plan"))
    assert track.next == "ansible b1 -m ansible.builtin.ping"


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


def examined(
    states: dict[str, dict[str, Any]], found: driver_preflight.Findings
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the action returns where the hosts whose driver is due answer so, and whom it asked."""
    asked: list[dict[str, Any]] = []

    def examine(due: Any) -> driver_preflight.Findings:
        asked.append(dict(due))
        return found if due else driver_preflight.Findings()

    return result(states, examine=examine), asked


def test_what_is_wrong_with_packages_refuses_the_run() -> None:
    stop = Stop(
        "a1: package demo is half-configured", "ansible a1 -b -m ansible.builtin.command -a 'dpkg --configure demo'"
    )
    returned, asked = examined({**STATES, "c1": state("c1")}, driver_preflight.Findings((stop,)))
    assert [*asked[0]] == ["a1"]
    assert asked[0]["a1"]["version"] == "550.127.05"
    assert returned["failed"]
    assert "a1: package demo is half-configured" in returned["reasons"]
    assert returned["next"] == stop.next


REPAIRED = Stop("package x: this run repairs it", where="a1")


def test_warnings_are_shown_where_a_run_is_refused_too() -> None:
    """Alike ones once, after the reasons, which alone are counted."""
    stop = Stop("a1: package demo is half-configured")
    warned = (REPAIRED, dataclasses.replace(REPAIRED, where="b1"))
    returned, _asked = examined(STATES, driver_preflight.Findings((stop,), warned))
    assert returned["msg"] == "Refused before anything was changed, for 1 reason"
    first, *warnings = returned["reasons"].splitlines()
    assert first == f"- {stop}"
    assert "- warning: a1, b1: package x: this run repairs it" in warnings
    assert all(line.startswith("- warning: ") for line in warnings)


def test_what_a_run_repairs_is_a_warning_of_the_plan() -> None:
    returned, _asked = examined(STATES, driver_preflight.Findings(warnings=(REPAIRED,)))
    assert returned["lockstep_plan"]["warnings"][0] == "a1: package x: this run repairs it"


def test_hosts_whose_driver_is_not_due_are_not_asked() -> None:
    _returned, asked = examined({host: state(host) for host in ("a1", "b1", "c1")}, driver_preflight.Findings())
    assert asked == [{}]


def test_a_certificate_that_cannot_serve_refuses_a_run_and_one_that_soon_cannot_is_warned_of() -> None:
    cluster = Cluster(topology.Topology(), {}, ())
    run = plan.Run(Mode.CONVERGE, Policy(), NOON, set())
    bad, soon = findings.refuse("expired"), findings.warn("expires soon")
    refused = action.result(cluster, {}, run, {}, router_findings=[bad, soon])
    assert refused["reasons"] == "- expired\n- warning: expires soon\n"
    warned = action.result(cluster, {}, run, {}, router_findings=[soon])
    assert warned["lockstep_plan"]["warnings"] == ["expires soon"]


def refused_routers(**answers: Observed) -> list[str]:
    """What keeps a run from its routers, of which each answers so."""
    wanted = {"vllm_haproxy_api_port": 8080, "vllm_haproxy_stats_port": 8404}
    cluster = Cluster(topology.Topology(), {host: needs.Desired(wanted, {}) for host in answers}, tuple(answers))
    return [str(stop) for stop in action._router_refusals(cluster, answers, set(answers))]


def taken(**ports: str) -> Observed:
    return Observed.parse(
        {"preflight": {"taken_ports": {name[1:]: owner for name, owner in ports.items()}}}, None, True
    )


def test_a_router_s_ports_have_to_be_free() -> None:
    found = refused_routers(r1=taken(), r2=taken(p8080="haproxy.service"), r3=taken(p8080="nginx.service"))
    assert found == ["r3: port 8080 is taken by nginx.service: stop it, or set another vllm_haproxy_api_port"]


def test_a_router_that_does_not_answer_is_distinguished_from_one_without_an_address() -> None:
    first, second = refused_routers(r1=Observed(None, "no route", False), r2=Observed(None, "no route", False, "r2"))
    assert first.startswith("r1: the router does not answer (no route)")
    assert second == (
        "r2: it has no ansible_host, and its name does not resolve on this controller: set ansible_host to its address. "
        "Next: ansible r2 -m ansible.builtin.ping"
    )


def test_a_host_whose_name_does_not_resolve_is_not_to_be_brought_back() -> None:
    replica = topology.Replica("ra", "a1", ("a2",), {"a1": "10.0.0.1", "a2": "10.0.0.2"})
    seen = {"a1": Observed(None, "x", False, "a1"), "a2": Observed(None, "x", False, "a2.example")}
    first, second = (str(stop) for stop in refusals.unanswered([replica], seen))
    assert first.startswith("a1: it has no ansible_host, and its name does not resolve on this controller")
    assert second.startswith(
        "a2: its ansible_host does not resolve on this controller: correct it, or repair DNS (a2.example)"
    )
    assert "Bring it back" not in first + second
