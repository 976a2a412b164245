"""What workers tell of their waits, through the pipe and without one."""

from __future__ import annotations

import os
import types

import pytest

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import progress
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.progress import Channel, Progress


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    monkeypatch.setattr(progress, "_write_end", None)
    return Channel()


def test_a_worker_is_heard(channel: Channel) -> None:
    worker = os.fork()
    if worker == 0:
        progress.tell("a1", 15.04, "a2 is missing\n\x1b[2J")
        os._exit(0)
    os.waitpid(worker, 0)
    assert list(channel.read()) == [Progress("a1", 15.0, "a2 is missing\n")]
    assert list(channel.read()) == []


def test_a_line_is_whole_whatever_it_says(channel: Channel) -> None:
    for _ in range(9):
        progress.tell("h" * 1000, 1e300, "\U0001f525" * 10_000)
    heard = list(channel.read())
    assert len(heard) == 9
    assert all(each.seconds == 0 and len(each.reason) == 280 for each in heard)


def test_where_the_pipe_is_full_it_is_shown_as_text(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(progress, "Display", lambda: types.SimpleNamespace(display=lines.append))
    for _ in range(1000):
        progress.tell("a1", 15, "x" * 280)
    assert lines
    assert set(lines) == {f"a1: waiting for 15 s: {'x' * 280}"}
    assert len(list(channel.read())) + len(lines) == 1000


def test_nonsense_in_the_pipe_harms_nobody(channel: Channel) -> None:
    assert progress._write_end is not None
    os.write(progress._write_end, b'{}\n[1]\nx\n[[],{},null]\n["a1",3,"why"]\n')
    assert list(channel.read())[-1] == Progress("a1", 3.0, "why")
