"""What each host and replica needs, with the reason: desired against observed. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from ..admission.quarantine import QuarantineKind
from ..driver import change_record
from .observed import HostState, Observed
from .settings import Settings
from .states import Mode, Need, Step
from .topology import Replica
from .waves import ReplicaNeed

DRIVER = ("nvidia_driver_version", "nvidia_driver_source", "nvidia_driver_flavor")

DISTURBING = frozenset({Step.DRIVER, Step.RUNTIME, Step.RAY, Step.SERVE, Step.GATES})
"""A replica that serves has to leave service for these; the others are done under it."""
ROLE_OF_STEP: Mapping[Step, str] = {
    Step.PREPARE: "gpu_host",
    Step.DRIVER: "nvidia_driver",
    Step.RUNTIME: "serving_runtime",
    Step.RAY: "ray_node",
    Step.SERVE: "vllm_server",
}
STEPS_OF_MODE: Mapping[Mode, Collection[Step]] = {
    Mode.CONVERGE: ROLE_OF_STEP.keys(),
    Mode.UPGRADE: (Step.PREPARE, Step.DRIVER),
    Mode.UPGRADE_RUNTIME: (Step.PREPARE, Step.RUNTIME),
    Mode.UPGRADE_MODEL: (Step.PREPARE, Step.RAY, Step.SERVE),
    Mode.VERIFY: (),
    Mode.ABORT: (Step.DRIVER,),
}
RETRIED: Mapping[Mode, Collection[QuarantineKind]] = {
    Mode.CONVERGE: (QuarantineKind.CHANGING, QuarantineKind.FAILED),
    Mode.UPGRADE: (QuarantineKind.CHANGING,),
    Mode.UPGRADE_RUNTIME: (QuarantineKind.CHANGING,),
    Mode.UPGRADE_MODEL: (QuarantineKind.CHANGING,),
    Mode.VERIFY: (QuarantineKind.CHANGING,),
    Mode.ABORT: (QuarantineKind.CHANGING, QuarantineKind.FAILED),
}
"""Quarantines that a run of each mode lifts once the host passes its gates."""


DesiredDriver = Mapping[str, "str | None"]
"""``version``, ``source`` and ``flavor``; None where the inventory does not say."""


@dataclasses.dataclass(frozen=True)
class Desired:
    """What the inventory declares of one host.

    Attributes:
        settings: every role's public variables with their values.
        inputs: role name to digest of its inputs (module_utils/core/manifests.py).
        runtime: what its lock promises of the serving environment (runtime_state.promised); empty where unknown.
        engine: of a head, the engine.json that it would get; None where its model is not set.
        environment_problem: why no host could build its serving environment; None where it could.
    """

    settings: Settings
    inputs: Mapping[str, str]
    runtime: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    engine: Mapping[str, Any] | None = None
    environment_problem: str | None = None

    @property
    def driver(self) -> DesiredDriver:
        """The driver that the host is to run."""
        mine = self.settings
        return {
            "version": mine.get("nvidia_driver_version"),
            "source": mine.get("nvidia_driver_source"),
            "flavor": mine.get("nvidia_driver_flavor"),
        }


@dataclasses.dataclass(frozen=True)
class HostNeed:
    """Steps that one host needs, in the order they are done, each with its reason."""

    host: str
    steps: Mapping[Step, str]

    @property
    def disturbing(self) -> bool:
        return not DISTURBING.isdisjoint(self.steps)


def host_need(
    host: str, desired: Desired, state: HostState, replica: Replica, head: HostState | None, mode: Mode
) -> HostNeed:
    """The steps that one host needs.

    Args:
        host: its name.
        desired: what the inventory declares of it.
        state: what the probe observed on it.
        replica: the replica that it belongs to.
        head: the state of the replica's head, where the replica stamp lies; None when it did not answer.
        mode: what the run is to do.
    """
    is_head = host == replica.head
    steps: dict[Step, str] = {}
    for step, role in ROLE_OF_STEP.items():
        if step not in STEPS_OF_MODE[mode] or (step is Step.SERVE and not is_head):
            continue
        reason = (
            _driver_step_reason(role, desired, state, mode) if step is Step.DRIVER else manifest_reason(role, state)
        )
        if step is Step.PREPARE and not reason and state.filter_problem:
            reason = f"packet filter: {state.filter_problem}"
        if step is Step.RAY and not reason and state.tunnel_problem:
            reason = f"tunnel: {state.tunnel_problem}"
        if reason:
            steps[step] = reason
    stamp_reason = _host_stamp_reason(host, steps, state) or (_replica_stamp_reason(replica, head) if is_head else None)
    if mode is Mode.VERIFY:
        steps[Step.GATES] = "requested"
    elif stamp_reason:
        steps[Step.GATES] = stamp_reason
    start_reason = _start_reason(state, is_head) or (None if Step.DRIVER in steps else _unfinished_reason(state))
    if not start_reason and state.unfinished_settings:
        # Also where the inventory was taken back meanwhile, so that no role is due: what is kept has to be let go of.
        start_reason = "the change of its settings did not complete"
    if start_reason:
        steps[Step.START] = start_reason
    return HostNeed(host, steps)


def _driver_step_reason(role: str, desired: Desired, state: HostState, mode: Mode) -> str | None:
    """Aborting goes back from the inventory's declaration, so what was applied of it is no reason then."""
    last = _unfinished_reason(state) if mode is Mode.ABORT else manifest_reason(role, state)
    return driver_reason(desired.settings, state) or last


def driver_reason(settings: Settings, state: HostState) -> str | None:
    """Why the driver is not the desired one, whole and held; None when it is.

    Where ``nvidia_driver_source`` is ``verify`` the packages are the platform's, and whether they are held is too.
    """
    version, driver = settings.get("nvidia_driver_version"), state.driver
    if driver.error:
        return f"the driver's state could not be read: {driver.error}"
    for found, what in ((driver.package_version, "package"), (driver.loaded_version, "loaded module")):
        if found != version:
            return f"{what} {found or 'absent'}, desired {version}"
    if driver.unheld and settings.get("nvidia_driver_source") != "verify":
        return f"not held: {', '.join(driver.unheld)}"
    return None


def manifest_reason(role: str, state: HostState) -> str | None:
    """Why a role has to be applied (again); None when nothing that it reads or writes has changed."""
    known = state.manifests.get(role)
    if known is None:
        return "never applied"
    if not known.current:
        return (
            "its variables or topology changed"
            if known.same_code
            else "this version of Lockstep does it in another way"
        )
    if known.drifted:
        return f"changed on the host: {', '.join(known.drifted)}"
    return None


def router_reason(state: HostState | None) -> str | None:
    """Why a router is due; None when it is configured as declared and runs that configuration."""
    if state is None or "haproxy.service" not in state.active:
        return "HAProxy is not running"
    if reason := manifest_reason("vllm_haproxy", state):
        return reason
    return f"{', '.join(state.unloaded)} runs an older configuration than its files" if state.unloaded else None


def _host_stamp_reason(host: str, steps: Mapping[Step, str], state: HostState) -> str | None:
    if state.quarantine is not None:
        return f"in quarantine: {state.quarantine}"
    if state.host_stamp is None:
        return "no host stamp"
    if state.host_stamp != state.fingerprint:
        unlike = f"given for {state.host_stamp or 'nothing'}, {host} now has {state.fingerprint}"
        return f"host stamp is void: {', '.join(state.stamp_changes) or unlike}"
    changing = sorted({Step.DRIVER, Step.RUNTIME} & set(steps))
    return f"{' and '.join(changing)} will change" if changing else None


def _replica_stamp_reason(replica: Replica, head: HostState | None) -> str | None:
    stamp = head.replica_stamp if head is not None else None
    if stamp is None:
        return "no replica stamp"
    if set(stamp) != set(replica.hosts):
        return f"replica stamp covers {', '.join(sorted(stamp))}; the replica's hosts are {', '.join(replica.hosts)}"
    return None


def _start_reason(state: HostState, is_head: bool) -> str | None:
    if "lockstep-ray.service" not in state.active:
        return "Ray is not running"
    if is_head and not state.serves:
        reason = state.engine_reason or "no reason known"
        return f"the engine does not serve ({state.engine_phase or 'not running'}: {reason})"
    return None


def _unfinished_reason(state: HostState) -> str | None:
    """A run ended between the gates and the last stage, where the replica may still be drained in HAProxy."""
    return f"the change to driver {state.unfinished_driver} did not complete" if state.unfinished_driver else None


def replica_need(
    replica: Replica, observed: Mapping[str, Observed], needs: Mapping[str, HostNeed], mode: Mode
) -> ReplicaNeed:
    """What a replica needs, from its hosts' ``needs``; a host without any is one that the run does not ask about."""
    mine = [needs[host] for host in replica.hosts if host in needs]
    states = [state for need in mine if (state := observed[need.host].state) is not None]
    reasons = {
        need.host: tuple(f"{step}: {reason}" for step, reason in need.steps.items()) for need in mine if need.steps
    }
    stale = stale_hosts(replica, observed) if mine else []
    for host in stale:
        reasons[host] = (*reasons.get(host, ()), "gates: the replica stamp was given for another fingerprint")
    head = observed[replica.head].state
    return ReplicaNeed(
        name=replica.name,
        hosts=replica.hosts,
        zone=replica.zone,
        serving=head is not None and head.serves,
        need=_need(
            {state.quarantine.kind for state in states if state.quarantine is not None},
            due=bool(stale) or any(set(need.steps) - {Step.PREPARE} for need in mine),
            unfinished=any(state.unfinished_driver or state.unfinished_settings for state in states),
            mode=mode,
        ),
        reasons=reasons,
        domains=_domains(states) if any(Step.DRIVER in need.steps for need in mine) else (),
    )


def _domains(states: Collection[HostState]) -> tuple[str, ...]:
    """The NVLink domains of a replica's hosts. Only a driver's change has to take a domain at once; so does one that was cut
    short, though GPUs whose driver is not loaded do not say theirs."""
    found = (state.driver.nvlink_domain or change_record.domain_before(state.change) for state in states)
    return tuple(sorted({domain for domain in found if domain}))


def stale_hosts(replica: Replica, observed: Mapping[str, Observed]) -> list[str]:
    """Hosts whose fingerprint is no longer the one that the head's replica stamp was given for."""
    head = observed[replica.head].state
    stamped = (head.replica_stamp if head is not None else None) or {}
    present = {host: state.fingerprint for host in replica.hosts if (state := observed[host].state) is not None}
    return [host for host, digest in present.items() if host in stamped and stamped[host] != digest]


def _need(kinds: Collection[QuarantineKind | None], due: bool, unfinished: bool, mode: Mode) -> Need:
    if any(kind not in RETRIED[mode] for kind in kinds):
        return Need.QUARANTINED
    if kinds or unfinished:
        return Need.HALF_DONE
    return Need.DUE if due else Need.UP_TO_DATE
