"""One replica's engine from its start to its end, on the replica's head; run by ``cli`` under lockstep-vllm.service.

It waits for resources (``layout_wait``), checks that those who joined are those the replica stamp was given for, starts
vLLM and has it prove completions (``startup``), climbs the ladder, reports ready to systemd and the router, and
watches that tokens keep coming (``heartbeat``, ``readiness``). What is decided is decided by pure functions in ``ladder``,
``layouts``, ``readiness`` and ``restarts``.
"""

from __future__ import annotations

import dataclasses
import time

from ..admission import condition
from ..core import records
from ..core.systemd import notify
from . import ladder as ladders
from . import ladder_record, readiness
from .cluster import Members, ReplicaCluster
from .draining import Drain
from .inquiry import Silence
from .ladder import Ladder, Rung, Trial
from .layout_wait import LayoutWait, MoveUp
from .layouts import Layout
from .record import Suspect
from .replica import Replica
from .reporter import Reporter
from .restarts import failures_in_a_row, pause_before_restart
from .running import RunningEngine
from .startup import Startup
from .states import End, EndCode, GiveUp, Phase, Verdict

GAVE_UP = 78
"""Exit status of a supervisor that gave up; the unit does not restart after it."""
_TICK = 0.5
_CLIMBS_WITHIN = 5.0


class Stop(Exception):
    """systemd asked for the end."""


class Supervisor:
    """Serves one replica until it is stopped or starting again cannot help."""

    def __init__(self, replica: Replica, cluster: ReplicaCluster) -> None:
        self._replica, self._config, self._cluster = replica, replica.config, cluster
        self._reporter = Reporter()
        self._engine = RunningEngine(replica, self._reporter)
        self._startup = Startup(replica, cluster, self._engine, self._reporter)
        self._layout_wait = LayoutWait(self._config, cluster, self._reporter)
        self._joined = Members(False)
        self._failures = 0
        self._fails_at: dict[Rung, int] = {}
        self._silence: Silence | None = None
        self._named: Suspect | None = None
        readiness.serve(replica.api_address, self._config.ports.ready, self.ready)

    def run(self) -> int:
        """Serve until stopped (0) or until starting again cannot help (78)."""
        try:
            self._cycle()
        except GiveUp as reason:
            self._engine.end()
            self._reporter.enter(Phase.GIVEN_UP, str(reason))
            print(f"given up: {reason}", flush=True)
            return GAVE_UP
        except Stop:
            notify(stopping=True)
            self._reporter.enter(Phase.DRAINING, "the unit is being stopped")
            self._engine.end(grace=self._config.deadlines.drain + 5)
            self._reporter.enter(Phase.STOPPED, "the unit was stopped")
        return 0

    def ready(self) -> bool:
        """What ``GET /ready`` answers now. Called from other threads."""
        return self._readiness().ready

    def _readiness(self) -> readiness.Readiness:
        beat, state = self._engine.heartbeat, self._reporter.state
        signs = readiness.Signs(
            phase=state.phase,
            reason=state.reason,
            alive=self._engine.alive(),
            engine_dead=beat is not None and beat.engine_dead,
            silent_for=beat.silent_for() if beat is not None else None,
            failure=beat.failure if beat is not None else "",
            suspect=str(self._silence.suspect or "") if self._silence is not None else "",
        )
        return readiness.evaluate(signs, self._config.heartbeat.stale, self._config.heartbeat.wedged)

    def _cycle(self) -> None:
        while True:
            layout = self._layout_wait.choose()
            self._join(layout)
            end = self._bring_up(layout)
            self._engine.end(grace=self._config.deadlines.drain if end.code is EndCode.MOVE_UP else 0)
            if end.code is EndCode.RUNG_FAILS:
                self._reporter.enter(Phase.WAITING, f"{end.cause}; the rung below is next")
            elif end.code is not EndCode.MOVE_UP:
                self._back_off(end)

    def _back_off(self, end: End) -> None:
        """Count a failure, and pause before the next start."""
        self._failures = failures_in_a_row(self._failures, end.seconds, self._config.restarts)
        self._reporter.update(
            last_failure=end.cause,
            failures=self._failures,
            evidence=end.evidence,
            restarts=self._reporter.state.restarts + 1,
        )
        pause = pause_before_restart(self._failures, self._config.restarts)
        if pause is None:
            raise GiveUp(f"{self._failures} failures in a row, the last: {end.cause}")
        when = f"in {pause:.0f} s" if pause else "at once"
        self._reporter.enter(Phase.BACKOFF, f"{end.cause}; starts again {when}")
        time.sleep(pause)

    def _join(self, layout: Layout) -> None:
        """Take note of who is there, and refuse those whom the replica stamp was not given for."""
        self._joined = self._cluster.members()
        self._reporter.update(
            layout=layout.name,
            tensor_parallel_size=layout.tensor_parallel_size,
            pipeline_parallel_size=layout.pipeline_parallel_size,
        )
        wrong = condition.unexpected_hosts(self._replica.stamp.get("hosts", {}), self._joined.fingerprints)
        if wrong:
            raise GiveUp(f"the replica stamp does not hold: {'; '.join(wrong)}", "ansible-playbook site.yml")

    def _bring_up(self, layout: Layout) -> End:
        """Climb to the highest rung that holds and serve on it. Returns when the engine's life is over."""
        known, allowed = ladder_record.load(self._replica, layout), self._config.rungs(layout)
        while True:
            rung = ladders.next_rung(allowed, known.trials)
            if rung is None:
                raise GiveUp(f"rung {allowed[0]} fails: {known.trials[allowed[0]].cause}")
            self._reporter.update(rung=rung, ladder=ladders.shown(known))
            end, known = self._startup.attempt(layout, rung, known, self._joined)
            if end.code is EndCode.OK:
                ladder_record.save(layout, known)
                self._reporter.update(ladder=ladders.shown(known))
                if not ladders.completed(allowed, known.trials):
                    self._engine.end(grace=_CLIMBS_WITHIN)
                    self._layout_wait.until_free(layout)
                    continue
                end = self._serve(layout)
            self._engine.advise()
            return self._blame(layout, rung, known, end)

    def _blame(self, layout: Layout, rung: Rung, known: Ladder, end: End) -> End:
        """Hold a failure against its rung, if it is to blame."""
        if end.code is EndCode.MOVE_UP:
            return end
        self._fails_at = {
            rung: 1 if end.seconds >= self._config.restarts.stable_seconds else self._fails_at.get(rung, 0) + 1
        }
        if not ladders.blames(rung, self._config.rungs(layout), known.trials, end.code, self._fails_at[rung]):
            return end
        trial = Trial(Verdict.FAILED, end.code, end.cause, end.seconds, end.evidence, records.now())
        ladder_record.save(layout, ladders.with_trial(known, rung, trial))
        self._reporter.update(last_failure=end.cause, evidence=end.evidence)
        cause = f"rung {rung} fails ({end.code}): {end.cause}"
        return dataclasses.replace(end, code=EndCode.RUNG_FAILS, cause=cause)

    def _serve(self, layout: Layout) -> End:
        """Stay while tokens come. Returns how it ended."""
        began = time.monotonic()
        self._engine.start_heartbeat()
        notify(ready=True)
        serves = f"layout {layout.name}, rung {self._reporter.state.rung}"
        drain = Drain(self._config, self._replica.base_url, self._reporter, serves)
        drain.enter()
        self._joined = self._cluster.at_work() or self._joined
        move_up = MoveUp(self._config, layout, self._cluster.members)
        hosts, self._named = sorted(self._joined.fingerprints), None
        silence = self._silence = Silence(self._cluster.stacks, hosts, str(self._replica.host["host"]))
        while True:
            drain.follow()
            found = self._readiness()
            silence.follow(found.silent)
            served = time.monotonic() - began
            if not self._engine.alive():
                return self._ended(EndCode.DIED, self._engine.death(), served)
            if found.wedged:
                return self._wedged(silence, served)
            self._name(silence.suspect, serves)
            self._refresh(found, served, serves)
            if self._reporter.state.phase is Phase.SERVING and (choice := move_up.choose()) is not None:
                if choice.layout is not None:
                    self._reporter.enter(Phase.DRAINING, f"moving up to layout {choice.layout.name}")
                    drain.await_idle()
                    return End(EndCode.MOVE_UP, f"moves up to layout {choice.layout.name}", served)
                self._reporter.explain(f"{serves}: {choice.reason}")
            time.sleep(_TICK)

    def _wedged(self, silence: Silence, served: float) -> End:
        """The end of an engine that generates nothing, once its hosts have answered for their ranks, or had the time to."""
        self._reporter.update(suspect=silence.result())
        return self._ended(EndCode.WEDGED, f"the engine generates nothing: {self._readiness().reason}", served)

    def _name(self, suspect: Suspect | None, serves: str) -> None:
        """Report who keeps the engine from generating as soon as it is known, and take that back when tokens come again."""
        if suspect == self._named:
            return
        self._named = suspect
        self._reporter.update(suspect=suspect)
        if self._reporter.state.phase is Phase.SERVING:
            self._reporter.explain(f"{serves}, but no token comes: {suspect}" if suspect else serves)

    def _ended(self, code: EndCode, cause: str, served: float) -> End:
        """The end of an engine that served, with its evidence; a lost host is what it died of, whatever its log holds."""
        self._reporter.update(ready=False, reason=cause)
        lost = self._cluster.lost(self._joined)
        whole = f"lost {', '.join(lost)}; {cause}" if lost else cause
        return End(EndCode.MEMBERS_LOST if lost else code, whole, served, self._engine.save_evidence(code))

    def _refresh(self, found: readiness.Readiness, served: float, serves: str) -> None:
        """Report what changed while it serves."""
        assert self._engine.heartbeat is not None
        state = self._reporter.state
        if self._failures and served >= self._config.restarts.stable_seconds:
            self._failures = 0
            self._reporter.update(failures=0)
        if found.ready != state.ready:
            print("ready" if found.ready else f"not ready: {found.reason}", flush=True)
        reason = state.reason
        if state.phase is Phase.SERVING and found.ready != state.ready:
            reason = found.reason or serves
        seen = self._engine.heartbeat.last_completion
        self._reporter.update(ready=found.ready, reason=reason, last_completion=seen)
        self._engine.advise_now_and_then()
