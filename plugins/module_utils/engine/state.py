"""What the engine supervisor tells the world: /run/lockstep/engine.json, and the operator's wishes that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..core import records
from ..core.polling import Judgement

Phase = Literal["waiting", "starting", "proving", "serving", "draining", "drained", "backoff", "stopped", "given_up"]

DRAIN = records.RUN / "drain.json"
MOVE_UP = records.RUN / "move-up.json"
LADDER = records.STATE / "engine" / "ladder.json"
EVIDENCE = records.STATE / "engine" / "evidence"
LOG = records.STATE / "engine" / "engine.log"


@dataclasses.dataclass(frozen=True)
class EngineState:
    """What runs now and why.

    Attributes:
        phase: ``waiting`` for resources, ``starting``, ``proving``, ``serving``, ``draining``, ``drained``, ``backoff``
            (a failed engine starts again soon), ``stopped``, ``given_up``.
        reason: why it is in this phase, in words.
        since: when the phase began, RFC 3339.
        ready: what ``GET /ready`` says.
        layout: name of the layout that runs or starts; None while there is none.
        tensor_parallel_size: of that layout.
        pipeline_parallel_size: of that layout.
        rung: of the ladder, that runs or starts.
        ladder: rung to ``proven`` or to why it failed.
        last_completion: when a token was last seen, RFC 3339.
        last_failure: how the engine last ended or failed to start; empty when it never did.
        restarts: how often the engine was started again since the supervisor began.
        failures: failures in a row.
        pid: of the supervisor.
        findings: advice from the log.
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
    ladder: Mapping[str, str] = dataclasses.field(default_factory=dict)
    last_completion: str | None = None
    last_failure: str = ""
    restarts: int = 0
    failures: int = 0
    pid: int = 0
    findings: tuple[Mapping[str, Any], ...] = ()
    evidence: tuple[str, ...] = ()

    def as_record(self) -> dict[str, Any]:
        record = dataclasses.asdict(self)
        record["findings"] = [dict(finding) for finding in self.findings]
        record["evidence"] = list(self.evidence)
        return record


def failed_rungs(record: Mapping[str, Any] | None) -> dict[str, str]:
    """Rungs of the ladder that do not hold, each with why, from engine.json."""
    ladder = (record or {}).get("ladder") or {}
    return {rung: state for rung, state in ladder.items() if not state.startswith("proven")}


def advice(record: Mapping[str, Any] | None) -> list[str]:
    """What known lines of the log mean and what to do, from engine.json: errors and warnings, worst first."""
    findings = (record or {}).get("findings") or []
    return [f"{found['finding']} {found['cure']}" for found in findings if found["level"] != "info"]


Wish = Literal["serving", "drained"]


@dataclasses.dataclass(frozen=True)
class Unit:
    """What systemd says of lockstep-vllm.service.

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


def parse_unit(shown: str) -> Unit:
    """From ``systemctl show --property=ActiveState,MainPID,Result``."""
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return Unit(found.get("ActiveState", "unknown"), int(found.get("MainPID") or 0), found.get("Result", ""))


def judge(record: Mapping[str, Any] | None, unit: Unit, wish: Wish, failures_before: int = 0) -> Judgement:
    """Whether the engine has come where it was wished to be, and why not, in words.

    Args:
        record: engine.json, None where there is none; one left by an earlier supervisor is old news.
        wish: ``serving``: ready for traffic; ``drained``: no request runs, or nothing is there that could serve one.
        failures_before: failures in a row that were there when the waiting began. The supervisor starts again after these
            by itself (a host was lost and is back); only a further one is worth ending the wait for.
    """
    if wish == "drained":
        if not unit.up or record is None or record.get("phase") not in ("serving", "draining"):
            return Judgement("ready")
        return Judgement("wait", _told(record))
    if not unit.up:
        final = record is not None and record.get("phase") in ("given_up", "stopped")
        told = f": {_told(record)}" if final and record is not None else ""
        return Judgement("hopeless", f"lockstep-vllm is {unit.active}{told}")
    if record is None or record.get("pid") != unit.pid:
        return Judgement("wait", "the supervisor starts")
    if record.get("phase") == "serving" and record.get("ready"):
        return Judgement("ready")
    if record.get("phase") == "given_up" or int(record.get("failures") or 0) > failures_before:
        return Judgement("hopeless", str(record.get("last_failure") or _told(record)))
    return Judgement("wait", _told(record))


def _told(record: Mapping[str, Any]) -> str:
    reason = str(record.get("reason", ""))
    return f"{record.get('phase')}: {reason}" if reason else str(record.get("phase"))


def read(path: Path = records.ENGINE_STATE) -> dict[str, Any] | None:
    """The state as the supervisor last wrote it; None where it never did. Raises RecordError when damaged."""
    return records.read(path)


def wish_differs(wish: Wish) -> bool:
    """Whether the supervisor would have to be told."""
    return DRAIN.exists() != (wish == "drained")


def leave_wish(wish: Wish, reason: str) -> None:
    """Tell the supervisor to drain, or to serve again; it follows within a second. A reboot forgets the wish."""
    if wish == "drained":
        records.write(DRAIN, {"reason": reason, "at": records.now()})
    else:
        records.remove(DRAIN)
