"""Why a rank group did not end well, from its ranks' reports, whichever gate it was: killed, failed, hung, lost. Pure."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

from ..core import causes
from .codes import Code
from .ranks.events import Ended, Error, Event, Phase, Started, Step
from .ranks.launcher import Report
from .request import RankGate
from .result import GateResult, Verdict

Kind = Literal["killed", "error", "hung", "out_of_time", "lost"]


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a rank group did not end well, as far as its ranks' ends show.

    Attributes:
        verdict: ``timeout`` when a deadline ended it.
        kind: ``killed``, ``error``, ``hung``, ``out_of_time`` (it still made progress at the deadline) or ``lost``.
        hosts: who is to blame; empty when all ranks look alike.
        phase: the work's phase in which it happened; None when no rank got as far.
        cause: for people.
    """

    verdict: Verdict
    kind: Kind
    hosts: tuple[str, ...]
    phase: Phase | None
    cause: str


HUNG_AFTER = 5.0
"""Seconds without a step before a rank counts as hung; at least twice the longest step that it finished."""
HUNG_AFTER_LOADING = 60.0


def analyse(reports: Sequence[Report]) -> Failure | None:
    """Why the rank group did not end well; None when every rank ended with status 0."""
    if all(report.status == "done" for report in reports):
        return None
    reports = _until_the_deadline(reports)
    return (
        _killed(reports)
        or _errors(reports)
        or _lost(reports)
        or _out_of_time(reports)
        or _hung(reports)
        or _never_began(reports)
    )


def failed(base: GateResult, reports: Sequence[Report], code: Code, host: str | None, cause: str) -> GateResult:
    """``base`` as a failure; of two hosts the pair is at fault where neither is by itself."""
    return dataclasses.replace(
        base,
        verdict="fail",
        code=code,
        host=host,
        pair=None if host else pair_of(reports),
        cause=cause,
        next=next_command(host),
    )


def stopped(
    base: GateResult, reports: Sequence[Report], failure: Failure, code: Code, cause: str | None = None
) -> GateResult:
    """``base`` as the failure that was found."""
    host = failure.hosts[0] if failure.hosts else None
    result = failed(base, reports, code, host, cause or failure.cause)
    following = "Repeat with a longer deadline" if failure.kind == "out_of_time" else result.next
    return dataclasses.replace(result, verdict=failure.verdict, next=following)


def pair_of(reports: Sequence[Report]) -> tuple[str, str] | None:
    """The pair, when there are just two hosts."""
    return (reports[0].host, reports[1].host) if len(reports) == 2 else None


def only(hosts: set[str]) -> str | None:
    """The host, when there is just one."""
    return next(iter(hosts)) if len(hosts) == 1 else None


def passed(gate: RankGate, reports: Sequence[Report]) -> GateResult:
    """The verdict of a rank group with which nothing is wrong, without what was measured."""
    evidence = tuple(path for report in reports for path in report.evidence)
    return GateResult(gate, "pass", seconds(reports), backend=backend(reports), evidence=evidence)


def backend(reports: Sequence[Report]) -> str | None:
    """The backend that the ranks chose."""
    return next((event.backend for report in reports for event in report.of(Started)), None)


def seconds(reports: Sequence[Report]) -> float:
    """Wall time of the slowest host."""
    return max((report.seconds for report in reports), default=0.0)


def next_command(host: str | None) -> str:
    """What to type after a verdict."""
    where = f" --limit {host}" if host else ""
    return f"ansible-playbook playbooks/diagnose.yml{where}"


def ranks_text(ranks: Sequence[int]) -> str:
    """``rank 3`` or ``ranks 3, 4``."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(str(rank) for rank in ranks)}"


def _until_the_deadline(reports: Sequence[Report]) -> list[Report]:
    """The reports without what the deadline itself did: it ends one host's ranks a moment before another's, and those then
    fail with a broken connection."""
    if not any(report.status == "timeout" for report in reports):
        return list(reports)

    def by_the_deadline(event: Event, report: Report) -> bool:
        if not isinstance(event, (Ended, Error)):
            return False
        if report.status == "timeout" and event.at >= report.limit_at:
            return True
        return isinstance(event, Error) and event.code == "peer_lost"

    return [
        dataclasses.replace(report, events=tuple(item for item in report.events if not by_the_deadline(item, report)))
        for report in reports
    ]


def _killed(reports: Sequence[Report]) -> Failure | None:
    deaths = [(event.at, event, report) for report in reports for event in report.of(Ended) if event.status < 0]
    if not deaths:
        return None
    _, first, report = min(deaths, key=lambda death: death[0])
    step = _last_step(report, first.rank)
    hint = " (SIGKILL: look for the kernel's out-of-memory killer in kernel.log)" if first.status == -9 else ""
    return Failure(
        "fail",
        "killed",
        (first.host,),
        step.phase if step else None,
        f"rank {first.rank} on {first.host} was killed by signal {-first.status}{hint}{_during(step)}",
    )


def _errors(reports: Sequence[Report]) -> Failure | None:
    """The first error in the steps' order: peers of a rank that failed fail after it, with a broken connection."""
    errors = [event for report in reports for event in report.of(Error)]
    if not errors:
        return None
    first = min(errors, key=lambda event: (event.code == "peer_lost", event.step, event.at))
    alike = {event.host for event in errors if event.code == "own" and event.step == first.step}
    hosts = tuple(sorted(alike or {first.host}))
    return Failure(
        "fail",
        "error",
        () if len(hosts) == len(reports) > 1 else hosts,
        first.phase,
        f"rank {first.rank} on {first.host} failed with {first.exception}: {causes.of_exception(first.message)}"
        f"{_during(first)}",
    )


def _lost(reports: Sequence[Report]) -> Failure | None:
    lost = tuple(report.host for report in reports if report.status == "lost")
    if not lost:
        return None
    reasons = list(dict.fromkeys(report.tail for report in reports if report.status == "lost" and report.tail))
    said = f" ({'; '.join(reasons)})" if reasons else ""
    return Failure("fail", "lost", lost, None, f"{', '.join(lost)}: no answer through Ray{said}")


def _out_of_time(reports: Sequence[Report]) -> Failure | None:
    """A deadline that ended a rank group which still made progress proves no hang, only that the time was too short."""
    if not any(report.status == "timeout" for report in reports):
        return None
    idle = min(_idle(report) for report in reports)
    longest = max(_longest_step(report) for report in reports)
    steps = [step for report in reports if (step := _last_step(report, report.first))]
    last = max(steps, key=lambda step: step.step) if steps else None
    patience = HUNG_AFTER_LOADING if last and last.phase == "load" else max(HUNG_AFTER, 2 * longest)
    if idle >= patience:
        return None
    return Failure(
        "timeout",
        "out_of_time",
        (),
        last.phase if last else None,
        f"still progressing at the deadline: the last step began {idle:.1f} s before it, the longest step took "
        f"{longest:.1f} s{_during(last)}; inconclusive, no host blamed",
    )


def _idle(report: Report) -> float:
    """Seconds from the last step of any of this host's ranks to the deadline, 0 when one was reported after it, while
    evidence was saved; infinite when there was none."""
    moments = [step.at for step in report.of(Step)]
    return max(0.0, report.limit_at - max(moments)) if moments and report.limit_at else float("inf")


def _longest_step(report: Report) -> float:
    """Seconds of the longest step that one of this host's ranks finished, loading torch apart."""
    longest = 0.0
    for rank in report.ranks:
        moments = [step.at for step in report.of(Step) if step.rank == rank and step.phase != "load"]
        longest = max([longest, *(after - before for before, after in itertools.pairwise(moments))])
    return longest


def _hung(reports: Sequence[Report]) -> Failure | None:
    if not any(report.status == "timeout" for report in reports):
        return None
    steps = {(report.host, rank): _last_step(report, rank) for report in reports for rank in report.ranks}
    least = min(_progress(step) for step in steps.values())
    behind = [key for key, step in steps.items() if _progress(step) == least]
    step = steps[behind[0]]
    hosts = tuple(sorted({host for host, _ in behind}))
    apart = len(behind) < len(steps)
    who = f"{ranks_text([rank for _, rank in behind])} on {', '.join(hosts)}" if apart else "all ranks"
    return Failure(
        "timeout",
        "hung",
        hosts if len(hosts) < len(reports) or len(reports) == 1 else (),
        step.phase if step else "init",
        f"{who} hung{_during(step) or ' before the first step'}" + ("; the others waited" if apart else ""),
    )


def _never_began(reports: Sequence[Report]) -> Failure:
    bad = [report for report in reports if report.status not in ("done", "ended")] or list(reports)
    hosts = tuple(report.host for report in bad)
    reason = causes.of_program(bad[0].tail.splitlines()).text if bad[0].tail.strip() else "no output"
    return Failure("fail", "error", hosts, "init", f"the ranks on {', '.join(hosts)} did not start: {reason}")


def _last_step(report: Report, rank: int) -> Step | None:
    return next((step for step in reversed(report.of(Step)) if step.rank == rank), None)


def _progress(step: Step | None) -> tuple[int, bool]:
    return (step.step, step.waiting) if step else (0, False)


def _during(step: Step | Error | None) -> str:
    if step is None:
        return ""
    return f" in {step.phase}" + (f" ({step.what})" if step.what else "")
