"""The NCCL gate's verdict from what its ranks measured. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from . import bandwidth
from .bisect import Finding
from .failure_analysis import Trouble, ranks_text, trouble
from .ranks.launcher import Report
from .result import GateResult

GATE = "nccl"
CODES = {
    "killed": "rank_killed",
    "lost": "host_lost",
    "error": "collective_error",
    "stood_still": "collective_hangs",
    "out_of_time": "out_of_time",
}


def judge(reports: Sequence[Report], floor: bandwidth.Floor | None) -> GateResult:
    """Verdict over one gang.

    Args:
        reports: one for each host.
        floor: for the slowest rank's busbw; None or 0 judges no bandwidth.
    """
    seconds = max((report.seconds for report in reports), default=0.0)
    measured = measurements(reports)
    evidence = tuple(path for report in reports for path in report.evidence)
    base = GateResult(
        gate=GATE,
        verdict="pass",
        seconds=seconds,
        measured=measured,
        floor=_floor(floor),
        backend=backend(reports),
        evidence=evidence,
    )
    wrong = wrong_results(reports)
    found = trouble(reports)
    if found and found.kind in ("killed", "lost"):
        return _stopped(base, reports, found)
    if wrong:
        return _wrong(base, reports, wrong)
    if found:
        return _stopped(base, reports, found)
    if floor is not None and floor.gbps:
        got = measured["busbw_gbps"].get(floor.operation)
        if got is None or got < floor.gbps:
            return _slow(base, reports, floor, got)
    return base


def measurements(reports: Sequence[Report]) -> dict[str, Any]:
    """Figures of a gang: ``ranks``, ``checks`` and ``wrong`` (counts), ``busbw_gbps`` by operation (slowest rank)."""
    ranks = sum(report.here for report in reports)
    items = [item for report in reports for item in report.of("measured")]
    slowest: dict[str, float] = {}
    for item in items:
        if item["name"] == "busbw":
            speed = bandwidth.busbw(item["operation"], item["bytes"], item["seconds"], ranks)
            slowest[item["operation"]] = round(min(speed, slowest.get(item["operation"], speed)), 4)
    started = [item for report in reports for item in report.of("start")]
    return {
        "ranks": ranks,
        "hosts": [report.host for report in reports],
        "checks": sum(item["name"] == "check" for item in items),
        "wrong": len(wrong_results(reports)),
        "busbw_gbps": slowest,
        "devices": sorted({item["device"] for item in started}),
        "nccl": next((item["nccl"] for item in started if item.get("nccl")), None),
        "seconds": max((report.seconds for report in reports), default=0.0),
    }


def wrong_results(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """Every check with a wrong element, of every rank."""
    return [item for report in reports for item in report.of("measured") if item.get("wrong")]


def conclude(result: GateResult, finding: Finding | None) -> GateResult:
    """The first verdict, with what the localisation found."""
    if finding is None:
        return result
    measured = {**result.measured, "localisation": dataclasses.asdict(finding)}
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
    operation = str(document["args"][0]).rsplit("/", 1)[-1].replace("_perf", "")
    devices = document["config"]["devices"]
    ranks = max(len(devices), int(document["config"]["nthreads"]) * int(document["config"]["ngpus"]))
    name = str(devices[0]["device_info"]) if devices else "unknown"
    number = int(document["nccl_version"])
    start = {"event": "start", "rank": 0, "host": host, "backend": "nccl", "device": name, "nccl": nccl_number(number)}
    events: list[dict[str, Any]] = [start]
    for row in document["results"]:
        figures = row["in_place"] or row["out_of_place"]
        base = {"event": "measured", "rank": 0, "host": host, "operation": operation, "bytes": int(row["size"])}
        wrong = sum(int((row[place] or {}).get("nwrong") or 0) for place in ("in_place", "out_of_place"))
        events.append(
            {**base, "name": "check", "dtype": row["type"], "wrong": wrong, "phase": "check", "what": operation}
        )
    largest = max(document["results"], key=lambda row: int(row["size"]))
    figures = largest["in_place"] or largest["out_of_place"]
    events.append({**base, "bytes": int(largest["size"]), "name": "busbw", "seconds": float(figures["time"]) / 1e6})
    return Report(host, 0, ranks, "done", seconds, tuple(events))


def nccl_number(number: int) -> str:
    """``22705`` as ``2.27.5``: NCCL_VERSION_CODE since 2.9 is major·10000 + minor·100 + patch."""
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


def _wrong(base: GateResult, reports: Sequence[Report], wrong: Sequence[Mapping[str, Any]]) -> GateResult:
    first = wrong[0]
    local = sorted({item["host"] for item in wrong if item["name"] == "local"})
    if local:
        return dataclasses.replace(
            base,
            verdict="fail",
            code="wrong_arithmetic",
            host=local[0],
            cause=f"{local[0]} multiplies a matrix of small whole numbers wrongly, with no peer involved",
            next=next_command(local[0]),
        )
    seen_on = {item["host"] for item in wrong}
    sources = [set(item["from_ranks"]) for item in wrong if item.get("from_ranks")]
    everybody = [report.host for report in reports]
    source = set.intersection(*sources) if sources else set()
    host = None
    if len(everybody) == 1 or (len(seen_on) == 1 and len(everybody) == 2):
        host = next(iter(seen_on))
    elif len(source) == 1 and len(seen_on) > 1:
        host = _host_of(reports, next(iter(source)))
    text = (
        f"{first['operation']} of {first['dtype']}, {first['bytes']} bytes, gave {first['wrong']} wrong elements on "
        f"{ranks_text(sorted({item['rank'] for item in wrong}))} ({', '.join(sorted(seen_on))})"
    )
    if "got" in first:
        text += f": element {first['at']} was {first['got']:g} and should be {first['want']:g}"
    return dataclasses.replace(
        base,
        verdict="fail",
        code="wrong_sum" if first["operation"] in ("all_reduce", "reduce_scatter") else "wrong_data",
        host=host,
        pair=both(everybody) if host is None else None,
        cause=text,
        next=next_command(host),
    )


def _slow(base: GateResult, reports: Sequence[Report], floor: bandwidth.Floor, got: float | None) -> GateResult:
    hosts = [report.host for report in reports]
    shown = "was not measured" if got is None else f"{got:g} GB/s"
    late = _straggler(reports, floor.operation)
    host = hosts[0] if len(hosts) == 1 else late
    hint = f"; {late} starts its part late and keeps the others waiting" if late else ""
    return dataclasses.replace(
        base,
        verdict="fail",
        code="slow_link",
        host=host,
        pair=None if host else both(hosts),
        cause=f"busbw of {floor.operation} over {', '.join(hosts)}: {shown}, floor {floor.gbps:g} GB/s ({floor.source})"
        + hint,
        next=next_command(host),
    )


def _straggler(reports: Sequence[Report], operation: str) -> str | None:
    """The one host whose ranks alone spend most of each call before they have handed it over."""
    late = {
        item["host"]
        for report in reports
        for item in report.of("measured")
        if item["name"] == "busbw"
        and item["operation"] == operation
        and item.get("issue_seconds", 0.0) > item["seconds"] / 2
    }
    return next(iter(late)) if len(late) == 1 and len(reports) > 1 else None


def _stopped(base: GateResult, reports: Sequence[Report], found: Trouble) -> GateResult:
    code = CODES[found.kind]
    if found.phase == "init" and found.kind in ("error", "stood_still"):
        code = "init_hangs" if found.kind == "stood_still" else "init_failed"
    return dataclasses.replace(
        base,
        verdict=found.verdict,
        code=code,
        host=found.hosts[0] if found.hosts else None,
        pair=None if found.hosts else both([report.host for report in reports]),
        cause=found.text,
        next=next_command(found.hosts[0] if found.hosts else None),
    )


def both(hosts: Sequence[str]) -> tuple[str, str] | None:
    """The pair, when there are just two hosts."""
    return (hosts[0], hosts[1]) if len(hosts) == 2 else None


def _host_of(reports: Sequence[Report], rank: int) -> str | None:
    return next((report.host for report in reports if report.first <= rank < report.first + report.here), None)


def _floor(floor: bandwidth.Floor | None) -> dict[str, Any]:
    if floor is None:
        return {}
    return {
        "busbw_gbps": floor.gbps,
        "operation": floor.operation,
        "source": floor.source,
        "confidence": floor.confidence,
    }


def backend(reports: Sequence[Report]) -> str | None:
    """The backend that the ranks chose."""
    return next((item["backend"] for report in reports for item in report.of("start")), None)


def next_command(host: str | None) -> str:
    """What to type after a verdict."""
    where = f" --limit {host}" if host else ""
    return f"ansible-playbook playbooks/diagnose.yml{where}"
