"""What the reports of a gang say, whichever gate it was: who died, who stood still, who is missing. Pure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

from .ranks.launcher import Report
from .result import Verdict


@dataclasses.dataclass(frozen=True)
class Trouble:
    """Why a gang did not end well, as far as its ranks' ends tell.

    Attributes:
        verdict: ``timeout`` when a deadline ended it.
        kind: ``killed``, ``error``, ``stood_still``, ``out_of_time`` (it still moved when its time was up) or ``lost``.
        hosts: who is to blame; empty when all ranks look alike.
        phase: the work's phase in which it happened; empty when no rank got as far.
        what: the step, in words.
        text: the cause in words.
    """

    verdict: Verdict
    kind: str
    hosts: tuple[str, ...]
    phase: str
    what: str
    text: str


STILL = 5.0
"""Seconds without a step before a rank counts as standing still; at least twice the longest step that it finished."""
STILL_LOADING = 60.0


def trouble(reports: Sequence[Report]) -> Trouble | None:
    """Why the gang did not end well; None when every rank ended with status 0."""
    if all(report.status == "done" for report in reports):
        return None
    reports = _until_the_deadline(reports)
    return (
        _killed(reports)
        or _errors(reports)
        or _lost(reports)
        or _out_of_time(reports)
        or _stood_still(reports)
        or _never_began(reports)
    )


def _until_the_deadline(reports: Sequence[Report]) -> list[Report]:
    """The reports without what the deadline itself did: it ends one host's ranks a moment before another's, and those then
    fail with a broken connection."""
    if not any(report.status == "timeout" for report in reports):
        return list(reports)

    def caused(item: dict[str, Any], report: Report) -> bool:
        over = report.status == "timeout" and item.get("at", 0.0) >= report.limit_at
        return (item["event"] in ("end", "error") and over) or (item["event"] == "error" and _is_echo(item))

    return [
        dataclasses.replace(report, events=tuple(item for item in report.events if not caused(item, report)))
        for report in reports
    ]


def ranks_text(ranks: Sequence[int]) -> str:
    """``rank 3`` or ``ranks 3, 4``."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(str(rank) for rank in ranks)}"


def _killed(reports: Sequence[Report]) -> Trouble | None:
    deaths = [(item, report) for report in reports for item in report.of("end") if item["status"] < 0]
    if not deaths:
        return None
    first = min((item for item, _ in deaths), key=lambda item: item["at"])
    step = _last_step(next(report for item, report in deaths if item is first), first["rank"])
    signal = -first["status"]
    hint = " (SIGKILL: look for the kernel's out-of-memory killer in kernel.log)" if signal == 9 else ""
    return Trouble(
        "fail",
        "killed",
        (first["host"],),
        step.get("phase", ""),
        step.get("what", ""),
        f"rank {first['rank']} on {first['host']} was ended by signal {signal}{hint}{_during(step)}",
    )


def _errors(reports: Sequence[Report]) -> Trouble | None:
    """The first error in the steps' order: peers of a rank that failed fail after it, with a broken connection."""
    errors = [item for report in reports for item in report.of("error")]
    if not errors:
        return None
    first = min(errors, key=lambda item: (_is_echo(item), item["step"], item["at"]))
    alike = [item for item in errors if not _is_echo(item) and item["step"] == first["step"]]
    hosts = tuple(sorted({item["host"] for item in alike} or {first["host"]}))
    everybody = {report.host for report in reports}
    return Trouble(
        "fail",
        "error",
        () if set(hosts) == everybody and len(everybody) > 1 else hosts,
        first["phase"],
        first["what"],
        f"rank {first['rank']} on {first['host']} failed with {first['kind']}: {_first_line(first['message'])}"
        f"{_during(first)}",
    )


def _is_echo(error: dict[str, Any]) -> bool:
    words = ("connection", "closed", "reset by peer", "broken pipe", "remote process", "socket")
    return any(word in error["message"].lower() for word in words)


def _lost(reports: Sequence[Report]) -> Trouble | None:
    lost = tuple(report.host for report in reports if report.status == "lost")
    if not lost:
        return None
    return Trouble("fail", "lost", lost, "", "", f"{', '.join(lost)} gave no answer through Ray")


def _out_of_time(reports: Sequence[Report]) -> Trouble | None:
    """A deadline that ended a gang which still moved proves no hang, only that the time was too short."""
    if not any(report.status == "timeout" for report in reports):
        return None
    idle = min((_idle(report) for report in reports), default=0.0)
    longest = max((_longest_step(report) for report in reports), default=0.0)
    last = max((_last_step(report, report.first) for report in reports), key=lambda step: step.get("step", 0))
    patience = STILL_LOADING if last.get("phase") == "load" else max(STILL, 2 * longest)
    if idle >= patience:
        return None
    return Trouble(
        "timeout",
        "out_of_time",
        (),
        last.get("phase", ""),
        last.get("what", ""),
        f"the time was too short: the last step began {idle:.1f} s before the end, and a step has taken {longest:.1f} s"
        f"{_during(last)}. Give a longer deadline",
    )


def _idle(report: Report) -> float:
    """Seconds from the last step of any of this host's ranks to the deadline, 0 when one was told after it, while evidence
    was saved; infinite when there was none."""
    moments = [item["at"] for item in report.of("step")]
    return max(0.0, report.limit_at - max(moments)) if moments and report.limit_at else float("inf")


def _longest_step(report: Report) -> float:
    """Seconds of the longest step that one of this host's ranks finished, loading torch apart."""
    longest = 0.0
    for rank in range(report.first, report.first + report.here):
        moments = [item["at"] for item in report.of("step") if item["rank"] == rank and item["phase"] != "load"]
        longest = max([longest, *(after - before for before, after in itertools.pairwise(moments))])
    return longest


def _stood_still(reports: Sequence[Report]) -> Trouble | None:
    if not any(report.status == "timeout" for report in reports):
        return None
    progress = {
        (report.host, rank): _last_step(report, rank)
        for report in reports
        for rank in range(report.first, report.first + report.here)
    }
    least = min(_progress(step) for step in progress.values())
    behind = [key for key, step in progress.items() if _progress(step) == least]
    step = progress[behind[0]]
    hosts = tuple(sorted({host for host, _ in behind}))
    everybody = {report.host for report in reports}
    apart = len(behind) < len(progress)
    who = f"{ranks_text([rank for _, rank in behind])} on {', '.join(hosts)}" if apart else "every rank"
    return Trouble(
        "timeout",
        "stood_still",
        hosts if (apart and set(hosts) != everybody) or len(everybody) == 1 else (),
        step.get("phase", "init"),
        step.get("what", ""),
        f"{who} stood still{_during(step) or ' before its first step'}"
        + ("; the others waited for it" if apart else ""),
    )


def _never_began(reports: Sequence[Report]) -> Trouble:
    bad = [report for report in reports if report.status not in ("done", "ended")] or list(reports)
    hosts = tuple(report.host for report in bad)
    last = _first_line("\n".join(reversed(bad[0].tail.strip().splitlines()))) or "it said nothing"
    return Trouble("fail", "error", hosts, "init", "", f"the ranks on {', '.join(hosts)} did not start: {last}")


def _last_step(report: Report, rank: int) -> dict[str, Any]:
    steps = [item for item in report.of("step") if item["rank"] == rank]
    return steps[-1] if steps else {}


def _progress(step: dict[str, Any]) -> tuple[int, bool]:
    return (step.get("step", 0), step.get("waiting", False))


def _during(step: dict[str, Any]) -> str:
    if not step.get("phase"):
        return ""
    return f" in {step['phase']}" + (f" ({step['what']})" if step.get("what") else "")


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else ""
