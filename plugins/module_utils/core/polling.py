"""Waiting with a deadline and a named reason, apart from deciding.

``evaluate`` is a pure function of what ``observe`` read; only ``poll`` knows about time.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

Seen = TypeVar("Seen")
Answer = Literal["ready", "wait", "hopeless"]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What one observation means.

    Attributes:
        answer: ``ready``; ``wait`` when time may help; ``hopeless`` when it cannot.
        reason: why it is not ready; empty when it is.
    """

    answer: Answer
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Result(Generic[Seen]):
    """How a wait ended.

    Attributes:
        ready: whether the awaited state was reached, and held for ``stable_for``.
        code: ``ready``, ``hopeless`` or ``deadline``.
        reason: why not; empty when ready.
        seconds: how long the wait took.
        last: the last observation.
    """

    ready: bool
    code: Literal["ready", "hopeless", "deadline"]
    reason: str
    seconds: float
    last: Seen


def poll(
    observe: Callable[[], Seen],
    evaluate: Callable[[Seen], Evaluation],
    *,
    deadline: float,
    interval: float,
    stable_for: float = 0.0,
    hopeless_for: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[Seen, Evaluation], None] | None = None,
) -> Result[Seen]:
    """Observe every ``interval`` seconds until it is ready, hopeless, or ``deadline`` seconds have passed.

    It observes at least once, also with a deadline of zero, and a last time at the deadline. ``observe`` must bound
    itself: one that hangs would outlast the deadline.

    Args:
        observe: observes once. Its exceptions end the wait: what may pass by itself belongs into the observation.
        evaluate: what an observation means.
        deadline: seconds from now.
        interval: seconds between two observations.
        stable_for: seconds for which ``ready`` must hold without a break.
        hopeless_for: seconds for which ``hopeless`` must hold without a break, lest a passing state ends the wait.
        clock: monotonic seconds.
        sleep: waits that many seconds.
        progress: called with every observation, before the wait goes on or ends.
    """
    start = clock()
    held: Answer | None = None
    held_since = start
    while True:
        seen = observe()
        evaluation = evaluate(seen)
        moment = clock()
        if evaluation.answer != held:
            held, held_since = evaluation.answer, moment
        if progress is not None:
            progress(seen, evaluation)
        elapsed = moment - start
        need = {"ready": stable_for, "hopeless": hopeless_for}.get(evaluation.answer)
        held_for = moment - held_since
        if need is not None and held_for >= need:
            return Result(held == "ready", "ready" if held == "ready" else "hopeless", evaluation.reason, elapsed, seen)
        if elapsed >= deadline:
            reason = evaluation.reason or f"ready only for the last {held_for:.1f} s"
            return Result(False, "deadline", reason, elapsed, seen)
        pause = interval if need is None else min(interval, need - held_for)
        sleep(max(0.0, min(pause, deadline - elapsed)))
