"""The heartbeat over answers and a clock that are given."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.engine import config, heartbeat
from ansible_collections.lockstep.vllm.plugins.module_utils.engine.completion import Completion

CONFIG = config.Config("/m", "tiny", (), config.Proof("x"), heartbeat=config.Heartbeat(4, 10, 20))


class Engine:
    """vLLM as it answers, and what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.steps, self.health = 0.0, 0, 200
        self.answer = Completion(True, 0.1)
        self.deadlines: list[float] = []
        monkeypatch.setattr(heartbeat.completion, "get", self._get)
        monkeypatch.setattr(heartbeat.completion, "prove", self._prove)
        self.beat = heartbeat.Heartbeat(CONFIG, "http://a1", None, lambda: self.now)

    def _get(self, _url: str, path: str, deadline: float) -> tuple[int, str]:
        if path == "/health":
            return self.health, ""
        return 200, f'vllm:generation_tokens_total{{engine="0"}} {float(self.steps)}\n'

    def _prove(self, *_args: Any, deadline: float, **_kwargs: Any) -> Completion:
        self.deadlines.append(deadline)
        return self.answer

    def after(self, seconds: float, steps: int = 0) -> float:
        """Silence after the next beat."""
        self.now += seconds
        self.steps += steps
        self.beat.beat()
        return self.beat.silent_for()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


def test_tokens_of_real_traffic_count_and_nothing_is_asked(engine: Engine) -> None:
    assert [engine.after(1, steps=5) for _ in range(9)] == [1] + [0] * 8  # the first sample has nothing to compare with
    assert engine.deadlines == []


def test_an_idle_engine_is_asked_for_a_token_each_period(engine: Engine) -> None:
    assert [engine.after(1) for _ in range(8)] == [1, 2, 3, 0, 1, 2, 3, 0]
    assert len(engine.deadlines) == 2


def test_a_failed_completion_is_the_reason_until_tokens_come(engine: Engine) -> None:
    engine.answer = Completion(False, 4.0, "timeout", "a1 did not finish a completion")
    assert [engine.after(4) for _ in range(3)] == [4, 8, 12]
    assert engine.beat.failure == "a1 did not finish a completion"
    assert engine.after(1, steps=1) == 0
    assert engine.beat.failure == ""


def test_a_completion_may_take_until_the_engine_counts_as_wedged(engine: Engine) -> None:
    engine.answer = Completion(False, 4.0, "timeout", "late")
    for _ in range(5):
        engine.after(4)
    assert engine.deadlines == [10, 10, 8, 4, 1]


def test_a_dead_engine_is_what_vllm_reports(engine: Engine) -> None:
    engine.after(1)
    assert not engine.beat.engine_dead
    engine.health = 503
    engine.after(1)
    assert engine.beat.engine_dead
