"""What became of each part of a rank group's work, from the reports over all of it. Pure.

The ranks do their parts one after the other, all together, so a failure belongs to the part that had begun last, and to no
other. Only a host that did not answer takes what it measured of every part with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .ranks.events import Ended, Error, Event, Started, Step
from .ranks.job import Part
from .ranks.launcher import Report


def split(reports: Sequence[Report], parts: Sequence[Part]) -> dict[str, list[Report]]:
    """The reports of each part that began, by its name. What comes before the first part belongs to it.

    Args:
        reports: one for each host, over all parts.
        parts: in the order in which they were asked for.
    """
    names = [part.name for part in parts]
    of_host = [_by_part(report, names) for report in reports]
    latest = max((names.index(name) for found in of_host for name in found), default=0)
    return {
        name: [_of_part(report, found, parts, number, latest) for report, found in zip(reports, of_host, strict=True)]
        for number, name in enumerate(names[: latest + 1])
    }


def _by_part(report: Report, names: Sequence[str]) -> dict[str, list[Event]]:
    """The events of each part that began on this host, in their order, without those of a rank's start and end."""
    found: dict[str, list[Event]] = {}
    part_of_rank: dict[int, str] = {}
    for event in report.events:
        if isinstance(event, Step):
            part_of_rank[event.rank] = event.part if event.part in names else names[0]
        if not isinstance(event, (Ended, Error, Started)):
            found.setdefault(part_of_rank.get(event.rank, names[0]), []).append(event)
    return found


def _of_part(report: Report, found: dict[str, list[Event]], parts: Sequence[Part], number: int, latest: int) -> Report:
    """This host's report of one part."""
    began = _began(report, found, parts, number)
    own = [*report.of(Started), *found.get(parts[number].name, [])]
    if number < latest:
        following = _began(report, found, parts, number + 1)
        return Report(
            report.host,
            report.first,
            report.here,
            "lost" if report.status == "lost" else "done",
            _span(began, following),
            tuple(own),
            limit_at=_limit(began, parts[number]),
            wire=report.wire,
        )
    ends = [event for event in report.events if isinstance(event, (Ended, Error))]
    start = _began(report, found, parts, 0)
    return dataclasses.replace(
        report,
        events=(*own, *ends),
        seconds=max(0.0, round(report.seconds - _span(start, began), 3)),
        limit_at=_limit(began, parts[number]),
    )


def _began(report: Report, found: dict[str, list[Event]], parts: Sequence[Part], number: int) -> float | None:
    """Unix time at which a part began on this host; None where it did not come to it."""
    if number == 0:
        return report.limit_at - parts[0].seconds
    return min((event.at for event in found.get(parts[number].name, []) if isinstance(event, Step)), default=None)


def _limit(began: float | None, part: Part) -> float:
    return 0.0 if began is None else began + part.seconds


def _span(since: float | None, until: float | None) -> float:
    return 0.0 if since is None or until is None else max(0.0, round(until - since, 3))
