"""Draining and resuming, over metrics and a clock that are given."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core import records
from ansible_collections.lockstep.vllm.plugins.module_utils.engine import draining, state
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.config import Config, Deadlines, Proof
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.draining import Drain
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.reporter import Reporter
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.states import Phase, Target

CONFIG = Config("/m", "tiny", (), Proof("x"), deadlines=Deadlines(drain=60))
BUSY = 'vllm:num_requests_running{engine="0"} 1.0\n'
IDLE = 'vllm:num_requests_running{engine="0"} 0.0\n'


class Engine:
    """An engine that serves, its requests, and the time."""

    def __init__(self) -> None:
        self.metrics: str | None = BUSY
        self.now = 0.0
        self.reporter = Reporter()
        self.drain = Drain(CONFIG, "http://a1", self.reporter, "layout large, rung full")

    @property
    def shown(self) -> tuple[Phase, str]:
        return self.reporter.state.phase, self.reporter.state.reason


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(records, "ENGINE_STATE", tmp_path / "engine.json")
    monkeypatch.setattr(state, "DRAIN", tmp_path / "drain.json")
    engine = Engine()
    monkeypatch.setattr(draining, "time", types.SimpleNamespace(monotonic=lambda: engine.now))
    answer = lambda *_args, **_kwargs: None if engine.metrics is None else (200, engine.metrics)  # noqa: E731
    monkeypatch.setattr(draining.completion, "get", answer)
    return engine


def test_a_drain_ends_when_no_request_runs_and_a_resume_serves_again(engine: Engine) -> None:
    engine.drain.enter()
    assert engine.shown == (Phase.SERVING, "layout large, rung full")
    state.request(Target.DRAINED, "wave 2")
    engine.drain.follow()
    assert engine.shown == (Phase.DRAINING, "wave 2")
    engine.metrics = IDLE
    engine.drain.follow()
    assert engine.shown == (Phase.DRAINED, "wave 2")
    state.request(Target.SERVING, "")
    engine.drain.follow()
    assert engine.shown == (Phase.SERVING, "layout large, rung full")


def test_a_drain_ends_at_its_deadline_though_requests_run(engine: Engine) -> None:
    state.request(Target.DRAINED, "wave 2")
    engine.drain.enter()
    engine.now = 60.0
    engine.drain.follow()
    assert engine.shown == (Phase.DRAINING, "wave 2")
    engine.now = 60.1
    engine.drain.follow()
    assert engine.shown == (Phase.DRAINED, "wave 2; requests still ran at the deadline")


def test_an_engine_that_does_not_answer_is_not_idle(engine: Engine) -> None:
    state.request(Target.DRAINED, "wave 2")
    engine.drain.enter()
    engine.metrics = None
    engine.drain.follow()
    assert engine.shown == (Phase.DRAINING, "wave 2")


def test_a_request_that_is_there_before_the_engine_is_followed_at_once(engine: Engine) -> None:
    state.request(Target.DRAINED, "maintenance")
    engine.drain.enter()
    assert engine.shown == (Phase.DRAINING, "maintenance")
