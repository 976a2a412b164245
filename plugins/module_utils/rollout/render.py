"""A plan, and what forbids one, as people read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.stop import Stop
from ..core.wording import many
from .observed import Observed
from .plan import Plan
from .states import SkipCode, Step
from .topology import Topology


def text(plan: Plan, topology: Topology, observed: Mapping[str, Observed]) -> str:
    """What is done to whom, why, and who serves meanwhile."""
    if plan.refusals:
        return refused(plan.refusals)
    lines = [f"warning: {line}" for line in plan.warnings]
    only_prepare = [host for host in plan.prepare if all(host not in wave.hosts for wave in plan.waves)]
    for host in only_prepare:
        lines.append(f"{host}: prepare ({plan.steps[host][Step.PREPARE]}), under whatever serves")
    for wave in plan.waves:
        name = "canary" if wave.canary else "wave"
        serving = f"; meanwhile {', '.join(wave.serving)} serve" if wave.serving else ""
        lines.append(f"{name} {wave.n} of {len(plan.waves)}: {', '.join(wave.replicas)}{serving}")
        lines += [f"  {host}: {reason}" for host in wave.hosts for reason in wave.reasons.get(host, ())]
    up_to_date = [name for name, skip in plan.skipped.items() if skip.code is SkipCode.UP_TO_DATE]
    lines += [f"{name}: skipped: {skip.reason}" for name, skip in plan.skipped.items() if name not in up_to_date]
    if plan.left_out:
        lines.append(f"this run will end in a failure. {plan.left_out.stop}")
    if up_to_date:
        states = {replica.name: observed[replica.head].state for replica in topology.replicas}
        answering = [name for name, state in states.items() if state is not None and state.serves]
        lines.append(f"up to date: {', '.join(up_to_date)} (serving: {', '.join(answering) or 'none'})")
    return "\n".join(lines)


def refused(refusals: Sequence[Stop]) -> str:
    """The message of a run that must not begin. Only for what decides before any host is changed."""
    return "\n".join([f"Refused before anything was changed, for {_reasons(refusals)}:", *_listed(refusals)])


def invalid_inventory(problems: Sequence[str]) -> str:
    """The message of whatever needs the topology of an inventory that has none."""
    return "\n".join([f"The inventory means no cluster, for {_reasons(problems)}:", *_listed(problems)])


def _reasons(lines: Sequence[object]) -> str:
    return many(len(lines), "reason")


def _listed(lines: Sequence[object]) -> list[str]:
    return [f"  - {line}" for line in lines]
