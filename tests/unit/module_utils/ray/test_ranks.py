"""A host's own ranks: real processes that are stopped, what py-spy printed, what vLLM logged."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.ray import ranks
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.codes import RankState
from tests.unit.module_utils.ray.rank_processes import joins, rank_process, stop

# py-spy 0.4.3 dump --nonblocking of a stopped process
DUMP = """\
Process 8298: /usr/bin/python3 -c
import threading
Python v3.11.7 (/root/.pyenv/versions/3.11.7/bin/python3.11)

Thread 8343 (idle): "Thread-1 (sleep)"
    Thread.run (threading.py:982)
    Thread._bootstrap_inner (threading.py:1045)
    Thread._bootstrap (threading.py:1002)
Thread 8298 (idle): "MainThread"
    inner (<string>:4)
    <module> (<string>:6)
"""
# py-spy 0.4.3 dump of the same process, without --nonblocking
REFUSED = """\
Process 7309: /usr/bin/python3
Python v3.11.7 (/root/.pyenv/versions/3.11.7/bin/python3.11)

Error: Failed to get stack traces

Caused by:
    0: Failed to suspend process
    1: unexpected waitpid result PtraceEvent(Pid(7309), SIGSTOP, 128) to 7309
"""


@pytest.mark.parametrize(
    ("dump", "frames"),
    [
        (DUMP, ("inner (<string>:4)", "<module> (<string>:6)")),
        (DUMP.partition("Thread 8298")[0], ("Thread.run (threading.py:982)",)),
        (REFUSED, ()),
        ("Error: Permission Denied: Try running again with elevated permissions by going 'sudo env \"PATH=$PATH\" !!'\n", ()),
        ('Thread 1 (idle): "MainThread"\n' + f"    {'x' * 5000} (a.py:1)\n", ("x" * 160,)),
        ("", ()),
    ],
)  # fmt: skip
def test_frames(dump: str, frames: tuple[str, ...]) -> None:
    found = ranks.frames_in(dump)
    assert found[: len(frames)] == frames
    assert bool(found) == bool(frames)


@pytest.mark.parametrize(
    ("log", "rank"),
    [
        (joins(0), 0),
        (joins(1), 1),
        ("INFO [parallel_state.py:2350] rank 12 in world size 16 is assigned as DP rank 0, PP rank 1\n", 12),
        ("no such line, though a rank is spoken of: DP rank 3, TP rank 4\n", None),
        ("", None),
    ],
)
def test_rank_of_a_log(log: str, rank: int | None) -> None:
    assert ranks.rank_in(log) == rank


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        ("TTTT", RankState.STOPPED),
        ("TtTT", RankState.STOPPED),
        ("DDDD", RankState.UNKILLABLE),
        ("DDSD", RankState.RUNS),
        ("TTST", RankState.RUNS),
        ("RRRR", RankState.RUNS),
        ("", RankState.RUNS),
    ],
)
def test_state_of_what_was_seen(letters: str, state: RankState) -> None:
    assert ranks.state_of(letters) is state


def test_a_stopped_rank_and_one_that_runs(tmp_path: Path) -> None:
    with rank_process(tmp_path / "0.out", 0) as runs, rank_process(tmp_path / "1.out", 1) as stopped:
        stop(stopped.pid)
        sight = ranks.look(tmp_path / "evidence", "stacks-ab12")
        by_pid = {rank.pid: rank for rank in sight.ranks}
        assert (by_pid[runs.pid].rank, by_pid[runs.pid].state) == (0, RankState.RUNS)
        assert (by_pid[stopped.pid].rank, by_pid[stopped.pid].state) == (1, RankState.STOPPED)
    assert Path(sight.folder).parent == tmp_path / "evidence"
    assert sight.folder.endswith("-stacks-ab12")
    assert f"process {stopped.pid}: ray::RayWorkerProc.run" in (Path(sight.folder) / "threads.txt").read_text("utf-8")


def test_what_is_no_rank_is_left_alone(tmp_path: Path) -> None:
    with rank_process(tmp_path / "out", 0, title="ray::IDLE") as idle:
        assert idle.pid not in ranks.find()


def test_the_oldest_evidence_makes_room(tmp_path: Path) -> None:
    for number in range(ranks.KEPT):
        (tmp_path / f"2026010{number}T000000Z-full-died").mkdir()
    with rank_process(tmp_path / "0.out", 0):
        (tmp_path / "0.out").unlink()
        ranks.look(tmp_path, "stacks-ab12")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == ranks.KEPT
    assert "20260100T000000Z-full-died" not in names
    assert names[-1].endswith("-stacks-ab12")
