"""A plan, and what forbids one, as people read it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ..core.grouping import grouped
from ..core.stop import Stop
from ..core.wording import many, names
from .observed import Observed
from .plan import Plan
from .states import SkipCode, Step
from .topology import Topology
from .waves import Wave

_FEW = 8
"""Hosts that a command names."""


def text(plan: Plan, topology: Topology, observed: Mapping[str, Observed]) -> str:
    """What is done to whom, why, and who serves meanwhile. What is alike for several hosts or waves is shown once."""
    if plan.refusals:
        return _listed(*refused(plan.refusals))
    shown = [f"warning: {line}" for line in lines(plan.warnings)]
    in_waves = {host for wave in plan.waves for host in wave.hosts}
    for reason, hosts in _by_value(
        {host: plan.steps[host][Step.PREPARE] for host in plan.prepare if host not in in_waves}
    ):
        shown.append(f"{names(hosts)}: prepare ({reason}), under whatever serves")
    for alike in _runs_of_alike(plan.waves):
        shown += _wave(alike[0], len(plan.waves))
        if len(alike) > 1:
            replicas = [name for wave in alike[1:] for name in wave.replicas]
            numbers = f"wave {alike[1].n}" if len(alike) == 2 else f"waves {alike[1].n} to {alike[-1].n}"
            shown.append(f"{numbers} of {len(plan.waves)}: {names(replicas)}, for the same reasons")
    up_to_date = [name for name, skip in plan.skipped.items() if skip.code is SkipCode.UP_TO_DATE]
    skipped = {name: skip.reason for name, skip in plan.skipped.items() if name not in up_to_date}
    shown += [f"{names(replicas)}: skipped: {reason}" for reason, replicas in _by_value(skipped)]
    if plan.left_out:
        shown.append(f"this run will end in a failure. {plan.left_out.stop}")
    if up_to_date:
        states = {replica.name: observed[replica.head].state for replica in topology.replicas}
        answering = [name for name, state in states.items() if state is not None and state.serves]
        shown.append(f"up to date: {names(up_to_date)} (serving: {names(answering) or 'none'})")
    return "\n".join(shown)


def refused(refusals: Sequence[Stop]) -> tuple[str, list[str]]:
    """The message of a run that must not begin, and its reasons. Only for what decides before any host is changed."""
    reasons = lines(refusals)
    return f"Refused before anything was changed, for {many(len(reasons), 'reason')}", reasons


def invalid_inventory(problems: Sequence[str]) -> str:
    """The message of whatever needs the topology of an inventory that has none."""
    return _listed(f"The inventory means no cluster, for {many(len(problems), 'reason')}", problems)


def lines(stops: Iterable[Stop]) -> list[str]:
    """One line per reason: what is true of several hosts is shown once, with their names and the first one's details."""
    alike = grouped(((stop.cause, bool(stop.where)), stop) for stop in stops)
    result = []
    for (_cause, placed), group in alike.items():
        if not placed:
            result += list(dict.fromkeys(map(str, group)))
            continue
        first, where = group[0], list(dict.fromkeys(stop.where for stop in group))
        detail = f"{first.where}: {first.detail}" if first.detail and len(where) > 1 else first.detail
        result.append(str(dataclasses.replace(first, where=names(where), detail=detail, next=_for_all(group))))
    return result


def _for_all(alike: Sequence[Stop]) -> str:
    """The next command of stops that are alike: of `ansible HOST …` one for their hosts, where these are few."""
    first = alike[0]
    rests = {stop.next.removeprefix(f"ansible {stop.where} ") for stop in alike}
    if not first.next.startswith(f"ansible {first.where} ") or len(rests) > 1 or len(alike) > _FEW:
        return first.next
    return f"ansible {':'.join(dict.fromkeys(stop.where for stop in alike))} {rests.pop()}"


def _wave(wave: Wave, of: int) -> list[str]:
    name = "canary" if wave.canary else "wave"
    serving = f"; meanwhile {names(wave.serving)} serve" if wave.serving else ""
    hosts_of = grouped((reason, host) for host in wave.hosts for reason in wave.reasons.get(host, ()))
    steps_of = grouped(
        ((tuple(hosts), why), step) for reason, hosts in hosts_of.items() for step, why in [_parted(reason)]
    )
    return [
        f"{name} {wave.n} of {of}: {names(wave.replicas)}{serving}",
        *(f"  {names(hosts)}: {', '.join(filter(None, steps))}{why}" for (hosts, why), steps in steps_of.items()),
    ]


def _parted(reason: str) -> tuple[str, str]:
    """``runtime`` and ``: never applied``, so that steps which are due for one reason share a line."""
    step, colon, why = reason.partition(": ")
    return (step, colon + why) if colon and step in set(Step) else ("", reason)


def _runs_of_alike(waves: Sequence[Wave]) -> list[list[Wave]]:
    """Waves in order; those that follow each other for the same reasons are together. The canary stands alone."""
    result: list[list[Wave]] = []
    for wave in waves:
        if result and not result[-1][0].canary and _why(result[-1][0]) == _why(wave):
            result[-1].append(wave)
        else:
            result.append([wave])
    return result


def _why(wave: Wave) -> set[str]:
    return {reason for reasons in wave.reasons.values() for reason in reasons}


def _by_value(value_of: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    return list(grouped((value, name) for name, value in value_of.items()).items())


def _listed(what: str, reasons: Sequence[str]) -> str:
    return "\n".join([f"{what}:", *(f"  - {line}" for line in reasons)])
