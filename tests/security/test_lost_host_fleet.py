"""A host whose root is lost answers the fleet's programs: its words cost the others nothing (S5, S6)."""

from __future__ import annotations

import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.playbook.play_context import PlayContext

from ansible_collections.lockstep.vllm.plugins.module_utils.host.codes import AnswerCode
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller import bounded, fleet
from ansible_collections.lockstep.vllm.plugins.plugin_utils.controller.fleet import Answer

GOOD = "import sys; sys.stdin.read(); print('\x1e{\"fine\": true}')"


def host(folder: Path, name: str, program: str) -> fleet.ConnectionVariables:
    """This machine as a host whose "Python" is ``program``, whatever comes to its standard input."""
    text = folder / f"{name}.py"
    text.write_text(program)
    python = folder / name
    python.write_text(f"#!/bin/sh\nexec {sys.executable} {text}\n")
    python.chmod(0o755)
    return {"ansible_connection": "local", "ansible_python_interpreter": str(python)}


def ask(folder: Path, programs: dict[str, str], deadline: float = 60.0, limit: int = 1 << 20) -> dict[str, Answer]:
    text = fleet.program("core.records", "now", {})
    hosts = {name: host(folder, name, program) for name, program in programs.items()}
    asked = fleet.Fleet(PlayContext(), become=False, threads=2, deadline=deadline, limit=limit)
    return asked.run(dict.fromkeys(hosts, text), hosts)


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


ENDLESS = "import os\nwhile True: os.write({}, b'y' * 65536)"


@pytest.mark.parametrize("stream", [1, 2])
def test_an_answer_without_end_is_cut_off_and_its_process_ended(tmp_path: Path, stream: int) -> None:
    answers = ask(tmp_path, {"a1": ENDLESS.format(stream), "a2": GOOD})
    assert answers["a1"].code is AnswerCode.TOO_LARGE
    assert "more than 1 MiB" in str(answers["a1"].error)
    assert answers["a2"].value == {"fine": True}
    ends = time.monotonic() + 20
    while processes_of(tmp_path / "a1.py"):
        assert time.monotonic() < ends, "what the host's shell had started goes on"
        time.sleep(0.05)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import time; time.sleep(600)", id="says nothing"),
        pytest.param(
            "import sys, time\nwhile True: print('.', flush=True); time.sleep(0.05)", id="a byte now and then"
        ),
        pytest.param("import os, time; os.close(1); os.close(2); time.sleep(600)", id="hangs up, and stays"),
        pytest.param("import os, time; os.fork() and os._exit(0); time.sleep(20)", id="leaves a child with its pipes"),
    ],
)
def test_a_host_that_does_not_end_ends_at_its_deadline(tmp_path: Path, program: str) -> None:
    began = time.monotonic()
    answers = ask(tmp_path, {"a1": program, "a2": GOOD}, deadline=3.0)
    assert time.monotonic() - began < 15
    assert answers["a1"].code is AnswerCode.NO_ANSWER
    assert answers["a1"].error == "gave no answer within 3 s"
    assert answers["a2"].value == {"fine": True}


def test_more_silent_hosts_than_threads_do_not_keep_the_others_from_being_asked(tmp_path: Path) -> None:
    silent = dict.fromkeys(["a1", "a2", "a3"], "import time; time.sleep(600)")
    answers = ask(tmp_path, {**silent, "a4": GOOD}, deadline=2.0)
    assert list(answers) == ["a1", "a2", "a3", "a4"]
    assert [answers[name].code for name in silent] == [AnswerCode.NO_ANSWER] * 3
    assert answers["a4"].value == {"fine": True}


def test_a_job_that_cannot_be_ended_is_left_behind() -> None:
    """As where a connection plugin waits in something else than a process."""
    free = threading.Event()

    def stuck(_watch: bounded.Watch) -> str:
        free.wait(60)
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


def test_ssh_is_ended_as_well(tmp_path: Path) -> None:
    """The real ssh plugin, with an ssh that is a script: what it prints is counted too, and it ends at the deadline."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\ncase \"$*\" in *endless*) exec {sys.executable} -c {shlex.quote(ENDLESS.format(1))};; esac\n"
                   f"case \"$*\" in *fine*) exec {sys.executable} -c {shlex.quote(GOOD)};; esac\nexec sleep 600\n")  # fmt: skip
    ssh.chmod(0o755)
    variables: fleet.ConnectionVariables = {"ansible_connection": "ssh", "ansible_ssh_executable": str(ssh)}  # type: ignore[typeddict-unknown-key]
    hosts: dict[str, fleet.ConnectionVariables] = {
        name: {**variables, "ansible_host": name} for name in ("endless", "silent", "fine")
    }
    text = fleet.program("core.records", "now", {})
    asked = fleet.Fleet(PlayContext(), become=False, threads=3, deadline=4.0, limit=1 << 20)
    began = time.monotonic()
    answers = asked.run(dict.fromkeys(hosts, text), hosts)
    assert time.monotonic() - began < 20
    assert answers["endless"].code is AnswerCode.TOO_LARGE
    assert answers["silent"].code is AnswerCode.NO_ANSWER
    assert answers["fine"].value == {"fine": True}


def processes_of(program: Path) -> str:
    return subprocess.run(["pgrep", "-f", str(program)], capture_output=True, text=True, check=False).stdout
