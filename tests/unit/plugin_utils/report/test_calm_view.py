"""The calm screen: a roll that goes well, one that fails, a wait; line for line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import calm_lines, closing, events, journal, timeline
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.calm_lines import Doing, StepEnded
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.calm_view import View
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.progress import Progress
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.tracker import Tracker
from tests.unit.plugin_utils.report import rolls

JOURNALS = Path(__file__).parents[2] / "fixtures" / "journals"


class Screen(rolls.Roll):
    """A roll whose events are shown as they come."""

    def __init__(self, *arguments: Any, redrawn: bool = False) -> None:
        self.lines: list[str] = []
        self.view: View | None = None
        super().__init__(*arguments)
        self.view = View(lambda line, _colour: self.lines.append(line), redrawn, self.clock)

    def add(self, happened: Sequence[Mapping[str, Any]]) -> None:
        super().add(happened)
        if self.view is not None:
            self.view.tick()
        for event in happened if self.view is not None else ():
            self.view.follow(dict(event), self.tracker)

    def fails(self, host: str, task: str, result: Mapping[str, Any], action: str = "lockstep.vllm.nccl_verify") -> None:
        report = events.TaskReport.parse(host, task, "failed", result, action)
        assert self.view is not None
        self.view.failed(report, action)
        self.add(self.tracker.task_ends(report))

    def text(self) -> str:
        assert self.view is not None
        self.view.flush()
        return "\n".join(self.lines)


def shown(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


def test_a_wave() -> None:
    screen = Screen(("replica_a", "replica_b"))
    screen.wave(1, {"drain": 24, "gates": 52, "admit": 2})
    assert screen.text().splitlines() == [
        "   0:00  wave 1 of 2: replica_a (a1, a2) begins",
        "   0:24  replica_a is drained; serving: replica_b, replica_z",
        "   0:26  a1           drain         24 s",
        "   0:26  a2           drain         26 s",
        "   1:18  a1           gate nccl     3.1 s         passed",
        "   1:18  a1           gate graph    3.1 s         passed",
        "   1:23  a2           gate nccl     3.1 s         passed",
        "   1:23  a2           gate graph    3.1 s         passed",
        "   1:23  a1           gates         52 s",
        "   1:23  a2           gates         57 s",
        "   1:25  a1, a2       admit         2.0 s to 2.2 s",
        "   1:25  replica_a serves; serving: replica_b, replica_z, replica_a",
    ]


def test_alike_hosts_that_end_a_step_together_have_one_line() -> None:
    ended = [StepEnded(f"gpu{n:03}", "driver", 1, 10.0, 30.0 + n / 10, "ok", True, 32.0) for n in range(1, 17)]
    assert calm_lines.steps(ended) == [
        "   0:32  gpu[001-016] driver        20 s to 22 s  changed",
    ]
    assert len(calm_lines.steps(ended[:4])) == 1, "20 s each"
    assert calm_lines.steps(ended[:6:5]) == ["   0:32  gpu001, gpu006 driver        20 s to 21 s  changed"]
    assert len(calm_lines.steps([ended[0], ended[-1]])) == 2, "a second and a half apart"
    assert len(calm_lines.steps([*ended[:5], StepEnded("b1", "driver", 1, 0.0, 9.0, "failed", False, 32.0)])) == 2


def test_times_never_run_backwards_though_a_host_was_done_long_before_its_mate() -> None:
    """The gates of a real roll, 2026-11-28: a2 was done after 2:27 and waited until 2:33 for a1."""
    lines = calm_lines.steps([
        StepEnded("a1", "gates", 1, 145.7, 153.6, "ok", True, 153.7),
        StepEnded("a2", "gates", 1, 145.7, 147.2, "ok", False, 153.7),
        StepEnded("a1", "gate nccl", 1, 149.6, 152.4, "passed", False, 152.4),
    ])  # fmt: skip
    assert lines == [
        "   2:32  a1           gate nccl     2.8 s         passed",
        "   2:33  a1           gates         7.9 s         changed",
        "   2:33  a2           gates         1.5 s",
    ]


def lines_of(name: str) -> list[str]:
    """What the screen shows of a recorded run: its events as they came."""
    clock, lines = rolls.Clock(), list[str]()
    view = View(lambda line, _colour: lines.append(line), False, clock)
    tracker = Tracker(clock)
    for event in journal.read(JOURNALS / name):
        clock.now = event["elapsed"]
        view.tick()
        view.follow(dict(event), tracker)
    view.flush()
    return lines


def test_a_first_run_on_two_hosts_is_a_screenful() -> None:
    """Of the 60 lines of `make demo`: the others are the build's, the plan's, the box's and the status'."""
    lines = lines_of("site.jsonl")
    assert len(lines) <= 25, "\n".join(lines)
    for step in ("prepare", "drain", "driver", "runtime", "gates", "ray", "serve", "prove", "admit"):
        assert any(f" {step} " in line for line in lines), step


def test_a_real_roll_is_shown_in_the_order_of_its_times() -> None:
    """Of a roll that failed and was rolled back."""
    lines = lines_of("failed_start.jsonl")
    times = [line[:7].strip() for line in lines if re.match(r" +\d+:\d\d  a[12]", line)]
    seconds = [int(minutes) * 60 + int(rest) for minutes, _colon, rest in (time.partition(":") for time in times)]
    assert len(seconds) > 30
    assert seconds == sorted(seconds)


STANDS = "rank 1 on a2 waits in replay\nits stack:\n  allreduce"


def test_a_failure_is_shown_whole_and_once() -> None:
    screen = Screen(("replica_a", "replica_b"))
    screen.step(("a1", "a2"), "gates", 10)
    gate = rolls.gate("nccl", "a1", "timeout", cause=STANDS, evidence=["/e/stacks.txt"], next="ansible-playbook x.yml")
    screen.lines.clear()
    for host in ("a1", "a2"):
        screen.fails(host, "Run NCCL gate", {"msg": "NCCL gate: timeout", "gate": gate})
    cause = f"Wave 1 of 2 failed; no further wave begins.\n  - a1, host_gates: {STANDS}\nIt is as before."
    for host in ("a1", "a2", "lockstep_wave_1"):
        screen.fails(host, "Fail unless the wave succeeded", {"msg": cause, "cause": cause}, "lockstep.vllm.fail")
    assert screen.text() == shown("""
   0:11  a1           FAILED at gates: Run NCCL gate
           rank 1 on a2 waits in replay
           its stack:
             allreduce
           evidence: a1:/e/stacks.txt
           next: ansible-playbook x.yml
   0:11  a2           FAILED for the same reason
Wave 1 of 2 failed; no further wave begins.
  - a1, host_gates: rank 1 on a2 waits in replay (in full above)
It is as before.
""")


@pytest.mark.parametrize("redrawn", [False, True])
def test_a_wait_says_who_is_missing_and_for_how_long(redrawn: bool) -> None:
    screen = Screen(("replica_a", "replica_b"), redrawn=redrawn)
    view = screen.view
    assert view is not None
    screen.add(screen.tracker.task_starts("a1", "wait"))
    screen.lines.clear()
    for _ in range(2):
        screen.clock.now += 15
        view.reported(Progress("a1", screen.clock.now, "3 of 4 hosts are there; a4: its unit has failed"))
    screen.clock.now += 5
    lines = [] if redrawn else ["   0:15  a1           waits for 15 s: 3 of 4 hosts are there; a4: its unit has failed"]
    assert screen.lines == lines
    assert view.live(200, 20) == [
        "     0:35  a1           wait  waits for 0:35: 3 of 4 hosts are there; a4: its unit has failed",
        "   0:35  serving: replica_b, replica_z, replica_a",
    ]
    view.task_ends("a1")
    assert "missing" not in view.live(80, 20)[0]


def test_what_is_redrawn_fits_the_terminal() -> None:
    doing = {f"gpu{n:03}": Doing("wait", 0.0, waits="日本語" * 40) for n in range(100)}
    lines = calm_lines.live(doing, 65.0, "serving: none", 40, 10)
    assert len(lines) <= 10
    assert lines[-2].strip() == "and 97 other hosts", "each needs two lines"
    for line in lines:
        assert sum(2 if ord(each) > 0x2E80 else 1 for each in line) < 40
    assert calm_lines.live({}, 65.0, "x", 40, 10) == []


def test_a_long_step_gives_a_sign_of_life_where_nothing_is_redrawn() -> None:
    screen = Screen(("replica_a", "replica_b"))
    assert screen.view is not None
    screen.add(screen.tracker.task_starts("a1", "runtime"))
    screen.lines.clear()
    for _ in range(300):
        screen.clock.now += 0.5
        screen.view.tick()
    assert screen.lines == [
        "   1:00  a1           runtime    for 1 min, still under way",
        "   2:01  a1           runtime    for 2 min 1 s, still under way",
    ]


def test_a_first_task_that_lasts_gives_one_too() -> None:
    """Whatever the machine's clock says when the run begins."""
    clock, lines = rolls.Clock(), list[str]()
    clock.now = 5000.0
    view = View(lambda line, _colour: lines.append(line), False, clock, before=2.0)
    view.task_starts("a1", "Probe every host and plan")
    clock.now += 61
    view.tick()
    assert lines == ["   1:03  a1           Probe every host and plan for 1 min 1 s, still under way"]


def test_the_box_has_what_a_person_wants() -> None:
    screen = Screen(("replica_a", "replica_b"))
    endpoint = {
        "name": "replica_a",
        "url": "http://10.0.0.11:8000/v1",
        "model": "tiny",
        "key": True,
        "prompt": "It's",
        "max_tokens": 4,
    }
    plan = {**screen.plan, "endpoints": [endpoint], "up_to_date": ["replica_z"]}
    screen.result("ops1", {"lockstep_plan": plan})
    screen.result("a1", {"completion": {"ok": True, "text": " so", "seconds": 0.42}})
    screen.clock.now = 227
    ended = closing.closing("site", "done", screen.tracker, ".cache/r/report.html")
    assert closing.box(ended) == [
        "┌─ site: done after 3 min 47 s " + "─" * 45,
        "│ endpoint    http://10.0.0.11:8000/v1  (replica_a, model tiny)",
        "│ completion  \"It's\" → ' so' (replica_a, 0.4 s)",
        "│ key         export VLLM_API_KEY=$(ansible 'replica_a[0]' -m ansible.builtin.debug"
        """ -a 'msg={{ vllm_server_api_key }}' | sed -n 's/^ *"*msg"*: //p' | tr -d "\\"'")""",
        "│ try it      curl -s http://10.0.0.11:8000/v1/completions -H 'Content-Type: application/json'"
        ' -H "Authorization: Bearer $VLLM_API_KEY"'
        """ -d '{"model": "tiny", "prompt": "It'"'"'s", "max_tokens": 4, "temperature": 0}'""",
        "│ up to date  replica_z",
        "│ skipped     replica_q: quarantined (q1: Xid 79)",
        "│ report      .cache/r/report.html",
        "└" + "─" * 75,
    ]
    assert "report:  .cache/r/report.html" in closing.plain(ended)


def test_a_refusal_names_no_endpoint() -> None:
    screen = Screen(("replica_a",))
    screen.tracker.next = "ansible-playbook x.yml"
    ended = closing.closing("site", "refused", screen.tracker, repeated=str.upper)
    assert ("next", "ANSIBLE-PLAYBOOK X.YML") in ended.rows
    assert not ended.good
    assert "endpoint" not in dict(ended.rows)


def test_a_run_that_finds_nothing_to_do_says_where_it_serves() -> None:
    screen = Screen(())
    endpoints = [
        {"name": "r1", "router": True, "url": "http://10.0.0.5:8080/v1", "model": "tiny"},
        {"name": "replica_a", "url": "http://10.0.0.11:8000/v1", "model": "tiny"},
    ]
    plan = {"run": "r", "waves": [], "endpoints": endpoints, "up_to_date": ["replica_a"], "answering": ["replica_a"]}
    screen.result("ops1", {"lockstep_plan": plan})
    ended = closing.closing("site", "nothing_to_do", screen.tracker)
    assert ended.title == "site: nothing to do"
    assert [label for label, _text in ended.rows] == ["endpoint", "try it", "up to date"]
    assert dict(ended.rows)["endpoint"] == "http://10.0.0.5:8080/v1  (r1, model tiny)"
    assert ended.good


def test_hosts_that_are_gone_are_said_once_whole_and_then_by_name() -> None:
    screen = Screen(("replica_a",))
    assert screen.view is not None
    for n, host in enumerate(("gpu-03", "gpu-01", "gpu-02")):
        said = {"msg": f'Data could not be sent to remote host "192.0.2.{n}"', "unreachable": True}
        screen.view.failed(
            events.TaskReport.parse(host, "Probe host", "unreachable", said, ""), "lockstep.vllm.host_probe"
        )
    assert [line.strip() for line in screen.text().splitlines()] == [
        "0:00  gpu-03       UNREACHABLE: Probe host",
        'Data could not be sent to remote host "192.0.2.0"',
        "next: ansible gpu-03 -m ansible.builtin.ping",
        "0:00  gpu-01, gpu-02 UNREACHABLE too; next: ansible gpu-01,gpu-02 -m ansible.builtin.ping",
    ]


def test_a_refused_plan_is_no_host_s() -> None:
    """It was shown as a failure of the first host of the inventory."""
    screen = Screen(("replica_a",))
    screen.fails(
        "gpu-01",
        "Probe every host and plan",
        {"msg": "Refused before anything was changed, for 1 reason", "reasons": "- why"},
        rolls.PLAN_ACTION,
    )
    assert screen.text().splitlines() == ["Refused before anything was changed, for 1 reason", "- why"]


def test_a_refusal_of_another_action_is_no_host_s_either() -> None:
    """A second controller's, at the lock: it was shown as a failure of the first host, and the box said FAILED."""
    screen = Screen(("replica_a",))
    why = "a rollout is in progress: run r1 of bob@ops2"
    refused = {"failed": True, "refused": True, "msg": why, "next": "ansible-playbook playbooks/status.yml"}
    screen.fails("a1", "Acquire rollout lock", refused, "lockstep.vllm.rollout_lock")
    assert screen.text().splitlines() == [why]
    outcome = screen.tracker.outcome(failed=True, check=False)
    screen.tracker.ends(outcome)
    ended = closing.closing("site", outcome, screen.tracker, hosts=closing.Hosts(failed=("a1",)))
    assert (ended.title, ended.good) == ("site: refused, nothing was changed", False)
    assert ended.rows[-1] == ("next", "ansible-playbook playbooks/status.yml")
    assert "failed" not in dict(ended.rows)


def test_a_wait_says_for_how_long_and_who_is_missing_on_every_screen() -> None:
    why = "3 of 4 hosts, 24 of 32 GPUs; a4: lockstep-ray.service has failed (start-limit-hit), since 17:31:02"
    for redrawn in (True, False):
        screen = Screen(("replica_a",), redrawn=redrawn)
        assert screen.view is not None
        screen.step(("a1",), "ray", 9)
        screen.add(screen.tracker.task_starts("a1", "wait"))
        screen.view.task_starts("a1", "Wait until the replica's hosts are there")
        screen.clock.now += 15
        screen.view.reported(Progress("a1", 15.0, why))
        screen.clock.now += 70
        screen.view.tick()
        live = screen.view.live(80, 20)
        assert all(len(line) < 80 for line in live)
        assert why in " ".join(" ".join(live).split()), live
        assert "waits for 1:25" in live[0]
        if not redrawn:
            assert [line.strip() for line in screen.lines[-2:]] == [
                f"0:24  a1           waits for 15 s: {why}",
                f"1:34  a1           wait       for 1 min 25 s, still under way: {why}",
            ]


def test_a_diagnosis_with_a_failed_gate_ends_in_a_box_that_says_so() -> None:
    screen = Screen(("replica_a",))
    screen.result("a2", {"gate": rolls.gate("graph", "a2", "timeout")})
    outcome = screen.tracker.outcome(failed=False, check=False)
    ended = closing.closing("diagnose", outcome, screen.tracker, "runs/x/report.html")
    assert not ended.good
    assert ended.title.startswith("diagnose: gates FAILED after ")
    assert ended.rows[0] == ("failed", "1 gate, on a2")
    assert ("report", "runs/x/report.html") in ended.rows


COUNTED = {"ok": 3, "failures": 0, "unreachable": 0, "changed": 0, "skipped": 1, "rescued": 0, "ignored": 0}


@pytest.mark.parametrize(
    ("outcome", "title", "rows"),
    [
        ("done", "remove: done after 41 s", [("changed", "a1, a2"), ("unchanged", "ops1")]),
        ("checked", "remove: checked, nothing was changed", [("to change", "a1, a2"), ("unchanged", "ops1")]),
        (
            "failed",
            "remove: FAILED after 41 s",
            [
                ("changed", "a1, a2"),
                ("unchanged", "ops1"),
                ("failed", "b1"),
                ("unreachable", "b2"),
                ("next", "ansible-playbook playbooks/status.yml"),
            ],
        ),
    ],
)
def test_a_run_without_a_plan_ends_in_a_box_with_its_hosts(
    outcome: events.RunOutcome, title: str, rows: list[tuple[str, str]]
) -> None:
    summaries = {host: {**COUNTED, "changed": 2} for host in ("a2", "a1")} | {"ops1": COUNTED}
    if outcome == "failed":
        summaries |= {"b1": {**COUNTED, "changed": 1, "failures": 1}, "b2": {**COUNTED, "unreachable": 1}}
    clock = rolls.Clock()
    tracker = Tracker(clock)
    clock.now = 41
    tracker.ends(outcome)
    ended = closing.closing("remove", outcome, tracker, hosts=closing.Hosts.parse(summaries))
    assert ended.title == title
    assert list(ended.rows) == rows


@pytest.mark.parametrize(
    ("outcome", "box"),
    [
        ("done", ["── status: done after 0.0 s, nothing changed "]),
        ("checked", ["┌─ status: checked, nothing was changed ", "│ to change   nothing", "└"]),
    ],
)
def test_a_run_that_changed_nothing_names_no_host_of_those_that_it_asked(
    outcome: events.RunOutcome, box: list[str]
) -> None:
    """`status.yml` asks all hosts by a task of one: its box said `unchanged a1`."""
    ended = closing.closing("status", outcome, Tracker(rolls.Clock()), hosts=closing.Hosts.parse({"a1": COUNTED}))
    assert [line.rstrip("─") for line in closing.box(ended)] == box


def test_a_diagnosis_says_which_gates_it_did_not_run() -> None:
    tracker = Tracker(rolls.Clock())
    tracker.gates = list(timeline.build(journal.read(JOURNALS / "diagnose.jsonl")).gates)
    assert closing.closing("diagnose", "done", tracker).rows == (("not run", "NCCL, CUDA graphs on a1, a2"),)
    assert closing.closing("site", "done", tracker).rows == ()


def test_a_refusal_s_next_command_stands_in_the_box() -> None:
    """As the plan returns it: with `--limit a1` of a replica of two hosts."""
    screen = Screen(("replica_a",))
    refused = {
        "msg": "Refused before anything was changed, for 1 reason",
        "reasons": "- --limit leaves out a2 of replica_a. Next: ansible-playbook site.yml --limit replica_a",
        "next": "ansible-playbook site.yml --limit replica_a",
        "lockstep_plan": {"refused": True, "waves": []},
    }
    screen.fails("a1", "Probe every host and plan", refused, rolls.PLAN_ACTION)
    ended = closing.closing("site", screen.tracker.outcome(failed=True, check=True), screen.tracker)
    assert (ended.title, ended.rows) == (
        "site: refused, nothing was changed",
        (("next", "ansible-playbook site.yml --limit replica_a"),),
    )


def test_hosts_of_a_foreign_task_are_named_in_one_order_whatever_forks_end_first() -> None:
    assert (
        calm_lines.task("Install it", 3, {"a2": "changed", "a1": "changed"}) == "   0:03  Install it: changed on a1, a2"
    )
