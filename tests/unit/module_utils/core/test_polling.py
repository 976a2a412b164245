"""Waiting: a table of what is seen over time, and how the wait must end."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.lockstep.vllm.plugins.module_utils.core.polling import Evaluation, poll


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0
        self.naps: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def evaluate(letter: str) -> Evaluation:
    return {
        "r": Evaluation("ready"),
        "w": Evaluation("wait", "a2 is missing"),
        "h": Evaluation("hopeless", "a2 is quarantined"),
    }[letter]


@pytest.mark.parametrize(
    ("seen", "deadline", "stable_for", "hopeless_for", "code", "reason", "seconds"),
    [
        ("r", 10, 0, 0, "ready", "", 0),
        ("wwr", 10, 0, 0, "ready", "", 2),
        ("w" * 20, 10, 0, 0, "deadline", "a2 is missing", 10),
        ("w", 0, 0, 0, "deadline", "a2 is missing", 0),
        ("wh", 10, 0, 0, "hopeless", "a2 is quarantined", 1),
        ("wrrrr", 10, 2, 0, "ready", "", 3),
        ("rwrrr", 10, 2, 0, "ready", "", 4),  # a break starts the count anew
        ("rw" * 10, 10, 2, 0, "deadline", "ready only for the last 0.0 s", 10),
        ("hhhh", 10, 0, 2, "hopeless", "a2 is quarantined", 2),
        ("hhwr", 10, 0, 2, "ready", "", 3),  # a passing state ends nothing
    ],
)
def test_ends_as_it_should(seen, deadline, stable_for, hopeless_for, code, reason, seconds):
    clock = Clock()
    observations = itertools.chain(seen, itertools.repeat(seen[-1]))
    result = poll(
        lambda: next(observations),
        evaluate,
        deadline=deadline,
        interval=1,
        stable_for=stable_for,
        hopeless_for=hopeless_for,
        clock=clock,
        sleep=clock.sleep,
    )
    assert (result.code, result.reason, result.seconds) == (code, reason, seconds)
    assert result.ready is (code == "ready")


def test_last_nap_ends_at_the_deadline():
    clock = Clock()
    result = poll(lambda: "w", evaluate, deadline=2.5, interval=1, clock=clock, sleep=clock.sleep)
    assert clock.naps == [1, 1, 0.5]
    assert result.seconds == 2.5


def test_stability_is_not_rounded_up_to_the_interval():
    clock = Clock()
    result = poll(lambda: "r", evaluate, deadline=60, interval=5, stable_for=1, clock=clock, sleep=clock.sleep)
    assert result.seconds == 1


def test_every_observation_is_reported():
    clock, reported, observations = Clock(), [], iter("wwr")
    poll(
        lambda: next(observations),
        evaluate,
        deadline=9,
        interval=1,
        clock=clock,
        sleep=clock.sleep,
        progress=lambda seen, evaluation: reported.append((seen, evaluation.reason)),
    )
    assert reported == [("w", "a2 is missing"), ("w", "a2 is missing"), ("r", "")]
