"""The callback in real runs: ansible-playbook by way of ansible-runner, hosts that are this machine."""

from __future__ import annotations

import contextlib
import html
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import ansible_runner
import pytest
import yaml

from tests.machine import ENDLESS, PATIENCE, until

ROOT = Path(__file__).parents[3]
HOSTS = ("a1", "a2", "b1", "b2")

# An action that returns what it is given: with it, tasks of the test report what modules and actions of a roll return.
GIVEN = """
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _VALID_ARGS = frozenset(["result"])
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        return {**super().run(tmp, task_vars), **self._task.args["result"]}
"""

GIVEN_OR_REAL = """
from ansible_collections.lockstep.vllm.plugins.action import real_plan

class ActionModule(real_plan.ActionModule):
    _VALID_ARGS = real_plan.ActionModule._VALID_ARGS | {"result"}
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        return self._task.args.get("result") or super().run(tmp, task_vars)
"""


def wave(n: int, replica: str, serving: list[str]) -> dict[str, Any]:
    hosts = [f"{replica[-1]}1", f"{replica[-1]}2"]
    return {
        "n": n,
        "replicas": [replica],
        "hosts": hosts,
        "reasons": {host: ["driver 550.90.07, desired 550.127.05"] for host in hosts},
        "serving": serving,
        "drained": [replica],
        "members": {replica: hosts},
    }


PLAN = {
    "run": "20261122T003000Z-ab12",
    "waves": [wave(1, "replica_a", ["replica_b"]), wave(2, "replica_b", ["replica_a"])],
    "skipped": {"replica_c": "quarantined (c1: Xid 79)"},
    "refused": False,
}
GATE = {
    "gate": "nccl",
    "verdict": "pass",
    "seconds": 3.1,
    "measured": {"busbw_gbps": 431.0},
    "floor": {"busbw_gbps": 400.0},
}
HANG = {
    "failed": True,
    "msg": "graph gate timed out",
    "gate": {
        "gate": "graph",
        "verdict": "timeout",
        "seconds": 0.2,
        "cause": "graph capture hangs when two hosts take part",
        "evidence": ["/var/lib/lockstep/evidence/x/graph/stacks.txt"],
        "next": "ansible-playbook playbooks/diagnose.yml --limit b1",
    },
}


def report(name: str, result: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "report": {"result": result or {}}, **more}


def step(name: str, *tasks: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"Step {name}", "vars": {"lockstep_step": name}, "block": list(tasks)}


def play(hosts: str, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": f"Play on {hosts}", "hosts": hosts, "gather_facts": False, "tasks": list(tasks), **more}


def driver(version: str) -> dict[str, Any]:
    return {"fingerprint": {"driver": version, "kernel": "6.1.0"}}


def changed_wave(gates: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        step("drain", report("Drain the replica")),
        step("driver", report("Install driver packages", {"changed": True, **driver("550.127.05")})),
        step("gates", report("Run gates", gates)),
        step("admit", report("Admit host")),
    ]


def planned(plan: dict[str, Any]) -> dict[str, Any]:
    return play("a1", {"name": "Plan the run", "lockstep.vllm.plan": {"result": {"lockstep_plan": plan}}})


PLANNED = planned(PLAN)
BEFORE = play("all", report("Probe host", driver("550.90.07")))
GOOD = [
    PLANNED,
    BEFORE,
    play("a1,a2", *changed_wave({"gate": GATE})),
    play("b1,b2", *changed_wave({"gate": GATE})),
]
BAD = [PLANNED, BEFORE, play("a1,a2", *changed_wave({"gate": GATE})), play("b1,b2", *changed_wave(HANG))]


def collection(folder: Path) -> Path:
    """The collection, whose plan action also returns what it is given: a plan is taken from the action of that name alone."""
    inside = folder / "collections/ansible_collections/lockstep/vllm"
    (inside / "plugins/action").mkdir(parents=True)
    for part in (
        ROOT / "galaxy.yml",
        ROOT / "meta",
        *(ROOT / "plugins").iterdir(),
        *(ROOT / "plugins/action").glob("*.py"),
    ):
        place = inside / part.relative_to(ROOT)
        if not place.exists():
            place.with_stem("real_plan" if part.name == "plan.py" else part.stem).symlink_to(part)
    (inside / "plugins/action/plan.py").write_text(GIVEN_OR_REAL)
    return folder / "collections"


class Project:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "action_plugins").mkdir()
        (folder / "runner").mkdir()
        (folder / "action_plugins" / "report.py").write_text(GIVEN)
        hosts = {name: {"ansible_connection": "local", "ansible_python_interpreter": sys.executable} for name in HOSTS}
        (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
        (folder / "ansible.cfg").write_text(
            textwrap.dedent(f"""
            [defaults]
            collections_path = {collection(folder)}
            callbacks_enabled = lockstep.vllm.rollout, lockstep.vllm.interrupts
            action_plugins = {folder}/action_plugins
            local_tmp = {folder}/tmp
            """)
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ANSIBLE_CONFIG": str(self.folder / "ansible.cfg"),
            "ANSIBLE_FORKS": "4",
            "HOME": str(self.folder),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def playbook(self, plays: list[dict[str, Any]]) -> Path:
        path = self.folder / "upgrade_driver.yml"
        path.write_text(yaml.safe_dump(plays, sort_keys=False))
        return path

    def role(self, name: str, tasks: list[dict[str, Any]]) -> None:
        folder = self.folder / "roles" / name / "tasks"
        folder.mkdir(parents=True)
        (folder / "main.yml").write_text(yaml.safe_dump(tasks))

    def run(self, plays: list[dict[str, Any]], cmdline: str = "", **environment: str) -> Any:
        return ansible_runner.run(
            private_data_dir=str(self.folder / "runner"),
            playbook=str(self.playbook(plays)),
            inventory=str(self.folder / "inventory.yml"),
            project_dir=str(self.folder),
            cmdline=cmdline or None,
            envvars={**self.environment, **environment},
            quiet=True,
        )

    @property
    def runs(self) -> list[Path]:
        return sorted(path for path in (self.folder / ".cache/lockstep/runs").glob("*") if path.is_dir())

    def journal(self) -> list[dict[str, Any]]:
        (folder,) = self.runs
        return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]

    def page(self) -> str:
        (folder,) = self.runs
        return (folder / "report.html").read_text()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Any]:
    """A roll that went well, and its run."""
    project = Project(tmp_path_factory.mktemp("good"))
    return project, project.run(GOOD)


def of(events: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == kind]


def test_a_roll_that_succeeds(good: tuple[Project, Any]) -> None:
    project, run = good
    assert run.rc == 0
    assert [folder.name for folder in project.runs] == [PLAN["run"]]
    events = project.journal()
    assert [event["event"] for event in events[:2]] == ["run_started", "planned"]
    assert events[-1]["event"] == "run_ended"
    assert events[-1]["outcome"] == "done"
    steps = [(event["host"], event["step"], event["wave"]) for event in of(events, "step_started")]
    assert sorted(steps) == sorted(
        (host, name, 1 if host[0] == "a" else 2) for host in HOSTS for name in ("drain", "driver", "gates", "admit")
    )
    assert {event["outcome"] for event in of(events, "step_ended")} == {"ok"}
    assert [(event["replica"], event["serving"]) for event in of(events, "serving")] == [
        ("replica_a", False),
        ("replica_a", True),
        ("replica_b", False),
        ("replica_b", True),
    ]
    assert {event["fingerprint"]["driver"] for event in of(events, "versions") if event["host"] == "b2"} == {
        "550.90.07",
        "550.127.05",
    }
    assert len(of(events, "gate")) == 4
    assert all(earlier["elapsed"] <= later["elapsed"] for earlier, later in itertools.pairwise(events))
    page = project.page()
    assert "Done, 4 hosts in 2 waves" in page
    assert "driver 550.90.07 → <strong>550.127.05</strong>" in page
    assert "<strong>replica_c</strong>: quarantined (c1: Xid 79)" in page


def test_the_screen_has_a_line_per_step_and_host(good: tuple[Project, Any]) -> None:
    text = good[1].stdout.read()
    lines = [line for line in text.splitlines() if "wave 2/2" in line and "b1" in line]
    assert any("driver" in line and "serving: replica_c" not in line for line in lines), text
    assert any("gates" in line and "serving: replica_a" in line and "left" in line for line in lines), text
    assert "report:" in text


def test_a_roll_that_fails_shows_why_and_what_next(project: Project) -> None:
    run = project.run(BAD)
    assert run.rc == 2
    events = project.journal()
    failures = of(events, "failed")
    assert sorted((event["host"], event["step"], event["wave"]) for event in failures) == [
        ("b1", "gates", 2),
        ("b2", "gates", 2),
    ]  # in the order in which they came
    assert failures[0]["cause"] == "graph capture hangs when two hosts take part"
    assert failures[0]["evidence"] == ["/var/lib/lockstep/evidence/x/graph/stacks.txt"]
    assert events[-1]["outcome"] == "failed"
    assert re.search(r"ansible-playbook .*lockstep\.vllm\.diagnose --limit b1$", events[-1]["next"])
    page = project.page()
    assert "Stopped in wave 2 of 2" in page
    assert "graph capture hangs when two hosts take part" in page
    assert "lockstep.vllm.diagnose --limit b1" in page
    assert f"{failures[0]['host']}:/var/lib/lockstep/evidence/x/graph/stacks.txt" in page


def test_the_closing_message_of_a_play_gives_the_next_command(project: Project) -> None:
    arguments = {"cause": "wave 1 of 2 failed:\n  - a1: no space left", "next": "df -h"}
    project.run(
        [play("a1", step("gates", report("Run gates", HANG, ignore_errors=True)), {"lockstep.vllm.fail": arguments})]
    )
    events = project.journal()
    assert of(events, "failed")[0]["cause"].splitlines() == [*arguments["cause"].splitlines(), "Next: df -h"]
    assert events[-1]["next"] == "df -h"


def test_what_a_module_says_to_type_is_the_next_command(project: Project) -> None:
    """Real modules and actions, each of which fails on a machine that is no host of a cluster."""
    failing = {
        "haproxy_replica": ({"replica": "r", "state": "drain"}, "journalctl -u haproxy"),
        "vllm_bake": ({"state": "watched", "seconds": 1}, "ansible-playbook site.yml"),
        "ray_wait_for_resources": ({"members": ["a1"], "deadline": 1}, "ansible-playbook playbooks/status.yml"),
        "plan": ({"action": "pause"}, "ansible all -m lockstep.vllm.rollout_request -a action=pause"),
    }
    blocks = [
        {
            "name": f"Try {name}",
            "vars": {"lockstep_step": "prove"},
            "block": [{"name": name, f"lockstep.vllm.{name}": arguments}],
            "rescue": [report("Go on")],
        }
        for name, (arguments, _next) in failing.items()
    ]
    project.run([play("a1", *blocks)])
    failed = of(project.journal(), "failed")
    # This run's playbook is none of ours.
    ends = {
        "ansible-playbook playbooks/status.yml": "lockstep.vllm.status",
        "ansible-playbook site.yml": "lockstep.vllm.site",
    }
    assert set(failing) == {event["task"] for event in failed}
    for event in failed:
        _how, written = failing[event["task"]]
        assert event["next"].endswith(ends.get(written, written.removeprefix("ansible "))), event["next"]
    assert all(event["cause"].endswith(f"Next: {event['next']}") for event in failed)


def test_included_roles_and_play_variables_carry_the_step(project: Project) -> None:
    project.role("r", [report("Start Ray")])
    include = {"ansible.builtin.include_role": {"name": "r"}, "name": "Ray", "vars": {"lockstep_step": "ray"}}
    project.run([play("a1", include), play("a1", report("Waited"), vars={"lockstep_step": "wait", "lockstep_wave": 3})])
    steps = [(event["step"], event["wave"]) for event in of(project.journal(), "step_started")]
    assert steps == [("ray", None), ("wait", 3)]


def test_who_waits_for_another_host_does_not_go_on_with_its_last_step(project: Project) -> None:
    project.role("engine", [{"name": "Start engine", "ansible.builtin.command": "sleep 1"}])
    project.role("admission", [report("Admit host")])

    def included(role: str, step: str, **more: str) -> dict[str, Any]:
        return {"name": role, "ansible.builtin.include_role": {"name": role}, "vars": {"lockstep_step": step}, **more}

    engine = included("engine", "serve", when="inventory_hostname == 'a1'")
    project.run([play("a1,a2", step("gates", report("Run gates")), engine, included("admission", "admit"))])
    gates, admit = (event for event in of(project.journal(), "step_ended") if event["host"] == "a2")
    assert admit["began"] - gates["ended"] > 0.9


def test_a_rescued_failure_is_reported_and_the_run_is_done(project: Project) -> None:
    block = {
        "name": "Try",
        "vars": {"lockstep_step": "driver"},
        "block": [report("Install driver packages", {"failed": True, "msg": "dpkg was interrupted"})],
        "rescue": [report("Restore driver", vars={"lockstep_step": "restore"})],
    }
    assert project.run([play("a1", block)]).rc == 0
    events = project.journal()
    assert [(event["step"], event["outcome"]) for event in of(events, "step_ended")] == [
        ("driver", "failed"),
        ("restore", "ok"),
    ]
    assert of(events, "failed")[0]["cause"] == "dpkg was interrupted"
    assert events[-1]["outcome"] == "done"


def test_a_task_outside_of_any_step_fails_by_itself(project: Project) -> None:
    project.run(
        [
            play(
                "a1",
                step("admit", report("Admitted")),
                report("Fail unless the wave succeeded", {"failed": True, "msg": "it is not"}),
            )
        ]
    )
    events = project.journal()
    assert [(event["step"], event["outcome"]) for event in of(events, "step_ended")] == [("admit", "ok")]
    assert [event["step"] for event in of(events, "failed")] == [None]
    assert [(event["replica"], event["serving"]) for event in of(events, "serving")] == [("a1", True)]


def test_an_ignored_failure_and_a_skipped_step_are_no_news(project: Project) -> None:
    tasks = [
        step("drain", report("Drain nothing", when=False)),
        step("load", report("Perhaps", {"failed": True}, ignore_errors=True)),
    ]
    project.run([play("a1", *tasks)])
    events = project.journal()
    assert of(events, "failed") == []
    assert [(event["step"], event["outcome"]) for event in of(events, "step_ended")] == [
        ("drain", "skipped"),
        ("load", "ok"),
    ]


def test_secrets_stay_out(project: Project) -> None:
    failing = report("Write token", {"failed": True, "msg": "token s3cr3t refused"}, no_log=True)
    project.run([play("a1", step("ray", failing))])
    (folder,) = project.runs
    text = (folder / "journal.jsonl").read_text() + (folder / "report.html").read_text()
    assert "s3cr3t" not in text
    assert of(project.journal(), "failed") != []


@pytest.mark.parametrize(
    ("plays", "cmdline"),
    [
        pytest.param([play("all", report("Do something else", driver("550.90.07")))], "", id="a run that is no roll"),
        pytest.param([planned({**PLAN, "waves": []})], "", id="nothing to do"),
        pytest.param(GOOD, "--check", id="check mode"),
    ],
)
def test_what_is_no_roll_leaves_nothing_behind(project: Project, plays: list[dict[str, Any]], cmdline: str) -> None:
    assert project.run(plays, cmdline).rc == 0
    assert not (project.folder / ".cache").exists()


def test_a_fault_of_the_callback_is_a_warning(project: Project) -> None:
    (project.folder / "occupied").write_text("a file where a folder should be")
    run = project.run(GOOD, LOCKSTEP_RUNS="occupied")
    assert run.rc == 0
    assert "lockstep.vllm.rollout:" in run.stdout.read()


def start(project: Project, plays: list[dict[str, Any]], moment: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-m", "ansible", "playbook", "-i", "inventory.yml", str(project.playbook(plays))],
        cwd=project.folder,
        env={**os.environ, **project.environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def reached() -> bool:
        assert child.poll() is None, "the run ended before it got there"
        return any(moment in path.read_text() for path in project.folder.glob(".cache/lockstep/runs/*/journal.jsonl"))

    until(reached, moment)
    return child


LONG = [
    PLANNED,
    play(
        "a1,a2",
        step("drain", report("Drained")),
        step("load", {"name": "Long", "ansible.builtin.command": f"sleep {ENDLESS}"}),
    ),
]


def test_ctrl_c_leaves_a_report(project: Project) -> None:
    child = start(project, LONG, '"load"')
    os.killpg(child.pid, signal.SIGINT)
    child.wait(PATIENCE)
    assert project.journal()[-1]["outcome"] == "interrupted"
    again = f'<h2>Next</h2><pre class="command">{project.journal()[0]["command"]}</pre>'
    assert again in html.unescape(project.page())
    assert "Interrupted in wave 1 of 2" in project.page()


def test_ctrl_c_again_and_again_leaves_the_report(project: Project) -> None:
    child = start(project, LONG, '"load"')
    os.killpg(child.pid, signal.SIGINT)
    until(lambda: '"run_ended"' in (project.runs[0] / "journal.jsonl").read_text() or child.poll() is not None)

    def ended() -> bool:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
        return child.poll() is not None

    until(ended)
    assert project.journal()[-1]["outcome"] == "interrupted"
    assert "Interrupted in wave 1 of 2" in project.page()


def test_a_killed_run_gets_its_report_from_the_next(project: Project) -> None:
    child = start(project, LONG, '"load"')
    os.killpg(child.pid, signal.SIGKILL)
    child.wait(PATIENCE)
    (killed,) = project.runs
    assert not (killed / "report.html").exists()
    project.run([play("a1", step("load", report("Loaded")))])
    page = html.unescape((killed / "report.html").read_text())
    began = json.loads((killed / "journal.jsonl").read_text().splitlines()[0])
    assert "No end is known; last seen in wave 1 of 2" in page
    assert f'<h2>Next</h2><pre class="command">{began["command"]}</pre>' in page


def test_a_diagnosis_with_a_failed_gate_is_not_done_and_its_conclusion_is_kept(project: Project) -> None:
    found = {"gate": {**HANG["gate"], "host": "a1"}}
    say = {
        "name": "Show verdict",
        "vars": {"lockstep_conclusion": True},
        "ansible.builtin.debug": {"msg": ["VERDICT on replica_a", "where: a1"]},
    }
    warn = report("Warn", {"warnings": ["the card is warm"]})
    run = project.run([play("a1", report("Run graph gate", found), warn, say)])
    assert run.rc == 0
    events = project.journal()
    assert events[-1]["outcome"] == "gates_failed"
    assert [event["text"] for event in of(events, "conclusion")] == ["VERDICT on replica_a\nwhere: a1"]
    assert [(event["host"], event["text"]) for event in of(events, "warning")] == [("a1", "the card is warm")]
    assert "1 gate failed, on a1" in project.page()
    assert events[0]["cluster"]
