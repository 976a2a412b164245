"""The graph gate's verdict from what its ranks measured. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .failure_analysis import Trouble, trouble
from .nccl import backend, both, next_command
from .ranks.launcher import Report
from .result import GateResult

GATE = "graph"


def judge(reports: Sequence[Report], slowest_replay_ratio: float = 0.0) -> GateResult:
    """Verdict over one gang.

    Args:
        reports: one for each host.
        slowest_replay_ratio: a replay may take this many times as long as eager; 0 judges no time.
    """
    base = GateResult(
        gate=GATE,
        verdict="pass",
        seconds=max((report.seconds for report in reports), default=0.0),
        measured=measurements(reports),
        floor={"slowest_replay_ratio": slowest_replay_ratio} if slowest_replay_ratio else {},
        backend=backend(reports),
        evidence=tuple(path for report in reports for path in report.evidence),
    )
    found = trouble(reports)
    if found and found.kind in ("killed", "lost"):
        return _stopped(base, reports, found)
    wrong = [item for report in reports for item in report.of("measured") if item.get("wrong")]
    if wrong:
        return _wrong(base, reports, wrong)
    if found:
        return _stopped(base, reports, found)
    if slowest_replay_ratio:
        return _slow(base, reports, slowest_replay_ratio) or base
    return base


def measurements(reports: Sequence[Report]) -> dict[str, Any]:
    """Figures of a gang: how many graphs and replays, the worst deviation, and seconds of eager and of replays."""
    items = [item for report in reports for item in report.of("measured")]
    first = [item for item in items if item["rank"] == 0]
    replays = [item for item in items if item["name"] == "replay"]
    return {
        "ranks": sum(report.here for report in reports),
        "hosts": [report.host for report in reports],
        "graphs": "torch.cuda.CUDAGraph" if backend(reports) == "nccl" else "torch.compile on cpu",
        "modes": sorted({item["mode"] for item in replays}),
        "captures": sum(item["name"] == "capture" for item in first),
        "replays": sum(item["replays"] for item in first if item["name"] == "replay"),
        "worst_deviation": max((item["deviation"] for item in replays), default=None),
        "capture_seconds": round(sum(item["seconds"] for item in first if item["name"] == "capture"), 3),
        "worst_replay_ratio": round(max((_ratio(item) for item in replays), default=0.0), 2),
        "seconds": max((report.seconds for report in reports), default=0.0),
    }


def _ratio(item: dict[str, Any]) -> float:
    return float(item["seconds"]) / max(float(item["eager_seconds"]), 1e-9)


def code_of(found: Trouble) -> str:
    """The short word for a gang that did not end well."""
    if found.kind == "killed":
        return "rank_killed"
    if found.kind == "lost":
        return "host_lost"
    if found.kind == "out_of_time":
        return "out_of_time"
    hangs = found.kind == "stood_still"
    if found.phase == "eager":
        return "eager_bad"
    if found.phase == "capture":
        return "capture_hangs" if hangs else "capture_errors"
    if found.phase == "replay":
        return "replay_hangs" if hangs else "replay_errors"
    if found.phase in ("release", "end"):
        return "release_hangs" if hangs else "release_errors"
    return "init_hangs" if hangs else "init_failed"


def _stopped(base: GateResult, reports: Sequence[Report], found: Trouble) -> GateResult:
    code = code_of(found)
    text = found.text
    if code in ("capture_hangs", "capture_errors", "replay_hangs", "replay_errors"):
        text = f"eager is good, and with graphs {text}"
    elif code == "eager_bad":
        text = f"no graph was tried: already in eager {text}"
    return dataclasses.replace(
        base,
        verdict=found.verdict,
        code=code,
        host=found.hosts[0] if found.hosts else None,
        pair=None if found.hosts else both([report.host for report in reports]),
        cause=text,
        next=next_command(found.hosts[0] if found.hosts else None),
    )


def _wrong(base: GateResult, reports: Sequence[Report], wrong: Sequence[dict[str, Any]]) -> GateResult:
    """Results differ. One host alone is to blame when it alone has them."""
    first = min(wrong, key=lambda item: item["name"] != "eager")
    hosts = sorted({item["host"] for item in wrong if item["name"] == first["name"]})
    everybody = [report.host for report in reports]
    eager = first["name"] == "eager"
    host = hosts[0] if len(hosts) == 1 else None
    against = "this rank's own arithmetic without collectives" if eager else "eager"
    return dataclasses.replace(
        base,
        verdict="fail",
        code="eager_bad" if eager else "wrong_results",
        host=host,
        pair=both(everybody) if host is None else None,
        cause=f"{first['what']}: rank {first['rank']} on {first['host']} differs from {against} by "
        f"{first['deviation']:.3g} of the largest value, {first['tolerance']:.3g} is allowed; seen on {', '.join(hosts)}",
        next=next_command(host),
    )


def _slow(base: GateResult, reports: Sequence[Report], limit: float) -> GateResult | None:
    items = [item for report in reports for item in report.of("measured") if item["name"] == "replay"]
    slow = [item for item in items if _ratio(item) > limit]
    if not slow:
        return None
    worst = max(slow, key=_ratio)
    hosts = sorted({item["host"] for item in slow})
    host = hosts[0] if len(hosts) == 1 else None
    return dataclasses.replace(
        base,
        verdict="fail",
        code="too_slow",
        host=host,
        cause=f"{worst['what']} on {worst['host']}: a replay takes {worst['seconds'] * 1e3:.3g} ms, "
        f"{_ratio(worst):.2g} times eager ({worst['eager_seconds'] * 1e3:.3g} ms), {limit:g} is allowed",
        next=next_command(host),
    )
