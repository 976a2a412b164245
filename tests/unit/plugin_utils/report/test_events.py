from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import diagnosis
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import GateResult
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events
from tests.unit.plugin_utils.report import rolls


def parse(result: dict[str, Any], outcome: events.TaskOutcome = "ok", action: str = "") -> events.TaskReport:
    return events.TaskReport.parse("a1", "Do something", outcome, result, action)


def failure(result: dict[str, Any], outcome: events.TaskOutcome = "failed") -> events.Failure:
    found = parse(result, outcome).failure
    assert found is not None
    return found


def test_a_diagnosis_keeps_the_empty_lines_between_its_sections() -> None:
    page = diagnosis.page("replica_a", {"a1": diagnosis.HostFindings({"driver": "550.127.05"}, {})}, {}, None, "a1")
    assert "\n\nVERSIONS\n" in page
    assert events.said({"msg": page.splitlines()}) == page


@pytest.mark.parametrize(
    ("result", "said"),
    [({"msg": "one"}, "one"), ({"msg": ["a", "", "b"]}, "a\n\nb"), ({}, ""), ({"msg": [None, {"a": 1}, "b"]}, "\n\nb")],
)
def test_what_a_task_says_to_people(result: dict[str, Any], said: str) -> None:
    assert events.said(result) == said


def test_a_gate_s_result_is_read_and_comes_back_out_of_the_journal() -> None:
    result = GateResult(
        gate="graph",
        verdict="timeout",
        seconds=60.0,
        code=Code.CAPTURE_HANGS,
        pair=("a1", "a2"),
        measured={"replays": 3},
        floor={"replays": 1},
        backend="nccl",
        evidence=("/var/lib/lockstep/evidence/r1/graph/stacks.txt",),
        cause="graph capture hangs",
        next="ansible-playbook playbooks/diagnose.yml --limit a1,a2",
        warnings=("slow",),
    )
    (gate,) = parse({"gate": as_json(result)}).gates
    assert {
        **gate.as_event(1.0),
        "host": None,
        "pair": ["a1", "a2"],
        "evidence": list(gate.evidence),
        "warnings": ["slow"],
    } == {
        **as_json(result),
        "on": "a1",
        "event": "gate",
        "elapsed": 1.0,
    }
    assert events.GateEvent.parse(gate.as_event(0.0)) == gate


@pytest.mark.parametrize(
    ("result", "gates"),
    [
        ({"gate": rolls.gate("nccl", "a1")}, ["nccl"]),
        ({"results": [{"gate": rolls.gate("nccl", "a1")}, {"gate": rolls.gate("graph", "a1")}]}, ["nccl", "graph"]),
        ({"stamp": {"gates": [rolls.gate("nccl", "a1")]}}, []),
        ({"gate": "nccl"}, []),
        ({"ansible_facts": {"gate": rolls.gate("nccl", "a1")}}, []),
    ],
)
def test_gates_are_read_from_their_field_alone(result: dict[str, Any], gates: list[str]) -> None:
    assert [gate.gate for gate in parse(result).gates] == gates


def test_a_plan_is_read_and_comes_back_out_of_the_journal() -> None:
    planned = rolls.plan(["replica_a"])
    assert parse(planned).plan is None
    assert parse({"lockstep_plan": planned}).plan is None, "a host has none to give"
    plan = parse({"lockstep_plan": planned}, action="lockstep.vllm.plan").plan
    assert plan is not None
    assert [wave.hosts for wave in plan.waves] == [("a1", "a2")]
    assert plan.skipped == {"replica_q": "quarantined (q1: Xid 79)", "replica_z": "up to date"}
    assert plan.serving == ["replica_z", "replica_a"]
    assert events.RunPlan.parse(plan.as_event(0.0)) == plan


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        ({"msg": "it broke"}, "it broke"),
        ({"cause": "the cause", "msg": "it broke", "stderr": "noise"}, "the cause"),
        ({"msg": "non-zero return code", "stderr": "E: held packages"}, "non-zero return code\nE: held packages"),
        ({"msg": {"a": 1}}, '{"a": 1}'),
        ({"msg": "One or more items failed", "results": [{"failed": True, "msg": "x"}, {"msg": "fine"}]}, "x"),
        ({"msg": "All items completed", "results": [{"unreachable": True, "msg": "y"}, {"msg": "fine"}]}, "y"),
        ({"msg": "", "gate": {"gate": "g", "verdict": "fail", "cause": "wrong sum"}}, "wrong sum"),
        ({}, "no reason was given"),
        ({"msg": "x" * 100_000}, "x" * events.CAUSE_LENGTH),
        (
            {"msg": "\n".join(["refused", "a1: " + "x" * 3990, "a2: y", "a3: z"])},
            "refused\n… and 3 lines more (with -v)",
        ),
        (
            {"msg": "refused\n" + "a1\u2028" * 2000},
            "refused\n… and 1 line more (with -v)",
        ),
    ],
)
def test_cause(result: dict[str, Any], cause: str) -> None:
    assert failure(result).cause == cause


@pytest.mark.parametrize(
    ("result", "following"),
    [
        ({"msg": "x", "next": "z"}, "z"),
        ({"msg": "x", "gate": {"gate": "g", "verdict": "fail", "next": "w"}}, "w"),
        ({"msg": "x", "results": [{"msg": "fine"}, {"failed": True, "next": "v"}]}, "v"),
        ({"msg": "x"}, ""),
        ({"msg": "a message is for people. Next: not this"}, ""),
    ],
)
def test_next_is_a_field(result: dict[str, Any], following: str) -> None:
    assert failure(result).next == following


STARTS = ("cd /srv/lockstep && ansible-playbook -e 'a=b;c' ", "cd /srv/lockstep && ansible -e 'a=b;c' ")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (f"{STARTS[0]}lockstep.vllm.status --limit a1", True),
        (f"{STARTS[1]}a1 -m ansible.builtin.ping", True),
        (f"{STARTS[0]}lockstep.vllm.status; reboot", False),
        (f"{STARTS[0]}lockstep.vllm.status && {STARTS[0]}lockstep.vllm.site", False),
        (f"reboot && {STARTS[0]}lockstep.vllm.status", False),
        ("cd /tmp && ansible-playbook x.yml", False),
    ],
)
def test_what_the_controller_puts_before_a_host_s_command_leaves_it_plain(given: str, taken: bool) -> None:
    """Actions give a host's command what this run was given; with a folder of its own that is no plain command."""
    read = events.TaskReport.parse("a1", "x", "failed", {"msg": "x", "next": given}, "lockstep.vllm.gate", STARTS)
    assert read.failure is not None
    assert read.failure.next == (given if taken else "")


def test_a_host_that_is_gone_is_to_be_brought_back() -> None:
    gone = failure({"msg": "Failed to connect to the host via ssh"}, "unreachable")
    assert gone.unreachable
    assert gone.next == "ansible a1 -m ansible.builtin.ping"


@pytest.mark.parametrize(
    "result",
    [
        {"fingerprint": rolls.OLD},
        {"state": {"fingerprint": rolls.OLD}},
        {"stamp": {"fingerprint": rolls.OLD}},
    ],
)
def test_a_host_s_own_fingerprint(result: dict[str, Any]) -> None:
    assert parse(result).fingerprints == {"a1": rolls.OLD}


def test_fingerprints_of_others_come_from_the_plan_alone() -> None:
    result = {"fingerprints": {"a2": rolls.OLD, "a3": None}}
    assert parse(result, action="lockstep.vllm.plan").fingerprints == {"a2": rolls.OLD}
    assert parse(result, action="lockstep.vllm.host_probe").fingerprints == {}
