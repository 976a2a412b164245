from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events, live_lines, tracker
from tests.unit.plugin_utils.report import rolls


@pytest.mark.parametrize(
    ("waves", "lengths", "current", "typical", "left"),
    [
        pytest.param(3, [], 0, None, None, id="nothing to go by"),
        pytest.param(0, [], 0, None, 0, id="nothing left"),
        pytest.param(3, [], 10, 100, 290, id="by an earlier run"),
        pytest.param(3, [50], 10, 100, 140, id="by this run, as soon as there is one"),
        pytest.param(2, [50, 70], 100, None, 60, id="a slow wave is not negative time"),
        pytest.param(1, [60], 20, None, 40, id="the last wave"),
    ],
)
def test_time_left(waves: int, lengths: list[float], current: float, typical: float | None, left: float | None) -> None:
    assert tracker.time_left(waves, lengths, current, typical) == left


def test_a_wave_of_several_replicas_drains_each_by_itself() -> None:
    roll = rolls.Roll(())
    members = {"replica_a": ["a1", "a2"], "replica_b": ["b1"]}
    wave = {"n": 1, "replicas": list(members), "hosts": ["a1", "a2", "b1"], "members": members}
    plan = {"run": "r", "waves": [{**wave, "drained": list(members), "serving": ["replica_c"]}], "refused": False}
    roll.result("ops1", {"lockstep_plan": plan})
    roll.step(("a1", "a2"), "drain", 1)
    assert roll.tracker.serving == ["replica_c", "replica_b"]
    roll.step(("b1",), "drain", 1)
    assert roll.tracker.serving == ["replica_c"]
    roll.step(("a1",), "admit", 1)
    roll.add(roll.tracker.play_starts())
    assert roll.tracker.serving == ["replica_c", "replica_a"]


def test_what_is_done_before_the_waves_belongs_to_none() -> None:
    roll = rolls.Roll(("replica_a", "replica_b"))
    roll.step(("b1",), "prepare", 1)
    assert roll.tracker.wave is None
    roll.step(("a1",), "drain", 1)
    assert [event["wave"] for event in roll.events if event["event"] == "wave_started"] == [1]


def test_waves_that_will_not_begin_cost_no_time() -> None:
    roll = rolls.Roll(("replica_a", "replica_b", "replica_c", "replica_d"))
    for hosts in (("a1", "a2"), ("b1", "b2")):
        roll.step(hosts, "drain", 100)
    assert roll.tracker.time_left() == 220, "waves 3 and 4, as long as the first"
    roll.result("b1", {"msg": "dpkg ended with status 1"}, "failed")
    assert roll.tracker.time_left() == 110, "rolling wave 2 back takes it through the same stages; 3 and 4 don't begin"
    roll.clock.now += 70
    assert roll.tracker.time_left() == 40


def test_a_worker_s_admission_does_not_make_a_replica_serve_whose_head_failed() -> None:
    roll = rolls.Roll(("replica_a",))
    roll.step(("a1", "a2"), "drain", 1)
    roll.add(roll.tracker.task_starts("a1", "serve"))
    roll.result("a1", {"msg": "engine died"}, "failed")
    roll.step(("a2",), "admit", 1)
    roll.add(roll.tracker.play_starts())
    assert "replica_a" not in roll.tracker.serving
    roll.step(("a1", "a2"), "restore", 1)
    roll.step(("a1", "a2"), "admit", 1)
    roll.add(roll.tracker.play_starts())
    assert "replica_a" in roll.tracker.serving


def test_a_verdict_on_the_wave_does_not_undo_the_admission_of_a_restored_replica() -> None:
    roll = rolls.Roll(("replica_a",))
    roll.step(("a1",), "drain", 1)
    roll.add(roll.tracker.task_starts("a1", "gates"))
    roll.result("a1", {"msg": "hangs"}, "failed")
    roll.step(("a1",), "restore", 1)
    roll.step(("a1",), "admit", 1)
    roll.add(roll.tracker.task_starts("a1", None))
    roll.result("a1", {"msg": "wave 1 failed"}, "failed", "Fail unless the wave succeeded")
    roll.end("failed")
    assert "replica_a" in roll.tracker.serving
    ended = [(event["step"], event["outcome"]) for event in roll.events if event["event"] == "step_ended"]
    assert ended == [("drain", "ok"), ("gates", "failed"), ("restore", "ok"), ("admit", "ok")]
    assert [event["step"] for event in roll.events if event["event"] == "failed"] == ["gates", None]


def test_modules_leave_notes_and_nothing_else() -> None:
    roll = rolls.Roll(("replica_a", "replica_b"))
    before = len(roll.events)
    reported = [
        {"event": "serving", "replica": "replica_b", "serving": False},
        {"event": "run_ended", "outcome": "done"},
        {"event": "note", "text": "cache is warm", "host": "a1", "elapsed": 9},
    ]
    roll.result("b1", {"lockstep_event": reported})
    (note,) = roll.events[before:]
    assert (note["event"], note["host"], note["text"], note["elapsed"]) == ("note", "b1", "cache is warm", 0.0)
    assert "replica_b" in roll.tracker.serving


def lines(roll: rolls.Roll, happened: list[dict[str, Any]]) -> list[str]:
    return [line for event in happened if (line := live_lines.line(event, roll.tracker))]


def test_lines() -> None:
    roll = rolls.Roll(("replica_a", "replica_b"), typical=100.0)
    started = roll.tracker.task_starts("a1", "drain")
    assert lines(roll, started) == [
        "   0:00  wave 1 of 2: replica_a (a1, a2) begins · about 3 min 20 s left",
        "   0:00  wave 1/2  a1           drain      serving: replica_b, replica_z · about 3 min 20 s left",
        "   0:00  replica_a is drained; serving: replica_b, replica_z",
    ]
    roll.clock.now += 40
    hang = rolls.gate("graph", "a1", "timeout", cause="capture hangs\nand more")
    failed = roll.tracker.task_ends(events.TaskReport.parse("a1", "Run gates", "failed", {"gate": hang, "msg": "x"}))
    assert lines(roll, failed) == [
        "   0:40  wave 1/2  a1           gate graph TIMED OUT after 3.1 s: capture hangs",
        "   0:40  wave 1/2  a1           FAILED at drain: capture hangs",
    ]
    assert lines(roll, roll.tracker.ends("failed"))[-1] == (
        "   0:40  failed after 40 s; serving: replica_b, replica_z; next: ansible-playbook playbooks/status.yml"
    )


def test_a_refusal_is_shown_once() -> None:
    roll = rolls.Roll(())
    result = {"lockstep_plan": {"refused": True}, "msg": "Refused: a1 is down"}
    report = events.TaskReport.parse("ops1", "Plan", "failed", result, rolls.PLAN_ACTION)
    assert lines(roll, roll.tracker.task_ends(report)) == ["   0:00  ops1         FAILED at Plan: Refused: a1 is down"]


def test_the_newest_failure_that_names_a_next_command_is_the_run_s() -> None:
    roll = rolls.Roll(("replica_a",))
    roll.result("a1", {"msg": "x", "next": "check a1"}, "failed")
    roll.result("a1", {"msg": "y"}, "failed")
    assert roll.tracker.next == "check a1"
    roll.result("a1", {"msg": "z", "next": "check a2"}, "failed")
    assert roll.tracker.next == "check a2"


@pytest.mark.parametrize(
    ("verdicts", "failed", "check", "outcome"),
    [
        ([], False, False, "done"),
        (["pass", "pass"], False, False, "done"),
        (["pass", "timeout"], False, False, "gates_failed"),
        (["pass", "fail"], True, False, "failed"),
        ([], False, True, "checked"),
    ],
)
def test_how_a_run_ends(verdicts: list[str], failed: bool, check: bool, outcome: str) -> None:
    roll = rolls.Roll(("replica_a",))
    for n, verdict in enumerate(verdicts):
        roll.result(f"a{n + 1}", {"gate": rolls.gate("nccl", f"a{n + 1}", verdict)})
    assert roll.tracker.outcome(failed, check) == outcome


FAIL, LOCK, ROLE = "lockstep.vllm.fail", "lockstep.vllm.rollout_lock", "lockstep.vllm.host_setup"
NO = {"failed": True, "refused": True, "msg": "no"}
TAKEN = (LOCK, {"changed": True})
CHANGED = (ROLE, {"changed": True})


@pytest.mark.parametrize(
    ("tasks", "outcome"),
    [
        pytest.param([(FAIL, NO)], "refused", id="before anything"),
        pytest.param([(LOCK, NO)], "refused", id="another controller has the lock"),
        pytest.param([TAKEN, (FAIL, NO)], "refused", id="the lock alone was taken"),
        pytest.param([(ROLE, {}), (FAIL, NO)], "refused", id="hosts were asked"),
        pytest.param([(FAIL, NO), (FAIL, NO)], "refused", id="on two hosts"),
        pytest.param([CHANGED, (FAIL, NO)], "failed", id="something was changed"),
        pytest.param([(FAIL, NO), CHANGED], "failed", id="another host went on"),
        pytest.param([(ROLE, {"failed": True, "msg": "x"}), (FAIL, NO)], "failed", id="something went wrong as well"),
        pytest.param([(FAIL, {**NO, "refused": False})], "failed", id="no refusal"),
        pytest.param([(ROLE, NO)], "failed", id="a host that says so"),
    ],
)
def test_a_run_is_refused_where_nothing_but_refusals_became_of_it(
    tasks: list[tuple[str, dict[str, Any]]], outcome: str
) -> None:
    track = tracker.Tracker(rolls.Clock())
    for action, result in tasks:
        became = "failed" if result.get("failed") else "changed" if result.get("changed") else "ok"
        track.task_ends(events.TaskReport.parse("a1", "Do it", became, result, action))
    assert track.outcome(failed=True, check=False) == outcome


@pytest.mark.parametrize(("planned", "outcome"), [(False, "refused"), (True, "failed")])
def test_a_roll_that_has_begun_a_step_is_not_refused(planned: bool, outcome: str) -> None:
    """The first play of verify.yml is a step, without a plan, and refuses a part of a replica."""
    track = rolls.Roll(("replica_a",)).tracker if planned else tracker.Tracker(rolls.Clock())
    track.task_starts("a1", "gates")
    track.task_ends(events.TaskReport.parse("a1", "Require whole replicas", "failed", NO, FAIL))
    assert track.outcome(failed=True, check=False) == outcome


def test_a_run_began_with_its_process() -> None:
    clock = rolls.Clock()
    track = tracker.Tracker(clock, before=1.5)
    clock.now = 2.0
    assert track.elapsed == 3.5


def test_a_gate_that_passes_in_the_end_is_no_failure() -> None:
    roll = rolls.Roll(("replica_a",))
    for verdict in ("fail", "pass"):
        roll.result("a1", {"gate": rolls.gate("nccl", "a1", verdict)})
    assert roll.tracker.outcome(False, False) == "done"


ENGINE = {
    "phase": "serving",
    "layout": "tp2pp1",
    "rung": "full",
    "ladder": {"none": {"verdict": "proven"}, "full": {"verdict": "proven", "seconds": 28.0}},
}


@pytest.mark.parametrize(
    ("step", "result", "rungs"),
    [
        pytest.param("serve", {"engine": ENGINE, "code": "ready"}, ["none", "full"], id="a start"),
        pytest.param("serve", {"engine": ENGINE, "code": "hopeless", "failed": True, "msg": "x"}, ["none", "full"], id="a start that fails"),
        pytest.param("drain", {"engine": ENGINE, "code": "ready"}, None, id="the engine that is drained"),
        pytest.param("serve", {"engine": ENGINE, "code": "sampled"}, None, id="a look at it"),
        pytest.param("serve", {"engine": None, "code": "ready"}, None, id="no record"),
        pytest.param("serve", {"engine": {"phase": "serving", "ladder": ["?"]}, "code": "ready"}, [], id="an odd record"),
    ],
)  # fmt: skip
def test_a_start_of_an_engine_is_kept_with_its_rungs(
    step: str, result: dict[str, Any], rungs: list[str] | None
) -> None:
    roll = rolls.Roll(("replica_a",))
    roll.add(roll.tracker.task_starts("a1", step))
    roll.result("a1", result, "failed" if result.get("failed") else "ok")
    starts = [event for event in roll.events if event["event"] == "engine_start"]
    assert [[rung["name"] for rung in event["rungs"]] for event in starts] == ([] if rungs is None else [rungs])
    assert all(event["replica"] == "replica_a" for event in starts)


def test_a_warning_is_kept_once_for_each_host() -> None:
    roll = rolls.Roll(("replica_a",))
    for host in ("a1", "a1", "a2"):
        roll.result(host, {"warnings": ["few open files", ["odd"]]})
    warnings = [(event["host"], event["text"]) for event in roll.events if event["event"] == "warning"]
    assert warnings == [("a1", "few open files"), ("a2", "few open files")]
