"""One host's answer stops neither a status nor a plan of the others (S5)."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.host.codes import AnswerCode
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.observed import Observed
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.cluster import let_in
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import cluster_status, status_table
from tests.unit.module_utils.rollout import test_plan as plans
from tests.unit.plugin_utils.report import test_status_table as statuses

PARTS: list[dict[str, Any]] = [
    {"engine": {"phase": "serving", "findings": [1]}},
    {"engine": {"phase": "serving", "restarts": 10**400}},
    {"engine": {"phase": ["serving"], "since": 7}},
    {"ray": {"head": "up", "nodes": [1]}},
    {"ray": {"head": "up", "nodes": [{}]}},
    {"units": [1]},
    {"host": "a1"},
    {"stamps": "valid"},
    {"quarantine": 7},
    {"change": {"change": {"from": 1, "to": 2}}},
    {"clock": 1e300},
    {"lock": ["x"], "request": ["x"]},
]


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_a_bad_part_leaves_the_other_hosts_in_the_status(part: dict[str, Any]) -> None:
    found = statuses.probe()
    answer = let_in(Answer(value={**statuses.state(head=True), **part}))
    found["hosts"]["a1"] = {"reachable": answer.reachable, "error": answer.error, "state": answer.value}
    status = cluster_status.build(found)  # type: ignore[arg-type]
    (other,) = [host for host in status["replicas"][0]["hosts"] if host["host"] == "a2"]
    assert (other["driver"], other["stamp"], other["since"]) == ("550.127.05", "valid", "2026-11-21T23:10:00Z")
    assert "router1: running" in status_table.as_text(status)


@pytest.mark.parametrize("value", [None, 7, [], "x", {"clock": "now"}, {"fingerprint": [1]}], ids=repr)
def test_no_answer_at_all_is_its_host_s_refusal_in_a_plan(value: Any) -> None:
    answer = let_in(Answer(value=value))
    assert (answer.code, answer.reachable, answer.value) == (AnswerCode.BAD_ANSWER, True, None)
    planned = plans.build(states={"a2": Observed.parse(answer.value, answer.error, answer.reachable)})
    (refusal,) = planned.refusals
    assert (refusal.where, refusal.cause) == ("a2", "cannot be probed")
    assert refusal.detail.startswith("its answer cannot be used: ")
    assert refusal.next == "ansible a2 -m lockstep.vllm.host_probe"


@pytest.mark.parametrize("part", PARTS, ids=repr)
def test_a_bad_part_is_no_error_of_a_plan(part: dict[str, Any]) -> None:
    answer = let_in(Answer(value={**plans.good("a2"), **part}))
    planned = plans.build(states={"a2": Observed.parse(answer.value, answer.error, answer.reachable)})
    assert {replica for wave in planned.waves for replica in wave.replicas} <= {plans.TOPOLOGY.replica_of("a2").name}
