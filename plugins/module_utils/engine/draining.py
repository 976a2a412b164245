"""Draining: the engine takes no new traffic, running requests end, and it serves again when the request is withdrawn."""

from __future__ import annotations

import time

from . import completion, state, vllm_metrics
from .config import Config
from .reporter import Reporter
from .states import Phase

_TICK = 0.5


class Drain:
    """Follows requests to drain and to resume while an engine serves.

    Args:
        serves: the reason to give while it serves.
    """

    def __init__(self, config: Config, base_url: str, reporter: Reporter, serves: str) -> None:
        self._config, self._base_url, self._reporter, self._serves = config, base_url, reporter, serves
        self._ends = 0.0

    def enter(self) -> None:
        """Serve, or drain where that is requested already."""
        if state.DRAIN.exists():
            self._begin()
        else:
            self._reporter.enter(Phase.SERVING, self._serves)

    def follow(self) -> None:
        """Act on what is requested now."""
        requested, phase = state.DRAIN.exists(), self._reporter.state.phase
        if requested and phase is Phase.SERVING:
            self._begin()
        elif not requested and phase in (Phase.DRAINING, Phase.DRAINED):
            self._reporter.enter(Phase.SERVING, self._serves)
        reason = self._reporter.state.reason
        if self._reporter.state.phase is not Phase.DRAINING:
            return
        if self._idle():
            self._reporter.enter(Phase.DRAINED, reason)
        elif time.monotonic() > self._ends:
            self._reporter.enter(Phase.DRAINED, f"{reason}; requests still ran at the deadline")

    def await_idle(self) -> None:
        """Give the router time to turn away, and running requests time to end."""
        ends = time.monotonic() + self._config.deadlines.drain
        time.sleep(self._config.heartbeat.period)
        while not self._idle() and time.monotonic() < ends:
            time.sleep(_TICK)

    def _begin(self) -> None:
        self._ends = time.monotonic() + self._config.deadlines.drain
        self._reporter.enter(Phase.DRAINING, state.drain_reason())

    def _idle(self) -> bool:
        metrics = completion.get(self._base_url, "/metrics", deadline=2)
        return metrics is not None and (vllm_metrics.requests_in_flight(metrics[1]) or 0) == 0
