"""The engine's state as the supervisor reports it (/run/lockstep/engine.json), and the requests that it follows."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core import records, untrusted
from ..core.polling import Evaluation
from ..core.systemd import RUNNING, Properties
from ..ray import ranks
from .record import EngineState, RungState
from .states import Phase, Target, Verdict

DRAIN = records.REQUESTS / "drain.json"
MOVE_UP = records.REQUESTS / "move-up.json"
MOVED_UP = records.RUN / "moved-up.json"
"""Of the supervisor: the request to move up that it has followed. The request itself is root's, and stays."""
LADDER = records.STATE / "engine" / "ladder.json"
EVIDENCE = ranks.EVIDENCE
LOG = records.STATE / "engine" / "engine.log"


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
        return self.active in RUNNING


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


def read(path: Path | None = None) -> EngineState | None:
    """The state as the supervisor last reported it; None where it never did. Raises RecordError when damaged."""
    record = records.read(path or records.ENGINE_STATE)
    return None if record is None else EngineState.parse(record)


def request_differs(target: Target) -> bool:
    """Whether it is not requested yet."""
    return DRAIN.exists() != (target is Target.DRAINED)


def request(target: Target, reason: str) -> None:
    """Ask the supervisor to drain, or to serve again; it follows within a second. A reboot forgets the request."""
    if target is Target.DRAINED:
        _ask(DRAIN, {"reason": reason, "at": records.now()})
    else:
        records.remove(DRAIN)


def drain_reason() -> str:
    """Why the drain was requested."""
    try:
        return str((records.read(DRAIN) or {}).get("reason", "asked to drain"))
    except records.RecordError:
        return "asked to drain"


def request_move_up() -> None:
    """Ask the supervisor to move up to a better layout; a reboot forgets the request."""
    _ask(MOVE_UP, {"id": secrets.token_hex(8), "at": records.now()})


def move_up_requested() -> bool:
    """Whether a request to move up was not followed yet."""
    asked = _id_of(MOVE_UP)
    return asked is not None and asked != _id_of(MOVED_UP)


def follow_move_up() -> None:
    """The request to move up, if there is one, is fulfilled: it is not to be kept for another day."""
    if move_up_requested():
        records.write(MOVED_UP, {"id": _id_of(MOVE_UP)})


def _ask(path: Path, record: Mapping[str, str]) -> None:
    """Leave a request where root alone can, and where the supervisor reads it."""
    path.parent.mkdir(exist_ok=True)
    with untrusted.open_folder(path.parent) as folder:
        os.fchmod(folder, 0o755)
    records.write(path, record)


def _id_of(path: Path) -> str | None:
    try:
        record = records.read(path)
    except records.RecordError as error:
        return str(error)
    return None if record is None else str(record.get("id"))
