"""Commands that hang, die, hide and multiply: each ends in time and leaves nothing.

A part's time begins where the command tells so: it hangs by then, however late this machine started it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import deadline, evidence, processes
from ansible_collections.lockstep.vllm.plugins.module_utils.core.command_parts import Part, PartsClock
from tests.machine import ENDLESS, PATIENCE, until

PYTHON = sys.executable
HANGS = f"import time; time.sleep({ENDLESS})"
BEGINS = 'os.write(int(os.environ["LOCKSTEP_PARTS_HANDLE"]), bytes([1]))'


def alive_with(mark: str) -> list[str]:
    """Command lines of all living processes that carry ``mark``."""
    found = [processes.command(process.pid) for process in processes.everything() if process.state != "Z"]
    return [line for line in found if mark in line]


def test_all_that_is_done_after_a_deadline_fits_into_its_seconds():
    assert evidence.BUDGET + deadline.TERM_GRACE + deadline.KILL_GRACE < deadline.EXTRA


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The caller waits for a guard that this machine lets starve; what the guard allows itself stays as it is."""
    monkeypatch.setattr(deadline, "EXTRA", PATIENCE)


@pytest.fixture
def mark():
    """A mark that a test puts on its processes' command lines; none may be left at the end."""
    text = f"mark-{uuid.uuid4().hex}"
    yield text
    until(lambda: not alive_with(text), "the end of what carries the mark")


def python(code: str, *arguments: str) -> list[str]:
    return [PYTHON, "-c", textwrap.dedent(code), *arguments]


def hang(code: str, *arguments: str, seconds: float, folder: Path | None = None) -> deadline.Outcome:
    """Run code that tells when it hangs, from when it has ``seconds``."""
    return deadline.start(python(code, *arguments), [Part(PATIENCE), Part(seconds, folder)]).wait()


@pytest.mark.parametrize(
    ("argv", "status", "returncode"),
    [
        (["/bin/true"], "done", 0),
        (["/bin/false"], "failed", 1),
        (["/bin/sh", "-c", "exit 7"], "failed", 7),
        (["/bin/sh", "-c", "kill -9 $$"], "failed", -9),
        (["/nonexistent/command"], "failed", None),
    ],
)
def test_ending(argv, status, returncode):
    outcome = deadline.run(argv, deadline=PATIENCE)
    assert (outcome.status, outcome.returncode) == (status, returncode)
    assert outcome.seconds < PATIENCE, "it ended at its deadline, not by itself"


def test_a_missing_command_is_named():
    assert "/nonexistent/command" in deadline.run(["/nonexistent/command"], deadline=PATIENCE).stderr


def test_output_input_environment_and_folder(tmp_path):
    code = "import os,sys; print(sys.stdin.read(), os.environ['SETTING'], os.getcwd()); print('aside', file=sys.stderr)"
    outcome = deadline.run(python(code), deadline=PATIENCE, input="given", env={"SETTING": "value"}, cwd=tmp_path)
    assert outcome.stdout == f"given value {tmp_path}\n"
    assert outcome.stderr == "aside\n"


def test_large_output_keeps_its_end():
    code = f"import sys; sys.stdout.write('x' * {deadline.OUTPUT_LIMIT} + 'the end')"
    outcome = deadline.run(python(code), deadline=PATIENCE)
    assert outcome.stdout.endswith("the end")
    assert len(outcome.stdout) == deadline.OUTPUT_LIMIT


def test_a_hang_becomes_a_timeout_with_stacks(tmp_path, mark):
    code = f"""
        import faulthandler, os, signal, time
        faulthandler.register(signal.SIGUSR1, all_threads=True)
        def hangs():
            {BEGINS}
            time.sleep({ENDLESS})
        print("begun", flush=True)
        hangs()
    """
    outcome = hang(code, mark, seconds=1.0, folder=tmp_path / "evidence")
    assert outcome.status == "timeout"
    assert outcome.returncode is None
    assert 1.0 <= outcome.seconds < 1.0 + deadline.EXTRA
    assert outcome.stdout == "begun\n"
    assert "hangs" in outcome.stderr
    names = {Path(path).name for path in outcome.evidence}
    assert {"threads.txt", "stderr.log", "stdout.log"} <= names
    assert all(Path(path).is_file() for path in outcome.evidence)
    assert "state" in (tmp_path / "evidence" / "threads.txt").read_text()


def test_py_spy_dumps_every_process(tmp_path, mark, monkeypatch):
    spy = tmp_path / "py-spy"
    spy.write_text('#!/bin/sh\necho "stack of $3"\n')
    spy.chmod(0o755)
    code = f"""
        import subprocess, sys
        subprocess.run([sys.executable, "-c", {HANGS!r}, sys.argv[1]])
    """
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with subprocess.Popen(python(code, mark)) as child:
        until(lambda: len(alive_with(mark)) == 2)
        monkeypatch.setattr(evidence, "PY_SPY", spy)
        tree = [child.pid, *(process.pid for process in processes.below(child.pid))]
        saved = evidence.collect(tree, tmp_path / "stacks", budget=PATIENCE)
        for pid in tree:
            assert (tmp_path / "stacks" / f"stack.{pid}.txt").read_text() == f"stack of {pid}\n"
            assert str(tmp_path / "stacks" / f"stack.{pid}.txt") in saved
        assert child.poll() is None  # polling does not end it
        for pid in tree:
            os.kill(pid, signal.SIGKILL)


def test_evidence_is_bounded_when_its_tool_hangs(tmp_path, monkeypatch, mark):
    spy = tmp_path / "py-spy"
    spy.write_text(f"#!/bin/sh\nexec {PYTHON} -c '{HANGS}' {mark}\n")
    spy.chmod(0o755)
    monkeypatch.setattr(evidence, "PY_SPY", spy)
    with subprocess.Popen(python(HANGS)) as child:
        began = time.monotonic()
        evidence.collect([child.pid], tmp_path, budget=0.5)
        assert time.monotonic() - began < PATIENCE
        child.kill()


STUBBORN = f"""
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    {BEGINS}
    time.sleep({ENDLESS})
"""
DAEMON = f"""
    import os, sys, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.environ.clear()
            os.execve(sys.executable, [sys.executable, "-c", {HANGS!r}, sys.argv[1]], {{}})
        os._exit(0)
    os.wait()
    if "stay" in sys.argv:
        {BEGINS}
        time.sleep({ENDLESS})
"""
FORKER = f"""
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            time.sleep({ENDLESS})
    {BEGINS}
    time.sleep({ENDLESS})
"""
STOPPED = f"""
    import os, signal, sys
    {BEGINS}
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.mark.parametrize("code", [STUBBORN, DAEMON, FORKER, STOPPED], ids=["stubborn", "daemon", "forker", "stopped"])
def test_nothing_is_left_after_a_timeout(code, mark):
    outcome = hang(code, mark, "stay", seconds=0.3)
    assert (outcome.status, outcome.part) == ("timeout", 1)
    assert outcome.seconds < 0.3 + deadline.EXTRA
    assert outcome.left == ()
    assert alive_with(mark) == []


def test_nothing_is_left_after_success(mark):
    outcome = deadline.run(python(DAEMON, mark), deadline=PATIENCE)
    assert outcome.status == "done"
    assert alive_with(mark) == []


def test_the_tree_ends_when_the_caller_is_killed(mark):
    code = f"""
        import sys; sys.path.insert(0, {str(Path("collections").resolve())!r})
        from ansible_collections.lockstep.vllm.plugins.module_utils.core import deadline
        deadline.run([sys.executable, "-c", {HANGS!r}, sys.argv[1]], deadline={ENDLESS})
    """
    with subprocess.Popen(python(code, mark)) as caller:
        until(lambda: len(alive_with(mark)) == 2)
        caller.kill()
    until(lambda: not alive_with(mark), "the end of what the caller had started")


def test_a_guard_that_does_not_answer_holds_nobody_up(mark, monkeypatch):
    monkeypatch.setattr(deadline, "EXTRA", 0.2)
    running = deadline.start(python(HANGS, mark), [Part(0.1)])
    running._child.send_signal(signal.SIGSTOP)
    outcome = running.wait()
    for process in processes.everything():  # where the guard came so far, its command is left
        if mark in processes.command(process.pid):
            os.kill(process.pid, signal.SIGKILL)
    until(lambda: not alive_with(mark))
    assert outcome.status == "timeout"
    assert "the guard did not answer in time and was killed" in outcome.stderr
    assert outcome.seconds < PATIENCE


def test_end_from_another_thread(mark):
    running = deadline.start(python(HANGS, mark), [Part(ENDLESS)])
    threading.Timer(0.3, running.end).start()
    outcome = running.wait()
    assert outcome.status == "ended"
    assert outcome.seconds < PATIENCE


TELLS = """
    import os, sys, time
    handle = int(os.environ["LOCKSTEP_PARTS_HANDLE"])
    for part, seconds in eval(sys.argv[1]):
        os.write(handle, bytes([part]))
        time.sleep(seconds)
"""


@pytest.mark.parametrize(
    ("reported", "seconds", "status", "part", "least"),
    [
        ([(0, 0.1), (1, 0.1)], (PATIENCE, PATIENCE), "done", 1, 0.2),
        ([(0, ENDLESS)], (1.0, PATIENCE), "timeout", 0, 1.0),
        ([(0, 0.5), (1, ENDLESS)], (PATIENCE, 1.0), "timeout", 1, 1.5),
        ([(0, 0.5), (1, 0.5), (0, ENDLESS)], (PATIENCE, 1.0), "timeout", 1, 1.5),
        ([(1, 0.5), (1, ENDLESS)], (PATIENCE, 1.0), "timeout", 1, 1.0),
        ([(9, ENDLESS)], (1.0, PATIENCE), "timeout", 0, 1.0),
    ],
    ids=["both", "hangs in the first", "hangs in the second", "goes back", "tells twice", "tells of none"],
)
def test_each_part_has_its_own_time_and_folder(reported, seconds, status, part, least, tmp_path, mark):
    parts = [Part(seconds[0], tmp_path / "first"), Part(seconds[1], tmp_path / "second")]
    outcome = deadline.start(python(TELLS, repr(reported), mark), parts).wait()
    assert (outcome.status, outcome.part) == (status, part)
    assert least <= outcome.seconds < least + deadline.EXTRA
    if status == "timeout":
        kept, empty = (tmp_path / name for name in (("first", "second") if part == 0 else ("second", "first")))
        assert {Path(path).parent for path in outcome.evidence} == {kept}
        assert not empty.exists()


def test_a_part_that_is_reported_twice_has_its_time_once(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = PartsClock([5.0, 3.0])
    assert (clock.now, clock.end) == (0, 105.0)
    for moment, reported, expected in ((101.0, 1, (1, 104.0)), (102.0, 1, (1, 104.0)), (103.0, 0, (1, 104.0))):
        now[0] = moment
        os.write(clock.writer, bytes([reported]))
        assert clock.read()
        assert (clock.now, clock.end) == expected
    os.close(clock.writer)
    assert not clock.read()
    os.close(clock.reader)


def test_a_command_of_one_part_is_given_no_handle():
    assert (
        deadline.run(python("import os; print('LOCKSTEP_PARTS_HANDLE' in os.environ)"), deadline=PATIENCE).stdout
        == "False\n"
    )


def test_many_at_once_do_not_end_each_other(mark):
    runs = [deadline.start(["/bin/sh", "-c", f"sleep 0.{n}; echo {n}"], [Part(PATIENCE)]) for n in range(1, 6)]
    assert [run.wait().stdout for run in runs] == [f"{n}\n" for n in range(1, 6)]


@pytest.mark.skipif(os.geteuid() != 0, reason="changing user needs root")
def test_user():
    outcome = deadline.run(["/usr/bin/id", "-un"], deadline=PATIENCE, user="nobody")
    assert outcome.stdout == "nobody\n"


def test_unknown_user_is_named():
    outcome = deadline.run(["/bin/true"], deadline=PATIENCE, user="nobody-of-this-name")
    assert outcome.status == "failed"
    assert "nobody-of-this-name" in outcome.stderr


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_a_deadline_is_positive(wrong):
    with pytest.raises(ValueError, match="positive"):
        deadline.run(["/bin/true"], deadline=wrong)
