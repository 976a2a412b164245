"""Processes as /proc shows them, and ending those below one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import processes
from tests.machine import PATIENCE

STAT_TAIL = "12 12 0 -1 4194560 311 0 0 0 1 0 0 0 20 0 1 0 812 3 4"
"""Fields 5 to 24 of /proc/PID/stat; the 22nd is the start."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12 (python3) S 7 " + STAT_TAIL, processes.Process(12, 7, "S", "python3", 812)),
        ("12 (a (b) c) R 7 " + STAT_TAIL, processes.Process(12, 7, "R", "a (b) c", 812)),
        ("9 (nv) queue) D 2 " + STAT_TAIL, processes.Process(9, 2, "D", "nv) queue", 812)),
    ],
)
def test_parse_stat(text: str, expected: processes.Process) -> None:
    assert processes.parse_stat(text) == expected


def test_below_lists_parents_first() -> None:
    tree = [processes.Process(pid, parent, "S", "x", 0) for pid, parent in ((5, 3), (3, 1), (9, 5), (4, 2))]
    assert [process.pid for process in processes.below(1, tree)] == [3, 5, 9]


def test_a_process_of_this_machine() -> None:
    me = processes.read(os.getpid())
    assert me is not None
    assert (me.pid, me.parent, me.alive) == (os.getpid(), os.getppid(), True)
    assert me in processes.everything()


def test_no_such_process(tmp_path: Path) -> None:
    assert processes.read(1, tmp_path) is None
    (tmp_path / "7").mkdir()
    (tmp_path / "7/stat").write_text("torn")
    assert processes.everything(tmp_path) == []


def ended_by(tree: str, call: str) -> list[str]:
    """What a subreaper prints that starts the shell script ``tree`` and, once it printed a line, makes ``call``."""
    code = f"""
        import subprocess
        from ansible_collections.lockstep.vllm.plugins.module_utils.core import processes
        processes.become_subreaper()
        child = subprocess.Popen(["sh", "-c", {tree!r}], stdout=subprocess.PIPE, text=True, start_new_session=True)
        child.stdout.readline()
        print({call}, len(processes.below(__import__("os").getpid())), child.stdout.read().split(), child.poll())
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=PATIENCE, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    return done.stdout.splitlines()


ORPHANS = "(setsid sleep 60 & setsid sleep 60 &) ; echo up; sleep 60"
GENTLE = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.1; done"


@pytest.mark.parametrize(
    ("tree", "call", "printed"),
    [
        pytest.param(ORPHANS, "processes.end_descendants()", "[] 0 [] 0", id="orphans too, and all are reaped"),
        pytest.param(
            ORPHANS,
            "processes.end_descendants(spare_from_reaping=child.pid)",
            "[] 1 [] -9",
            id="all but the child whose exit status is asked for",
        ),
        pytest.param(GENTLE, "processes.end_descendants(term_grace=240.0)", "[] 0 ['asked'] 0", id="SIGTERM first"),
        pytest.param(GENTLE, "processes.end_descendants()", "[] 0 [] 0", id="SIGKILL at once"),
    ],
)
def test_everything_below_is_ended(tree: str, call: str, printed: str) -> None:
    assert ended_by(tree, call) == [printed]


def test_children_are_the_living_ones() -> None:
    with subprocess.Popen(["sleep", "60"]) as living, subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # it waits to be reaped
        found = processes.children(os.getpid())
        living.kill()
    assert "sleep" in found
    assert "true" not in found
