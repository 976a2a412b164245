"""What the engine supervisor tells the world: /run/lockstep/engine.json, and the operator's wishes that it reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from . import records

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


Wish = Literal["serving", "drained"]
Answer = Literal["reached", "wait", "failed"]


def judge(record: Mapping[str, Any] | None, unit: str, wish: Wish, failures_before: int = 0) -> tuple[Answer, str]:
    """Whether the engine has come where it was wished to be, and why not, in words.

    Args:
        record: engine.json, None where there is none.
        unit: systemd's ActiveState of lockstep-vllm.
        wish: ``serving``: ready for traffic; ``drained``: no request runs, or nothing that could serve.
        failures_before: failures in a row that are old news; one more ends the wait at once.
    """
    if wish == "drained":
        if unit not in ("active", "activating", "reloading") or record is None or record.get("phase") == "drained":
            return "reached", ""
        return "wait", _told(record)
    if unit in ("failed", "inactive", "deactivating"):
        reason = _told(record) if record and record.get("phase") in ("given_up", "stopped") else ""
        return "failed", f"lockstep-vllm is {unit}" + (f": {reason}" if reason else "")
    if record is None:
        return "wait", "the supervisor has not said anything yet"
    if record.get("phase") == "serving" and record.get("ready"):
        return "reached", ""
    if record.get("phase") == "given_up":
        return "failed", _told(record)
    if int(record.get("failures", 0)) > failures_before:
        return "failed", str(record.get("last_failure") or _told(record))
    return "wait", _told(record)


def _told(record: Mapping[str, Any]) -> str:
    reason = str(record.get("reason", ""))
    return f"{record.get('phase')}: {reason}" if reason else str(record.get("phase"))


def read(path: Path = records.ENGINE_STATE) -> dict[str, Any] | None:
    """The state as the supervisor last wrote it; None where it never did. Raises RecordError when damaged."""
    return records.read(path)
