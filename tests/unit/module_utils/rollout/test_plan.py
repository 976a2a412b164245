"""What each state of a host leads to: steps with reasons, waves, or refusals that name host and remediation."""

from __future__ import annotations

import copy
import dataclasses
import datetime
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import data_tables
from ansible_collections.lockstep.vllm.plugins.module_utils.core.errors import StopError
from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout import needs, plan, render, run_plan, topology
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.driver_request import Known
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import HostState, Observed
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.policy import Policy
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.states import Mode, Need, SkipCode, Step
from tests.unit.networks import networks

NOON = datetime.datetime(2026, 11, 22, 12, 0, tzinfo=datetime.UTC)
VERSION = "550.127.05"
DEFAULT = Policy()
ROLES = ("gpu_host", "nvidia_driver", "serving_runtime", "ray_node", "vllm_server")
REPLICAS = tuple(
    topology.Replica(
        f"r{letter}", f"{letter}1", (f"{letter}2",), {f"{letter}1": f"10.0.{n}.1", f"{letter}2": f"10.0.{n}.2"}
    )
    for n, letter in enumerate("ab")
)
TOPOLOGY = topology.Topology(REPLICAS)
ADDRESSES = {host: address for replica in REPLICAS for host, address in replica.addresses.items()}
ISSUES = [
    {
        "id": "hang-550.90",
        "when": {"driver": "550.90.07"},
        "severity": "suspect",
        "effect": "graphs hang",
        "remediation": "550.127.05",
        "source": "#17167",
        "confidence": "low",
    },
    {
        "id": "never",
        "when": {"driver": "545.23.06"},
        "severity": "bad",
        "effect": "deadlock",
        "remediation": "550.127.05",
        "source": "#1801",
        "confidence": "high",
    },
]

KNOWN = Known(ISSUES, cuda=data_tables.read("cuda_minimum_driver"))


def settings(host: str, **changes: Any) -> dict[str, Any]:
    return {
        "nvidia_driver_version": VERSION,
        "nvidia_driver_source": "mirror",
        "gpu_host_gpus": 1,
        "gpu_host_address": ADDRESSES[host],
        "gpu_host_interface": "eth0",
        "gpu_host_manage_names": True,
        "vllm_server_model": "owner/model",
        **changes,
    }


def good(host: str) -> dict[str, Any]:
    """A host that serves and is up to date."""
    head = host.endswith("1")
    return {
        "os": {"distribution": "debian", "like": "", "version": "12", "kernel": "6.1"},
        "driver": {
            "package_version": VERSION,
            "loaded_version": VERSION,
            "packages": {"libcuda1": {"version": f"{VERSION}-1", "hold": True}},
            "gpus": [{"name": "NVIDIA H200"}],
        },
        "runtime": {"python": "3.11.2", "ray": "2.60.0", "vllm": "0.32.0", "torch": "2.13.0", "lock": "aa"},
        "fingerprint_digest": f"digest-{host}",
        "units": {
            "lockstep-ray.service": {"active": "active"},
            "lockstep-vllm.service": {"active": "active" if head else "inactive"},
        },
        "stamps": {
            "host": {"digest": f"digest-{host}"},
            "replica": {"hosts": {f"{host[0]}1": f"digest-{host[0]}1", f"{host[0]}2": f"digest-{host[0]}2"}}
            if head
            else None,
        },
        "quarantine": None,
        "engine": {"phase": "serving"} if head else None,
        "manifest": {role: {"current": True, "drifted": []} for role in ROLES if head or role != "vllm_server"},
        "disk_free_mib": {"/": 99999, "/opt": 99999, "/var": 99999},
        "networks": networks(eth0=ADDRESSES[host], lo="127.0.0.1"),
        "preflight": {"taken_ports": {}, "names": {}},
    }


def bare(host: str) -> dict[str, Any]:
    """A host as its distribution left it."""
    return {
        **good(host),
        "driver": {"package_version": None, "loaded_version": None, "packages": {}, "gpus": []},
        "runtime": dict.fromkeys(("python", "ray", "vllm", "torch", "lock")),
        "units": {},
        "stamps": {"host": None, "replica": None},
        "engine": None,
        "manifest": {},
    }


def build(
    states: dict[str, Any] | None = None,
    changes: dict[str, dict[str, Any]] | None = None,
    limit: set[str] | None = None,
    mode: Mode = Mode.CONVERGE,
    policy: Policy = DEFAULT,
) -> plan.Plan:
    desired = {
        host: needs.Desired(settings(host, **(changes or {}).get(host, {})), dict.fromkeys(ROLES, "same"))
        for host in ADDRESSES
    }
    return plan.build(TOPOLOGY, desired, observed(states), plan.Run(mode, policy, NOON, limit), KNOWN)


def observed(states: dict[str, Any] | None = None) -> dict[str, Observed]:
    answers = {host: (states or {}).get(host, good(host)) for host in ADDRESSES}
    return {
        host: each if isinstance(each, Observed) else Observed.parse(each, None, True) for host, each in answers.items()
    }


def edited(host: str, **changes: Any) -> dict[str, Any]:
    """``good(host)`` with nested values replaced: ``driver__loaded_version="x"``."""
    state = copy.deepcopy(good(host))
    for path, value in changes.items():
        *folders, last = path.split("__")
        inner = state
        for folder in folders:
            inner = inner[folder]
        inner[last] = value
    return state


def test_a_packet_filter_that_is_gone_is_loaded_again_without_a_wave() -> None:
    planned = build({"a1": edited("a1", filter={"wanted": True, "problem": "its table is not loaded"})})
    assert planned.steps["a1"] == {"prepare": "packet filter: its table is not loaded"}
    assert (planned.prepare, planned.waves, planned.refusals) == (("a1",), (), ())


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"current": False, "same_code": True}, "its variables or topology changed"),
        ({"current": False, "same_code": False}, "this version of Lockstep does it in another way"),
        ({"current": False}, "its variables or topology changed"),
        ({"current": True, "same_code": True, "drifted": ["/etc/x"]}, "changed on the host: /etc/x"),
    ],
)
def test_a_plan_says_whose_change_a_replica_leaves_service_for(found: dict[str, Any], reason: str) -> None:
    planned = build({"a1": edited("a1", manifest__vllm_server={"drifted": [], **found})})
    assert planned.steps["a1"]["serve"] == reason
    assert planned.waves


def test_a_cluster_as_declared_is_up_to_date() -> None:
    planned = build()
    assert (planned.waves, planned.steps, planned.refusals) == ((), {}, ())


def test_a_fresh_cluster_comes_up_in_one_wave() -> None:
    planned = build({host: bare(host) for host in ADDRESSES})
    assert planned.refusals == ()
    assert [wave.hosts for wave in planned.waves] == [("a1", "a2", "b1", "b2")]
    assert set(planned.steps["a1"]) == {"prepare", "driver", "runtime", "ray", "serve", "gates", "start"}
    assert "serve" not in planned.steps["a2"]
    assert planned.gated == ("ra", "rb")


@pytest.mark.parametrize(
    ("host", "changes", "step", "reason"),
    [
        ("a2", {"driver__loaded_version": "550.90.07"}, "driver", "loaded module 550.90.07, desired 550.127.05"),
        ("a2", {"driver__package_version": None}, "driver", "package absent"),
        ("a2", {"driver__packages": {"libcuda1": {"version": VERSION, "hold": False}}}, "driver", "not held: libcuda1"),
        ("a2", {"manifest__ray_node__current": False}, "ray", "variables or topology changed"),
        ("a2", {"manifest__ray_node__drifted": ["/etc/x"]}, "ray", "changed on the host: /etc/x"),
        ("a1", {"manifest__vllm_server__current": False}, "serve", "changed"),
        ("a2", {"stamps__host": None}, "gates", "no host stamp"),
        ("a2", {"stamps__host__digest": "else"}, "gates", "void: given for else, a2 now has digest-a2"),
        (
            "a2",
            {
                "stamps__host": {"digest": "else", "fingerprint": {"gpus": "GPU-11 GPU-22"}},
                "fingerprint": {"gpus": "GPU-11 GPU-33"},
            },
            "gates",
            "host stamp is void: gpus GPU-22 → GPU-33",
        ),
        ("a1", {"stamps__replica": None}, "gates", "no replica stamp"),
        ("a1", {"stamps__replica__hosts": {"a1": "digest-a1"}}, "gates", "covers a1"),
        ("a2", {"quarantine": {"kind": "failed", "reason": "Xid 79"}}, "gates", "Xid 79"),
        ("a2", {"units__lockstep-ray.service__active": "inactive"}, "start", "Ray is not running"),
        ("a1", {"engine__phase": "given_up"}, "start", "given_up"),
    ],
)
def test_one_thing_amiss_takes_only_its_replica(host: str, changes: dict[str, Any], step: str, reason: str) -> None:
    planned = build({host: edited(host, **changes)})
    assert planned.refusals == ()
    assert [wave.replicas for wave in planned.waves] == [("ra",)]
    assert reason in planned.steps[host][step]
    assert set(planned.steps) == {host}


def test_a_worker_that_the_replica_stamp_does_not_know_is_gated_again() -> None:
    planned = build({"a2": edited("a2", fingerprint_digest="new", stamps__host__digest="new")})
    assert planned.gated == ("ra",)
    assert planned.disturbed == ("ra",)
    assert any("another fingerprint" in reason for reason in planned.waves[0].reasons["a2"])


@pytest.mark.parametrize(
    ("host", "changes", "steps"),
    [
        ("a2", {"tunnel": {"wanted": True, "problem": "no key"}}, {"ray": "tunnel: no key"}),
        (
            "a2",
            {"tunnel": {"wanted": True, "problem": "no key"}, "manifest__ray_node__drifted": ["/etc/x"]},
            {"ray": "changed on the host: /etc/x"},
        ),
        (
            "a2",
            {"filter": {"problem": "no table"}, "manifest__gpu_host__drifted": ["/etc/x"]},
            {"prepare": "changed on the host: /etc/x"},
        ),
        (
            "a2",
            {"manifest__nvidia_driver__current": False, "manifest__serving_runtime__current": False},
            {
                "driver": "its variables or topology changed",
                "runtime": "its variables or topology changed",
                "gates": "driver and runtime will change",
            },
        ),
    ],
)
def test_each_step_has_its_first_reason(host: str, changes: dict[str, Any], steps: dict[str, str]) -> None:
    assert build({host: edited(host, **changes)}).steps == {host: steps}


@pytest.mark.parametrize("step", list(Step))
def test_what_a_replica_leaves_service_for(step: Step) -> None:
    under_it = {Step.PREPARE, Step.START}
    assert needs.HostNeed("a1", {step: "due"}).disturbing is (step not in under_it)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "HAProxy is not running"),
        ({"units": {"haproxy.service": {"active": "failed"}}}, "HAProxy is not running"),
        ({"units": {"haproxy.service": {"active": "active"}}}, "never applied"),
        ({"units": {"haproxy.service": {"active": "active"}}, "manifest": {"vllm_haproxy": {"current": True}}}, None),
    ],
)
def test_why_a_router_is_due(changes: dict[str, Any], reason: str | None) -> None:
    assert needs.router_reason(HostState.parse({**good("a1"), **changes})) == reason
    assert needs.router_reason(None) == "HAProxy is not running"


def test_harmless_things_need_no_wave() -> None:
    planned = build({"a1": edited("a1", manifest__gpu_host__current=False)})
    assert planned.waves == ()
    assert planned.prepare == ("a1",)


def test_an_engine_that_is_down_is_started_without_stopping_ray() -> None:
    planned = build({"a1": edited("a1", engine__phase="waiting")})
    assert [wave.replicas for wave in planned.waves] == [("ra",)]
    assert planned.disturbed == ()
    assert planned.gated == ()


def test_new_settings_of_ray_stop_it_without_its_gates_and_on_nobody_who_is_left_out() -> None:
    due = due_for("ray_node", hosts=("a2", "b2"))
    planned = build(due, limit={"a1", "a2"})
    assert (planned.disturbed, planned.gated) == (("ra",), ())
    assert set(planned.steps) == {"a2"}


def test_a_replica_whose_run_ended_after_its_gates_comes_first_and_goes_on_without_being_stopped() -> None:
    change = {"from": {"version": "550.90.07"}, "to": {"version": VERSION}, "began": "2026-11-22T00:00:00Z"}
    old = edited("a1", driver__loaded_version="550.90.07")
    unfinished = edited("b1", change={"verified": None, "change": change})
    planned = build({"a1": old, "b1": unfinished}, mode=Mode.UPGRADE)
    assert [wave.replicas for wave in planned.waves] == [("rb",), ("ra",)]
    assert planned.steps["b1"] == {"start": f"the change to driver {VERSION} did not complete"}
    assert planned.disturbed == ("ra",)


def test_upgrade_skips_hosts_that_failed_before() -> None:
    failed = {"a2": edited("a2", quarantine={"kind": "failed", "reason": "graph gate"})}
    assert "graph gate" in build(failed, mode=Mode.UPGRADE).skipped["ra"].reason
    changing = {"a2": edited("a2", quarantine={"kind": "changing", "reason": "run r1"})}
    assert build(changing, mode=Mode.UPGRADE).waves[0].replicas == ("ra",)
    operator = {"a2": edited("a2", quarantine={"kind": "operator", "reason": "DIMM"})}
    assert "ra" in build(operator).skipped
    assert build(operator, policy=Policy(include_quarantined=True)).waves[0].replicas == ("ra",)


DUE = {host: {"nvidia_driver_version": "580.95.05"} for host in ("a1", "a2", "b1", "b2")}
APART = {**DUE, **{host: {"nvidia_driver_version": "590.48.01"} for host in ("b1", "b2")}}
UPGRADE = "ansible-playbook playbooks/upgrade_driver.yml"


def in_quarantine(kind: str, *hosts: str, **more: Any) -> dict[str, Any]:
    return {host: edited(host, quarantine={"kind": kind, "reason": "Xid 79"}, **more) for host in hosts}


@pytest.mark.parametrize(
    ("how", "replicas", "following"),
    [
        pytest.param({"changes": DUE}, None, "", id="everybody is taken"),
        pytest.param({"states": in_quarantine("failed", "b1")}, None, "", id="in quarantine, and runs what was asked"),
        pytest.param(
            {"states": in_quarantine("failed", "b1"), "changes": DUE}, ("rb",),
            f"{UPGRADE} -e nvidia_driver_version=580.95.05 -e rollout_include_quarantined=true --limit rb",
            id="in quarantine",
        ),
        pytest.param(
            {"states": in_quarantine("operator", "a2", "b1"), "changes": DUE}, ("ra", "rb"),
            f"{UPGRADE} -e nvidia_driver_version=580.95.05 -e rollout_include_quarantined=true --limit ra,rb",
            id="all of them",
        ),
        pytest.param(
            {"states": in_quarantine("operator", "b1"), "changes": DUE, "policy": Policy(include_quarantined=True)},
            None, "", id="in quarantine, and asked for",
        ),
        pytest.param(
            {"states": in_quarantine("failed", "b1"), "changes": DUE, "limit": {"a1", "a2"}}, None, "",
            id="outside of the limit",
        ),
        pytest.param(
            {"changes": DUE, "policy": Policy(leave_serving=True)}, ("ra", "rb"),
            f"{UPGRADE} -e nvidia_driver_version=580.95.05 -e rollout_leave_serving=false --limit ra,rb",
            id="they serve, and serving ones are left",
        ),
        pytest.param(
            {"states": in_quarantine("failed", "a1", "b1"), "changes": APART}, ("ra", "rb"),
            f"{UPGRADE} -e rollout_include_quarantined=true --limit ra,rb", id="each is to run another driver",
        ),
        pytest.param(
            {"states": in_quarantine("failed", "b1"), "changes": DUE, "mode": Mode.VERIFY}, None, "",
            id="no driver is asked for",
        ),
    ],
)  # fmt: skip
def test_who_was_asked_for_and_left_out(how: dict[str, Any], replicas: tuple[str, ...] | None, following: str) -> None:
    planned = build(**{"mode": Mode.UPGRADE, **how})
    assert not planned.refusals
    out = planned.left_out
    assert (out.replicas if out else None) == replicas
    if out:
        assert out.stop.next == following
        assert out.hosts == tuple(f"{name[1]}{number}" for name in out.replicas for number in (1, 2))
        text = render.text(planned, TOPOLOGY, observed(how.get("states")))
        assert f"this run will end in a failure. {out.stop}" in text
        assert not {host for wave in planned.waves for host in wave.hosts} & set(out.hosts), "it was taken after all"


def due_for(*roles: str, hosts: tuple[str, ...] = ("a1", "a2", "b1", "b2")) -> dict[str, Any]:
    """Hosts on which these roles' inputs are other than what was applied."""
    return {
        host: edited(
            host,
            manifest={
                role: {"current": role not in roles, "drifted": []} for role in ROLES if role in good(host)["manifest"]
            },
        )
        for host in hosts
    }


@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        (Mode.UPGRADE, {"a1": [Step.DRIVER], "a2": [Step.DRIVER]}),
        (Mode.UPGRADE_RUNTIME, {"a1": [Step.RUNTIME], "a2": [Step.RUNTIME]}),
        (Mode.UPGRADE_MODEL, {"a1": [Step.RAY, Step.SERVE], "a2": [Step.RAY]}),
        (
            Mode.CONVERGE,
            {"a1": [Step.DRIVER, Step.RUNTIME, Step.RAY, Step.SERVE], "a2": [Step.DRIVER, Step.RUNTIME, Step.RAY]},
        ),
    ],
)
def test_a_roll_does_what_it_is_named_after(mode: Mode, steps: dict[str, list[Step]]) -> None:
    states = due_for("nvidia_driver", "serving_runtime", "ray_node", "vllm_server")
    planned = build(states, mode=mode)
    assert not planned.refusals
    found = {row.host: row.steps for row in run_plan.members(planned, TOPOLOGY, observed(states))}
    assert {host: [step for step in found[host] if step is not Step.GATES] for host in steps} == steps
    assert [wave.replicas for wave in planned.waves] == [("ra",), ("rb",)], "a canary comes first"


@pytest.mark.parametrize(
    ("mode", "playbook"), [(Mode.UPGRADE_RUNTIME, "upgrade_runtime"), (Mode.UPGRADE_MODEL, "upgrade_model")]
)
def test_a_replica_left_out_of_another_roll_than_a_driver_s(mode: Mode, playbook: str) -> None:
    states = due_for("serving_runtime", "vllm_server") | {
        host: {**state, "quarantine": {"kind": "operator", "reason": "Xid 79"}}
        for host, state in due_for("serving_runtime", "vllm_server", hosts=("b1",)).items()
    }
    out = build(states, mode=mode).left_out
    assert out
    assert out.stop.next == f"ansible-playbook playbooks/{playbook}.yml -e rollout_include_quarantined=true --limit rb"


def test_an_abort_that_leaves_a_replica_out_says_so() -> None:
    states = {host: edited(host, change=ROLLED) for host in ADDRESSES} | in_quarantine("operator", "b1", change=ROLLED)
    out = build(states, mode=Mode.ABORT).left_out
    assert out
    assert out.stop.next == f"{UPGRADE} -e rollout_action=abort -e rollout_include_quarantined=true --limit rb"
    assert out.stop.cause.startswith("Asked for and not done:\n  - rb was left out: quarantined (b1: driver: package ")


def test_rows_of_who_is_left_out_and_of_the_controller_in_each_wave() -> None:
    states = in_quarantine("failed", "b1")
    planned = build(states, DUE, mode=Mode.UPGRADE)
    rows = {row.host: row for row in run_plan.members(planned, TOPOLOGY, observed(states))}
    assert list(rows) == ["a1", "a2", "lockstep_wave_1", "b1", "b2"]
    assert rows["lockstep_wave_1"].groups == ("lockstep_watch", "lockstep_waves", "lockstep_prefetch")
    assert rows["lockstep_wave_1"].wave_hosts == ("a1", "a2")
    assert {rows[host].groups for host in ("b1", "b2")} == {("lockstep_left_out",)}
    written = run_plan.as_left_out(planned)
    assert (written["replicas"], written["next"]) == (["rb"], planned.left_out.stop.next if planned.left_out else "")
    assert run_plan.as_left_out(build()) == {}


def test_verify_runs_every_gate_again_and_changes_nothing() -> None:
    everything = {host: {"nvidia_driver_version": "580.95.05"} for host in ADDRESSES}
    planned = build(changes=everything, mode=Mode.VERIFY)
    assert [wave.replicas for wave in planned.waves] == [("ra",), ("rb",)]
    assert planned.gated == ("ra", "rb")
    assert all(steps == {"gates": "requested"} for steps in planned.steps.values())
    down = {"b1": edited("b1", engine__phase="given_up")}
    spared = build(down, mode=Mode.VERIFY, policy=Policy(leave_serving=True))
    assert [wave.replicas for wave in spared.waves] == [("rb",)]
    assert spared.skipped["ra"].code is SkipCode.SERVING
    assert spared.skipped["ra"].reason == "serving (rollout_leave_serving)"


def test_a_new_driver_rolls_canary_first() -> None:
    planned = build(changes={host: {"nvidia_driver_version": "580.95.05"} for host in ADDRESSES}, mode=Mode.UPGRADE)
    assert [wave.replicas for wave in planned.waves] == [("ra",), ("rb",)]
    assert planned.waves[0].canary
    assert planned.disturbed == ("ra", "rb")


def rack(*hosts: str) -> dict[str, Any]:
    """These hosts in one NVLink domain."""
    states = {host: good(host) for host in ADDRESSES}
    for host in hosts:
        states[host]["driver"]["fabric"] = {"switch_managers": 0, "spans_hosts": True, "domain": "5f3e.1"}
    return states


def test_a_new_driver_takes_the_hosts_of_one_nvlink_domain_in_one_wave_or_not_at_all() -> None:
    changes = {host: {"nvidia_driver_version": "580.95.05"} for host in ADDRESSES}
    refused = build(rack(*ADDRESSES), changes, mode=Mode.UPGRADE)
    assert "ra, rb are in one NVLink domain (5f3e.1)" in refused.refusals[0].cause
    assert "1 must keep serving" in refused.refusals[0].cause
    allowed = build(rack(*ADDRESSES), changes, mode=Mode.UPGRADE, policy=Policy.parse(None, "0", None, ()))
    assert [wave.replicas for wave in allowed.waves] == [("ra", "rb")]


def test_a_change_that_was_cut_short_is_gone_on_with_in_the_same_nvlink_domain() -> None:
    """GPUs whose driver is not loaded say no domain: their host wrote down which it was before the change."""
    states = rack("a1", "a2")
    before = {"packages": {}, "preferences": None, "nvlink_domain": "5f3e.1"}
    for host in ("b1", "b2"):
        states[host]["driver"] |= {
            "loaded_version": None,
            "fabric": {"switch_managers": 0, "spans_hosts": True, "domain": None},
        }
        states[host]["change"] = {**HALF, "change": {**HALF["change"], "before": before}}
    changes = {host: {"nvidia_driver_version": "580.95.05"} for host in ADDRESSES}
    refused = build(states, changes, mode=Mode.UPGRADE)
    assert "rb, ra are in one NVLink domain (5f3e.1)" in refused.refusals[0].cause
    allowed = build(states, changes, mode=Mode.UPGRADE, policy=Policy.parse(None, "0", None, ()))
    assert [wave.replicas for wave in allowed.waves] == [("rb", "ra")]


def test_settings_may_change_apart_within_an_nvlink_domain() -> None:
    states = rack(*ADDRESSES)
    for host in ADDRESSES:
        states[host]["manifest"]["ray_node"]["current"] = False
    assert [wave.replicas for wave in build(states).waves] == [("ra",), ("rb",)]


@pytest.mark.parametrize(
    ("states", "changes", "limit", "fragments"),
    [
        ({"a2": Observed(None, "No route to host", False)}, {}, None, ["a2", "unreachable", "No route to host"]),
        ({}, {}, {"a1"}, ["--limit leaves out a2 of ra", "--limit ra"]),
        (
            {"b1": edited("b1", os__distribution="rocky")},
            {"b1": {"nvidia_driver_version": "1"}},
            None,
            ["b1", "rocky", "not supported"],
        ),
        (
            {"b1": edited("b1", networks=networks(eth0="10.9.9.9"))},
            {},
            None,
            ["b1: gpu_host_address is not on eth0", "the host has eth0 10.9.9.9"],
        ),
        (
            {"a2": edited("a2", stamps__host=None, preflight={"taken_ports": {"6379": "redis.service"}})},
            {},
            None,
            ["6379", "redis.service"],
        ),
        (
            {"a2": edited("a2", stamps__host=None, preflight={"names": {"a1": "a1 does not resolve"}})},
            {"a2": {"gpu_host_manage_names": False}},
            None,
            ["a2", "a1 does not resolve"],
        ),
        (
            {"a2": edited("a2", manifest__serving_runtime__current=False, disk_free_mib={"/opt": 12})},
            {},
            None,
            ["/opt has 12 MiB free"],
        ),
        (
            {},
            {"a2": {"nvidia_driver_version": "580.95.05"}},
            None,
            ["nvidia_driver_version differs inside the replica"],
        ),
        ({"a2": edited("a2", runtime__ray="2.59.0")}, {}, None, ["ra", "ray differs"]),
        (
            {},
            {h: {"nvidia_driver_version": "545.23.06"} for h in ADDRESSES},
            None,
            ["a1", "deadlock", "nvidia_driver_allow_known_bad", "never"],
        ),
        ({}, {"a1": {"ray_node_token": "changeme"}}, None, ["a1", "ray_node_token is shorter than 32", "openssl"]),
        ({}, {"a1": {"gpu_host_gpus": None}}, None, ["a1", "gpu_host_gpus is not set"]),
        (
            {"a1": edited("a1", driver__loaded_version="550.90.07")},
            {"a1": {"nvidia_driver_source": "verify"}},
            None,
            ["a1", "platform's owner"],
        ),
        ({"a2": Observed(None, "no Python", True)}, {}, None, ["a2: cannot be probed", "host_probe", "no Python"]),
        ({"a2": Observed(None, "x", False, "a2")}, {}, None, ["a2", "no ansible_host, and its name does not resolve"]),
        (
            {"a2": Observed(None, "x", False, "gpu.lan")},
            {},
            None,
            ["a2", "its ansible_host does not resolve", "gpu.lan"],
        ),
        ({}, {"a1": {"vllm_server_api_key": "x" * 31}}, None, ["a1: vllm_server_api_key is shorter than 32"]),
        ({}, {"a1": {"nvidia_driver_version": ""}}, None, ["a1: nvidia_driver_version is not set"]),
        (
            {},
            {"a1": {"gpu_host_interface": "eth9"}},
            None,
            ["a1: gpu_host_address is not on eth9", "10.0.0.1; the host has eth0 10.0.0.1"],
        ),
        ({"a1": edited("a1", preflight={"error": "EIO"})}, {}, None, ["a1: its preflight could not be done: EIO"]),
        *(
            ({}, {"a1": {"ray_node_environment": {name: "x"}}}, None, [f"a1: ray_node_environment sets {name}"])
            for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
        ),
        *(
            ({}, {"a1": {name: "1"}, "a2": {name: "2"}}, None, [f"{name} differs inside the replica (a1=1, a2=2)"])
            for name in ("nvidia_driver_version", "serving_runtime_lock", "ray_node_port")
        ),
        ({}, {"a1": {"ray_node_ports": {"metrics": 20600}}}, None, ["ra", "ray_node_ports differs inside the replica"]),
    ],
)
def test_refusals(
    states: dict[str, Any], changes: dict[str, Any], limit: set[str] | None, fragments: list[str]
) -> None:
    planned = build(states, changes, limit)
    text = "\n".join(map(str, planned.refusals))
    assert planned.waves == ()
    assert all(fragment in text for fragment in fragments), text


def test_an_address_that_no_host_has_is_one_line_for_all_of_them() -> None:
    elsewhere = {
        host: edited(host, networks=networks(eth0=f"10.9.9.{number}")) for number, host in enumerate(ADDRESSES)
    }
    reasons = render.lines(build(elsewhere, {}).refusals)
    assert [reason for reason in reasons if "gpu_host_address" in reason] == [
        f"{', '.join(ADDRESSES)}: gpu_host_address is not on eth0: set gpu_host_interface or gpu_host_address "
        f"(a1: {ADDRESSES['a1']}; the host has eth0 10.9.9.0)"
    ]


DUE_RAY = {"manifest__ray_node__current": False}


@pytest.mark.parametrize(
    ("states", "changes"),
    [
        pytest.param({}, {host: {"ray_node_token": "x" * 32} for host in ADDRESSES}, id="a secret that is long enough"),
        pytest.param({"b1": edited("b1", os__distribution="rocky")}, {}, id="a system that nothing is done on"),
        pytest.param({"b1": edited("b1", os={"distribution": "mint", "like": "ubuntu debian"}, **DUE_RAY)}, {}, id="like"),
        pytest.param({"a2": edited("a2", preflight={"taken_ports": {"6379": "redis.service"}})}, {}, id="a port, nothing due"),
        pytest.param(
            {"a2": edited("a2", preflight={"names": {"a1": "a1 does not resolve"}}, **DUE_RAY)}, {}, id="names that we write"
        ),
        pytest.param({}, {host: {"ray_node_environment": {"RAY_LOG": "x"}} for host in ADDRESSES}, id="another of Ray's"),
        pytest.param(
            {host: edited(host, networks={"error": "EIO"}) for host in ADDRESSES}, {}, id="addresses that could not be read"
        ),
    ],
)  # fmt: skip
def test_what_is_no_refusal(states: dict[str, Any], changes: dict[str, dict[str, Any]]) -> None:
    assert build(states, changes).refusals == ()


def test_known_issues_warn_or_are_overridden_by_name() -> None:
    suspect = build(changes={host: {"nvidia_driver_version": "550.90.07"} for host in ADDRESSES})
    assert suspect.refusals == ()
    assert any("graphs hang" in line.cause for line in suspect.warnings)
    allowed = {"nvidia_driver_version": "545.23.06", "nvidia_driver_allow_known_bad": ["never"]}
    overridden = build(changes=dict.fromkeys(ADDRESSES, allowed))
    assert overridden.refusals == ()
    assert any("deadlock" in line.cause for line in overridden.warnings)


def test_an_unreachable_host_outside_the_limit_does_not_refuse() -> None:
    planned = build({"b2": Observed(None, "down", False), "a2": edited("a2", stamps__host=None)}, limit={"a1", "a2"})
    assert planned.refusals == ()
    assert [wave.replicas for wave in planned.waves] == [("ra",)]


OLD = {"version": "550.90.07", "source": "mirror", "flavor": "open"}
NEW = {**OLD, "version": VERSION}
ROLLED = {"verified": NEW, "change": None, "roll": {"from": OLD, "over": None}}
OVER = {**ROLLED, "roll": {"from": OLD, "over": "2026-11-21T03:00:00Z"}}
HALF = {"verified": OLD, "change": {"from": OLD, "to": NEW, "began": "t"}, "roll": {"from": OLD, "over": None}}


def test_aborting_takes_back_what_the_roll_changed_and_nothing_else() -> None:
    planned = build({host: edited(host, change=ROLLED) for host in ("a1", "a2")}, mode=Mode.ABORT)
    assert planned.refusals == ()
    assert [wave.hosts for wave in planned.waves] == [("a1", "a2")]
    assert planned.steps["a1"]["driver"] == f"package {VERSION}, desired 550.90.07"
    assert planned.drivers == dict.fromkeys(("a1", "a2"), OLD)
    assert planned.completed == ()


@pytest.mark.parametrize(
    ("mate", "version"),
    [
        (None, VERSION),  # nothing verified: what is declared
        ({"verified": {"version": "545.23.08"}, "change": None, "roll": None}, "545.23.08"),
        (ROLLED, "550.90.07"),
    ],
)
def test_an_abort_finds_the_roll_wherever_it_began(mate: dict[str, Any] | None, version: str) -> None:
    """A mate that the roll did not reach stays with what was verified on it."""
    answers = observed({"b1": edited("b1", change=ROLLED), "b2": edited("b2", change=mate)})
    declared = {host: needs.Desired(settings(host), {}) for host in ADDRESSES}
    found = plan.before_roll(TOPOLOGY, declared, answers)
    assert {host: each.driver["version"] for host, each in found.items()} == {"b1": "550.90.07", "b2": version}


def test_an_abort_declares_the_driver_and_nothing_else() -> None:
    before = {"version": "550.90.07", "source": "repository", "flavor": "closed"}
    roll = {**ROLLED, "roll": {"from": before, "over": None}}
    declared = {host: needs.Desired(settings(host), {}) for host in ADDRESSES}
    found = plan.before_roll(TOPOLOGY, declared, observed({"b1": edited("b1", change=roll)}))["b1"].settings
    changed = {name for name in found if found.get(name) != declared["b1"].settings.get(name)}
    assert changed == set(needs.DRIVER)


def test_whether_there_is_a_roll_to_abort_is_not_known_while_a_host_does_not_answer() -> None:
    planned = build({"a2": Observed(None, "No route to host", False)}, mode=Mode.ABORT)
    assert [(line.where, line.cause.partition(":")[0]) for line in planned.refusals] == [("a2", "unreachable")]


def test_an_inventory_with_problems_has_no_plan() -> None:
    broken = topology.Topology(REPLICAS, ("rollout_replicas names ra twice",))
    planned = plan.build(broken, {}, {}, plan.Run(Mode.CONVERGE, DEFAULT, NOON))
    assert [line.cause for line in planned.refusals] == ["rollout_replicas names ra twice"]
    assert planned.waves == ()


def test_an_abort_asks_for_the_driver_that_it_goes_back_to() -> None:
    planned = build({host: edited(host, change=ROLLED) for host in ("a1", "a2")}, mode=Mode.ABORT)
    assert planned.due_drivers == dict.fromkeys(("a1", "a2"), OLD)


def test_whose_driver_is_due_is_known_of_a_refused_plan_too() -> None:
    """So that one run says all that is wrong."""
    states = {"b1": edited("b1", driver__package_version="550.90.07", networks=networks(eth0="10.9.9.9"))}
    refused = build(states)
    assert refused.refusals
    assert set(refused.due_drivers) == {"b1"}
    assert build({}).due_drivers == {}


def test_aborting_takes_the_half_changed_and_the_failed_first() -> None:
    quarantine = {"kind": "failed", "reason": "graph gate"}
    states = {host: edited(host, change=ROLLED) for host in ("a1", "a2")}
    states |= {host: edited(host, change=HALF, quarantine=quarantine, engine=None) for host in ("b1", "b2")}
    planned = build(states, mode=Mode.ABORT)
    assert [wave.replicas for wave in planned.waves] == [("rb",), ("ra",)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (None, "there is no roll to abort"),
        (OVER, "completed at 2026-11-21T03:00:00Z: every replica ran what it rolled to. To go back: ansible-playbook "
               "playbooks/upgrade_driver.yml -e nvidia_driver_version=550.90.07"),
    ],
)  # fmt: skip
def test_a_roll_that_is_over_cannot_be_aborted(change: dict[str, Any] | None, reason: str) -> None:
    planned = build({host: edited(host, change=change) for host in ADDRESSES}, mode=Mode.ABORT)
    assert not planned.waves
    assert reason in str(planned.refusals[0])


def test_a_roll_is_over_when_every_replica_runs_it() -> None:
    done = {host: edited(host, change=ROLLED) for host in ("a1", "a2")}
    due = {host: edited(host, driver__package_version="550.90.07") for host in ("b1", "b2")}
    assert build({**done, **due}, mode=Mode.UPGRADE).completed == ("a1", "a2", "b1", "b2")
    assert build({**done, **due}, mode=Mode.UPGRADE, limit={"a1", "a2"}).completed == ()
    assert build(done, mode=Mode.UPGRADE).completed == ("a1", "a2")
    silent = {**done, "b2": Observed(None, "down", False)}
    assert build(silent, mode=Mode.UPGRADE, limit={"a1", "a2"}).completed == (), "nobody knows what it runs"
    assert build(done, mode=Mode.VERIFY).completed == (), "verifying a paused roll must leave it open to an abort"


@pytest.mark.parametrize(("action", "mode"), [("roll", Mode.UPGRADE), ("abort", Mode.ABORT)])
def test_what_a_roll_can_be_asked_for(action: str, mode: Mode) -> None:
    assert plan.mode_of(action) is mode


@pytest.mark.parametrize("action", ["converge", "verify", "upgrade", "", "pause"])
def test_anything_else_is_refused_and_the_choice_named(action: str) -> None:
    with pytest.raises(
        StopError, match=f"rollout_action is '{action}', expected roll or abort; nothing was changed"
    ) as refused:
        plan.mode_of(action)
    assert refused.value.stop.next.endswith("rollout_request -a action=pause") == (action == "pause")


@pytest.mark.parametrize(
    ("source", "held", "driver", "reason"),
    [
        pytest.param("mirror", True, {}, None, id="whole and held"),
        pytest.param("mirror", False, {}, "not held: libcuda1", id="a package that apt may upgrade"),
        pytest.param("verify", False, {}, None, id="the platform's packages are the platform's to hold"),
        pytest.param("verify", True, {"loaded_version": "1"}, "loaded module 1, desired 550.127.05", id="its version is not"),
        pytest.param("mirror", True, {"package_version": "2"}, "package 2, desired 550.127.05", id="another package"),
        pytest.param("mirror", True, {"loaded_version": None}, "loaded module absent, desired 550.127.05", id="none loaded"),
        pytest.param("mirror", False, {"error": "EIO"}, "the driver's state could not be read: EIO", id="unreadable"),
    ],
)  # fmt: skip
def test_driver_reason(source: str, held: bool, driver: dict[str, Any], reason: str | None) -> None:
    packages = {"libcuda1": {"version": f"{VERSION}-1", "hold": held}}
    state = HostState.parse(edited("a1", driver={**good("a1")["driver"], "packages": packages, **driver}))
    assert needs.driver_reason(settings("a1", nvidia_driver_source=source), state) == reason


@pytest.mark.parametrize(
    ("kind", "mode", "need"),
    [
        ("changing", Mode.CONVERGE, Need.HALF_DONE),
        ("changing", Mode.UPGRADE, Need.HALF_DONE),
        ("changing", Mode.VERIFY, Need.HALF_DONE),
        ("changing", Mode.ABORT, Need.HALF_DONE),
        ("failed", Mode.CONVERGE, Need.HALF_DONE),
        ("failed", Mode.UPGRADE, Need.QUARANTINED),
        ("failed", Mode.VERIFY, Need.QUARANTINED),
        ("failed", Mode.ABORT, Need.HALF_DONE),
        ("operator", Mode.CONVERGE, Need.QUARANTINED),
        ("operator", Mode.UPGRADE, Need.QUARANTINED),
        ("operator", Mode.ABORT, Need.QUARANTINED),
        ("of a later version", Mode.CONVERGE, Need.QUARANTINED),
        (None, Mode.CONVERGE, Need.QUARANTINED),
    ],
)
def test_which_quarantine_a_run_lifts(kind: str | None, mode: Mode, need: Need) -> None:
    record = {"error": "damaged"} if kind is None else {"kind": kind, "reason": "x"}
    states = observed({"a2": edited("a2", quarantine=record)})
    mine = {host: needs.HostNeed(host, {}) for host in ("a1", "a2")}
    assert needs.replica_need(REPLICAS[0], states, mine, mode).need is need


@pytest.mark.parametrize(
    "part", ["os", "driver", "runtime", "units", "manifest", "disk_free_mib", "networks", "preflight", "quarantine", "change", "engine"]
)  # fmt: skip
def test_a_part_that_could_not_be_read_is_a_reason_and_no_exception(part: str) -> None:
    planned = build({"a1": edited("a1", **{part: {"error": "EIO"}})})
    assert planned.refusals or planned.waves or planned.skipped


def test_the_plan_for_people_names_who_is_skipped_and_why() -> None:
    states = {
        "a2": edited("a2", quarantine={"kind": "operator", "reason": "DIMM"}),
        "b1": good("b1"),
    }
    text = render.text(build(states), TOPOLOGY, observed(states))
    assert text.splitlines() == [
        "ra: skipped: quarantined (a2: gates: in quarantine: DIMM)",
        "up to date: rb (serving: ra, rb)",
    ]


@pytest.mark.parametrize(
    ("nexts", "shown"),
    [
        (
            ("ansible a1 -m ansible.builtin.ping", "ansible a2 -m ansible.builtin.ping"),
            "ansible a1:a2 -m ansible.builtin.ping",
        ),
        (("ansible a1 -b -m x -a y", "ansible a2 -b -m x -a z"), "ansible a1 -b -m x -a y"),
        (("ansible-playbook site.yml", "ansible-playbook site.yml"), "ansible-playbook site.yml"),
    ],
    ids=["one command for both", "other commands", "of no host"],
)
def test_what_is_true_of_several_hosts_is_one_line_with_one_command(nexts: tuple[str, ...], shown: str) -> None:
    stops = [Stop("does not answer", command, where=host) for host, command in zip(("a1", "a2"), nexts, strict=True)]
    assert render.lines(stops) == [f"a1, a2: does not answer. Next: {shown}"]
    many = [Stop("does not answer", f"ansible h{n} -m ping", where=f"h{n}") for n in range(20)]
    assert render.lines(many) == ["h[0-19]: does not answer. Next: ansible h0 -m ping"]


@pytest.mark.parametrize(
    ("runs", "mode", "warns"),
    [
        ("580.95.05", Mode.CONVERGE, True),
        ("550.90.07", Mode.CONVERGE, False),
        ("580.95.05", Mode.UPGRADE, False),
    ],
    ids=["a roll was not written down", "an older one", "a roll asks for it"],
)
def test_a_plan_says_that_it_takes_a_newer_driver_back(runs: str, mode: Mode, warns: bool) -> None:
    host = edited("b1", driver__package_version=runs, driver__loaded_version=runs, driver__package_versions=[runs])
    warnings = [str(each) for each in build({"b1": host}, mode=mode).warnings if "takes it back" in str(each)]
    assert warnings == (
        [
            f"b1: runs driver {runs}, newer than {VERSION}, to which this run takes it back. To keep it, set "
            f'nvidia_driver_version: "{runs}" in the inventory'
        ]
        if warns
        else []
    )


def test_the_plan_names_the_quarantine_that_a_run_was_asked_to_lift() -> None:
    record = {"kind": "operator", "reason": "DIMM", "owner": "ada@ops"}
    states = {"a2": edited("a2", quarantine=record), "b1": edited("b1", quarantine={**record, "kind": "changing"})}
    planned = build(states, policy=dataclasses.replace(DEFAULT, include_quarantined=True))
    lines = render.text(planned, TOPOLOGY, observed(states)).splitlines()
    assert lines[0] == "warning: a2: leaves quarantine once its gates pass: DIMM (by ada@ops)"
    assert not any("b1" in line for line in lines if line.startswith("warning"))
    assert build(states).warnings == ()


@pytest.mark.parametrize(
    ("free", "step", "refused"),
    [
        ({"/opt": 4095}, "serving_runtime", True),
        ({"/opt": 4096}, "serving_runtime", False),
        ({"/var": 2047}, "nvidia_driver", True),
        ({"/var": 2048}, "nvidia_driver", False),
        ({"/var": 0, "/opt": 0}, "ray_node", False),
    ],
)
def test_disk_space_is_asked_of_the_step_that_needs_it(free: dict[str, int], step: str, refused: bool) -> None:
    planned = build({"a1": edited("a1", disk_free_mib=free, **{f"manifest__{step}__current": False})})
    assert bool(planned.refusals) == refused


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        ({"phase": "waiting"}, "the engine does not serve (waiting: no reason known)"),
        ({"phase": "given_up", "reason": "no GPU"}, "the engine does not serve (given_up: no GPU)"),
        (None, "the engine does not serve (not running: no reason known)"),
    ],
)
def test_why_an_engine_is_started(engine: dict[str, Any] | None, reason: str) -> None:
    planned = build({"a1": edited("a1", engine=engine)})
    assert planned.steps["a1"] == {"start": reason}


KEPT = {"run": "r0", "at": "2026-11-22T11:00:00Z", "roles": ["vllm_server"], "runtime": None}


@pytest.mark.parametrize("mode", [Mode.CONVERGE, Mode.UPGRADE])
def test_settings_that_a_run_kept_and_did_not_let_go_of_are_half_a_change(mode: Mode) -> None:
    """Also where nothing is due, as the inventory was taken back: then it serves on through its wave, which closes it."""
    made = build({"a1": {**good("a1"), "previous": KEPT}}, mode=mode)
    assert [wave.replicas for wave in made.waves] == [("ra",)]
    assert made.steps["a1"] == {"start": "the change of its settings did not complete"}
    assert made.disturbed == ()


def test_half_changed_settings_come_first() -> None:
    changed = edited("b1", manifest__vllm_server={"inputs": "half", "drifted": []}, units={}, engine=None)
    half = {**changed, "previous": KEPT, "quarantine": {"kind": "changing", "reason": "changing (serve)"}}
    also_due = edited("a1", manifest__vllm_server={"inputs": "older", "drifted": []})
    made = build({"a1": also_due, "b1": half})
    assert [wave.replicas for wave in made.waves] == [("rb",), ("ra",)]
    assert "serve" in made.steps["b1"]


def test_a_probe_that_could_not_read_what_is_kept_counts_as_half_a_change() -> None:
    made = build({"a1": {**good("a1"), "previous": {"error": "RecordError: is not JSON"}}})
    assert [wave.replicas for wave in made.waves] == [("ra",)]
