"""Starting vLLM on one rung of the ladder, and proving with completions that it works there."""

from __future__ import annotations

import dataclasses
import time

from ..core import causes, records
from . import cluster as engine_cluster
from . import completion, ladder
from .cluster import Members, ReplicaCluster
from .inquiry import Silence
from .ladder import Ladder, Rung, Trial
from .layouts import Layout
from .replica import Replica
from .reporter import Reporter
from .running import RunningEngine
from .states import End, EndCode, Phase, Verdict

_TICK = 0.5
_MEMBERS_EVERY = 3.0
_DIES_WITHIN = 15.0
_PROMPTS = (
    "The first ten prime numbers are",
    "Once upon a time there was a",
    "def fibonacci(n):",
)


class Startup:
    """Attempts of one replica's engine."""

    def __init__(self, replica: Replica, cluster: ReplicaCluster, engine: RunningEngine, reporter: Reporter) -> None:
        self._replica, self._cluster, self._engine, self._reporter = replica, cluster, engine, reporter
        self._config = replica.config

    def attempt(self, layout: Layout, rung: Rung, known: Ladder, joined: Members) -> tuple[End, Ladder]:
        """Start and prove it. A failed engine's evidence is saved, but it is left to the caller to end it.

        Args:
            known: what is known of the layout's rungs; returned with what was learnt.
            joined: the hosts that it starts on.
        """
        self._reporter.enter(Phase.STARTING, f"layout {layout.name}, rung {rung}")
        started = time.monotonic()
        self._engine.start(layout, rung)
        lowest = rung == self._config.rungs(layout)[0]
        end = self._await_start(self._config.deadlines.start if lowest else self._config.deadlines.rung, joined)
        if end is None:
            self._reporter.enter(Phase.PROVING, f"layout {layout.name}, rung {rung}")
            end, known = self._prove(lowest, known)
        if end is None:
            trial = Trial(Verdict.PROVEN, seconds=round(time.monotonic() - started, 1), at=records.now())
            self._engine.advise()
            return End(EndCode.OK), known if rung in known.trials else ladder.with_trial(known, rung, trial)
        lost = self._cluster.lost(joined)
        if lost:
            return End(EndCode.MEMBERS_LOST, f"lost {', '.join(lost)} while starting: {end.cause}"), known
        if end.code is EndCode.START_HANGS:
            end = self._with_suspect(end, joined)
        return dataclasses.replace(end, evidence=self._engine.save_evidence(end.code)), known

    def _with_suspect(self, end: End, joined: Members) -> End:
        """The end of a start that hangs, with who keeps it from going on where its hosts can tell."""
        hosts = sorted((self._cluster.at_work() or joined).fingerprints)
        silence = Silence(self._cluster.stacks, hosts, str(self._replica.host["host"]))
        silence.follow(True)
        suspect = silence.result()
        self._reporter.update(suspect=suspect)
        return dataclasses.replace(end, cause=f"{end.cause}; {suspect}") if suspect else end

    def _await_start(self, deadline: float, joined: Members) -> End | None:
        """None when vLLM reports that it is up, which is then for a completion to prove."""
        started = sampled = time.monotonic()
        while True:
            if not self._engine.alive():
                return End(EndCode.START_DIES, self._engine.death(" while starting"))
            health = completion.get(self._replica.base_url, "/health", deadline=2)
            if health is not None and health[0] == 200:
                return None
            now = time.monotonic()
            if now - started > deadline:
                last = causes.last(self._engine.process.lines()).text
                return End(EndCode.START_HANGS, f"vLLM did not start within {deadline:.0f} s; last log line: {last}")
            if now - sampled > _MEMBERS_EVERY:
                sampled = now
                lost = engine_cluster.lost(joined, self._cluster.members())
                if lost:
                    return End(EndCode.MEMBERS_LOST, f"lost {', '.join(lost)} while vLLM started")
            time.sleep(_TICK)

    def _prove(self, lowest: bool, known: Ladder) -> tuple[End | None, Ladder]:
        """Hold completions against the expected answer and against the eager engine's."""
        proof = self._config.proof
        baseline = dict(known.baseline)
        for prompt in dict.fromkeys((proof.prompt, *(proof.prompts or _PROMPTS))):
            answer = completion.prove(
                self._replica.base_url, self._config.served_model_name, prompt,
                proof.answer if prompt == proof.prompt else None, self._replica.api_key, proof.deadline,
                max_tokens=proof.max_tokens, logprobs=2,
            )  # fmt: skip
            if not answer.ok:
                return End(EndCode.NO_COMPLETION, self._why_silent(answer)), known
            if lowest or prompt not in baseline:
                baseline[prompt] = answer.tokens
            elif odd := ladder.difference(baseline[prompt], answer.tokens):
                cause = f"the completion of {prompt!r} differs from the eager one: {odd}"
                return End(EndCode.DIFFERS, cause), known
        return None, dataclasses.replace(known, baseline=baseline)

    def _why_silent(self, answer: completion.Completion) -> str:
        """The completion's failure, or the log's reason where the engine is dying of it."""
        if answer.failure not in ("rejected", "broken", "refused"):
            return answer.cause
        ends = time.monotonic() + _DIES_WITHIN
        while self._engine.alive() and time.monotonic() < ends:
            time.sleep(_TICK)
        if self._engine.alive():
            return answer.cause
        return self._engine.death(" at its first completions")
