"""The state of a run, followed from what its tasks report: reports go in, journal events come out.

Tasks (or their block, include or play) carry ``vars: {lockstep_step: <step>}``, with one of ``words.STEPS``, and may carry
``lockstep_wave: <n>``. Nothing here knows Ansible: types of ``events`` and a clock are enough.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence

from ansible_collections.lockstep.vllm.plugins.plugin_utils.report import events, gate_matrix
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.events import (
    Event,
    Fingerprint,
    GateEvent,
    RunPlan,
    TaskReport,
)
from ansible_collections.lockstep.vllm.plugins.plugin_utils.report.served import Completion

BEFORE_WAVES = frozenset(("prepare",))


@dataclasses.dataclass
class _Step:
    name: str
    wave: int | None
    began: float
    ended: float
    outcome: str = "skipped"
    changed: bool = False


class Tracker:
    """The state of a run. Every method returns the events that follow, in order.

    Args:
        typical_wave: as ``typical`` of :func:`time_left`.
        before: seconds that the run went on before this was made.

    Attributes:
        plan: what the plan action returned; an empty one until then.
        serving: replicas that answer requests, as far as the run knows.
        wave: number of the wave under way; None before the first.
        next: the next command to type, by the newest failure that names one.
        completions: replica to what it generated last to prove that it serves.
        gates: results of gates, in order.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, typical_wave: float | None = None, before: float = 0.0
    ) -> None:
        self._clock = clock
        self._start = clock() - before
        self._typical = typical_wave
        self._open: dict[str, _Step] = {}
        self._wave_of: dict[str, int] = {}
        self._replica_of: dict[str, str] = {}
        self._fingerprints: dict[str, Fingerprint] = {}
        self._begun: list[float] = []
        self._wave_failed: float | None = None
        self._failed_replicas: set[str] = set()
        self.plan = RunPlan()
        self.serving: list[str] = []
        self.wave: int | None = None
        self.next = ""
        self.completions: dict[str, Completion] = {}
        self.gates: list[GateEvent] = []
        self._warned: set[tuple[str, str]] = set()
        self._refused = False
        self._under_way = False

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return round(self._clock() - self._start, 3)

    @property
    def planned(self) -> bool:
        return self.plan != RunPlan()

    @property
    def waves(self) -> int:
        """Number of waves planned."""
        return len(self.plan.waves)

    def time_left(self) -> float | None:
        """Seconds until the last planned wave is over, estimated; None where there is nothing to go by."""
        if self.wave is None:
            return time_left(self.waves, [], 0.0, self._typical)
        lengths = [later - earlier for earlier, later in itertools.pairwise(self._begun)]
        if self._wave_failed is not None:
            # No further wave begins, and rolling this one back takes it through the same stages again.
            return time_left(1, lengths, self.elapsed - self._wave_failed, self._typical)
        remaining = self.waves - len(self._begun)
        return time_left(remaining + 1, lengths, self.elapsed - self._begun[-1], self._typical)

    def task_starts(self, host: str, step: str | None, wave: int | None = None) -> list[Event]:
        """A task begins on ``host``; ``step`` is its ``lockstep_step``. One outside of any step ends the step before it."""
        if step is None:
            return self._close(host)
        number = wave if wave is not None or step in BEFORE_WAVES else self._wave_of.get(host)
        current = self._open.get(host)
        if current is not None and (current.name, current.wave) == (step, number):
            return []
        found = self._close(host)
        found += self._enter_wave(number)
        self._under_way = self._under_way or self.planned
        now = self.elapsed
        self._open[host] = _Step(step, number, now, now)
        found.append(events.event("step_started", now, host=host, step=step, wave=number))
        replica = self._replica_of.get(host, host)
        if step in ("drain", "restore"):
            self._failed_replicas.discard(replica)
        if step == "drain":
            found += self._serves(replica, False)
        return found

    def task_ends(self, report: TaskReport) -> list[Event]:
        """A task ended on a host."""
        found = self._facts(report)
        current = self._open.get(report.host)
        if current is not None:
            current.ended = self.elapsed
            if report.failure is not None:
                current.outcome = report.outcome
            elif report.outcome != "skipped" and current.outcome == "skipped":
                current.outcome = "ok"
            current.changed = current.changed or report.outcome == "changed"
        if report.outcome == "changed" and not report.ours:
            self._under_way = True
        if report.failure is not None:
            self._refused = self._refused or report.failure.refused
            self._under_way = self._under_way or not report.failure.refused
            self._failed_replicas.add(self._replica_of.get(report.host, report.host))
            self.next = report.failure.next or self.next
            failure = dataclasses.replace(
                report.failure,
                step=current.name if current else None,
                wave=current.wave if current else self._wave_of.get(report.host),
            )
            found.append(failure.as_event(self.elapsed))
            if self.wave is not None and self._wave_failed is None:
                self._wave_failed = self.elapsed
        return found

    def outcome(self, failed: bool, check: bool) -> events.RunOutcome:
        """How the run ends, by whether any task failed or any host was gone, and whether it was one with ``--check``.

        It is refused where all that failed are refusals, nothing was changed before, and no step of a plan had begun.
        """
        if self.plan.refused or (self._refused and not self._under_way):
            return "refused"
        if failed:
            return "failed"
        if gate_matrix.matrix(self.gates).failing:
            return "gates_failed"
        if self.planned and not self.waves:
            return "nothing_to_do"
        return "checked" if check else "done"

    def play_starts(self) -> list[Event]:
        """A play begins: no step reaches from one play into the next."""
        return [event for host in list(self._open) for event in self._close(host)]

    def ends(self, outcome: events.RunOutcome) -> list[Event]:
        """The run is over."""
        found = self.play_starts()
        if outcome in ("failed", "interrupted"):
            self.next = self.next or (events.STATUS_COMMAND if outcome == "failed" else events.SAME_COMMAND)
        if self.wave is not None:
            found.append(events.event("wave_ended", self.elapsed, wave=self.wave))
        facts = {"next": self.next, "status": events.STATUS_COMMAND}
        found.append(events.event("run_ended", self.elapsed, outcome=outcome, **facts))
        return found

    def _close(self, host: str) -> list[Event]:
        step = self._open.pop(host, None)
        if step is None:
            return []
        ended = events.event(
            "step_ended",
            self.elapsed,
            host=host,
            step=step.name,
            wave=step.wave,
            outcome=step.outcome,
            changed=step.changed,
            began=step.began,
            ended=step.ended,
        )
        replica = self._replica_of.get(host, host)
        admitted = step.name == "admit" and step.outcome == "ok" and replica not in self._failed_replicas
        return [ended, *(self._serves(replica, True) if admitted else [])]

    def _enter_wave(self, number: int | None) -> list[Event]:
        if number is None or (self.wave is not None and number <= self.wave):
            return []
        now = self.elapsed
        found = [] if self.wave is None else [events.event("wave_ended", now, wave=self.wave)]
        planned = next((wave for wave in self.plan.waves if wave.n == number), events.PlannedWave(number))
        self.wave = number
        self._begun.append(now)
        facts = {"of": self.waves, "replicas": planned.replicas, "hosts": planned.hosts}
        found.append(events.event("wave_started", now, wave=number, **facts))
        return found

    def _serves(self, replica: str, serving: bool) -> list[Event]:
        if (replica in self.serving) == serving:
            return []
        if serving:
            self.serving.append(replica)
        else:
            self.serving.remove(replica)
        return [events.event("serving", self.elapsed, replica=replica, serving=serving)]

    def _facts(self, report: TaskReport) -> list[Event]:
        found: list[Event] = []
        if report.plan is not None and report.plan != self.plan:
            found += self._follow(report.plan)
        found += [events.event("note", self.elapsed, host=report.host, text=text) for text in report.notes]
        if report.completion is not None:
            replica = self._replica_of.get(report.host, report.host)
            self.completions[replica] = report.completion
            facts = dataclasses.asdict(report.completion)
            found.append(events.event("completion", self.elapsed, host=report.host, replica=replica, **facts))
        if report.start is not None and report.host in self._open and self._open[report.host].name == "serve":
            replica = self._replica_of.get(report.host, report.host)
            found.append(report.start.as_event(self.elapsed, report.host, replica))
        gates = [gate.about(self._mates(report.host)) for gate in report.gates]
        self.gates += gates
        found += [gate.as_event(self.elapsed) for gate in gates]
        if report.conclusion:
            found.append(events.event("conclusion", self.elapsed, host=report.host, text=report.conclusion))
        for text in report.warnings:
            if (report.host, text) not in self._warned:
                self._warned.add((report.host, text))
                found.append(events.event("warning", self.elapsed, host=report.host, text=text))
        for host, fingerprint in report.fingerprints.items():
            if self._fingerprints.get(host) != fingerprint:
                self._fingerprints[host] = fingerprint
                found.append(events.event("versions", self.elapsed, host=host, fingerprint=dict(fingerprint)))
        return found

    def _follow(self, plan: RunPlan) -> list[Event]:
        self.plan = plan
        self.serving = plan.serving
        for wave in plan.waves:
            self._wave_of.update(dict.fromkeys(wave.hosts, wave.n))
            self._replica_of.update(wave.replica_of)
        return [plan.as_event(self.elapsed)]

    def _mates(self, host: str) -> list[str]:
        """The hosts of the replica of ``host``, by the plan; a gate across hosts may name any of them."""
        replica = self._replica_of.get(host)
        return [] if replica is None else [mate for mate, name in self._replica_of.items() if name == replica]


def time_left(waves: int, lengths: Sequence[float], current: float, typical: float | None) -> float | None:
    """Seconds until ``waves`` waves are over, the first of which began ``current`` seconds ago.

    Args:
        waves: waves not yet over.
        lengths: seconds that each finished wave of this run took, pauses included.
        current: seconds since the wave under way began.
        typical: seconds that a wave took in an earlier run; used until this run has finished one.
    """
    if waves <= 0:
        return 0.0
    known = sum(lengths) / len(lengths) if lengths else typical
    return None if known is None else max(known - current, 0.0) + (waves - 1) * known
