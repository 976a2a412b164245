"""The NCCL gate's verdict from what its ranks measured. Pure."""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Mapping, Sequence
from typing import Any

from . import bandwidth
from .bisect import Finding
from .codes import Code
from .failure_analysis import (
    Failure,
    Kind,
    analyse,
    failed,
    next_command,
    only,
    passed,
    ranks_text,
    seconds,
    stopped,
)
from .ranks.events import Busbw, Check, Event, LocalGemm, Started
from .ranks.launcher import Report
from .result import GateResult

CODES: dict[Kind, Code] = {
    "killed": Code.RANK_KILLED,
    "lost": Code.HOST_LOST,
    "error": Code.COLLECTIVE_ERROR,
    "hung": Code.COLLECTIVE_HANGS,
    "out_of_time": Code.OUT_OF_TIME,
}
INIT_CODES: dict[Kind, Code] = {**CODES, "error": Code.INIT_FAILED, "hung": Code.INIT_HANGS}
"""Of what happens until the process group is formed."""


def evaluate(reports: Sequence[Report], floor: bandwidth.Floor | None) -> GateResult:
    """Verdict over one rank group.

    Args:
        reports: one for each host.
        floor: for the slowest rank's busbw; None or 0 demands no bandwidth.
    """
    measured = measurements(reports)
    base = dataclasses.replace(passed("nccl", reports), measured=measured, floor=_floor(floor))
    failure = analyse(reports)
    if failure and failure.kind in ("killed", "lost"):
        return stopped(base, reports, failure, code_of(failure))
    if gemms := [event for report in reports for event in report.of(LocalGemm) if event.wrong]:
        host = gemms[0].host
        cause = f"{host}: local integer GEMM wrong (compute fault), no peer involved"
        return failed(base, reports, Code.WRONG_ARITHMETIC, host, cause)
    if wrong := wrong_checks(reports):
        return _wrong(base, reports, wrong)
    if failure:
        return stopped(base, reports, failure, code_of(failure))
    if floor is not None and floor.gbps:
        speed = measured["busbw_gbps"].get(floor.operation)
        if speed is None or speed < floor.gbps:
            return _slow(base, reports, floor, speed)
        if speed < floor.warn:
            low = f"busbw of {floor.operation} is {speed:g} GB/s, below {floor.warn:g} GB/s, though not {floor.gbps:g}"
            return dataclasses.replace(base, warnings=(f"{low} ({floor.source})",))
    return base


def code_of(failure: Failure) -> Code:
    """The code of a rank group that did not end well."""
    return (INIT_CODES if failure.phase in ("load", "init") else CODES)[failure.kind]


def measurements(reports: Sequence[Report]) -> dict[str, Any]:
    """Figures of a rank group: ``ranks``, ``checks`` and ``wrong`` (counts), ``busbw_gbps`` by operation (slowest rank)."""
    ranks = sum(report.here for report in reports)
    slowest: dict[str, float] = {}
    for event in (event for report in reports for event in report.of(Busbw)):
        speed = bandwidth.busbw(event.operation, event.bytes, event.seconds, ranks)
        slowest[event.operation] = round(min(speed, slowest.get(event.operation, speed)), 4)
    started = [event for report in reports for event in report.of(Started)]
    gemms = [event for report in reports for event in report.of(LocalGemm) if event.wrong]
    return {
        "ranks": ranks,
        "hosts": [report.host for report in reports],
        "checks": sum(len(report.of(Check)) for report in reports),
        "wrong": len(gemms) + len(wrong_checks(reports)),
        "busbw_gbps": slowest,
        "devices": sorted({event.device for event in started}),
        "nccl": next((event.nccl for event in started if event.nccl), None),
        "seconds": seconds(reports),
    }


def wrong_checks(reports: Sequence[Report]) -> list[Check]:
    """Every collective with a wrong element, of every rank."""
    return [event for report in reports for event in report.of(Check) if event.wrong]


def conclude(result: GateResult, finding: Finding | None) -> GateResult:
    """The first verdict, with what the bisection found."""
    if finding is None:
        return result
    measured = {**result.measured, "bisect": dataclasses.asdict(finding)}
    if finding.hosts or finding.pairs:
        blamed = [f"host {host}" for host in finding.hosts]
        blamed += [f"the pair {first} and {second}" for first, second in finding.pairs]
        cause = f"{result.cause}; {finding.rounds} round(s) of trials name {', '.join(blamed)}"
    elif finding.unclear:
        cause = f"{result.cause}; {finding.rounds} round(s) of trials clear all but {', '.join(finding.unclear)}"
    else:
        cause = f"{result.cause}; no host or pair fails by itself: the fault shows only with more hosts together"
    host, pair = result.host, result.pair
    if finding.hosts:
        host, pair = finding.hosts[0], None
    elif finding.pairs:
        pair = finding.pairs[0]
    return dataclasses.replace(result, host=host, pair=pair, measured=measured, cause=cause, next=next_command(host))


def from_nccl_tests(document: Mapping[str, Any], host: str, seconds: float) -> Report:
    """A report in this gate's shape from the JSON that nccl-tests writes with ``-J`` (file version 3, nccl-tests 2.19).

    Its times are microseconds; ``nwrong`` is null where it checked nothing. The in-place figures are used.
    """
    operation = os.path.basename(document["args"][0]).replace("_perf", "")
    devices = document["config"]["devices"]
    ranks = max(len(devices), int(document["config"]["nthreads"]) * int(document["config"]["ngpus"]))
    name = str(devices[0]["device_info"]) if devices else "unknown"
    events: list[Event] = [Started(0, host, "nccl", name, nccl_number(int(document["nccl_version"])))]
    for row in document["results"]:
        wrong = sum(int((row[place] or {}).get("nwrong") or 0) for place in ("in_place", "out_of_place"))
        events.append(Check(0, host, operation, row["type"], int(row["size"]), wrong))
    largest = max(document["results"], key=lambda row: int(row["size"]))
    figures = largest["in_place"] or largest["out_of_place"]
    events.append(Busbw(0, host, operation, int(largest["size"]), float(figures["time"]) / 1e6))
    return Report(host, 0, ranks, "done", seconds, tuple(events))


def nccl_number(number: int) -> str:
    """``22705`` as ``2.27.5``: NCCL_VERSION_CODE since 2.9 is major·10000 + minor·100 + patch."""
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


def _wrong(base: GateResult, reports: Sequence[Report], wrong: Sequence[Check]) -> GateResult:
    """Wrong elements. To blame is the one host that sees them, or the one whose block arrived wrong everywhere."""
    first = wrong[0]
    seen_on = {event.host for event in wrong}
    sources = [set(event.from_ranks) for event in wrong if event.from_ranks]
    source = set.intersection(*sources) if sources else set()
    host = None
    if len(reports) == 1 or (len(reports) == 2 and len(seen_on) == 1):
        host = only(seen_on)
    elif len(source) == 1 and len(seen_on) > 1:
        host = next((report.host for report in reports if source <= set(report.ranks)), None)
    cause = (
        f"{first.operation} of {first.dtype}, {first.bytes} bytes, gave {first.wrong} wrong elements on "
        f"{ranks_text(sorted({event.rank for event in wrong}))} ({', '.join(sorted(seen_on))})"
    )
    if first.observed is not None and first.expected is not None:
        cause += f": element {first.index} is {first.observed:g}, expected {first.expected:g}"
    reduces = first.operation in ("all_reduce", "reduce_scatter")
    return failed(base, reports, Code.WRONG_SUM if reduces else Code.WRONG_DATA, host, cause)


def _slow(base: GateResult, reports: Sequence[Report], floor: bandwidth.Floor, speed: float | None) -> GateResult:
    hosts = [report.host for report in reports]
    shown = "not measured" if speed is None else f"{speed:g} GB/s"
    straggler = _straggler(reports, floor.operation)
    cause = f"busbw of {floor.operation} over {', '.join(hosts)}: {shown}, floor {floor.gbps:g} GB/s ({floor.source})"
    if straggler:
        cause += f"; {straggler} is a straggler: enqueues late"
    return failed(base, reports, Code.SLOW_LINK, only(set(hosts)) or straggler, cause)


def _straggler(reports: Sequence[Report], operation: str) -> str | None:
    """The one host whose ranks alone spend most of each call before they have enqueued it."""
    late = {
        event.host
        for report in reports
        for event in report.of(Busbw)
        if event.operation == operation and event.issue_seconds > event.seconds / 2
    }
    return only(late) if len(reports) > 1 else None


def _floor(floor: bandwidth.Floor | None) -> dict[str, Any]:
    if floor is None:
        return {}
    return {
        "busbw_gbps": floor.gbps,
        "operation": floor.operation,
        "source": floor.source,
        "confidence": floor.confidence,
    }
