"""Which replicas are changed together, in which order, and whether that is allowed at all.

A pure function of what each replica needs, the operator's policy and the time: :func:`waves` gives a :class:`WavePlan`
or :class:`Refusals`, never a plan that breaks the policy.

The rules:

* A replica that is up to date is skipped. A quarantined one is named and skipped, unless the policy asks for it.
* Where no replica serves at all there is nothing to protect: all of them come up in one wave.
* Otherwise half-done replicas come first, then those quarantined that were asked for, then the due ones; within each of
  these the operator's order, then those that don't serve before those that do.
* The first wave is the canary. A wave is never larger than the policy says, never mixes zones, and never leaves fewer
  replicas serving than the capacity floor. A replica that doesn't serve costs no capacity and gives some afterwards, so
  it may be taken ahead of one that the floor forbids for now.
* Replicas whose driver changes in one NVLink domain go in one wave, however large: their GPUs share memory across hosts, and
  half of a domain on another driver is no domain. Where the floor forbids that, or ``--limit`` names only some of them, there
  is no plan.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterator, Mapping, Sequence

from ..core.window import Window
from .policy import Policy
from .states import Need, SkipCode

_FIRST = (Need.HALF_DONE, Need.QUARANTINED, Need.DUE)


@dataclasses.dataclass(frozen=True)
class ReplicaNeed:
    """What one replica needs.

    Attributes:
        name: the replica.
        hosts: its hosts, head first.
        zone: the failure zone it lies in; None is a zone like any other.
        serving: whether it answers requests now, so that taking it costs capacity.
        need: where it stands.
        reasons: per host, for people, why it needs what it needs.
        domains: the NVLink domains in which its driver changes; those who share one change together.
    """

    name: str
    hosts: tuple[str, ...]
    zone: str | None
    serving: bool
    need: Need
    reasons: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    domains: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Skip:
    """Why a replica is in no wave: the code, and the text for people."""

    code: SkipCode
    reason: str


@dataclasses.dataclass(frozen=True)
class Wave:
    """Replicas that are changed at once.

    Attributes:
        n: its number, from 1.
        replicas: who is changed.
        hosts: their hosts, replica by replica.
        reasons: per host, why.
        zone: the zone they share; None also where a first wave on a cluster at rest spans several.
        canary: whether it is the first and a later one could follow.
        serving: the replicas that are to answer requests while it goes on.
        drained: the replicas of this wave that answer requests until it begins.
        members: hosts of each replica of this wave.
    """

    n: int
    replicas: tuple[str, ...]
    hosts: tuple[str, ...]
    reasons: Mapping[str, tuple[str, ...]]
    zone: str | None
    canary: bool
    serving: tuple[str, ...]
    drained: tuple[str, ...]
    members: Mapping[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True)
class WavePlan:
    """Waves in order, and the replicas that are in none of them."""

    waves: tuple[Wave, ...]
    skipped: Mapping[str, Skip]


@dataclasses.dataclass(frozen=True)
class Refusals:
    """Why there is no plan: each reason names the cause and what to do."""

    reasons: tuple[str, ...]
    skipped: Mapping[str, Skip] = dataclasses.field(default_factory=dict)


def waves(
    replicas: Sequence[ReplicaNeed],
    policy: Policy,
    now: datetime.datetime,
    limit: Collection[str] | None = None,
) -> WavePlan | Refusals:
    """Decide the waves.

    Args:
        replicas: **every** replica of the cluster, in the inventory's order, also those that are up to date: the floor
            counts them.
        policy: what the operator allows.
        now: the present moment, with a time zone; compared with the window.
        limit: names of the replicas that may be taken (``--limit``); None means all.

    Returns:
        A plan, which may have no waves, or the reasons for which there is none.
    """
    faults = [*policy.faults(), *_order_faults(replicas, policy)]
    if faults:
        return Refusals(tuple(faults))
    skipped = {replica.name: skip for replica in replicas if (skip := _skip(replica, policy, limit)) is not None}
    taken = [replica for replica in replicas if replica.name not in skipped]
    if not taken:
        return WavePlan((), skipped)
    cut = [*_cut_domains(replicas, taken, skipped)]
    if cut:
        return Refusals(tuple(cut), skipped)
    serving = [replica.name for replica in replicas if replica.serving]
    if not serving:
        return WavePlan((_wave(1, taken, (), canary=False),), skipped)
    if policy.window and not policy.window.is_open(now) and any(replica.serving for replica in taken):
        return Refusals((_closed(policy.window, now, taken),), skipped)
    return _in_turn(replicas, taken, policy, skipped)


def _in_turn(
    replicas: Sequence[ReplicaNeed], taken: Sequence[ReplicaNeed], policy: Policy, skipped: Mapping[str, Skip]
) -> WavePlan | Refusals:
    waiting = _units(sorted(taken, key=lambda replica: _priority(replica, policy.order)))
    serving = {replica.name for replica in replicas if replica.serving}
    floor, size = policy.floor(len(replicas)), policy.size(len(replicas))
    result: list[Wave] = []
    while waiting:
        most = size if result else policy.canary
        chosen = _next(waiting, most, len(serving) - floor)
        if not chosen:
            return Refusals((_floor_reason(waiting, serving, floor, policy, len(replicas)),), skipped)
        waiting = [unit for unit in waiting if unit[0] not in chosen]
        names = {replica.name for replica in chosen}
        left = tuple(replica.name for replica in replicas if replica.name in serving - names)
        result.append(_wave(len(result) + 1, chosen, left, canary=not result and bool(waiting)))
        serving |= names
    return WavePlan(tuple(result), skipped)


def _next(waiting: Sequence[Sequence[ReplicaNeed]], most: int, spare: int) -> list[ReplicaNeed]:
    """The next wave: like the first unit that may be taken, up to ``most`` replicas, at most ``spare`` that serve.

    A unit that is larger than ``most`` makes a wave of its own.
    """
    chosen: list[ReplicaNeed] = []
    for unit in waiting:
        if chosen and len(chosen) + len(unit) > most:
            continue
        drained = sum(replica.serving for replica in unit)
        if drained and sum(other.serving for other in chosen) + drained > spare:
            continue
        if not chosen or (unit[0].zone, unit[0].need) == (chosen[0].zone, chosen[0].need):
            chosen.extend(unit)
    return chosen


def _units(replicas: Sequence[ReplicaNeed]) -> list[list[ReplicaNeed]]:
    """Replicas that change together, each unit where its first one stands: those that share an NVLink domain, also through
    a third."""
    units: list[list[ReplicaNeed]] = []
    for replica in replicas:
        together = [unit for unit in units if any(set(replica.domains) & set(other.domains) for other in unit)]
        units = [unit for unit in units if unit not in together[1:]]
        if together:
            together[0].extend([*(other for unit in together[1:] for other in unit), replica])
        else:
            units.append([replica])
    return [[_explained(replica, unit) for replica in unit] for unit in units]


def _explained(replica: ReplicaNeed, unit: Sequence[ReplicaNeed]) -> ReplicaNeed:
    """A replica with the reason why others are taken with it."""
    others = ", ".join(other.name for other in unit if other is not replica)
    if not others:
        return replica
    reason = f"together with {others}: one NVLink domain ({', '.join(replica.domains)})"
    return dataclasses.replace(replica, reasons={host: (*reasons, reason) for host, reasons in replica.reasons.items()})


def _cut_domains(
    replicas: Sequence[ReplicaNeed], taken: Sequence[ReplicaNeed], skipped: Mapping[str, Skip]
) -> Iterator[str]:
    """NVLink domains of which ``--limit`` or ``rollout_leave_serving`` names only a part."""
    kept = [
        replica
        for replica in replicas
        if replica.name in skipped and skipped[replica.name].code in (SkipCode.OUTSIDE_LIMIT, SkipCode.SERVING)
    ]
    for domain in sorted({domain for replica in taken for domain in replica.domains}):
        left = [replica.name for replica in kept if domain in replica.domains]
        if left:
            mine = [replica.name for replica in taken if domain in replica.domains]
            yield (
                f"{', '.join([*mine, *left])} are in one NVLink domain ({domain}) and change their driver together, and this "
                f"run leaves out {', '.join(left)}: {skipped[left[0]].reason}. Name all of them, or none"
            )


def _wave(n: int, chosen: Sequence[ReplicaNeed], serving: tuple[str, ...], canary: bool) -> Wave:
    zones = {replica.zone for replica in chosen}
    return Wave(
        n=n,
        replicas=tuple(replica.name for replica in chosen),
        hosts=tuple(host for replica in chosen for host in replica.hosts),
        reasons={host: tuple(reasons) for replica in chosen for host, reasons in replica.reasons.items()},
        zone=zones.pop() if len(zones) == 1 else None,
        canary=canary,
        serving=serving,
        drained=tuple(replica.name for replica in chosen if replica.serving),
        members={replica.name: replica.hosts for replica in chosen},
    )


def _skip(replica: ReplicaNeed, policy: Policy, limit: Collection[str] | None) -> Skip | None:
    """Why a replica is in no wave; None where it is to be taken."""
    if replica.need is Need.UP_TO_DATE:
        return Skip(SkipCode.UP_TO_DATE, "up to date")
    if limit is not None and replica.name not in limit:
        return Skip(SkipCode.OUTSIDE_LIMIT, "outside of --limit")
    if replica.serving and policy.leave_serving:
        return Skip(SkipCode.SERVING, "serving (rollout_leave_serving)")
    if replica.need is Need.QUARANTINED and not policy.include_quarantined:
        why = "; ".join(f"{host}: {', '.join(reasons)}" for host, reasons in replica.reasons.items() if reasons)
        return Skip(SkipCode.QUARANTINED, f"quarantined ({why or 'no reason recorded'})")
    return None


def _priority(replica: ReplicaNeed, order: tuple[str, ...]) -> tuple[int, int, bool]:
    place = order.index(replica.name) if replica.name in order else len(order)
    return _FIRST.index(replica.need), place, replica.serving


def _order_faults(replicas: Sequence[ReplicaNeed], policy: Policy) -> list[str]:
    known = {replica.name for replica in replicas}
    unknown = [name for name in policy.order if name not in known]
    twice = sorted({name for name in policy.order if policy.order.count(name) > 1})
    return [f"rollout_order names {name!r}, which is no replica of the inventory" for name in unknown] + [
        f"rollout_order names {name!r} twice" for name in twice
    ]


def until_open(window: Window, now: datetime.datetime) -> str:
    """What time it is and how long until the window opens, for people."""
    hours, minutes = divmod(window.minutes_until_open(now), 60)
    utc = now.astimezone(datetime.timezone.utc)
    return f"it is {utc:%H:%M} UTC, it opens in {hours} h {minutes:02d} min"


def _closed(window: Window, now: datetime.datetime, taken: Sequence[ReplicaNeed]) -> str:
    due = ", ".join(replica.name for replica in taken if replica.serving)
    return (
        f"the maintenance window {window} UTC is closed: {until_open(window, now)}, and {due} would be drained. "
        "Run this again then, or change rollout_window"
    )


def _floor_reason(
    waiting: Sequence[Sequence[ReplicaNeed]], serving: Collection[str], floor: int, policy: Policy, total: int
) -> str:
    origin = "by default" if policy.capacity_floor is None else f"rollout_capacity_floor={policy.capacity_floor}"
    rule = f"{floor} must keep serving ({origin})"
    if len(serving) > floor:  # one could be drained, so all that wait are more than one
        unit = waiting[0]
        names = ", ".join(replica.name for replica in unit)
        shared = ", ".join(sorted({domain for replica in unit for domain in replica.domains}))
        left = len(serving) - sum(replica.serving for replica in unit)
        return (
            f"{names} are in one NVLink domain ({shared}) and change their driver in one wave: {left} of {total} replicas "
            f"would serve meanwhile and {rule}. Allow a lower rollout_capacity_floor, or bring replicas of another domain "
            "into service"
        )
    names = ", ".join(replica.name for unit in waiting for replica in unit)
    return (
        f"{names} cannot be drained: {len(serving)} of {total} replicas would serve and {rule}. "
        "Bring more replicas into service, or allow a lower rollout_capacity_floor"
    )
