"""A host whose root is lost answers the fleet's programs: its words cost the others nothing (S5, S6)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext

from ansible_collections.lockstep.vllm.plugins.module_utils.host.codes import AnswerCode
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import bounded, fleet
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer
from tests.machine import ENDLESS, PATIENCE, until

ROOT = Path(__file__).parents[2]
GOOD = "import sys; sys.stdin.read(); print('\x1e{\"fine\": true}')"


def host(folder: Path, name: str, program: str) -> fleet.ConnectionVariables:
    """This machine as a host whose "Python" is ``program``, whatever comes to its standard input."""
    text = folder / f"{name}.py"
    text.write_text(program)
    python = folder / name
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {text}\n")
    python.chmod(0o755)
    return {"ansible_connection": "local", "ansible_python_interpreter": str(python)}


def ask(folder: Path, programs: dict[str, str], asked: fleet.Fleet | None = None) -> dict[str, Answer]:
    text = fleet.program("core.records", "now", {})
    hosts = {name: host(folder, name, program) for name, program in programs.items()}
    asked = asked or fleet.Fleet(PlayContext(), become=False, threads=2, deadline=PATIENCE, limit=1 << 20)
    return asked.run(dict.fromkeys(hosts, text), hosts)


class Hurried(fleet.Fleet):
    """The deadline of all that runs passes at given moments: however long this machine takes, the others have answered by then.

    Args:
        moments: each how many hosts have begun by then, and how many have ended by themselves.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *moments: tuple[int, int], threads: int = 2) -> None:
        super().__init__(PlayContext(), become=False, threads=threads, deadline=PATIENCE, limit=1 << 20)
        self._moments, self._begun, self._ended, self._passed = [*moments], 0, 0, 0.0
        self._counting = threading.Lock()
        clock = types.SimpleNamespace(monotonic=lambda: time.monotonic() + self._passed)
        monkeypatch.setattr(bounded, "time", clock)

    def _run_one(self, connection: Any, text: str, variables: Any, watch: bounded.Watch) -> Answer:
        self._count(begun=1)
        answer = super()._run_one(connection, text, variables, watch)
        self._count(ended=not watch.late)
        return answer

    def _count(self, begun: int = 0, ended: int = 0) -> None:
        with self._counting:
            self._begun, self._ended = self._begun + begun, self._ended + ended
            if self._moments and self._begun >= self._moments[0][0] and self._ended >= self._moments[0][1]:
                self._moments.pop(0)
                self._passed += PATIENCE


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    """What a host's shell had started goes on where nobody reads it: here, it is ended."""
    yield
    for pid in processes_of(tmp_path).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def said(answer: str) -> str:
    return f"import sys; sys.stdin.read(); sys.stdout.buffer.write({answer!r}.encode('utf-8', 'surrogatepass'))"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("\x1e" + "[" * 200_000, AnswerCode.BAD_ANSWER),
        ('\x1e{"restarts": 1' + "0" * 400 + "}", AnswerCode.BAD_ANSWER),
        ('\x1e{"restarts": 1' + "0" * 5000 + "}", AnswerCode.BAD_ANSWER),
        ('\x1e{"clock": NaN}', AnswerCode.BAD_ANSWER),
        ('\x1e{"clock": -Infinity}', AnswerCode.BAD_ANSWER),
        ('\x1e{"clock": 1e999}', AnswerCode.BAD_ANSWER),
        ("\x1e{" + "'a': 1}", AnswerCode.BAD_ANSWER),
        ("\x1e", AnswerCode.BAD_ANSWER),
        ("", AnswerCode.FAILED),
    ],
)
def test_an_odd_answer_is_its_host_s_failure_and_nobody_else_s(tmp_path: Path, answer: str, code: AnswerCode) -> None:
    answers = ask(tmp_path, {"a1": said(answer), "a2": GOOD})
    assert (answers["a1"].value, answers["a1"].code, answers["a1"].reachable) == (None, code, True)
    assert answers["a2"].value == {"fine": True}


def test_text_that_no_terminal_should_see_does_not_come_through(tmp_path: Path) -> None:
    words = r"\u001b]0;owned\u0007\u001b[2J\u009b2Ja\u2028b\u202ec\ud800\u0000"
    (answer,) = ask(tmp_path, {"a1": said(f'\x1e{{"{words}": "{words}"}}')}).values()
    assert answer.value == {"\ufffd2Ja\nb\ufffdc\ufffd\ufffd": "\ufffd2Ja\nb\ufffdc\ufffd\ufffd"}


def test_an_error_text_is_one_short_printable_line(tmp_path: Path) -> None:
    program = "import sys; sys.stderr.write('\\x1b[2J' + 'x' * 100_000 + '\\u2028y'); sys.exit(1)"
    (answer,) = ask(tmp_path, {"a1": program}).values()
    assert answer.code is AnswerCode.FAILED
    assert str(answer.error).isprintable()
    assert len(str(answer.error)) <= 500


FLOOD = "import os\nwhile True: os.write({}, b'y' * 65536)"
SILENT = f"import time; time.sleep({ENDLESS})"


@pytest.mark.parametrize("stream", [1, 2])
def test_an_answer_without_end_is_cut_off_and_its_process_ended(tmp_path: Path, stream: int) -> None:
    answers = ask(tmp_path, {"a1": FLOOD.format(stream), "a2": GOOD})
    assert answers["a1"].code is AnswerCode.TOO_LARGE
    assert "more than 1 MiB" in str(answers["a1"].error)
    assert answers["a2"].value == {"fine": True}
    until(lambda: not processes_of(tmp_path / "a1.py"), "the end of what the host's shell had started")


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(SILENT, id="says nothing"),
        pytest.param(
            "import sys, time\nwhile True: print('.', flush=True); time.sleep(0.05)", id="a byte now and then"
        ),
        pytest.param(f"import os, time; os.close(1); os.close(2); time.sleep({ENDLESS})", id="hangs up, and stays"),
        pytest.param("import os, time; os.fork() and os._exit(0); time.sleep(20)", id="leaves a child with its pipes"),
    ],
)
def test_a_host_that_does_not_end_ends_at_its_deadline(
    tmp_path: Path, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    answers = ask(tmp_path, {"a1": program, "a2": GOOD}, Hurried(monkeypatch, (2, 1)))
    assert time.monotonic() - began < PATIENCE
    assert answers["a1"].code is AnswerCode.NO_ANSWER
    assert answers["a1"].error == f"gave no answer within {PATIENCE:g} s"
    assert answers["a2"].value == {"fine": True}


def test_more_silent_hosts_than_threads_do_not_keep_the_others_from_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = dict.fromkeys(["a1", "a2", "a3"], SILENT)
    answers = ask(tmp_path, {**silent, "a4": GOOD}, Hurried(monkeypatch, (2, 0), (4, 1)))
    assert list(answers) == ["a1", "a2", "a3", "a4"]
    assert [answers[name].code for name in silent] == [AnswerCode.NO_ANSWER] * 3
    assert answers["a4"].value == {"fine": True}


def test_a_job_that_cannot_be_ended_is_left_behind() -> None:
    """As where a connection plugin waits in something else than a process."""
    free = threading.Event()

    def stuck(_watch: bounded.Watch) -> str:
        free.wait(ENDLESS)
        return "at last"

    jobs: list[tuple[str, Any]] = [("a1", stuck), ("a2", lambda _watch: "here")]
    answers = bounded.run(jobs, lambda _watch: "late", threads=1, seconds=0.2, limit=1)
    free.set()
    assert answers == {"a1": "late", "a2": "here"}


def test_what_a_job_raises_is_raised_once_all_have_ended() -> None:
    ran = []

    def broken(_watch: bounded.Watch) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        bounded.run([("a1", broken), ("a2", lambda _watch: ran.append("a2"))], lambda _watch: None, 1, 60, 1)
    assert ran == ["a2"]


def test_ssh_is_ended_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ssh plugin, with an ssh that is a script: what it prints is counted too, and it ends at the deadline."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ncase \"$*\" in *endless*) exec {sys.executable} -c {shlex.quote(FLOOD.format(1))};; esac\n"
                   f"case \"$*\" in *fine*) exec {sys.executable} -c {shlex.quote(GOOD)};; esac\nexec sleep {ENDLESS}\n")  # fmt: skip
    ssh.chmod(0o755)
    variables: fleet.ConnectionVariables = {"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh)}  # type: ignore[typeddict-unknown-key]
    hosts: dict[str, fleet.ConnectionVariables] = {
        name: {**variables, "ansible_host": name} for name in ("endless", "silent", "fine")
    }
    text = fleet.program("core.records", "now", {})
    asked = Hurried(monkeypatch, (3, 2), threads=3)
    began = time.monotonic()
    answers = asked.run(dict.fromkeys(hosts, text), hosts)
    assert time.monotonic() - began < PATIENCE
    assert answers["endless"].code is AnswerCode.TOO_LARGE
    assert answers["silent"].code is AnswerCode.NO_ANSWER
    assert answers["fine"].value == {"fine": True}


SENT_AND_ENDLESS = """import os
if os.fork():
    while True: os.write({0}, b'y' * 65536)
os.close(1), os.close(2)
while os.read(0, 65536): pass
"""
"""As a real ssh, it takes what it is sent meanwhile."""
TASKS = """
- hosts: all
  gather_facts: false
  tasks:
    - {name: Run a module, ansible.builtin.ping: , ignore_errors: true}
    - {name: Run a command alone, ansible.builtin.raw: "true", ignore_errors: true}
    - {name: Run a module of ours by our action, lockstep.vllm.host_probe: , ignore_errors: true}
    - {name: Send a file and run a module, ansible.builtin.copy: {src: sent, dest: "{{ folder }}/{{ inventory_hostname }}.got"}}
"""


@pytest.mark.parametrize("stream", [1, 2])
def test_a_task_s_answer_without_end_is_its_host_s_failure(tmp_path: Path, stream: int) -> None:
    """Not asked of all hosts at once, but by a task of its own, through Ansible's workers and its real ssh plugin."""
    ssh = tmp_path / "ssh"
    endless = tmp_path / "endless.py"
    endless.write_text(SENT_AND_ENDLESS.format(stream))
    ssh.write_text(f'#!/bin/sh\ncase "$*" in *" lost "*) exec {sys.executable} {endless};; esac\n'
                   'for command; do :; done\nexec sh -c "$command"\n')  # fmt: skip
    ssh.chmod(0o755)
    shared = {
        "ansible_ssh_executable": str(ssh),
        "ansible_ssh_transfer_method": "piped",
        "ansible_python_interpreter": sys.executable,
        "ansible_remote_tmp": str(tmp_path / "remote"),
        "folder": str(tmp_path),
    }
    inventory = {"all": {"hosts": {"a1": {"ansible_host": "lost"}, "a2": {"ansible_host": "fine"}}, "vars": shared}}
    (tmp_path / "hosts.json").write_text(json.dumps(inventory))
    (tmp_path / "play.yml").write_text(TASKS)
    (tmp_path / "sent").write_text("text")
    done = subprocess.Popen(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts.json", tmp_path / "play.yml"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),  # should this fail, it ends
    )
    assert done.stdout
    shown = done.stdout.read()
    _process, status, used = os.wait4(done.pid, 0)
    done.returncode = os.waitstatus_to_exitcode(status)
    assert done.returncode == 2, shown
    recap = {line.split()[0]: line.split() for line in shown.splitlines() if "unreachable=" in line}
    assert {"failed=1", "ignored=3"} <= set(recap["a1"]), shown
    assert {"failed=0", "ok=4", "ignored=0"} <= set(recap["a2"]), shown
    said = "lost answered a task with more than 4 MiB (LOCKSTEP_ANSWER_LIMIT), and was cut off. Next: ansible-playbook "
    assert shown.count(f"[ERROR]: Task failed: {said}") == 4, shown
    assert used.ru_maxrss < 256 << 10, "KiB of the controller's process, or of the largest of its workers"
    assert not processes_of(endless)


@pytest.mark.parametrize("shown_by", ["ansible.builtin.default", "lockstep.vllm.calm"])
def test_answers_that_ansible_cannot_show_silence_neither_record_nor_screen(tmp_path: Path, shown_by: str) -> None:
    """JSON's parser takes them, and what copies them goes too deep; a callback is silent after its third fault."""
    deep = "print('{{\"changed\": false, \"x\": ' + '[' * {0} + ']' * {0} + '}}')"
    hosts = {
        name: host(tmp_path, name, deep.format(levels))
        for levels in (260, 400, 900)
        for name in (f"a{levels}", f"b{levels}")
    }
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    (tmp_path / "play.yml").write_text(DEEP_TASKS)
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "hosts.json", tmp_path / "play.yml"],
        cwd=tmp_path, env=environment(tmp_path, shown_by), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert "lockstep.vllm.rollout" not in done.stdout + done.stderr
    assert "lockstep.vllm.calm" not in done.stdout + done.stderr
    recap = dict(re.findall(r"^(\w+)\s+: .*\bfailed=(\d)", done.stdout, re.MULTILINE))
    assert set(recap) == set(hosts), done.stdout + done.stderr
    failed = [name for name, count in recap.items() if count != "0"]
    assert done.returncode == (2 if failed else 0), done.stdout + done.stderr
    if not failed:  # ansible-core 2.19 and 2.20 copy what is registered less deep
        return
    assert {"a900", "b900"} <= {*failed}
    assert "what it answered is nested too deep to be shown. Next: ansible-playbook " in done.stdout
    for name in failed:
        assert any(name in line and "FAILED" in line for line in done.stdout.splitlines()), done.stdout


def test_within_a_job_the_job_s_limit_counts_and_an_error_of_its_own_stays() -> None:
    """What the fleet opens is a connection of the same class."""

    class Connection:
        def exec_command(self, error: Exception | None = None) -> str:
            watch = bounded._here.watch
            if error is not None:
                raise error
            watch.count(3)
            return "an answer"

    limited = bounded.limited(Connection.exec_command, 2, lambda _connection: OverflowError("too much"))
    with pytest.raises(OverflowError, match="too much"):
        limited(Connection())
    with pytest.raises(KeyError, match="its own"):
        limited(Connection(), KeyError("its own"))
    with bounded.watched(bounded.Watch(60.0, 3)):
        assert limited(Connection()) == "an answer"
    with bounded.watched(bounded.Watch(60.0, 2)), pytest.raises(bounded.TooMuch):
        limited(Connection())


DEEP_TASKS = """
- hosts: all
  gather_facts: false
  tasks:
    - {name: Pass what nobody reads, ansible.builtin.ping: }
    - {name: Fail where it is kept, ansible.builtin.ping: , register: kept}
"""


def environment(folder: Path, shown_by: str = "ansible.builtin.default") -> dict[str, str]:
    """Of a run with this checkout's settings."""
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": shown_by,
        "LOCKSTEP_RUNS": str(folder / "runs"),
        "NO_COLOR": "1",
    }


def processes_of(program: Path) -> str:
    return subprocess.run(["pgrep", "-f", str(program)], capture_output=True, text=True, check=False).stdout
