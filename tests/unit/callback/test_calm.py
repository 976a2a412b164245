"""The calm screen in real runs of ansible-playbook, on a terminal and without one."""

from __future__ import annotations

import datetime
import os
import pty
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.lockstep.vllm.plugins.callback import calm
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import feed
from tests.machine import PATIENCE
from tests.unit.callback import test_rollout as rollout
from tests.unit.callback.test_rollout import BAD, GOOD, Project, play, report

EVENTS = """
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "notification", "events"

    def v2_on_any(self, *args, **kwargs):
        pass

    def _keep(self, name, *args):
        with open("events.log", "a") as stream:
            print(name, *args, file=stream)

    def v2_playbook_on_play_start(self, play): self._keep("play", play.get_name())
    def v2_playbook_on_task_start(self, task, is_conditional): self._keep("task", task.get_name())
    def v2_runner_on_start(self, host, task): self._keep("start", host.get_name(), task.get_name())
    def v2_runner_on_ok(self, result): self._keep("ok", result.host.get_name(), result.task.get_name(), sorted(result.result))
    def v2_runner_on_failed(self, result, ignore_errors=False):
        self._keep("failed", result.host.get_name(), result.task.get_name(), sorted(result.result))
    def v2_playbook_on_stats(self, stats): self._keep("stats", sorted(stats.processed))
"""


class Calm(Project):
    """A project whose stdout callback is ours; its playbook is one of the collection's, or somebody's own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "callback_plugins").mkdir()
        (folder / "callback_plugins" / "events.py").write_text(EVENTS)
        config = (folder / "ansible.cfg").read_text()
        ours = "[defaults]\nstdout_callback = lockstep.vllm.calm\ncallback_plugins = callback_plugins"
        (folder / "ansible.cfg").write_text(
            config.replace("[defaults]", ours).replace("vllm.interrupts", "vllm.interrupts, events")
        )
        self.ours = folder / "collections/ansible_collections/lockstep/vllm/playbooks"
        self.ours.mkdir()

    def command(self, plays: list[dict[str, Any]], own: bool, *arguments: str) -> list[str]:
        path = self.folder / "mine.yml" if own else self.ours / "upgrade_driver.yml"
        path.write_text(yaml.safe_dump(plays, sort_keys=False))
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        return [program, "-i", str(self.folder / "inventory.yml"), str(path), *arguments]

    def text(self, plays: list[dict[str, Any]], *arguments: str, own: bool = False, **environment: str) -> str:
        done = subprocess.run(
            self.command(plays, own, *arguments), cwd=self.folder, env={**self.environment, **environment},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
        return done.stdout

    def on_a_terminal(self, plays: list[dict[str, Any]]) -> str:
        """What a terminal of 80 columns gets."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            self.command(plays, False), cwd=self.folder, env={**self.environment, "TERM": "xterm"},
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        got = b""
        while True:
            try:
                got += (arrived := os.read(ours, 65536))
            except OSError:
                break
            if not arrived:
                break
        process.wait(PATIENCE)
        return got.decode()

    def events(self) -> list[str]:
        path = self.folder / "events.log"
        lines = path.read_text().splitlines()
        path.unlink()
        return lines


@pytest.fixture
def project(tmp_path: Path) -> Calm:
    return Calm(tmp_path)


def test_a_roll_has_a_line_for_each_step_and_host_and_ends_in_a_box(project: Calm) -> None:
    text = project.text(GOOD)
    assert "TASK [" not in text
    lines = text.splitlines()
    for host in rollout.HOSTS:
        mine = [
            step
            for step in ("drain", "driver", "gates", "admit")
            if any(f" {step} " in line and host in line for line in lines)
        ]
        assert mine == ["drain", "driver", "gates", "admit"], text
    assert lines[-4].startswith("┌─ upgrade_driver: done after "), text
    assert "│ skipped     replica_c: quarantined (c1: Xid 79)" in lines
    assert lines[-2].startswith("│ report      .cache/lockstep/runs/"), text
    assert len(lines) < 40


def test_a_failure_is_whole_and_once(project: Calm) -> None:
    text = project.text(BAD)
    assert text.count("graph capture hangs when two hosts take part") == 1, text
    assert text.count("FAILED for the same reason") == 1
    assert "evidence: b1:/var/lib/lockstep" in text or "evidence: b2:/var/lib/lockstep" in text
    assert "┌─ upgrade_driver: FAILED after " in text
    assert "TASK [" not in text
    assert "Origin:" not in text


def test_the_time_of_a_run_begins_with_its_process(project: Calm) -> None:
    began = time.time()
    project.text(GOOD)
    took = time.time() - began
    events = project.journal()
    said = datetime.datetime.fromisoformat(events[0]["at"]).timestamp()
    assert -0.1 <= said - began <= 1.0, "not when Ansible has read the inventory and the playbook"
    assert events[-1]["elapsed"] <= took


def test_verbose_is_ansible_s_own(project: Calm) -> None:
    text = project.text(GOOD, "-v")
    assert "TASK [Run gates]" in text
    assert "PLAY RECAP" in text
    assert "┌─" not in text
    assert "gate nccl passed" in text, "the lines of the callback rollout are among them, as ever"
    assert "report:" in text


MINE = [
    play(
        "a1,a2",
        report("Install it", {"changed": True}),
        {"name": "Say it", "ansible.builtin.debug": {"msg": ["one\x1b[2J", "two"]}},
        {"name": "Ask it", "ansible.builtin.command": "sh -c 'echo out; echo \\\"\\033[2Jwhy\\\" >&2; exit 3'"},
    )
]


def test_a_run_without_a_plan_ends_in_a_box_too(project: Calm) -> None:
    lines = project.text([play("a1,a2", report("Remove it", {"changed": True}))]).splitlines()
    assert lines[-3].startswith("┌─ upgrade_driver: done after "), lines
    assert lines[-2] == "│ changed     a1, a2", lines


def test_another_playbook_has_a_line_per_task_and_fails_as_ansible_fails(project: Calm) -> None:
    text = project.text(MINE, own=True)
    assert "  Install it: changed on a1, a2" in text, text
    assert "a1: one" in text
    for whole in ("fatal: [a1]: FAILED! =>", '"rc": 3', '"stdout": "out"', "PLAY RECAP", "TASK [Ask it]"):
        assert whole in text, text
    assert "\x1b" not in text
    assert "┌─" not in text, "its end is Ansible's recap"


def test_other_callbacks_see_every_event(project: Calm) -> None:
    project.text(BAD, ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default")
    before = project.events()
    project.text(BAD)
    assert sorted(project.events()) == sorted(before)
    assert len(before) > 40


def test_a_terminal_has_lines_that_are_redrawn(project: Calm) -> None:
    wait = {"name": "Wait", "ansible.builtin.command": "sleep 2", "vars": {"lockstep_step": "wait"}}
    got = project.on_a_terminal([rollout.PLANNED, play("a1,a2", wait)])
    drawn = [part for part in got.split("\x1b[J") if "a1           wait" in part]
    assert len(drawn) > 2, got
    assert "\x1b[3A\r\x1b[J" in got, "two hosts and the run"
    last = got.rpartition("\x1b[J")[2]
    assert "└──" in last, "nothing is redrawn over the box"


def test_a_fault_of_its_own_leaves_the_run_to_ansible_s_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(calm.Default, "v2_playbook_on_task_start", lambda *_: shown.append("TASK"))
    callback = calm.CallbackModule()
    callback._display = types.SimpleNamespace(warning=shown.append, verbosity=0)
    callback._view = types.SimpleNamespace(foreign_task=lambda _name: 1 / 0)
    feed.listener = calm._Locked(callback._view, callback.lock)
    for _ in range(2):
        callback.v2_playbook_on_task_start(types.SimpleNamespace(get_name=lambda: "x"), False)
    assert shown == [
        "lockstep.vllm.calm: ZeroDivisionError: division by zero; the rest is shown as Ansible shows it", "TASK", "TASK",
    ]  # fmt: skip
    assert feed.listener is None, "the lines of the callback rollout come back too"
