"""A plan as people read it, and as the plays that carry it out take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .plan import Found, Plan, serves
from .topology import Topology
from .waves import NEEDS_NOTHING


def members(plan: Plan, topology: Topology, found: Mapping[str, Found]) -> list[dict[str, Any]]:
    """One row per host that needs anything: ``host``, ``groups``, ``wave`` (0 where only ``prepare`` is due), ``steps``."""
    wave_of = {host: wave.n for wave in plan.waves for host in wave.hosts}
    in_order = [host for wave in plan.waves for host in wave.hosts]
    rest = [host for host in dict.fromkeys([*plan.steps, *plan.settled]) if host not in wave_of]
    rows = []
    for host in [*in_order, *rest]:
        steps = plan.steps.get(host, {})
        groups = [
            name
            for name, inside in (
                ("lockstep_prepare", "prepare" in steps),
                ("lockstep_prefetch", "driver" in steps),
                ("lockstep_waves", host in wave_of),
                ("lockstep_settled", host in plan.settled),
            )
            if inside
        ]
        replica = topology.replica_of(host)
        rows.append(
            {
                "host": host,
                "groups": groups,
                "wave": wave_of.get(host, 0),
                "wave_hosts": [name for wave in plan.waves if wave.n == wave_of.get(host) for name in wave.hosts],
                "steps": list(steps),
                "driver": dict(plan.drivers.get(host, {})),
                "replica": replica.name,
                "disturbed": replica.name in plan.disturbed,
                "serving": serves(found[replica.head].state),
            }
        )
    return rows


def render(plan: Plan, topology: Topology, found: Mapping[str, Found]) -> str:
    """The plan in words: what is done to whom, why, and who serves meanwhile."""
    if plan.refusals:
        return refused(plan.refusals)
    lines = [f"warning: {line}" for line in plan.warnings]
    only_prepare = [host for host in plan.prepare if all(host not in wave.hosts for wave in plan.waves)]
    for host in only_prepare:
        lines.append(f"{host}: prepare ({plan.steps[host]['prepare']}), under whatever serves")
    for wave in plan.waves:
        name = "canary" if wave.canary else "wave"
        serving = f"; meanwhile {', '.join(wave.serving)} serve" if wave.serving else ""
        lines.append(f"{name} {wave.n} of {len(plan.waves)}: {', '.join(wave.replicas)}{serving}")
        lines += [f"  {host}: {reason}" for host in wave.hosts for reason in wave.reasons.get(host, ())]
    lines += [f"{name}: left alone, {reason}" for name, reason in plan.skipped.items() if reason != NEEDS_NOTHING]
    idle = [name for name, reason in plan.skipped.items() if reason == NEEDS_NOTHING]
    if idle:
        answering = [replica.name for replica in topology.replicas if serves(found[replica.head].state)]
        lines.append(f"need nothing: {', '.join(idle)} (serving: {', '.join(answering) or 'none'})")
    return "\n".join(lines)


def refused(refusals: Sequence[str]) -> str:
    """The message of a run that must not begin."""
    count = "1 reason" if len(refusals) == 1 else f"{len(refusals)} reasons"
    return "\n".join([f"Refused before anything was changed, for {count}:", *(f"  - {line}" for line in refusals)])
