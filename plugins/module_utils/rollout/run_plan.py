"""What the plan action hands to the playbooks and to the report: one typed value, JSON-ready once."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from ..core.codes import as_json
from .needs import DesiredDriver
from .observed import Observed
from .plan import Plan, Run
from .render import lines, text
from .states import SkipCode, Step
from .topology import Topology
from .waves import Wave


@dataclasses.dataclass(frozen=True)
class Member:
    """One host that needs anything, as the plays take it; or the controller in a wave, which outlives all of its hosts.

    Attributes:
        host: its name.
        groups: the groups of the plays that concern it (``lockstep_prepare``, ``lockstep_waves`` …).
        wave: number of its wave; 0 where it is in none.
        wave_hosts: all hosts of that wave.
        steps: what is due, in order.
        driver: ``version``, ``source`` and ``flavor`` that it is to run; empty outside of the waves.
        replica: the replica that it belongs to.
        disturbed: whether that replica leaves service.
        serving: whether that replica answered requests when the plan was made.
    """

    host: str
    groups: tuple[str, ...]
    wave: int
    wave_hosts: tuple[str, ...]
    steps: tuple[Step, ...]
    driver: DesiredDriver
    replica: str
    disturbed: bool
    serving: bool


WATCH = "lockstep_wave_{n}"
"""Name of the controller in a wave. Ansible ends a run where no host of a batch can be reached any more, whatever was to
follow; with this one in it, which needs no connection, the verdict is given and the lock released all the same."""


def watch(wave: Wave, others: Collection[str] = ()) -> Member:
    """The controller, as the last member of a batch; the first wave's is in the ``others`` too, the plays around the waves."""
    groups = ("lockstep_watch", "lockstep_waves", *(others if wave.n == 1 else ()))
    return Member(WATCH.format(n=wave.n), groups, wave.n, wave.hosts, (), {}, wave.replicas[0], False, False)


def members(plan: Plan, topology: Topology, observed: Mapping[str, Observed]) -> list[Member]:
    """One row per host that needs anything, in the order of the waves; those that are in none last.

    After the hosts of each wave comes the controller's own row.
    """
    left_out = plan.left_out.hosts if plan.left_out else ()
    wave_of = {host: wave for wave in plan.waves for host in wave.hosts}
    rest = [host for host in dict.fromkeys([*plan.steps, *plan.completed, *left_out]) if host not in wave_of]
    driven = any(Step.DRIVER in due for due in plan.steps.values())
    plays = {"lockstep_prepare": plan.prepare, "lockstep_prefetch": driven, "lockstep_completed": plan.completed}
    around = [name for name, anyone in plays.items() if anyone]
    rows = []
    for host in [*wave_of, *rest]:
        steps, wave = plan.steps.get(host, {}), wave_of.get(host)
        groups = {
            "lockstep_prepare": Step.PREPARE in steps,
            "lockstep_prefetch": Step.DRIVER in steps,
            "lockstep_waves": wave is not None,
            "lockstep_completed": host in plan.completed,
            "lockstep_left_out": host in left_out,
        }
        replica = topology.replica_of(host)
        head = observed[replica.head].state
        rows.append(
            Member(
                host=host,
                groups=tuple(name for name, inside in groups.items() if inside),
                wave=wave.n if wave else 0,
                wave_hosts=wave.hosts if wave else (),
                steps=tuple(steps),
                driver=plan.drivers.get(host, {}),
                replica=replica.name,
                disturbed=replica.name in plan.disturbed,
                serving=head is not None and head.serves,
            )
        )
        if wave and host == wave.hosts[-1]:
            rows.append(watch(wave, around))
    return rows


def as_left_out(plan: Plan) -> dict[str, Any]:
    """Who is left out, and the message that the run ends with; empty where nobody is."""
    out = plan.left_out
    return {"replicas": list(out.replicas), "cause": out.stop.cause, "next": out.stop.next} if out else {}


def as_dict(
    name: str, run: Run, plan: Plan, topology: Topology, observed: Mapping[str, Observed], routers: list[str]
) -> dict[str, Any]:
    """The plan as playbooks, callback and report read it; plugins/modules/plan.py documents it (``lockstep_plan``)."""
    return {
        "run": name,
        "mode": run.mode.value,
        "began": run.now.timestamp(),
        "waves": as_json(plan.waves),
        "steps": as_json(plan.steps),
        "prepare": list(plan.prepare),
        "disturbed": list(plan.disturbed),
        "gated": list(plan.gated),
        "skipped": {replica: skip.reason for replica, skip in plan.skipped.items()},
        "up_to_date": [name for name, skip in plan.skipped.items() if skip.code is SkipCode.UP_TO_DATE],
        "answering": [
            replica.name
            for replica in topology.replicas
            if (head := observed.get(replica.head)) is not None and head.state is not None and head.state.serves
        ],
        "left_out": as_left_out(plan),
        "refused": bool(plan.refusals),
        "warnings": lines(plan.warnings),
        "members": as_json(members(plan, topology, observed)),
        "routers": routers,
        "floor": run.policy.floor(len(topology.replicas)),
        "window": str(run.policy.window or ""),
        "pause_between": run.policy.pause_between,
        "bake": {
            "seconds": run.policy.bake_seconds,
            "latency_factor": run.policy.bake_latency_factor,
            "error_share": run.policy.bake_error_share,
            "requests": run.policy.bake_requests,
        },
        "text": text(plan, topology, observed),
    }
