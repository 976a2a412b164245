"""The graph gate's verdict from what its ranks measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from .codes import Code
from .failure_analysis import Failure, analyse, backend, failed, only, seconds, stopped
from .ranks.events import Capture, Eager, Phase, Replay
from .ranks.launcher import Report
from .result import GateResult

GATE: Literal["graph"] = "graph"
GRAPH_CODES = frozenset({Code.CAPTURE_HANGS, Code.CAPTURE_ERRORS, Code.REPLAY_HANGS, Code.REPLAY_ERRORS})
"""What stopped when eager had already passed."""
_HUNG: dict[Phase, Code] = {
    "eager": Code.EAGER_BAD,
    "capture": Code.CAPTURE_HANGS,
    "replay": Code.REPLAY_HANGS,
    "release": Code.RELEASE_HANGS,
    "end": Code.RELEASE_HANGS,
}
_ERRORS: dict[Phase, Code] = {
    "eager": Code.EAGER_BAD,
    "capture": Code.CAPTURE_ERRORS,
    "replay": Code.REPLAY_ERRORS,
    "release": Code.RELEASE_ERRORS,
    "end": Code.RELEASE_ERRORS,
}


def evaluate(reports: Sequence[Report], slowest_replay_ratio: float = 0.0) -> GateResult:
    """Verdict over one rank group.

    Args:
        reports: one for each host.
        slowest_replay_ratio: a replay may take this many times as long as eager; 0 demands no time.
    """
    base = GateResult(
        gate=GATE,
        verdict="pass",
        seconds=seconds(reports),
        measured=measurements(reports),
        floor={"slowest_replay_ratio": slowest_replay_ratio} if slowest_replay_ratio else {},
        backend=backend(reports),
        evidence=tuple(path for report in reports for path in report.evidence),
    )
    failure = analyse(reports)
    if failure and failure.kind in ("killed", "lost"):
        return _stopped(base, reports, failure)
    if eager := [event for report in reports for event in report.of(Eager) if event.wrong]:
        against = "this rank's own arithmetic without collectives"
        return _wrong(base, reports, Code.EAGER_BAD, eager, against)
    if replays := [event for report in reports for event in report.of(Replay) if event.wrong]:
        return _wrong(base, reports, Code.WRONG_RESULTS, replays, "eager")
    if failure:
        return _stopped(base, reports, failure)
    if slowest_replay_ratio:
        return _slow(base, reports, slowest_replay_ratio) or base
    return base


def measurements(reports: Sequence[Report]) -> dict[str, Any]:
    """Figures of a rank group: how many graphs and replays, the worst deviation, and seconds of eager and of replays."""
    replays = [event for report in reports for event in report.of(Replay)]
    captures = [event for report in reports for event in report.of(Capture) if event.rank == 0]
    return {
        "ranks": sum(report.here for report in reports),
        "hosts": [report.host for report in reports],
        "graphs": "torch.cuda.CUDAGraph" if backend(reports) == "nccl" else "torch.compile on cpu",
        "modes": sorted({event.mode for event in replays}),
        "captures": len(captures),
        "replays": sum(event.replays for event in replays if event.rank == 0),
        "worst_deviation": max((event.deviation for event in replays), default=None),
        "capture_seconds": round(sum(event.seconds for event in captures), 3),
        "worst_replay_ratio": round(max((_ratio(event) for event in replays), default=0.0), 2),
        "seconds": seconds(reports),
    }


def code_of(failure: Failure) -> Code:
    """The code of a rank group that did not end well."""
    if failure.kind == "killed":
        return Code.RANK_KILLED
    if failure.kind == "lost":
        return Code.HOST_LOST
    if failure.kind == "out_of_time":
        return Code.OUT_OF_TIME
    table, before = (_HUNG, Code.INIT_HANGS) if failure.kind == "hung" else (_ERRORS, Code.INIT_FAILED)
    return table.get(failure.phase, before) if failure.phase else before


def _stopped(base: GateResult, reports: Sequence[Report], failure: Failure) -> GateResult:
    code = code_of(failure)
    cause = failure.cause
    if code in GRAPH_CODES:
        cause = f"eager is good, and with graphs {cause}"
    elif code is Code.EAGER_BAD:
        cause = f"no graph was tried: already in eager {cause}"
    return stopped(base, reports, failure, code, cause)


def _wrong(
    base: GateResult, reports: Sequence[Report], code: Code, wrong: Sequence[Eager | Replay], against: str
) -> GateResult:
    """Results differ. One host alone is to blame when it alone has them."""
    first = wrong[0]
    hosts = {event.host for event in wrong}
    cause = (
        f"{first.what}: rank {first.rank} on {first.host} differs from {against} by {first.deviation:.3g} of the largest "
        f"value, {first.tolerance:.3g} is allowed; seen on {', '.join(sorted(hosts))}"
    )
    return failed(base, reports, code, only(hosts), cause)


def _slow(base: GateResult, reports: Sequence[Report], limit: float) -> GateResult | None:
    slow = [event for report in reports for event in report.of(Replay) if _ratio(event) > limit]
    if not slow:
        return None
    worst = max(slow, key=_ratio)
    cause = (
        f"{worst.what} on {worst.host}: a replay takes {worst.seconds * 1e3:.3g} ms, {_ratio(worst):.2g} times eager "
        f"({worst.eager_seconds * 1e3:.3g} ms), {limit:g} is allowed"
    )
    return failed(base, reports, Code.TOO_SLOW, only({event.host for event in slow}), cause)


def _ratio(replay: Replay) -> float:
    return replay.seconds / max(replay.eager_seconds, 1e-9)
