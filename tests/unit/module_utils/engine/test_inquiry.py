"""Inquiring while an engine is silent: once per silence, never longer than its deadline, and with the engine's own processes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Collection, Mapping

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import inquiry
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.inquiry import Silence
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.ranks import Rank, Sight
from ansible_collections.lockstep.vllm.plugins.module_utils.ray.stacks import Answer
from tests.machine import ENDLESS, PATIENCE
from tests.unit.module_utils.ray.rank_processes import stop, wait_for


class Asked:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self, hosts: Collection[str], deadline: float) -> Mapping[str, Answer]:
        self.times += 1
        return {host: Answer("ab12", Sight((Rank(7, rank=0, frames=("wait (a.py:1)",)),))) for host in hosts}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiry, "DEADLINE", PATIENCE)


def test_once_per_silence() -> None:
    asked = Asked()
    silence = Silence(asked, ["a1"], "a1")
    silence.follow(False)
    assert silence.result() is None
    for _ in range(3):
        silence.follow(True)
    found = silence.result()
    assert found is not None
    assert (asked.times, found.reason, silence.suspect) == (1, "its one rank runs in wait (a.py:1)", found)
    silence.follow(False)
    assert silence.suspect is None
    silence.follow(True)
    assert silence.result() == found
    assert asked.times == 2


def test_one_who_never_comes_back_costs_the_deadline_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inquiry, "DEADLINE", 0.3)
    ended = threading.Event()

    def hangs(hosts: Collection[str], deadline: float) -> Mapping[str, Answer]:
        ended.wait(ENDLESS)
        return {}

    silence = Silence(hangs, ["a1"], "a1")
    silence.follow(True)
    began = time.monotonic()
    assert silence.result() is None
    assert time.monotonic() - began < PATIENCE
    ended.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_that_fails_leaves_the_supervisor_alone() -> None:
    def fails(hosts: Collection[str], deadline: float) -> Mapping[str, Answer]:
        raise RuntimeError("Ray is gone")

    silence = Silence(fails, ["a1"], "a1")
    silence.follow(True)
    assert silence.result() is None


def test_a_stopped_engine_core_is_named() -> None:
    child = subprocess.Popen(["bash", "-c", f"exec -a VLLM::EngineCore sleep {ENDLESS}"])
    try:
        wait_for(child.pid, "VLLM::EngineCore")
        stop(child.pid)
        silence = Silence(lambda hosts, deadline: {}, ["a1"], "a1")
        silence.follow(True)
        found = silence.result()
        assert found is not None
        assert f"VLLM::EngineCore on a1 (pid {child.pid}) is stopped (state T)" in found.reason
        assert os.getpid() not in {place.pid for place in found.where}
    finally:
        child.kill()
        child.wait()
