"""The engine that runs, if one does: its processes, its heartbeat, what its log means, and what is saved of it."""

from __future__ import annotations

import time

from ..core import causes, evidence
from ..ray import ranks
from . import log_advice, state
from .config import command
from .heartbeat import Heartbeat
from .ladder import Rung
from .layouts import Layout
from .process import EngineProcess
from .replica import Replica
from .reporter import Reporter

_ADVISES_EVERY = 60.0


class RunningEngine:
    """One engine at a time: started, watched and ended."""

    def __init__(self, replica: Replica, reporter: Reporter) -> None:
        self._replica, self._reporter = replica, reporter
        self._process: EngineProcess | None = None
        self._advised = 0.0
        self.heartbeat: Heartbeat | None = None

    def start(self, layout: Layout, rung: Rung) -> None:
        replica = self._replica
        argv = command(str(replica.vllm), replica.config, layout, rung, replica.api_address)
        self._process = EngineProcess([*argv, *replica.key_arguments], replica.environment(), state.LOG)

    def start_heartbeat(self) -> Heartbeat:
        replica = self._replica
        self.heartbeat = Heartbeat(replica.config, replica.base_url, replica.api_key)
        self.heartbeat.start()
        return self.heartbeat

    def alive(self) -> bool:
        return self._process is not None and self._process.alive()

    @property
    def process(self) -> EngineProcess:
        """Of the engine that was started last and not ended."""
        assert self._process is not None
        return self._process

    def death(self, during: str = "") -> str:
        """Why it died, from its status and its log."""
        self.process.finish_reading()
        reason = causes.of_program(self.process.lines())
        return f"vLLM ended with status {self.process.returncode}{during}: {reason}"

    def advise(self) -> None:
        """Keep what the known lines of its log mean; what is new is printed, with its remediation."""
        found = log_advice.read(self.process.lines(), log_advice.load())
        known = {finding.id for finding in self._reporter.state.findings}
        for finding in found:
            if finding.id not in known and finding.level != "info":
                print(f"advice: {finding.finding} {finding.remediation}", flush=True)
        self._advised = time.monotonic()
        self._reporter.update(findings=tuple(found))

    def advise_now_and_then(self) -> None:
        if time.monotonic() - self._advised > _ADVISES_EVERY:
            self.advise()

    def save_evidence(self, why: str) -> tuple[str, ...]:
        """Save it; the engine does not survive that."""
        name = f"{self._reporter.state.rung}-{why}"
        return self.process.save_evidence(evidence.next_folder(state.EVIDENCE, name, ranks.KEPT))

    def end(self, grace: float = 0.0) -> None:
        """End all of it; with ``grace``, running requests have that many seconds to end."""
        if self.heartbeat is not None:
            self.heartbeat.end()
            self.heartbeat = None
        if self._process is not None:
            self._process.stop(grace) if grace else self._process.kill()
            self._process = None
