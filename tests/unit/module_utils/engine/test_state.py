"""Waiting for the engine: a table of what the supervisor and systemd report, and what that means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import systemd
from ansible_collections.lockstep.vllm.plugins.module_utils.core.codes import as_json
from ansible_collections.lockstep.vllm.plugins.module_utils.core.records import RecordError
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.ladder import RungState
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.state import EngineState, Unit
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import Phase, Target, Verdict

UP, STARTING, DOWN, FAILED = Unit("active", 7), Unit("activating", 7), Unit("inactive"), Unit("failed")


def state(phase: str, **facts: Any) -> EngineState:
    """As it comes back from the file that the supervisor writes."""
    written = as_json(EngineState(Phase(phase), "why", pid=7, **facts))
    return EngineState.parse(json.loads(json.dumps(written)))


@pytest.mark.parametrize(
    ("found", "unit", "target", "answer", "reason"),
    [
        (None, STARTING, "serving", "wait", "the supervisor starts"),
        (state("given_up"), Unit("activating", 8), "serving", "wait", "the supervisor starts"),
        (state("given_up"), Unit("activating", 0), "serving", "wait", "the supervisor starts"),
        (state("waiting"), STARTING, "serving", "wait", "waiting: why"),
        (state("serving", ready=True), UP, "serving", "ready", ""),
        (state("serving"), UP, "serving", "wait", "serving: why"),
        (state("drained"), UP, "serving", "wait", "drained: why"),
        (
            state("backoff", failures=1, last_failure="ValueError: no"),
            STARTING,
            "serving",
            "hopeless",
            "ValueError: no",
        ),
        (
            state("starting", failures=1, last_failure="ValueError: no"),
            STARTING,
            "serving",
            "hopeless",
            "ValueError: no",
        ),
        (state("serving", ready=True, failures=1), UP, "serving", "ready", ""),
        (state("given_up"), STARTING, "serving", "hopeless", "given_up: why"),
        (state("given_up"), FAILED, "serving", "hopeless", "lockstep-vllm is failed: given_up: why"),
        (state("serving"), FAILED, "serving", "hopeless", "lockstep-vllm is failed"),
        (None, DOWN, "serving", "hopeless", "lockstep-vllm is inactive"),
        (None, DOWN, "drained", "ready", ""),
        (state("serving"), FAILED, "drained", "ready", ""),
        (state("serving", ready=True), UP, "drained", "wait", "serving: why"),
        (state("draining"), UP, "drained", "wait", "draining: why"),
        (state("drained"), UP, "drained", "ready", ""),
    ],
)
def test_evaluate(found: EngineState | None, unit: Unit, target: str, answer: str, reason: str) -> None:
    evaluation = engine_state.evaluate(found, unit, Target(target))
    assert (evaluation.answer, evaluation.reason) == (answer, reason)


@pytest.mark.parametrize(
    ("shown", "unit"),
    [
        ("MainPID=4242\nResult=success\nActiveState=activating\n", Unit("activating", 4242, "success")),
        ("MainPID=0\nResult=exec-condition\nActiveState=inactive\n", Unit("inactive", 0, "exec-condition")),
        ("", Unit("unknown")),
    ],
)
def test_parse_unit(shown: str, unit: Unit) -> None:
    assert (
        engine_state.parse_unit(systemd.parse_show(f"Id=lockstep-vllm.service\n{shown}")["lockstep-vllm.service"])
        == unit
    )


@pytest.mark.parametrize("phase", ["waiting", "starting", "proving", "backoff", "given_up", "stopped"])
def test_an_engine_that_serves_nobody_is_drained(phase: str) -> None:
    assert engine_state.evaluate(state(phase), UP, Target.DRAINED).answer == "ready"


@pytest.mark.parametrize(("before", "answer"), [(0, "hopeless"), (1, "wait"), (2, "wait")])
def test_only_a_failure_after_the_wait_began_ends_it(before: int, answer: str) -> None:
    found = state("backoff", failures=1, last_failure="lost a2")
    assert engine_state.evaluate(found, STARTING, Target.SERVING, before).answer == answer


LADDER = {
    "none": RungState(Verdict.PROVEN),
    "piecewise": RungState(Verdict.PROVEN, "on CPU: torch.compile, no graph is captured"),
    "full": RungState(Verdict.FAILED, "proven wrong: vLLM did not start within 60 s"),
}


def test_a_state_comes_back_as_it_was_reported() -> None:
    facts: dict[str, Any] = {"rung": "piecewise", "ladder": LADDER, "evidence": ("/e",), "findings": ({"id": "x"},)}
    assert state("serving", **facts) == EngineState(Phase.SERVING, "why", pid=7, **facts)


def test_a_rung_has_failed_by_its_verdict_whatever_its_note() -> None:
    assert engine_state.failed(state("serving", ladder=LADDER).ladder) == {"full": LADDER["full"].note}
    assert list(map(str, LADDER.values())) == [
        "proven",
        "proven (on CPU: torch.compile, no graph is captured)",
        "proven wrong: vLLM did not start within 60 s",
    ]


@pytest.mark.parametrize("record", [{}, {"phase": "dancing"}, {"phase": "serving", "ladder": {"none": "proven"}}])
def test_a_record_that_is_no_state_is_damaged(record: dict[str, Any]) -> None:
    with pytest.raises(RecordError, match=r"engine\.json"):
        EngineState.parse(record)


def test_a_newer_supervisor_may_report_more() -> None:
    assert EngineState.parse({"phase": "waiting", "mood": "sunny"}) == EngineState(Phase.WAITING)
