"""The engine supervisor: ``python -m lockstep.engine.supervisor``, run on a replica's head by lockstep-vllm.service.

It waits for resources, checks that those who joined are those the replica stamp was given for, starts vLLM, has it prove
a completion, climbs the ladder, tells systemd and the router that it is ready, and watches that tokens keep coming. What
it decides is decided by pure functions in ``ladder``, ``layouts``, ``readiness`` and ``restarts``; here things are done.

``python -m lockstep.engine.supervisor drain|resume|move-up|forget-ladder`` leaves the running supervisor a wish.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..admission import condition
from ..core import records
from ..core.systemd import notify
from ..ray import wait as ray_wait
from ..ray.ports import ray_ports
from ..runtime import state as runtime_state
from . import cluster as engine_cluster
from . import completion, layouts, log_advice, readiness
from . import config as engine_config
from . import ladder as ladders
from . import state as engine_state
from .ladder import Ladder, Rung, Trial
from .layouts import Layout
from .process import EngineProcess
from .restarts import failures_in_a_row, pause_before_restart

GAVE_UP = 78
"""Exit status of a supervisor that gave up; the unit does not restart after it."""
_TICK = 0.5
_MEMBERS_EVERY = 3.0
_FREE_WITHIN = 60.0
_AGREES_WITHIN = 5.0
_DIES_WITHIN = 15.0
_CLIMBS_WITHIN = 5.0
_ADVISES_EVERY = 60.0
_KEPT_EVIDENCE = 10
_PROMPTS = (
    "The first ten prime numbers are",
    "Once upon a time there was a",
    "def fibonacci(n):",
)
_NOT_FOR_WORKERS = ("VLLM_API_KEY", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH",
                    "VLLM_CONFIG_ROOT", "PYTHONPATH", "INVOCATION_ID", "JOURNAL_STREAM", "RAY_ADDRESS")  # fmt: skip


class GiveUp(Exception):
    """Starting again cannot help; the message is the reason."""


class _Stop(Exception):
    """systemd asked for the end."""


@dataclasses.dataclass(frozen=True)
class End:
    """How an engine's life ended.

    Attributes:
        code: ``start_dies``, ``start_hangs``, ``no_completion``, ``differs``, ``members_lost``, ``died``, ``wedged``,
            ``move_up``; ``proven`` for an engine that is proven and runs.
        cause: in words.
        seconds: how long it served.
    """

    code: str
    cause: str = ""
    seconds: float = 0.0
    evidence: tuple[str, ...] = ()


class Heartbeat(threading.Thread):
    """Sees to it that tokens are seen: of real traffic where there is some, of a completion of its own where not."""

    def __init__(self, config: engine_config.Config, base_url: str, api_key: str | None) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._config, self._base_url, self._key = config, base_url, api_key
        self._ended = threading.Event()
        self._last = time.monotonic()
        self._work: float | None = None
        self.last_completion = records.now()
        self.engine_dead = False
        self.failure = ""
        self.in_flight: int | None = None

    def silent_for(self) -> float:
        return time.monotonic() - self._last

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        period = self._config.heartbeat.period
        while not self._ended.wait(min(1.0, period / 2)):
            self._look()
            if self.silent_for() >= period and not self._ended.is_set():
                self._ask()

    def _look(self) -> None:
        health = completion.get(self._base_url, "/health", deadline=2)
        self.engine_dead = health is not None and health[0] != 200
        metrics = completion.get(self._base_url, "/metrics", deadline=2)
        if metrics is None or metrics[0] != 200:
            return
        self.in_flight = readiness.requests_in_flight(metrics[1])
        work = readiness.work_done(metrics[1])
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
        self._last, self.last_completion, self.failure = time.monotonic(), records.now(), ""


class Supervisor:
    """One replica's engine from its start to its end."""

    def __init__(
        self,
        config: engine_config.Config,
        host: dict[str, Any],
        stamp: dict[str, Any],
        vllm: Path,
        api_key: str | None,
        cluster: engine_cluster.ReplicaCluster,
    ) -> None:
        self._config, self._host, self._stamp, self._vllm, self._key = config, host, stamp, vllm, api_key
        self._cluster = cluster
        self._members = cluster.members
        self._base_url = f"http://{host['address']}:{config.ports.api}"
        self._state = engine_state.EngineState("waiting", since=records.now(), pid=os.getpid())
        self._engine: EngineProcess | None = None
        self._heartbeat: Heartbeat | None = None
        self._joined = engine_cluster.Members(False)
        self._failures = 0
        self._fails_at: dict[Rung, int] = {}
        self._drain_ends = 0.0
        self._advised = 0.0
        self._serves = ""
        self._door = readiness.serve(host["address"], config.ports.ready, self.look)

    def run(self) -> int:
        """Serve until told to stop (0) or until starting again cannot help (78)."""
        try:
            self._cycle()
        except GiveUp as reason:
            self._end_engine(grace=0)
            self._tell("given_up", str(reason))
            print(f"given up: {reason}", flush=True)
            return GAVE_UP
        except _Stop:
            notify(stopping=True)
            self._tell("draining", "the unit is being stopped")
            self._end_engine(grace=self._config.deadlines.drain + 5)
            self._tell("stopped", "the unit was stopped")
        return 0

    def look(self) -> tuple[bool, dict[str, Any]]:
        """What ``GET /ready`` answers now. Called from other threads."""
        state, verdict = self._state, self._judge()
        return verdict.ready, {**state.as_record(), "ready": verdict.ready, "reason": verdict.reason or state.reason}

    def _judge(self) -> readiness.Readiness:
        beat, engine, phase = self._heartbeat, self._engine, self._state.phase
        signs = readiness.Signs(
            phase="draining" if phase == "drained" else phase,
            reason=self._state.reason,
            alive=engine is not None and engine.alive(),
            engine_dead=beat is not None and beat.engine_dead,
            silent_for=beat.silent_for() if beat is not None else None,
            failure=beat.failure if beat is not None else "",
        )
        return readiness.judge(signs, self._config.heartbeat.stale, self._config.heartbeat.wedged)

    def _cycle(self) -> None:
        while True:
            layout = self._wait_for_layout()
            self._check_members()
            end = self._bring_up(layout)
            self._end_engine(grace=self._config.deadlines.drain if end.code == "move_up" else 0)
            if end.code == "move_up":
                continue
            if end.code == "rung_fails":
                self._tell("waiting", f"{end.cause}; the rung below serves")
                continue
            self._failures = failures_in_a_row(self._failures, end.seconds, self._config.restarts)
            self._update(
                last_failure=end.cause,
                failures=self._failures,
                evidence=end.evidence,
                restarts=self._state.restarts + 1,
            )
            pause = pause_before_restart(self._failures, self._config.restarts)
            if pause is None:
                raise GiveUp(f"{self._failures} failures in a row, the last: {end.cause}")
            self._tell("backoff", f"{end.cause}; starts again {f'in {pause:.0f} s' if pause else 'at once'}")
            time.sleep(pause)

    def _wait_for_layout(self) -> Layout:
        """The best layout whose hosts and free GPUs are there, waited for with the patience that the policy asks."""
        preferred, *others = self._config.layouts
        deadline, patience = self._config.deadlines.wait, self._config.policy.patience
        began = time.monotonic()
        waited = self._wait(preferred, min(patience, deadline) if others else deadline)
        layout = preferred if waited.ready else None
        while layout is None:
            if not others or (spent := time.monotonic() - began) >= deadline:
                raise GiveUp(f"{preferred.name} cannot start ({waited.code}): {waited.reason}")
            choice = layouts.choose(
                self._config.layouts, self._members().gpus, spent, patience, waited.code != "deadline"
            )
            if choice.layout is not None and self._wait(choice.layout, _AGREES_WITHIN).ready:
                layout = choice.layout
                if layout != preferred:
                    self._tell_waiting(choice.reason)
            elif (waited := self._wait(preferred, min(_AGREES_WITHIN, deadline - spent))).ready:
                layout = preferred
            else:
                time.sleep(_TICK)
        self._joined = self._members()
        self._update(
            layout=layout.name,
            tensor_parallel_size=layout.tensor_parallel_size,
            pipeline_parallel_size=layout.pipeline_parallel_size,
        )
        return layout

    def _wait(self, layout: Layout, deadline: float) -> ray_wait.Waited:
        return self._cluster.wait(layout, deadline, self._tell_waiting)

    def _check_members(self) -> None:
        wrong = condition.strangers(self._stamp, self._joined.fingerprints)
        if wrong:
            raise GiveUp(f"the replica stamp does not hold: {'; '.join(wrong)}. Next: ansible-playbook site.yml")

    def _bring_up(self, layout: Layout) -> End:
        """Climb to the highest rung that holds and serve on it. Returns when the engine's life is over."""
        known, wanted = self._ladder(layout), self._config.ladder
        while True:
            rung = ladders.next_rung(wanted, known.trials)
            if rung is None:
                raise GiveUp(f"rung {wanted[0]} fails: {known.trials[wanted[0]].cause}")
            self._update(rung=rung, ladder=_shown(known))
            end, known = self._attempt(layout, rung, known)
            if end.code == "proven":
                self._keep(layout, known)
                if not ladders.settled(wanted, known.trials):
                    self._end_engine(grace=_CLIMBS_WITHIN)
                    self._wait(layout, _FREE_WITHIN)
                    continue
                end = self._serve(layout)
            self._advise()
            return self._judge_end(layout, rung, known, end)

    def _judge_end(self, layout: Layout, rung: Rung, known: Ladder, end: End) -> End:
        """Hold a failure against its rung, if it is to blame."""
        if end.code == "move_up":
            return end
        self._fails_at = {rung: 1 if end.seconds >= self._config.restarts.settled else self._fails_at.get(rung, 0) + 1}
        if not ladders.blames(rung, self._config.ladder, known.trials, end.code, self._fails_at[rung]):
            return end
        trial = Trial("failed", end.code, end.cause, end.seconds, end.evidence, records.now())
        self._keep(layout, ladders.with_trial(known, rung, trial))
        self._update(last_failure=end.cause, evidence=end.evidence)
        return dataclasses.replace(end, code="rung_fails", cause=f"rung {rung} fails ({end.code}): {end.cause}")

    def _attempt(self, layout: Layout, rung: Rung, known: Ladder) -> tuple[End, Ladder]:
        """Start vLLM on a rung and prove it; on failure its evidence is saved, but it is left to the caller to end it."""
        self._tell("starting", f"layout {layout.name}, rung {rung}")
        started = time.monotonic()
        argv = engine_config.command(str(self._vllm), self._config, layout, rung, self._host["address"])
        self._engine = EngineProcess(argv, self._environment(), engine_state.LOG)
        lowest = rung == self._config.ladder[0]
        end = self._await_start(self._config.deadlines.start if lowest else self._config.deadlines.rung)
        if end is None:
            self._tell("proving", f"layout {layout.name}, rung {rung}")
            end, known = self._prove(rung, known)
        if end is None:
            trial = Trial("proven", seconds=round(time.monotonic() - started, 1), at=records.now())
            self._advise()
            return End("proven"), known if rung in known.trials else ladders.with_trial(known, rung, trial)
        lost = self._cluster.lost(self._joined)
        if lost:
            return End("members_lost", f"lost {', '.join(lost)} while starting: {end.cause}"), known
        return dataclasses.replace(end, evidence=self._save_evidence(end.code)), known

    def _await_start(self, deadline: float) -> End | None:
        """None when vLLM says that it is up, which is then for a completion to prove."""
        assert self._engine is not None
        started = looked = time.monotonic()
        while True:
            if not self._engine.alive():
                self._engine.finish_reading()
                reason = log_advice.failure_reason(self._engine.lines())
                return End("start_dies", f"vLLM ended with status {self._engine.returncode} while starting: {reason}")
            health = completion.get(self._base_url, "/health", deadline=2)
            if health is not None and health[0] == 200:
                return None
            now = time.monotonic()
            if now - started > deadline:
                last = log_advice.last_line(self._engine.lines())
                return End("start_hangs", f"vLLM did not start within {deadline:.0f} s; it last said: {last}")
            if now - looked > _MEMBERS_EVERY:
                looked = now
                lost = engine_cluster.lost(self._joined, self._members())
                if lost:
                    return End("members_lost", f"lost {', '.join(lost)} while vLLM started")
            time.sleep(_TICK)

    def _prove(self, rung: Rung, known: Ladder) -> tuple[End | None, Ladder]:
        """Hold completions against the expected answer and against the eager engine's."""
        proof = self._config.proof
        baseline = dict(known.baseline)
        for prompt in dict.fromkeys((proof.prompt, *(proof.prompts or _PROMPTS))):
            answer = completion.prove(
                self._base_url, self._config.served_model_name, prompt,
                proof.answer if prompt == proof.prompt else None, self._key, proof.deadline,
                max_tokens=proof.max_tokens, logprobs=2,
            )  # fmt: skip
            if not answer.ok:
                return End("no_completion", self._why_silent(answer)), known
            if rung == self._config.ladder[0] or prompt not in baseline:
                baseline[prompt] = answer.tokens
            elif odd := ladders.difference(baseline[prompt], answer.tokens):
                return End("differs", f"the completion of {prompt!r} differs from the eager one: {odd}"), known
        return None, dataclasses.replace(known, baseline=baseline)

    def _why_silent(self, answer: completion.Completion) -> str:
        """The completion's failure, or what the log says of it where the engine is dying of it."""
        assert self._engine is not None
        if answer.failure not in ("rejected", "broken", "refused"):
            return answer.cause
        ends = time.monotonic() + _DIES_WITHIN
        while self._engine.alive() and time.monotonic() < ends:
            time.sleep(_TICK)
        if self._engine.alive():
            return answer.cause
        self._engine.finish_reading()
        return f"vLLM died at its first completions: {log_advice.failure_reason(self._engine.lines())}"

    def _serve(self, layout: Layout) -> End:
        """Stay while tokens come. Returns how it ended."""
        assert self._engine is not None
        began = time.monotonic()
        self._heartbeat = Heartbeat(self._config, self._base_url, self._key)
        self._heartbeat.start()
        notify(ready=True)
        self._serves = f"layout {layout.name}, rung {self._state.rung}"
        if engine_state.DRAIN.exists():
            self._drain()
        else:
            self._tell("serving", self._serves)
        self._joined = self._cluster.at_work() or self._joined
        mover = _Mover(self._config, layout, self._members)
        while True:
            self._mind_drain()
            verdict = self._judge()
            served = time.monotonic() - began
            if not self._engine.alive():
                self._engine.finish_reading()
                reason = log_advice.failure_reason(self._engine.lines())
                return self._ended("died", f"vLLM ended with status {self._engine.returncode}: {reason}", served)
            if verdict.wedged:
                return self._ended("wedged", f"the engine generates nothing: {verdict.reason}", served)
            self._refresh(verdict, served)
            if self._state.phase == "serving" and (choice := mover.look()) is not None:
                if choice.layout is not None:
                    self._tell("draining", f"moving up to layout {choice.layout.name}")
                    self._await_idle()
                    return End("move_up", f"moves up to layout {choice.layout.name}", served)
                self._explain(f"{self._serves}: {choice.reason}")
            time.sleep(_TICK)

    def _ended(self, code: str, cause: str, served: float) -> End:
        """The end of an engine that served, with its evidence; a lost host is what it died of, whatever it says."""
        self._update(ready=False, reason=cause)
        lost = self._cluster.lost(self._joined)
        told = f"lost {', '.join(lost)}; " if lost else ""
        return End("members_lost" if lost else code, f"{told}{cause}", served, self._save_evidence(code))

    def _mind_drain(self) -> None:
        """Follow the operator's wish to drain or to resume."""
        wish = engine_state.DRAIN.exists()
        if wish and self._state.phase == "serving":
            self._drain()
        elif not wish and self._state.phase in ("draining", "drained"):
            self._tell("serving", self._serves)
        if self._state.phase == "draining" and self._idle():
            self._tell("drained", self._state.reason)
        elif self._state.phase == "draining" and time.monotonic() > self._drain_ends:
            self._tell("drained", f"{self._state.reason}; requests still ran at the deadline")

    def _drain(self) -> None:
        self._drain_ends = time.monotonic() + self._config.deadlines.drain
        self._tell("draining", _wish_reason(engine_state.DRAIN))

    def _await_idle(self) -> None:
        ends = time.monotonic() + self._config.deadlines.drain
        time.sleep(self._config.heartbeat.period)
        while not self._idle() and time.monotonic() < ends:
            time.sleep(_TICK)

    def _idle(self) -> bool:
        metrics = completion.get(self._base_url, "/metrics", deadline=2)
        return metrics is not None and (readiness.requests_in_flight(metrics[1]) or 0) == 0

    def _refresh(self, verdict: readiness.Readiness, served: float) -> None:
        assert self._heartbeat is not None
        if self._failures and served >= self._config.restarts.settled:
            self._failures = 0
            self._update(failures=0)
        if verdict.ready != self._state.ready:
            print("ready" if verdict.ready else f"not ready: {verdict.reason}", flush=True)
        self._update(ready=verdict.ready, last_completion=self._heartbeat.last_completion)
        if time.monotonic() - self._advised > _ADVISES_EVERY:
            self._advise()

    def _advise(self) -> None:
        """Keep what the known lines of the engine's log mean; what is new is told in the journal, with its cure."""
        assert self._engine is not None
        found = log_advice.read(self._engine.lines(), log_advice.load())
        told = {finding["id"] for finding in self._state.findings}
        for finding in found:
            if finding.id not in told and finding.level != "info":
                print(f"advice: {finding.finding} {finding.cure}", flush=True)
        self._advised = time.monotonic()
        self._update(findings=tuple(finding.as_dict() for finding in found))

    def _save_evidence(self, why: str) -> tuple[str, ...]:
        assert self._engine is not None
        moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        return self._engine.save_evidence(_room_for(engine_state.EVIDENCE) / f"{moment}-{self._state.rung}-{why}")

    def _end_engine(self, grace: float) -> None:
        if self._heartbeat is not None:
            self._heartbeat.end()
            self._heartbeat = None
        if self._engine is not None:
            self._engine.stop(grace) if grace else self._engine.kill()
            self._engine = None

    def _environment(self) -> dict[str, str]:
        """vLLM's environment: what systemd gave, what the replica's network needs, what the operator wants on top."""
        root = records.STATE / "engine" / "config"
        root.mkdir(parents=True, exist_ok=True)
        (root / "ray_non_carry_over_env_vars.json").write_text(json.dumps(_NOT_FOR_WORKERS), encoding="utf-8")
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NOTIFY_SOCKET")}
        interface = self._host["interface"]
        env |= {
            "VLLM_HOST_IP": self._host["address"],
            "GLOO_SOCKET_IFNAME": interface,
            "NCCL_SOCKET_IFNAME": interface,
            "TP_SOCKET_IFNAME": interface,
            "RAY_ADDRESS": f"{self._host['head']['address']}:{ray_ports().gcs}",
            "VLLM_CONFIG_ROOT": str(root),
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_LOGGING_COLOR": "0",
            "PYTHONFAULTHANDLER": "1",
            **self._config.environment,
        }
        if self._key:
            env["VLLM_API_KEY"] = self._key
        ray_token = _credential("ray-token")
        if ray_token is not None:
            env["RAY_AUTH_TOKEN_PATH"] = str(ray_token)
        return env

    def _ladder(self, layout: Layout) -> Ladder:
        lowest = engine_config.command("vllm", self._config, layout, self._config.ladder[0], self._host["address"])
        wanted = ladders.key(self._stamp.get("hosts", {}), lowest)
        record = (records.read(engine_state.LADDER) or {}).get("layouts", {}).get(layout.name)
        platform = "cpu" if str(runtime_state.state().get("vllm")).endswith("+cpu") else "cuda"
        return dataclasses.replace(ladders.from_record(record, wanted), platform=platform)

    def _keep(self, layout: Layout, known: Ladder) -> None:
        record = records.read(engine_state.LADDER) or {}
        kept = {name: entry for name, entry in record.get("layouts", {}).items() if name != layout.name}
        records.write(engine_state.LADDER, {"layouts": {**kept, layout.name: ladders.as_record(known)}})

    def _tell(self, phase: engine_state.Phase, reason: str) -> None:
        self._say(phase, reason)
        self._update(phase=phase, reason=reason, since=records.now(), ready=False)

    def _tell_waiting(self, reason: str) -> None:
        """Wait, or go on waiting, for this reason: one wait may look at several layouts in turn."""
        if self._state.phase == "waiting":
            self._explain(reason)
        else:
            self._tell("waiting", reason)

    def _explain(self, reason: str) -> None:
        """Say anew why it is in the phase that it is in, which goes on."""
        if reason != self._state.reason:
            self._say(self._state.phase, reason)
            self._update(reason=reason)

    def _say(self, phase: engine_state.Phase, reason: str) -> None:
        print(f"{phase}: {reason}", flush=True)
        notify(status=f"{phase}: {reason}")

    def _update(self, **changes: Any) -> None:
        self._state = dataclasses.replace(self._state, **changes)
        records.write(records.ENGINE_STATE, self._state.as_record())


class _Mover:
    """Looks now and then whether a better layout may take over."""

    def __init__(self, config: engine_config.Config, layout: Layout, ask: Callable[[], engine_cluster.Members]) -> None:
        self._config, self._layout, self._ask = config, layout, ask
        self._since: float | None = None
        self._looked = 0.0

    def look(self) -> layouts.Choice | None:
        """The layout to move up to now, or why this one stays; None where that is not known anew."""
        now = time.monotonic()
        preferred = self._config.layouts[0]
        if self._layout == preferred:
            engine_state.MOVE_UP.unlink(missing_ok=True)  # fulfilled: it is not to be kept for another day
            return None
        if now - self._looked < _MEMBERS_EVERY:
            return None
        self._looked = now
        seen = self._ask()
        if not seen.known:
            return None
        larger = layouts.better(self._config.layouts, self._layout, seen.gpus)
        if larger is None:
            self._since = None
            return layouts.Choice(None, layouts.short_of(preferred, seen.gpus))
        self._since = now if self._since is None else self._since
        moment = datetime.datetime.now(datetime.timezone.utc).time()
        commanded = engine_state.MOVE_UP.exists()
        allowed, why = layouts.may_move_up(self._config.policy, now - self._since, moment, commanded)
        if allowed:
            engine_state.MOVE_UP.unlink(missing_ok=True)
            return layouts.Choice(larger, "")
        return layouts.Choice(None, f"{larger.name} could serve, {why}")


def _shown(known: Ladder) -> dict[str, str]:
    """Rung to what is known of it, in words."""
    note = " (on CPU: torch.compile, no graph is captured)" if known.platform == "cpu" else ""
    return {
        rung: trial.cause if trial.verdict == "failed" else "proven" + (note if rung != "none" else "")
        for rung, trial in known.trials.items()
    }


def _wish_reason(path: Path) -> str:
    try:
        return str((records.read(path) or {}).get("reason", "asked to drain"))
    except records.RecordError:
        return "asked to drain"


def _room_for(folder: Path) -> Path:
    """The folder of evidence, with the oldest pieces removed so that it cannot grow for ever."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.iterdir())[: -_KEPT_EVIDENCE + 1]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def _credential(name: str) -> Path | None:
    """The file of one of the unit's credentials; None where it was given none."""
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / name
    return path if path.exists() else None


def _api_key() -> str | None:
    """The API key from systemd's credential; it is in no command line and in no file of this process."""
    path = _credential("vllm-api-key")
    return None if path is None else path.read_text(encoding="utf-8").strip() or None


def _on_stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise _Stop


def supervise() -> int:
    """Run the engine that /etc/lockstep/engine.json asks for."""
    try:
        config = engine_config.parse(records.read(records.ENGINE_CONFIG) or {})
        host, stamp = records.read(records.HOST), records.read(records.REPLICA_STAMP)
        if host is None or stamp is None:
            missing = records.HOST if host is None else records.REPLICA_STAMP
            raise records.RecordError(f"{missing} is missing. Next: ansible-playbook site.yml")
    except (records.RecordError, engine_config.ConfigError) as error:
        print(f"given up: {error}", file=sys.stderr, flush=True)
        state = engine_state.EngineState("given_up", str(error), records.now(), pid=os.getpid())
        records.write(records.ENGINE_STATE, state.as_record())
        return GAVE_UP
    signal.signal(signal.SIGTERM, _on_stop)
    vllm = records.RUNTIME.resolve() / "bin" / "vllm"
    return Supervisor(config, host, stamp, vllm, _api_key(), engine_cluster.ReplicaCluster(host)).run()


def wish(what: str) -> int:
    """Leave the supervisor a wish; it follows within a second."""
    if what == "drain":
        engine_state.leave_wish("drained", "asked on the command line")
    elif what == "resume":
        engine_state.leave_wish("serving", "")
    elif what == "move-up":
        records.write(engine_state.MOVE_UP, {"at": records.now()})
    else:
        records.remove(engine_state.LADDER)
    return 0


def main(arguments: list[str]) -> int:
    if not arguments:
        return supervise()
    if len(arguments) == 1 and arguments[0] in ("drain", "resume", "move-up", "forget-ladder"):
        return wish(arguments[0])
    print("usage: python -m lockstep.engine.supervisor [drain|resume|move-up|forget-ladder]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
