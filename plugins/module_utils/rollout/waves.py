"""Which replicas are changed together, in which order, and whether that is allowed at all.

A pure function of what each replica needs, the operator's policy and the time: :func:`waves` gives a :class:`WavePlan`
or :class:`Refusals`, never a plan that breaks the policy.

The rules:

* A replica that needs nothing is skipped. A quarantined one is named and left, unless the policy asks for it.
* Where no replica serves at all there is nothing to protect: all of them come up in one wave.
* Otherwise half-done replicas come first, then those quarantined that were asked for, then the due ones; within each of
  these the operator's order, then those that don't serve before those that do.
* The first wave is the canary. A wave is never larger than the policy says, never mixes zones, and never leaves fewer
  replicas serving than the capacity floor. A replica that doesn't serve costs no capacity and gives some afterwards, so
  it may be taken ahead of one that the floor forbids for now.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

Need = Literal["done", "half_done", "due", "quarantined"]
Share = int | str

_PERCENT = re.compile(r"^\s*(\d{1,3})\s*%\s*$")
_WINDOW = re.compile(r"^([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)$")
NEEDS_NOTHING = "needs nothing"
_RANK: dict[Need, int] = {"half_done": 0, "quarantined": 1, "due": 2}


@dataclasses.dataclass(frozen=True)
class ReplicaNeed:
    """What one replica needs.

    Attributes:
        name: the replica.
        hosts: its hosts, head first.
        zone: the failure zone it lies in; None is a zone like any other.
        serving: whether it answers requests now, so that taking it costs capacity.
        need: ``done`` (nothing), ``half_done`` (a change was begun and not finished), ``due``, or ``quarantined``.
        reasons: per host, in words, why it needs what it needs.
    """

    name: str
    hosts: tuple[str, ...]
    zone: str | None = None
    serving: bool = False
    need: Need = "due"
    reasons: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Policy:
    """How much may be changed at once, when, and in which order.

    Attributes:
        canary: replicas in the first wave.
        wave_size: replicas in each later wave: a count, or a percentage of all replicas (rounded down, at least 1).
        capacity_floor: replicas that must keep serving throughout: a count, or a percentage of all replicas (rounded
            up). None means 1 where there are two replicas or more, and 0 for a single one.
        window: ``HH:MM-HH:MM`` in UTC, outside of which no serving replica is taken; may cross midnight. None: always.
        pause_between: seconds between two waves.
        bake_seconds: seconds for which a wave is watched before the next, against how it served before (``bake``).
        bake_latency_factor: how many times longer tokens may take then.
        bake_error_share: by how much the share of requests that end badly may grow.
        bake_requests: how many requests it takes to compare; with fewer, the bake sends its own.
        order: replicas to take first, in this order; the others follow as the inventory has them.
        include_quarantined: take quarantined replicas too.
        leave_serving: take only replicas that don't serve.
    """

    canary: int = 1
    wave_size: Share = "25%"
    capacity_floor: Share | None = None
    window: str | None = None
    pause_between: float = 0
    bake_seconds: float = 0
    bake_latency_factor: float = 2.0
    bake_error_share: float = 0.02
    bake_requests: int = 20
    order: tuple[str, ...] = ()
    include_quarantined: bool = False
    leave_serving: bool = False

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Policy:
        """A policy from an operator's variables; keys are the attribute names, None or absent means the default.

        Raises:
            ValueError: a key is unknown or a value cannot be used; the message has every fault, one per line.
        """
        given = {key: value for key, value in values.items() if value is not None and value != ""}
        unknown = sorted(set(given) - {field.name for field in dataclasses.fields(cls)})
        faults = [f"rollout policy has no {key!r}" for key in unknown]
        converted: dict[str, Any] = {}
        for key in sorted(set(given) - set(unknown)):
            try:
                converted[key] = _CONVERSIONS[key](given[key])
            except (TypeError, ValueError):
                faults.append(f"rollout policy: {key} is {given[key]!r}, wanted {_WANTED[key]}")
        if faults:
            raise ValueError("\n".join(faults))
        policy = cls(**converted)
        faults = policy_faults(policy)
        if faults:
            raise ValueError("\n".join(faults))
        return policy


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

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "n": self.n,
            "replicas": list(self.replicas),
            "hosts": list(self.hosts),
            "reasons": {host: list(reasons) for host, reasons in self.reasons.items()},
            "zone": self.zone,
            "canary": self.canary,
            "serving": list(self.serving),
            "drained": list(self.drained),
            "members": {name: list(hosts) for name, hosts in self.members.items()},
        }


@dataclasses.dataclass(frozen=True)
class WavePlan:
    """Waves in order, and per replica that is in none of them the reason."""

    waves: tuple[Wave, ...]
    skipped: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form: ``waves``, ``skipped`` and an empty ``refusals``."""
        return {"waves": [wave.as_dict() for wave in self.waves], "skipped": dict(self.skipped), "refusals": []}


@dataclasses.dataclass(frozen=True)
class Refusals:
    """Why there is no plan: each reason names the cause and the cure."""

    reasons: tuple[str, ...]
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form: no ``waves``, and ``refusals``."""
        return {"waves": [], "skipped": dict(self.skipped), "refusals": list(self.reasons)}


def waves(
    replicas: Sequence[ReplicaNeed],
    policy: Policy,
    now: datetime.datetime,
    limit: Collection[str] | None = None,
) -> WavePlan | Refusals:
    """Decide the waves.

    Args:
        replicas: **every** replica of the cluster, in the inventory's order, also those that need nothing: the floor
            counts them.
        policy: what the operator allows.
        now: the present moment, with a time zone; held against the window.
        limit: names of the replicas that may be taken (``--limit``); None means all.

    Returns:
        A plan, which may have no waves, or the reasons for which there is none.
    """
    faults = policy_faults(policy) + _order_faults(replicas, policy)
    if faults:
        return Refusals(tuple(faults))
    skipped = _skipped(replicas, policy, limit)
    taken = [replica for replica in replicas if replica.name not in skipped]
    if not taken:
        return WavePlan((), skipped)
    serving = [replica.name for replica in replicas if replica.serving]
    if not serving:
        return WavePlan((_wave(1, taken, (), canary=False),), skipped)
    if not window_open(policy.window, now) and any(replica.serving for replica in taken):
        return Refusals((_closed(policy.window or "", now, taken),), skipped)
    return _in_turn(replicas, taken, policy, skipped)


def policy_faults(policy: Policy) -> list[str]:
    """What makes a policy unusable, in words; empty when it can be used."""
    faults = []
    if policy.canary < 1:
        faults.append(f"rollout policy: canary is {policy.canary}, wanted 1 or more replicas")
    if _share_fault(policy.wave_size, least=1):
        faults.append(f"rollout policy: wave_size is {policy.wave_size!r}, wanted {_WANTED['wave_size']}")
    if policy.capacity_floor is not None and _share_fault(policy.capacity_floor, least=0):
        faults.append(
            f"rollout policy: capacity_floor is {policy.capacity_floor!r}, wanted {_WANTED['capacity_floor']}"
        )
    if policy.window is not None and not _WINDOW.match(policy.window):
        faults.append(f"rollout policy: window is {policy.window!r}, wanted {_WANTED['window']}")
    for name in ("pause_between", "bake_seconds"):
        if not 0 <= getattr(policy, name) < math.inf:
            faults.append(f"rollout policy: {name} is {getattr(policy, name)}, wanted {_WANTED[name]}")
    bake = (("bake_latency_factor", 1, math.inf), ("bake_error_share", 0, 1), ("bake_requests", 1, math.inf))
    for name, least, most in bake:
        if not least <= getattr(policy, name) <= most:
            faults.append(f"rollout policy: {name} is {getattr(policy, name)}, wanted {_WANTED[name]}")
    return faults


def window_open(window: str | None, now: datetime.datetime) -> bool:
    """Whether ``now`` lies in the maintenance window (start included, end not). None is always open.

    The wave play asks this again before each wave: a roll that outlives its window stops between two waves.
    """
    if window is None:
        return True
    start, end = _window_minutes(window)
    return (_minute(now) - start) % _DAY < ((end - start) % _DAY or _DAY)


def minutes_until_open(window: str, now: datetime.datetime) -> int:
    """Whole minutes until the window opens; 0 while it is open."""
    return 0 if window_open(window, now) else (_window_minutes(window)[0] - _minute(now)) % _DAY


@dataclasses.dataclass(frozen=True)
class Capacity:
    """Who answers requests at this moment.

    Attributes:
        floor: how many replicas must.
        unready: per head, why its replica does not; empty where it does. A head that was not asked is missing.
        taken: hosts of the wave that is about to begin.
    """

    floor: int
    unready: Mapping[str, str]
    taken: Collection[str]

    def lack(self) -> str | None:
        """Why the wave would leave too few; None where it leaves enough, or takes nobody who answers."""
        answer = [head for head, why in self.unready.items() if not why]
        left = [head for head in answer if head not in self.taken]
        if len(left) >= self.floor or len(left) == len(answer):
            return None
        away = [f"{head}: {why}" for head, why in self.unready.items() if why]
        others = f" ({'; '.join(away)})" if away else ""
        return (
            f"of {len(self.unready)} replicas {len(answer)} answer requests now{others}: this wave would leave {len(left)}, "
            f"and the capacity floor is {self.floor}"
        )


def hindrance(
    wave: tuple[int, int],
    request: Mapping[str, Any] | None,
    window: str | None,
    now: datetime.datetime,
    drains: bool,
    aborting: bool = False,
    capacity: Capacity | None = None,
) -> str | None:
    """Why a planned wave must not begin now, with the next command; None where it may.

    Args:
        wave: its number, and how many there are.
        request: what people ask of the roll (module_utils/rollout/lock.py).
        window: the policy's maintenance window.
        now: the present moment, with a time zone.
        drains: whether the wave takes a replica that serves; one that does not may come up at any time.
        aborting: whether this run is itself what a request to abort asks for.
        capacity: who answers requests now; None where nobody was asked.
    """
    action = str((request or {}).get("action"))
    not_begun = f"wave {wave[0]} of {wave[1]} was not begun, and nothing that serves was touched for it"
    if request and action in (("pause",) if aborting else ("pause", "abort")):
        reason = f" ({request['reason']})" if request.get("reason") else ""
        following = {
            "pause": "ansible all -m lockstep.vllm.rollout_request -a action=resume, then run this again",
            "abort": "ansible-playbook playbooks/upgrade_driver.yml -e rollout_action=abort",
        }[action]
        asked = f"{request.get('by') or 'somebody'} asked to {action}{reason} at {request.get('at')}"
        return f"{asked}; {not_begun}. Next: {following}"
    if drains and not window_open(window, now):
        hours, minutes = divmod(minutes_until_open(window or "", now), 60)
        utc = now.astimezone(datetime.timezone.utc)
        return (
            f"the maintenance window {window} UTC is over: it is {utc:%H:%M} UTC, it opens again in {hours} h "
            f"{minutes:02d} min; {not_begun}. Next: the same command again then; it goes on with wave {wave[0]}"
        )
    lack = capacity.lack() if capacity is not None and drains else None
    if lack:
        return (
            f"{lack}; {not_begun}. Next: ansible-playbook playbooks/status.yml, mend what does not serve, then the same "
            f"command again; it goes on with wave {wave[0]}"
        )
    return None


def floor_of(policy: Policy, total: int) -> int:
    """How many of ``total`` replicas must keep serving."""
    if policy.capacity_floor is None:
        return 1 if total > 1 else 0
    return _count(policy.capacity_floor, total, math.ceil)


def size_of(policy: Policy, total: int) -> int:
    """How many of ``total`` replicas a wave after the canary may hold; at least 1."""
    return max(1, _count(policy.wave_size, total, math.floor))


def _in_turn(
    replicas: Sequence[ReplicaNeed], taken: Sequence[ReplicaNeed], policy: Policy, skipped: Mapping[str, str]
) -> WavePlan | Refusals:
    waiting = sorted(taken, key=lambda replica: _priority(replica, policy.order))
    serving = {replica.name for replica in replicas if replica.serving}
    floor, size = floor_of(policy, len(replicas)), size_of(policy, len(replicas))
    result: list[Wave] = []
    while waiting:
        most = size if result else policy.canary
        chosen = _next(waiting, most, len(serving) - floor)
        if not chosen:
            return Refusals((_floor_reason(waiting, serving, floor, policy, len(replicas)),), skipped)
        waiting = [replica for replica in waiting if replica not in chosen]
        names = {replica.name for replica in chosen}
        left = tuple(replica.name for replica in replicas if replica.name in serving - names)
        result.append(_wave(len(result) + 1, chosen, left, canary=not result and bool(waiting)))
        serving |= names
    return WavePlan(tuple(result), skipped)


def _next(waiting: Sequence[ReplicaNeed], most: int, spare: int) -> list[ReplicaNeed]:
    """The next wave: like the first replica that may be taken, up to ``most``, at most ``spare`` that serve."""
    chosen: list[ReplicaNeed] = []
    for replica in waiting:
        if len(chosen) == most:
            break
        if replica.serving and sum(other.serving for other in chosen) >= spare:
            continue
        if not chosen or (replica.zone, replica.need) == (chosen[0].zone, chosen[0].need):
            chosen.append(replica)
    return chosen


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


def _skipped(replicas: Sequence[ReplicaNeed], policy: Policy, limit: Collection[str] | None) -> dict[str, str]:
    skipped = {}
    for replica in replicas:
        if replica.need == "done":
            skipped[replica.name] = NEEDS_NOTHING
        elif limit is not None and replica.name not in limit:
            skipped[replica.name] = "outside of --limit"
        elif replica.serving and policy.leave_serving:
            skipped[replica.name] = "serves, and what serves is to be left alone"
        elif replica.need == "quarantined" and not policy.include_quarantined:
            why = "; ".join(f"{host}: {', '.join(reasons)}" for host, reasons in replica.reasons.items() if reasons)
            skipped[replica.name] = f"quarantined ({why or 'no reason is known'})"
    return skipped


def _priority(replica: ReplicaNeed, order: tuple[str, ...]) -> tuple[int, int, bool]:
    place = order.index(replica.name) if replica.name in order else len(order)
    return _RANK[replica.need], place, replica.serving


def _order_faults(replicas: Sequence[ReplicaNeed], policy: Policy) -> list[str]:
    known = {replica.name for replica in replicas}
    unknown = [name for name in policy.order if name not in known]
    twice = sorted({name for name in policy.order if policy.order.count(name) > 1})
    return [f"rollout policy: order names {name!r}, which is no replica of the inventory" for name in unknown] + [
        f"rollout policy: order names {name!r} twice" for name in twice
    ]


def _closed(window: str, now: datetime.datetime, taken: Sequence[ReplicaNeed]) -> str:
    hours, minutes = divmod(minutes_until_open(window, now), 60)
    due = ", ".join(replica.name for replica in taken if replica.serving)
    utc = now.astimezone(datetime.timezone.utc)
    return (
        f"the maintenance window {window} UTC is closed: it is {utc:%H:%M} UTC, it opens in {hours} h "
        f"{minutes:02d} min, and {due} would be taken from service. Run this again then, or change the policy's window"
    )


def _floor_reason(
    waiting: Sequence[ReplicaNeed], serving: Collection[str], floor: int, policy: Policy, total: int
) -> str:
    said = "by default" if policy.capacity_floor is None else f"capacity_floor={policy.capacity_floor}"
    names = ", ".join(replica.name for replica in waiting)
    return (
        f"{names} cannot be taken: {len(serving)} of {total} replicas would serve and {floor} must keep serving "
        f"({said}). Bring more replicas into service, or allow a lower capacity_floor"
    )


_DAY = 24 * 60


def _window_minutes(window: str) -> tuple[int, int]:
    match = _WINDOW.match(window)
    if match is None:
        raise ValueError(f"window is {window!r}, wanted {_WANTED['window']}")
    start_hour, start_minute, end_hour, end_minute = (int(part) for part in match.groups())
    return start_hour * 60 + start_minute, end_hour * 60 + end_minute


def _minute(now: datetime.datetime) -> int:
    utc = now.astimezone(datetime.timezone.utc)
    return utc.hour * 60 + utc.minute


def _percent(share: Share) -> int | None:
    match = _PERCENT.match(share) if isinstance(share, str) else None
    return int(match.group(1)) if match else None


def _count(share: Share, total: int, rounded: Any) -> int:
    percent = _percent(share)
    return int(share) if percent is None else int(rounded(total * percent / 100))


def _share_fault(share: Share, least: int) -> bool:
    percent = _percent(share)
    if percent is not None:
        return not least <= percent <= 100
    return not isinstance(share, int) or share < least


def _share(value: Any) -> Share:
    """A count or a percentage as variables carry it: ``3``, ``"3"`` or ``"25%"``."""
    return str(value) if isinstance(value, str) and "%" in value else _whole(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _seconds(value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(value)
    return float(value)


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(str(part) for part in value)


def _truth(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    return words[str(value).lower()] if str(value).lower() in words else bool(_whole(value))


_CONVERSIONS: dict[str, Any] = {
    "canary": _whole,
    "wave_size": _share,
    "capacity_floor": _share,
    "window": str,
    "pause_between": _seconds,
    "bake_seconds": _seconds,
    "bake_latency_factor": _seconds,
    "bake_error_share": _seconds,
    "bake_requests": _whole,
    "order": _names,
    "include_quarantined": _truth,
    "leave_serving": _truth,
}
_WANTED = {
    "canary": "a number of replicas, 1 or more",
    "wave_size": "a number of replicas (1 or more) or a percentage (1% to 100%)",
    "capacity_floor": "a number of replicas or a percentage (0% to 100%)",
    "window": "HH:MM-HH:MM in UTC",
    "pause_between": "seconds, 0 or more",
    "bake_seconds": "seconds, 0 or more",
    "bake_latency_factor": "a number, 1 or more",
    "bake_error_share": "a share, 0 to 1",
    "bake_requests": "a number of requests, 1 or more",
    "order": "a list of replicas",
    "include_quarantined": "true or false",
    "leave_serving": "true or false",
}
