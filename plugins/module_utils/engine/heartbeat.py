"""Whether tokens keep coming: of real traffic where there is some, of a completion of our own where there is none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ..core import records
from . import completion, vllm_metrics
from .config import Config


class Heartbeat(threading.Thread):
    """Samples the engine every second or more often, and asks it for a token once it was idle for a period."""

    def __init__(
        self, config: Config, base_url: str, api_key: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._config, self._base_url, self._key, self._clock = config, base_url, api_key, clock
        self._ended = threading.Event()
        self._last = clock()
        self._work: float | None = None
        self.last_completion = records.now()
        self.engine_dead = False
        self.failure = ""

    def silent_for(self) -> float:
        """Seconds since the last token."""
        return self._clock() - self._last

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        period = self._config.heartbeat.period
        while not self._ended.wait(min(1.0, period / 2)):
            self.beat()

    def beat(self) -> None:
        """Sample once, and ask for a token where none was seen for a period."""
        self._sample()
        if self.silent_for() >= self._config.heartbeat.period and not self._ended.is_set():
            self._ask()

    def _sample(self) -> None:
        health = completion.get(self._base_url, "/health", deadline=2)
        self.engine_dead = health is not None and health[0] != 200
        metrics = completion.get(self._base_url, "/metrics", deadline=2)
        if metrics is None or metrics[0] != 200:
            return
        work = vllm_metrics.work_done(metrics[1])
        if work is not None and self._work is not None and work > self._work:
            self._seen()
        self._work = work

    def _ask(self) -> None:
        beat = self._config.heartbeat
        deadline = max(1.0, min(beat.stale, beat.wedged - self.silent_for()))
        answer = completion.prove(
            self._base_url, self._config.served_model_name, self._config.proof.prompt,
            api_key=self._key, deadline=deadline, max_tokens=1,
        )  # fmt: skip
        if answer.ok:
            self._seen()
        else:
            self.failure = answer.cause

    def _seen(self) -> None:
        self._last, self.last_completion, self.failure = self._clock(), records.now(), ""
