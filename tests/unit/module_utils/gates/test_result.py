"""A gate's result as JSON, and the codes that it may carry: documented where they are defined and in the modules."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.doc_fragments.gate import ModuleDocFragment
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.gates import codes, entry_point
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.codes import Code
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.request import request_of
from ansible_collections.lockstep.vllm.plugins.module_utils.gates.result import CannotRun, GateResult
from ansible_collections.lockstep.vllm.plugins.modules import graph_capture_verify, nccl_verify, network_verify
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import TaskReport
from tests.unit.module_utils.gates.codes_of_gates import OF_GATE

FAILED = GateResult(
    "nccl",
    "fail",
    3.1,
    Code.WRONG_SUM,
    pair=("a1", "a2"),
    measured={"ranks": 2},
    backend="gloo",
    evidence=("/e/x",),
    cause="wrong",
    next="diagnose",
    warnings=("mind this",),
)


def test_a_result_survives_json() -> None:
    assert GateResult.from_dict(json.loads(json.dumps(as_json(FAILED)))) == FAILED
    passed = GateResult("graph", "pass", 1.0)
    assert GateResult.from_dict(json.loads(json.dumps(as_json(passed)))) == passed


@pytest.mark.parametrize("change", [{"code": "unheard_of"}, {"verdict": "maybe"}])
def test_what_is_no_result_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"unheard_of|maybe"):
        GateResult.from_dict({**as_json(FAILED), **change})


def test_a_code_is_its_text_wherever_it_is_written() -> None:
    assert f"{Code.WRONG_SUM}" == str(Code.WRONG_SUM) == "wrong_sum"
    assert type(as_json(FAILED)["code"]) is str


def test_every_code_has_its_meaning_beside_it() -> None:
    (defined,) = [node for node in ast.parse(inspect.getsource(codes)).body if isinstance(node, ast.ClassDef)]
    body = defined.body[1:]  # after the docstring
    assert [type(node) for node in body] == [ast.Assign, ast.Expr] * len(Code)


def test_every_code_is_some_gate_s() -> None:
    assert frozenset(Code) - frozenset.union(*OF_GATE.values()) == {Code.SUSPECT}


@pytest.mark.parametrize(
    ("gate", "module"), [("nccl", nccl_verify), ("graph", graph_capture_verify), ("network", network_verify)]
)
def test_a_module_documents_the_codes_of_its_gate(gate: str, module: Any) -> None:
    returned = yaml.safe_load(module.RETURN)["gate"]
    listed = re.findall(r"C\((\w+)\)", returned["description"].partition("one of")[2])
    assert len(listed) == len(set(listed))
    assert {Code(code) for code in listed} == OF_GATE[gate]
    assert GateResult.from_dict(returned["sample"]).gate == gate


FRAGMENTS = [
    ((ModuleDocFragment.DOCUMENTATION, ModuleDocFragment.RANK_GROUP), entry_point.RANK_GROUP_ARGUMENTS),
    ((ModuleDocFragment.NCCL,), entry_point.NCCL_ARGUMENTS),
    ((ModuleDocFragment.GRAPH,), entry_point.GRAPH_ARGUMENTS),
]


@pytest.mark.parametrize(("fragments", "arguments"), FRAGMENTS, ids=["rank group", "nccl", "graph"])
def test_arguments_are_those_that_the_fragments_document(fragments: Any, arguments: Any) -> None:
    documented: dict[str, dict[str, Any]] = {}
    for fragment in fragments:
        documented |= yaml.safe_load(fragment)["options"]
    for option in documented.values():
        del option["description"]
    assert documented == arguments


class Ended(Exception):
    """The module is over."""


class Module:
    """What entry points use of AnsibleModule."""

    def __init__(self, fail: bool = True) -> None:
        self.params = {"fail": fail}
        self.warnings: list[str] = []
        self.answer: dict[str, Any] = {}
        self.failed = False

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def exit_json(self, **answer: Any) -> None:
        self.answer = answer
        raise Ended

    def fail_json(self, **answer: Any) -> None:
        self.failed = True
        self.exit_json(**answer)


def finished(run: Any, fail: bool = True) -> Module:
    module = Module(fail)
    with pytest.raises(Ended):
        entry_point.finish(module, "nccl", run)
    return module


def raising(error: Exception) -> Any:
    def run() -> GateResult:
        raise error

    return run


def test_a_gate_that_cannot_run_gives_cause_and_next_as_they_were_raised() -> None:
    module = finished(raising(CannotRun("a1: no such thing. Next: to nothing", "ansible-playbook site.yml")))
    assert module.failed
    gate = module.answer["gate"]
    assert (gate["verdict"], gate["code"]) == ("fail", "could_not_run")
    assert (gate["cause"], gate["next"]) == ("a1: no such thing. Next: to nothing", "ansible-playbook site.yml")
    assert module.answer["msg"].endswith("Next: ansible-playbook site.yml")


def test_any_other_error_is_the_cause_as_a_whole() -> None:
    gate = finished(raising(ValueError("bad. Next: try again")), fail=False).answer["gate"]
    assert (gate["cause"], gate["next"]) == ("bad. Next: try again", "ansible-playbook playbooks/status.yml")


def test_a_pass_warns_and_a_failure_may_be_only_reported() -> None:
    module = finished(lambda: GateResult("nccl", "pass", 2.0, backend="gloo", warnings=("mind this",)))
    assert (module.failed, module.warnings) == (False, ["mind this"])
    assert module.answer["msg"] == "nccl gate passed in 2 s on gloo"
    module = finished(lambda: FAILED, fail=False)
    assert (module.failed, module.answer["changed"]) == (False, False)
    assert module.answer["msg"] == "nccl gate: fail, wrong_sum on a1 and a2: wrong. Next: diagnose"
    assert finished(lambda: FAILED).failed


def finished_all(results: list[GateResult], fail: bool = True) -> Module:
    module = Module(fail)
    with pytest.raises(Ended):
        entry_point.finish_all(module, ("nccl", "graph"), lambda: results)
    return module


def test_the_gates_of_a_rank_group_are_items_as_of_a_loop() -> None:
    graph = dataclasses.replace(FAILED, gate="graph", code=Code.CAPTURE_HANGS)
    module = finished_all([GateResult("nccl", "pass", 2.0), graph])
    assert module.failed
    assert (
        module.answer["msg"]
        == "nccl gate passed in 2 s; graph gate: fail, capture_hangs on a1 and a2: wrong. Next: diagnose"
    )
    assert [(item["gate"]["gate"], item["failed"]) for item in module.answer["results"]] == [
        ("nccl", False),
        ("graph", True),
    ]
    assert module.answer["evidence"] == ["/e/x"]
    report = TaskReport.parse("a1", "Run gates", "failed", {**module.answer, "failed": True})
    assert [(gate.gate, gate.verdict) for gate in report.gates] == [("nccl", "pass"), ("graph", "fail")]
    assert report.failure is not None
    assert (
        report.failure.cause == "graph gate: fail, capture_hangs on a1 and a2: wrong. Next: diagnose"
        or "wrong" in report.failure.cause
    )
    assert report.failure.evidence == ("/e/x",)


def test_a_gate_that_did_not_run_is_named() -> None:
    module = finished_all([FAILED], fail=False)
    assert (module.failed, module.answer["failed"], len(module.answer["results"])) == (False, False, 1)
    assert module.answer["msg"].endswith("; graph gate: not run, since the ranks had ended")


PARAMS = {
    "scope": "host",
    "deadline": 5,
    "run": "r1",
    "backend": "auto",
    "hosts": None,
    "bisect": False,
    "environment": {"NCCL_NTHREADS": 64},
}


OWN = {
    **{name: argument.get("default") for name, argument in entry_point.NCCL_ARGUMENTS.items()},
    **{name: argument.get("default") for name, argument in entry_point.GRAPH_ARGUMENTS.items()},
}


def test_a_request_is_what_the_parameters_ask() -> None:
    given = {**PARAMS, **OWN, "floor_gbps": 1.5, "capture": ["compiled", "plain"]}
    asked = entry_point.request(given, entry_point.nccl(given), entry_point.graph({**given, "deadline": 6}))
    nccl, graph = asked.gates
    assert (asked.scope, asked.run, asked.bisect) == ("host", "r1", False)
    assert asked.environment == {"NCCL_NTHREADS": "64"}
    assert (nccl.deadline, nccl.floor_gbps, nccl.params) == (5.0, 1.5, {})
    assert [(part.name, part.work, part.seconds) for part in asked.parts()] == [
        ("nccl", "collectives", 5.0),
        ("graph", "graphs", 6.0),
        ("graph-compiled", "graphs", 6.0),
    ]
    assert [part.params["compiled"] for part in graph.parts()] == [False, True]
    assert asked.seconds() == 17.0
    assert request_of(json.loads(json.dumps(dataclasses.asdict(asked)))) == asked


@pytest.mark.parametrize("deadline", [0, -1])
def test_a_deadline_is_positive(deadline: float) -> None:
    with pytest.raises(CannotRun, match="deadline is a positive number of seconds"):
        entry_point.nccl({**OWN, "deadline": deadline})


def test_there_is_something_to_capture() -> None:
    with pytest.raises(CannotRun, match="capture is empty"):
        entry_point.graph({**OWN, "deadline": 5, "capture": []})
