"""The graph gate's verdict from what its ranks measured. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .codes import Code
from .failure_analysis import Failure, analyse, backend, failed, only, passed, seconds, stopped
from .ranks.events import Capture, Eager, Phase, Replay, Skipped
from .ranks.launcher import Report
from .request import Captured
from .result import GateResult

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
    floor = {"slowest_replay_ratio": slowest_replay_ratio} if slowest_replay_ratio else {}
    base = dataclasses.replace(passed("graph", reports), measured=measurements(reports), floor=floor)
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


@dataclasses.dataclass(frozen=True)
class Switch:
    """How vLLM is kept from running a kernel: the switch, and the variable of the role ``vllm_server`` that sets it."""

    name: str
    variable: str


SWITCHES: dict[Captured, Switch] = {
    "custom_all_reduce": Switch("--disable-custom-all-reduce", "vllm_server_args: {disable-custom-all-reduce: true}"),
    "symmetric_memory": Switch(
        "VLLM_ALLREDUCE_USE_SYMM_MEM=0", 'vllm_server_environment: {VLLM_ALLREDUCE_USE_SYMM_MEM: "0"}'
    ),
    "flashinfer_attention": Switch(
        "--attention-backend FLASH_ATTN", "vllm_server_args: {attention-backend: FLASH_ATTN}"
    ),
    "compiled": Switch("--enforce-eager", "vllm_server_ladder: [none]"),
}


def together(results: Mapping[Captured, GateResult], wanted: Sequence[Captured]) -> GateResult | None:
    """One verdict over what was captured, each kind by itself; None where nothing was. What is wanted and never began fails.

    What fails first is the cause. Where nothing else fails, and it is not torch's plain kernels, the verdict names the switch
    that turns just that off.
    """
    if not results:
        return None
    first = next(iter(results.values()))
    bad = [one for one, result in results.items() if not result.passed]
    measured = {**first.measured, "captured": {one: _short(result) for one, result in results.items()}}
    evidence = tuple(path for result in results.values() for path in result.evidence)
    seconds_ = round(sum(result.seconds for result in results.values()), 3)
    if not bad:
        whole = dataclasses.replace(first, measured=measured, evidence=evidence, seconds=seconds_)
        missing = ", ".join(one for one in wanted if one not in results)
        cause = f"{missing}: never began, though the ranks ended well"
        return failed(whole, (), Code.COULD_NOT_RUN, None, cause) if missing else whole
    failing, *others = bad
    failure = results[failing]
    cause = failure.cause
    if failing in SWITCHES:
        cause = f"{failing}: {cause}"
        good = [one for one, result in results.items() if result.passed and "skipped" not in result.measured]
        if good and not others:
            switch = SWITCHES[failing]
            cause += f"; {', '.join(good)} good: {switch.name} turns off what fails, by {switch.variable}"
    return dataclasses.replace(failure, measured=measured, evidence=evidence, seconds=seconds_, cause=cause)


def _short(result: GateResult) -> dict[str, Any]:
    """What one kind of code comes to in the verdict over all."""
    names = ("captures", "replays", "worst_deviation", "skipped")
    return {
        "verdict": result.verdict,
        "seconds": result.seconds,
        **{name: value for name in names if (value := result.measured.get(name)) is not None},
    }


def measurements(reports: Sequence[Report]) -> dict[str, Any]:
    """Figures of a rank group: how many graphs and replays, the worst deviation, and seconds of eager and of replays."""
    replays = [event for report in reports for event in report.of(Replay)]
    captures = [event for report in reports for event in report.of(Capture) if event.rank == 0]
    return {
        "ranks": sum(report.here for report in reports),
        "hosts": [report.host for report in reports],
        "graphs": "torch.cuda.CUDAGraph" if backend(reports) == "nccl" else "called again on cpu",
        "modes": sorted({event.mode for event in replays}),
        "captures": len(captures),
        "replays": sum(event.replays for event in replays if event.rank == 0),
        "worst_deviation": max((event.deviation for event in replays), default=None),
        "capture_seconds": round(sum(event.seconds for event in captures), 3),
        "worst_replay_ratio": round(max((_ratio(event) for event in replays), default=0.0), 2),
        "seconds": seconds(reports),
        **_skipped(reports),
    }


def _skipped(reports: Sequence[Report]) -> dict[str, str]:
    """Why a kernel was not tried, where it was not."""
    reasons = {f"{event.what}: {event.reason}" for report in reports for event in report.of(Skipped)}
    return {"skipped": "; ".join(sorted(reasons))} if reasons else {}


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
