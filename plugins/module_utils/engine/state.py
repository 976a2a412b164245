"""The engine's state as the supervisor reports it (/run/lockstep/engine.json), and the requests that it follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import records
from ..core.polling import Evaluation
from ..core.systemd import Properties
from .ladder import RungState
from .states import Phase, Target, Verdict

DRAIN = records.RUN / "drain.json"
MOVE_UP = records.RUN / "move-up.json"
LADDER = records.STATE / "engine" / "ladder.json"
EVIDENCE = records.STATE / "engine" / "evidence"
LOG = records.STATE / "engine" / "engine.log"


@dataclasses.dataclass(frozen=True)
class EngineState:
    """What runs now and why.

    Attributes:
        reason: why it is in this phase, for people.
        since: when the phase began, RFC 3339.
        ready: what ``GET /ready`` answers.
        layout: name of the layout that runs or starts; None while there is none.
        tensor_parallel_size: of that layout.
        pipeline_parallel_size: of that layout.
        rung: of the ladder, that runs or starts.
        ladder: what is known of each rung that was tried.
        last_completion: when a token was last seen, RFC 3339.
        last_failure: how the engine last ended or failed to start; empty when it never did.
        restarts: how often the engine was started again since the supervisor began.
        failures: failures in a row.
        pid: of the supervisor.
        findings: advice from the log (``log_advice.Finding``).
        evidence: files saved at the last failure.
    """

    phase: Phase
    reason: str = ""
    since: str = ""
    ready: bool = False
    layout: str | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    rung: str | None = None
    ladder: Mapping[str, RungState] = dataclasses.field(default_factory=dict)
    last_completion: str | None = None
    last_failure: str = ""
    restarts: int = 0
    failures: int = 0
    pid: int = 0
    findings: tuple[Mapping[str, Any], ...] = ()
    evidence: tuple[str, ...] = ()

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> EngineState:
        """From engine.json; a key that it does not know is passed over.

        Raises:
            RecordError: it is no such record.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        given = {name: value for name, value in record.items() if name in known}
        try:
            return cls(
                **{
                    **given,
                    "phase": Phase(record["phase"]),
                    "ladder": rungs(record),
                    "findings": tuple(given.get("findings", ())),
                    "evidence": tuple(given.get("evidence", ())),
                }
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise records.RecordError(f"{records.ENGINE_STATE}: {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return f"{self.phase}: {self.reason}" if self.reason else str(self.phase)


def rungs(record: Mapping[str, Any]) -> dict[str, RungState]:
    """The rungs in engine.json, or in a part of it."""
    ladder = record.get("ladder") or {}
    return {rung: RungState(Verdict(state["verdict"]), str(state.get("note", ""))) for rung, state in ladder.items()}


def advice(record: Mapping[str, Any]) -> list[str]:
    """What known lines of the log mean and what to do, from engine.json: errors and warnings, worst first."""
    findings = record.get("findings") or ()
    return [f"{found['finding']} {found['remediation']}" for found in findings if found["level"] != "info"]


def failed(ladder: Mapping[str, RungState]) -> dict[str, str]:
    """Rungs that do not hold, each with why."""
    return {rung: state.note for rung, state in ladder.items() if state.verdict is Verdict.FAILED}


@dataclasses.dataclass(frozen=True)
class Unit:
    """lockstep-vllm.service as systemd shows it.

    Attributes:
        active: ActiveState.
        pid: MainPID; 0 while there is none.
        result: Result, ``exec-condition`` where its condition refused.
    """

    active: str
    pid: int = 0
    result: str = ""

    @property
    def up(self) -> bool:
        return self.active in ("active", "activating", "reloading")


def parse_unit(found: Properties) -> Unit:
    """From the unit's ActiveState, MainPID and Result."""
    return Unit(found.get("ActiveState", "unknown"), int(found.get("MainPID") or 0), found.get("Result", ""))


def evaluate(state: EngineState | None, unit: Unit, target: Target, failures_before: int = 0) -> Evaluation:
    """Whether the engine has come to its target, and why not.

    Args:
        state: engine.json, None where there is none; one left by an earlier supervisor is old news.
        target: SERVING: ready for traffic; DRAINED: no request runs, or nothing is there that could serve one.
        failures_before: failures in a row that were there when the waiting began. The supervisor starts again after these
            by itself (a host was lost and is back); only a further one is worth ending the wait for.
    """
    if target is Target.DRAINED:
        if not unit.up or state is None or state.phase not in (Phase.SERVING, Phase.DRAINING):
            return Evaluation("ready")
        return Evaluation("wait", str(state))
    if not unit.up:
        final = state is not None and state.phase in (Phase.GIVEN_UP, Phase.STOPPED)
        return Evaluation("hopeless", f"lockstep-vllm is {unit.active}" + (f": {state}" if final else ""))
    if state is None or state.pid != unit.pid:
        return Evaluation("wait", "the supervisor starts")
    if state.phase is Phase.SERVING and state.ready:
        return Evaluation("ready")
    if state.phase is Phase.GIVEN_UP or state.failures > failures_before:
        return Evaluation("hopeless", state.last_failure or str(state))
    return Evaluation("wait", str(state))


def read(path: Path = records.ENGINE_STATE) -> EngineState | None:
    """The state as the supervisor last reported it; None where it never did. Raises RecordError when damaged."""
    record = records.read(path)
    return None if record is None else EngineState.parse(record)


def request_differs(target: Target) -> bool:
    """Whether it is not requested yet."""
    return DRAIN.exists() != (target is Target.DRAINED)


def request(target: Target, reason: str) -> None:
    """Ask the supervisor to drain, or to serve again; it follows within a second. A reboot forgets the request."""
    if target is Target.DRAINED:
        records.write(DRAIN, {"reason": reason, "at": records.now()})
    else:
        records.remove(DRAIN)


def drain_reason() -> str:
    """Why the drain was requested."""
    try:
        return str((records.read(DRAIN) or {}).get("reason", "asked to drain"))
    except records.RecordError:
        return "asked to drain"
