"""What a run was asked for and does not do: replicas that its policy leaves out. Pure.

A roll that leaves a replica on its old driver (serving environment, model) is no success, however well the others went: it
ends in a failure, once they are done. ``--limit`` is another matter: what lies outside of it was not asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from ..core.stop import Stop
from .needs import DesiredDriver, HostNeed
from .states import Mode, SkipCode, Step
from .topology import Replica
from .waves import Skip

INCLUDED_BY: Mapping[SkipCode, str] = {
    SkipCode.QUARANTINED: "-e rollout_include_quarantined=true",
    SkipCode.SERVING: "-e rollout_leave_serving=false",
}
"""Why a replica is left out although it was asked for, and the option that takes it all the same."""
ASKS: Mapping[Mode, tuple[Step, str]] = {
    Mode.UPGRADE: (Step.DRIVER, "upgrade_driver"),
    Mode.ABORT: (Step.DRIVER, "upgrade_driver"),
    Mode.UPGRADE_RUNTIME: (Step.RUNTIME, "upgrade_runtime"),
    Mode.UPGRADE_MODEL: (Step.SERVE, "upgrade_model"),
}
"""Modes that ask for one step on every replica, and the playbook that does it."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Replicas that do not get what was asked for, their hosts, and what the run ends with."""

    replicas: tuple[str, ...]
    hosts: tuple[str, ...]
    stop: Stop


def left_out(
    mode: Mode,
    replicas: Iterable[Replica],
    needs: Mapping[str, HostNeed],
    skipped: Mapping[str, Skip],
    drivers: Mapping[str, DesiredDriver],
) -> LeftOut | None:
    """Who is left out; None where every replica gets, or has, what was asked for.

    Args:
        mode: what the run is to do.
        replicas: every replica of the cluster.
        needs: what each host needs; one that the run does not ask about is not in it.
        skipped: replica that is in no wave to why.
        drivers: host to the driver (``version``) that it is to run.
    """
    if mode not in ASKS:
        return None
    step, playbook = ASKS[mode]
    out: list[tuple[Replica, SkipCode, str]] = []
    versions: set[str] = set()
    for replica in replicas:
        skip = skipped.get(replica.name)
        due = {host: reason for host in replica.hosts
               if host in needs and (reason := needs[host].steps.get(step))}  # fmt: skip
        if skip is None or skip.code not in INCLUDED_BY or not due:
            continue
        reasons = "; ".join(f"{host}: {step}: {reason}" for host, reason in due.items())
        # What a replica in quarantine needs stands in its reason already.
        why = skip.reason if skip.code is SkipCode.QUARANTINED else f"{skip.reason} ({reasons})"
        out.append((replica, skip.code, f"  - {replica.name} was left out: {why}"))
        versions |= {str(drivers[host].get("version")) for host in due if step is Step.DRIVER}
    if not out:
        return None
    if mode is Mode.ABORT:
        asked = ["-e rollout_action=abort"]
    else:  # where replicas are to run different drivers, the inventory says which
        asked = [f"-e nvidia_driver_version={versions.pop()}"] if len(versions) == 1 else []
    names = tuple(replica.name for replica, _code, _line in out)
    options = dict.fromkeys(INCLUDED_BY[code] for _replica, code, _line in out)
    command = (f"ansible-playbook playbooks/{playbook}.yml", *asked, *options, f"--limit {','.join(names)}")
    return LeftOut(
        replicas=names,
        hosts=tuple(host for replica, _code, _line in out for host in replica.hosts),
        stop=Stop("\n".join(["Asked for and not done:", *(line for _replica, _code, line in out)]), " ".join(command)),
    )
