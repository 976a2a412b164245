"""What a person reads of a plan in one line, by who is changed and who is left out."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.stop import Stop
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.left_out import LeftOut
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.plan import Plan
from ansible_collections.lockstep.vllm.plugins.module_utils.rollout.run_plan import as_left_out
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events, live_lines
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.tracker import Tracker

WAVE = {"n": 1, "replicas": ["replica_a"], "hosts": ["a1"], "members": {"replica_a": ["a1"]}}
OUT = LeftOut(("replica_b",), ("b1",), Stop("Asked for and not done:\n  - replica_b was left out", "the command"))


@pytest.mark.parametrize(
    ("waves", "out", "text"),
    [
        ([], None, "nothing to do"),
        ([], OUT, "nothing is done; asked for and left out: replica_b"),
        ([WAVE], None, "plan: 1 host in 1 wave"),
        ([WAVE], OUT, "plan: 1 host in 1 wave; asked for and left out: replica_b"),
    ],
)
def test_nothing_to_do_is_said_only_where_everybody_has_what_was_asked_for(
    waves: list[Any], out: LeftOut | None, text: str
) -> None:
    tracker = Tracker(clock=lambda: 0.0)
    plan = {
        "run": "r",
        "waves": waves,
        "skipped": {"replica_b": "quarantined"},
        "left_out": as_left_out(Plan(left_out=out)),
    }
    report = events.TaskReport.parse("a1", "Plan", "ok", {"lockstep_plan": plan}, "lockstep.vllm.plan")
    (planned,) = tracker.task_ends(report)
    line = live_lines.line(planned, tracker)
    assert line
    assert line.strip().partition("  ")[2] == text
    assert events.RunPlan.parse(planned) == tracker.plan, "the journal gives another plan than the run"
