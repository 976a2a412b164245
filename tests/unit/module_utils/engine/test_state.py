"""Waiting for the engine: a table of what the supervisor and systemd say, and what that means."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import state as engine_state
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.state import EngineState, Unit

UP, STARTING, DOWN, FAILED = Unit("active", 7), Unit("activating", 7), Unit("inactive"), Unit("failed")


def said(phase: str, **facts: Any) -> dict[str, Any]:
    return EngineState(phase, "why", pid=7, **facts).as_record()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "unit", "wish", "answer", "reason"),
    [
        (None, STARTING, "serving", "wait", "the supervisor starts"),
        (said("given_up"), Unit("activating", 8), "serving", "wait", "the supervisor starts"),
        (said("given_up"), Unit("activating", 0), "serving", "wait", "the supervisor starts"),
        (said("waiting"), STARTING, "serving", "wait", "waiting: why"),
        (said("serving", ready=True), UP, "serving", "ready", ""),
        (said("serving"), UP, "serving", "wait", "serving: why"),
        (said("drained"), UP, "serving", "wait", "drained: why"),
        (said("backoff", failures=1, last_failure="ValueError: no"), STARTING, "serving", "hopeless", "ValueError: no"),
        (
            said("starting", failures=1, last_failure="ValueError: no"),
            STARTING,
            "serving",
            "hopeless",
            "ValueError: no",
        ),
        (said("serving", ready=True, failures=1), UP, "serving", "ready", ""),
        (said("given_up"), STARTING, "serving", "hopeless", "given_up: why"),
        (said("given_up"), FAILED, "serving", "hopeless", "lockstep-vllm is failed: given_up: why"),
        (said("serving"), FAILED, "serving", "hopeless", "lockstep-vllm is failed"),
        (None, DOWN, "serving", "hopeless", "lockstep-vllm is inactive"),
        (None, DOWN, "drained", "ready", ""),
        (said("serving"), FAILED, "drained", "ready", ""),
        (said("serving", ready=True), UP, "drained", "wait", "serving: why"),
        (said("draining"), UP, "drained", "wait", "draining: why"),
        (said("drained"), UP, "drained", "ready", ""),
    ],
)
def test_judge(record: dict[str, Any] | None, unit: Unit, wish: Any, answer: str, reason: str) -> None:
    judgement = engine_state.judge(record, unit, wish)
    assert (judgement.answer, judgement.reason) == (answer, reason)


@pytest.mark.parametrize(
    ("shown", "unit"),
    [
        ("MainPID=4242\nResult=success\nActiveState=activating\n", Unit("activating", 4242, "success")),
        ("MainPID=0\nResult=exec-condition\nActiveState=inactive\n", Unit("inactive", 0, "exec-condition")),
        ("", Unit("unknown")),
    ],
)
def test_parse_unit(shown: str, unit: Unit) -> None:
    assert engine_state.parse_unit(shown) == unit


@pytest.mark.parametrize("phase", ["waiting", "starting", "proving", "backoff", "given_up", "stopped"])
def test_an_engine_that_serves_nobody_is_drained(phase: str) -> None:
    assert engine_state.judge(said(phase), UP, "drained").answer == "ready"


@pytest.mark.parametrize(("before", "answer"), [(0, "hopeless"), (1, "wait"), (2, "wait")])
def test_only_a_failure_after_the_wait_began_ends_it(before: int, answer: str) -> None:
    record = said("backoff", failures=1, last_failure="lost a2")
    assert engine_state.judge(record, STARTING, "serving", before).answer == answer
