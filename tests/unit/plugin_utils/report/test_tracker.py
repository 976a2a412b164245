from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import tracker as progress
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
    assert progress.time_left(waves, lengths, current, typical) == left


@pytest.mark.parametrize(("seconds", "said"), [(0, "0:00"), (187.9, "3:07"), (3729, "1:02:09"), (360000, "100:00:00")])
def test_clock(seconds: float, said: str) -> None:
    assert progress.clock(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (187, "3 min 7 s"),
        (599.6, "10 min"),
        (850, "14 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
    ],
)
def test_span(seconds: float, said: str) -> None:
    assert progress.span(seconds) == said


def test_gates_are_found_wherever_a_result_has_them_but_not_in_what_a_survey_found() -> None:
    gate = {"gate": "nccl", "verdict": "pass"}
    found = list(
        progress.find(
            {"a": [{"b": gate}], "gates": [gate], "state": {"stamps": [gate]}, "hosts": {"x": gate}},
            ("gate", "verdict"),
        )
    )
    assert found == [gate, gate]


def test_one_gate_told_twice_is_one_event() -> None:
    tracker = progress.Tracker()
    gate = rolls.gate("nccl", "a1")
    first = tracker.task_ends("a1", "Gate", "ok", {"result": gate})
    second = tracker.task_ends(
        "a1", "Stamp", "ok", {"stamp": {"gates": [{key: gate[key] for key in ("gate", "verdict", "seconds")}]}}
    )
    assert [event["event"] for event in first + second] == ["gate"]


@pytest.mark.parametrize(
    ("result", "cause"),
    [
        ({"msg": "it broke"}, "it broke"),
        ({"cause": "the cause", "msg": "it broke", "stderr": "noise"}, "the cause"),
        ({"msg": "non-zero return code", "stderr": "E: held packages"}, "non-zero return code\nE: held packages"),
        ({"msg": {"a": 1}}, '{"a": 1}'),
        ({"msg": "One or more items failed", "results": [{"failed": True, "msg": "x"}, {"msg": "fine"}]}, "x"),
        ({"msg": "All items completed", "results": [{"unreachable": True, "msg": "y"}, {"msg": "fine"}]}, "y"),
        ({"msg": "", "result": {"gate": "g", "verdict": "fail", "cause": "wrong sum"}}, "wrong sum"),
        ({}, "no reason was given"),
    ],
)
def test_cause(result: dict[str, Any], cause: str) -> None:
    (failed,) = [e for e in progress.Tracker().task_ends("a1", "T", "failed", result) if e["event"] == "failed"]
    assert failed["cause"] == cause


def test_a_cause_is_bounded() -> None:
    (failed,) = progress.Tracker().task_ends("a1", "T", "failed", {"msg": "x" * 100_000})
    assert len(failed["cause"]) == progress.CAUSE_LENGTH


@pytest.mark.parametrize(
    "result",
    [
        {"fingerprint": rolls.OLD},
        {"state": {"fingerprint": rolls.OLD}},
        {"stamp": {"fingerprint": rolls.OLD}},
        {"fingerprints": {"a1": rolls.OLD, "a2": None}},
        {"hosts": {"a1": {"reachable": True, "state": {"fingerprint": rolls.OLD}}}},
        {"hosts": {"a1": {"state": None}}, "states": {"a1": {"fingerprint": rolls.OLD}}},
    ],
)
def test_fingerprints(result: dict[str, Any]) -> None:
    assert list(progress.fingerprints("a1", result)) == [("a1", rolls.OLD)]


def test_a_wave_of_several_replicas_takes_each_from_service_by_itself() -> None:
    roll = rolls.Roll(())
    members = {"replica_a": ["a1", "a2"], "replica_b": ["b1"]}
    wave = {"n": 1, "replicas": list(members), "hosts": ["a1", "a2", "b1"], "members": members}
    plan = {"run": "r", "waves": [{**wave, "drained": list(members), "serving": ["replica_c"]}], "refusals": []}
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
    assert roll.tracker.time_left() == 110, "putting wave 2 back takes it through the same stages; 3 and 4 don't begin"
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
    roll.result("a1", {"msg": "wave 1 failed"}, "failed", "Wave is good")
    roll.end("failed")
    assert "replica_a" in roll.tracker.serving
    ended = [(event["step"], event["outcome"]) for event in roll.events if event["event"] == "step_ended"]
    assert ended == [("drain", "ok"), ("gates", "failed"), ("restore", "ok"), ("admit", "ok")]
    assert [event["step"] for event in roll.events if event["event"] == "failed"] == ["gates", None]


@pytest.mark.parametrize(
    ("result", "following"),
    [
        ({"msg": "a1 is down. Next: ansible a1 -m ping"}, "ansible a1 -m ping"),
        ({"msg": "first\nNext: type this\nthen rest"}, "type this"),
        ({"msg": "wave failed\n - a1: gate. Next: look at a1\nNext: look at the replica"}, "look at the replica"),
        ({"msg": "x. Next: y", "next": "z"}, "z"),
        ({"msg": "x", "result": {"gate": "g", "verdict": "fail", "next": "w"}}, "w"),
        ({"msg": "x"}, ""),
    ],
)
def test_next(result: dict[str, Any], following: str) -> None:
    tracker = progress.Tracker()
    tracker.task_ends("a1", "T", "failed", result)
    assert tracker.next == following


def test_a_host_that_is_gone_is_to_be_brought_back_first() -> None:
    tracker = progress.Tracker()
    tracker.task_ends("a1", "T", "unreachable", {"msg": "Failed to connect to the host via ssh"})
    assert tracker.next.startswith("ansible a1 -m ansible.builtin.ping; ")
    tracker.task_ends("a1", "T", "failed", {"msg": "router1 is unreachable. Next: ansible router1 -m ping"})
    assert tracker.next == "ansible router1 -m ping"


def test_the_plan_action_s_own_result_is_the_plan() -> None:
    roll = rolls.Roll(())
    roll.result("ops1", {**rolls.plan(["replica_a"]), "text": "…", "members": []})
    assert roll.tracker.waves == 1


def test_modules_may_tell_what_serves_and_leave_notes() -> None:
    roll = rolls.Roll(("replica_a", "replica_b"))
    told = [{"event": "serving", "replica": "replica_b", "serving": False}, {"event": "note", "text": "cache is warm"}]
    roll.result("b1", {"lockstep_event": told})
    assert [(event["event"], event.get("text")) for event in roll.events[-2:]] == [
        ("serving", None),
        ("note", "cache is warm"),
    ]
    assert "replica_b" not in roll.tracker.serving


def lines(roll: rolls.Roll, events: list[dict[str, Any]]) -> list[str]:
    return [said for event in events if (said := progress.line(event, roll.tracker))]


def test_lines() -> None:
    roll = rolls.Roll(("replica_a", "replica_b"), typical=100.0)
    started = roll.tracker.task_starts("a1", "drain")
    assert lines(roll, started) == [
        "   0:00  wave 1 of 2: replica_a (a1, a2) begins · about 3 min 20 s left",
        "   0:00  wave 1/2  a1           drain      serving: replica_b, replica_z · about 3 min 20 s left",
        "   0:00  replica_a is taken from service; serving: replica_b, replica_z",
    ]
    roll.clock.now += 40
    hang = rolls.gate("graph", "a1", "timeout", cause="capture hangs\nand more")
    failed = roll.tracker.task_ends("a1", "Gates pass", "failed", {"result": hang, "msg": "x"})
    assert lines(roll, failed) == [
        "   0:40  wave 1/2  a1           gate graph TIMED OUT after 3.1 s: capture hangs",
        "   0:40  wave 1/2  a1           FAILED at drain: capture hangs",
    ]
    assert lines(roll, roll.tracker.ends("failed"))[-1] == (
        "   0:40  failed after 40 s; next: ansible-playbook playbooks/status.yml"
    )


def test_a_refusal_is_a_line() -> None:
    roll = rolls.Roll(())
    refused = roll.tracker.task_ends("ops1", "Plan", "failed", {"refusals": ["a1 is down"], "msg": "no"})
    assert lines(roll, refused)[0] == "   0:00  refused: a1 is down"
