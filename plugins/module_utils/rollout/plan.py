"""What a run does to whom and in which waves: a pure function of what is desired and what was observed.

Nothing here talks to a host. ``build`` is given the topology, the settings and the probed state of every host, and what
is asked of the run, and gives a :class:`Plan`: waves with the reason for each host, or refusals that name host and
remediation. What hosts need is in ``needs``, what forbids the run in ``refusals``, the order in ``waves``.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Mapping

from ..admission.quarantine import QuarantineKind
from ..core.errors import StopError
from ..core.stop import Stop
from ..driver import change_record
from ..driver.versions import version_key
from . import refusals, request
from .driver_request import NOTHING_KNOWN, Known
from .left_out import LeftOut, left_out
from .needs import Desired, DesiredDriver, HostNeed, host_need, replica_need, stale_hosts
from .observed import Observed
from .policy import Policy
from .settings import Settings
from .states import Mode, SkipCode, Step
from .topology import Topology
from .waves import Refusals, Skip, Wave, WavePlan, waves

ACTIONS: Mapping[str, Mode] = {"roll": Mode.UPGRADE, "abort": Mode.ABORT}
"""What upgrade_driver.yml can be asked for (``rollout_action``), and the mode that it is."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What is asked of a run.

    Attributes:
        mode: what it is to do.
        policy: how much may be changed at once, and when.
        now: the present moment, with a time zone.
        limit: hosts that may be changed; None means all.
    """

    mode: Mode
    policy: Policy
    now: datetime.datetime
    limit: Collection[str] | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        waves: the waves, in order; empty where nothing that serves, or should serve, has to change.
        steps: host to step to reason, for every host that needs anything.
        prepare: hosts whose ``prepare`` step is due; done before the first wave, under whatever serves.
        disturbed: replicas whose Ray and engine are stopped in their wave.
        gated: replicas whose gates across hosts are due.
        drivers: per host of the waves, the driver that it is to run: ``version``, ``source`` and ``flavor``; in a refused
            plan, of the hosts whose driver would be due.
        completed: hosts whose roll is complete once the waves are done: then every replica runs what was rolled to.
        skipped: replica to why it is in no wave.
        left_out: those of them that do not get what was asked for, which this run ends with; None where all do.
        refusals: why the run must not begin; empty otherwise.
        warnings: what the operator should know all the same.
    """

    waves: tuple[Wave, ...] = ()
    steps: Mapping[str, Mapping[Step, str]] = dataclasses.field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()
    gated: tuple[str, ...] = ()
    drivers: Mapping[str, DesiredDriver] = dataclasses.field(default_factory=dict)
    completed: tuple[str, ...] = ()
    skipped: Mapping[str, Skip] = dataclasses.field(default_factory=dict)
    left_out: LeftOut | None = None
    refusals: tuple[Stop, ...] = ()
    warnings: tuple[Stop, ...] = ()

    @property
    def due_drivers(self) -> dict[str, DesiredDriver]:
        """Those of ``drivers`` that have to be installed or loaded."""
        return {
            host: driver
            for host, driver in self.drivers.items()
            if self.refusals or Step.DRIVER in self.steps.get(host, {})
        }


def build(
    topology: Topology,
    desired: Mapping[str, Desired],
    observed: Mapping[str, Observed],
    run: Run,
    known: Known = NOTHING_KNOWN,
) -> Plan:
    """Plan a run.

    Args:
        topology: the inventory's replicas, or its problems.
        desired: per host of the topology, what the inventory declares.
        observed: per host of the topology, what the probe observed.
        run: what is asked of the run.
        known: facts about the world to check by.
    """
    if topology.problems:
        return Plan(refusals=tuple(map(Stop, topology.problems)))
    allowed = set(desired) if run.limit is None else set(run.limit)
    asked = [replica for replica in topology.replicas if allowed & set(replica.hosts)]
    refused = [*refusals.cut_replicas(asked, allowed), *refusals.unanswered(asked, observed)]
    if run.mode is Mode.ABORT:
        desired, known = before_roll(topology, desired, observed), NOTHING_KNOWN
        if not desired and not refused:
            return Plan(refusals=(Stop(refusals.nothing_to_abort(observed)),))
    needs: dict[str, HostNeed] = {}
    for replica in topology.replicas:
        head = observed[replica.head].state
        for host in replica.hosts:
            state = observed[host].state
            if state is not None and host in desired:
                needs[host] = host_need(host, desired[host], state, replica, head, run.mode)
    examined = [
        refusals.replica_refusals(replica, desired, observed, needs, known)
        for replica in asked
        if replica.head in desired
    ]
    requested, warned = request.examine(topology, asked, desired, observed, needs, run.mode)
    warnings = (*(line for _refused, lines in examined for line in lines), *warned)
    refused += [*(line for lines, _warned in examined for line in lines), *requested]
    due = {
        host: desired[host].driver
        for replica in asked
        for host in replica.hosts
        if host in needs and Step.DRIVER in needs[host].steps
    }
    if refused:
        return Plan(refusals=tuple(refused), warnings=warnings, drivers=due)
    replicas = [replica_need(replica, observed, needs, run.mode) for replica in topology.replicas]
    names = {replica.name for replica in asked}
    decided = waves(replicas, run.policy, run.now, names)
    if isinstance(decided, Refusals):
        reasons = tuple(map(Stop, decided.reasons))
        return Plan(refusals=reasons, skipped=decided.skipped, warnings=warnings, drivers=due)
    older = _downgrades(desired, observed, due) if run.mode is Mode.CONVERGE else []
    warnings = (*warnings, *older, *_lifted(decided, observed))
    planned = dataclasses.replace(_in_waves(topology, observed, needs, decided, names), warnings=warnings)
    return dataclasses.replace(
        planned,
        drivers={host: desired[host].driver for wave in planned.waves for host in wave.hosts},
        left_out=left_out(
            run.mode, topology.replicas, needs, planned.skipped, {host: desired[host].driver for host in needs}
        ),
        completed=_completed(planned, topology, observed) if run.mode not in (Mode.VERIFY, Mode.ABORT) else (),
    )


def _downgrades(desired: Mapping[str, Desired], observed: Mapping[str, Observed], due: Collection[str]) -> list[Stop]:
    """Hosts that run a newer driver than is declared, as after a roll by ``-e`` that nobody wrote down."""
    found = []
    for host in due:
        state, asked = observed[host].state, str(desired[host].settings.get("nvidia_driver_version"))
        runs = state.driver.package_version or state.driver.loaded_version if state is not None else None
        if runs and version_key(runs) > version_key(asked):
            cause = f"runs driver {runs}, newer than {asked}, to which this run takes it back. To keep it, set "
            found.append(Stop(f'{cause}nvidia_driver_version: "{runs}" in the inventory', where=host))
    return found


def _lifted(decided: WavePlan, observed: Mapping[str, Observed]) -> list[Stop]:
    """What people have put in quarantine, and the run takes out of it, since it was asked to include such hosts."""
    records = {
        host: state.quarantine
        for wave in decided.waves
        for host in wave.hosts
        if (state := observed[host].state) is not None and state.quarantine is not None
    }
    return [
        Stop(f"leaves quarantine once its gates pass: {record}", where=host)
        for host, record in records.items()
        if record.kind is QuarantineKind.OPERATOR
    ]


def mode_of(action: str) -> Mode:
    """The mode of an action that was asked of a roll.

    Raises:
        StopError: it is none; the message says what is possible.
    """
    if action in ACTIONS:
        return ACTIONS[action]
    cause = f"rollout_action is {action!r}, expected {' or '.join(ACTIONS)}; nothing was changed"
    asked = action in ("pause", "resume")
    raise StopError(cause, f"ansible all -m lockstep.vllm.rollout_request -a action={action}" if asked else "")


def _in_waves(
    topology: Topology,
    observed: Mapping[str, Observed],
    needs: Mapping[str, HostNeed],
    decided: WavePlan,
    limit: Collection[str],
) -> Plan:
    """The plan of the waves: who is disturbed, who is gated, and every step but those of replicas that are skipped."""
    taken = {name for wave in decided.waves for name in wave.replicas}
    steps: dict[str, Mapping[Step, str]] = {}
    disturbed, gated = [], []
    for replica in topology.replicas:
        mine = [needs[host] for host in replica.hosts if host in needs]
        if replica.name in taken and (
            stale_hosts(replica, observed) or any(Step.GATES in need.steps for need in mine)
        ):  # fmt: skip
            gated.append(replica.name)
        if replica.name in gated or (replica.name in taken and any(need.disturbing for need in mine)):
            disturbed.append(replica.name)
        for need in mine if replica.name in limit else ():
            if need.steps and (replica.name in taken or set(need.steps) == {Step.PREPARE}):
                steps[need.host] = need.steps
    return Plan(
        waves=decided.waves,
        steps=steps,
        prepare=tuple(host for host, due in steps.items() if Step.PREPARE in due),
        disturbed=tuple(disturbed),
        gated=tuple(gated),
        skipped=decided.skipped,
    )


def _completed(planned: Plan, topology: Topology, observed: Mapping[str, Observed]) -> tuple[str, ...]:
    """Hosts whose roll is complete with this plan: those that remember one, once no replica is left that needs anything."""
    left = [name for name, skip in planned.skipped.items() if skip.code is not SkipCode.UP_TO_DATE]
    if left or any(answer.state is None for answer in observed.values()):
        return ()
    return tuple(
        host
        for replica in topology.replicas
        for host in replica.hosts
        if Step.DRIVER in planned.steps.get(host, {}) or change_record.has_open_roll(_change(observed[host]))
    )


def before_roll(
    topology: Topology, desired: Mapping[str, Desired], observed: Mapping[str, Observed]
) -> dict[str, Desired]:
    """What the hosts of replicas that an open roll has changed are to run again; hosts of others are not in it.

    A host that the roll did not reach stays with what was verified on it, beside the mates that go back.
    """
    result = {}
    for replica in topology.replicas:
        records = {host: _change(observed[host]) for host in replica.hosts}
        if not any(change_record.before_roll(record) for record in records.values()):
            continue
        for host, record in records.items():
            driver = change_record.before_roll(record) or record.get("verified")
            result[host] = _running(desired[host], driver) if driver else desired[host]
    return result


def _running(desired: Desired, driver: change_record.Driver) -> Desired:
    """The same, with another driver."""
    settings: Settings = {**desired.settings, "nvidia_driver_version": driver["version"]}
    if "source" in driver:
        settings["nvidia_driver_source"] = driver["source"]
    if "flavor" in driver:
        settings["nvidia_driver_flavor"] = driver["flavor"]
    return dataclasses.replace(desired, settings=settings)


def _change(answer: Observed) -> change_record.StoredRecord:
    return answer.state.change if answer.state is not None else {}
