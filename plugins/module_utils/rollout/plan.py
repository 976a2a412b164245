"""What every host needs and in which waves it gets it: a pure function of what is wanted and what was found.

Nothing here talks to a host. ``build`` is given the topology, the settings and the surveyed state of every host, and the
operator's policy, and gives a :class:`Plan`: waves with the reason for each host, or refusals that name host and cure.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from ..driver import change_record, known_issues
from ..driver import packages as driver_packages
from ..runtime import state as runtime_state
from .topology import Replica, Topology
from .waves import NEEDS_NOTHING, Policy, Refusals, ReplicaNeed, Wave, waves

Mode = Literal["converge", "upgrade", "verify", "abort"]
MODES: tuple[Mode, ...] = ("converge", "upgrade", "verify", "abort")
ACTIONS: Mapping[str, Mode] = {"roll": "upgrade", "abort": "abort"}
"""What upgrade_driver.yml can be asked for (``rollout_action``), and the mode that it is."""
DRIVER = ("nvidia_driver_version", "nvidia_driver_source", "nvidia_driver_flavor")

# A replica that serves has to leave service for these; the others are done under it.
DISTURBING = frozenset({"driver", "runtime", "ray", "serve", "gates"})
ROLE_OF_STEP = {
    "prepare": "gpu_host",
    "driver": "nvidia_driver",
    "runtime": "serving_runtime",
    "ray": "ray_node",
    "serve": "vllm_server",
}
STEPS_OF_MODE: Mapping[Mode, Collection[str]] = {
    "converge": ROLE_OF_STEP.keys(),
    "upgrade": ("prepare", "driver"),
    "verify": (),
    "abort": ("driver",),
}
NEEDED_FREE_MIB = {"driver": {"/var": 2048}, "runtime": {"/opt": 4096}}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the inventory wants of one host.

    Attributes:
        settings: every role's public variables with their values.
        inputs: role name to digest of its inputs (module_utils/core/manifests.py).
        runtime: what its lock promises of the serving environment (runtime_state.promised); empty where unknown.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    runtime: Mapping[str, str | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Found:
    """What the survey found on one host: its ``state``, or the ``error`` for which there is none."""

    state: Mapping[str, Any] | None = None
    error: str | None = None
    reachable: bool = True


@dataclasses.dataclass(frozen=True)
class HostNeed:
    """Steps that one host needs, in the order they are done, each with its reason."""

    host: str
    steps: Mapping[str, str]
    quarantine: Mapping[str, Any] | None = None

    @property
    def disturbing(self) -> bool:
        return not DISTURBING.isdisjoint(self.steps)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        waves: the waves, in order; empty where nothing that serves, or should serve, has to change.
        steps: host to step to reason, for every host that needs anything.
        prepare: hosts whose ``prepare`` step is due; done before the first wave, under whatever serves.
        disturbed: replicas whose Ray and engine are stopped in their wave.
        gated: replicas whose gates across hosts are due.
        drivers: per host of the waves, the driver that it is to run: ``version``, ``source`` and ``flavor``.
        settled: hosts whose roll is over once the waves are done: then every replica runs what was rolled to.
        skipped: replica to why it is in no wave.
        refusals: why the run must not begin; empty otherwise.
        warnings: what the operator should know all the same.
    """

    waves: tuple[Wave, ...] = ()
    steps: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()
    gated: tuple[str, ...] = ()
    drivers: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    settled: tuple[str, ...] = ()
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "waves": [wave.as_dict() for wave in self.waves],
            "steps": {host: dict(steps) for host, steps in self.steps.items()},
            "prepare": list(self.prepare),
            "disturbed": list(self.disturbed),
            "gated": list(self.gated),
            "left_alone": dict(self.skipped),
            "refusals": list(self.refusals),
            "warnings": list(self.warnings),
        }


def build(
    topology: Topology,
    wanted: Mapping[str, Wanted],
    found: Mapping[str, Found],
    policy: Policy,
    mode: Mode,
    now: datetime.datetime,
    limit: Collection[str] | None = None,
    issues: Sequence[Mapping[str, Any]] = (),
) -> Plan:
    """Plan a run.

    Args:
        topology: the inventory's replicas, or its problems.
        wanted: per host of the topology, what the inventory wants.
        found: per host of the topology, what the survey found.
        policy: how much may be changed at once, and when.
        mode: ``converge`` (site.yml) does all that is due; ``upgrade`` only what a driver change needs, and leaves
            hosts alone that failed before; ``verify`` changes nothing and runs every gate again; ``abort`` takes every host
            back to the driver that it ran before the roll that is not over, whatever the inventory declares.
        now: the present moment, with a time zone.
        limit: hosts that may be changed; None means all.
        issues: rows of data/known_issues.yml.
    """
    if topology.problems:
        return Plan(refusals=topology.problems)
    allowed = set(wanted) if limit is None else set(limit)
    asked = [replica for replica in topology.replicas if allowed & set(replica.hosts)]
    refusals = [*_cut_replicas(asked, allowed), *_unanswered(asked, found)]
    if refusals:
        return Plan(refusals=tuple(refusals))
    if mode == "abort":
        wanted, found, issues = taken_back(topology, wanted, found), without_offers(found), ()
        if not wanted:
            return Plan(refusals=(nothing_to_abort(found),))
    needs = {
        host: host_need(host, wanted[host], state, replica, _head_state(replica, found), mode)
        for replica in topology.replicas
        for host in replica.hosts
        if (state := found[host].state) is not None and host in wanted
    }
    judged = [_judge(replica, wanted, found, needs, issues) for replica in asked if replica.head in wanted]
    warnings = tuple(line for _refused, warned in judged for line in warned)
    refusals = [line for refused, _warned in judged for line in refused]
    if refusals:
        return Plan(refusals=tuple(refusals), warnings=warnings)
    planned = _in_waves(topology, found, needs, policy, mode, now, {replica.name for replica in asked}, warnings)
    return dataclasses.replace(
        planned,
        drivers={host: driver_of(wanted[host]) for wave in planned.waves for host in wave.hosts},
        settled=_settled(planned, topology, found) if mode in ("converge", "upgrade") else (),
    )


def mode_of(action: str) -> Mode:
    """The mode of an action that was asked of a roll.

    Raises:
        ValueError: it is none; the message says what is possible.
    """
    if action in ACTIONS:
        return ACTIONS[action]
    message = f"rollout_action is {action!r}, wanted {' or '.join(ACTIONS)}; nothing was changed"
    if action in ("pause", "resume"):
        message += f". Next: ansible all -m lockstep.vllm.rollout_request -a action={action}"
    raise ValueError(message)


def driver_of(wanted: Wanted) -> dict[str, Any]:
    """The driver that a host is to run: ``version``, ``source`` and ``flavor``."""
    return {name.rpartition("_")[2]: wanted.settings.get(name) for name in DRIVER}


def _settled(planned: Plan, topology: Topology, found: Mapping[str, Found]) -> tuple[str, ...]:
    """Hosts whose roll is over with this plan: those that remember one, once no replica is left that needs anything."""
    taken = {name for wave in planned.waves for name in wave.replicas}
    left = [name for name, why in planned.skipped.items() if why != NEEDS_NOTHING and name not in taken]
    unknown = [host for host, answer in found.items() if answer.state is None]
    if planned.refusals or left or unknown:
        return ()
    return tuple(
        host
        for replica in topology.replicas
        for host in replica.hosts
        if "driver" in planned.steps.get(host, {}) or change_record.has_open_roll(_change(found[host]))
    )


def taken_back(topology: Topology, wanted: Mapping[str, Wanted], found: Mapping[str, Found]) -> dict[str, Wanted]:
    """What the hosts of replicas that an unfinished roll has touched are to run again; hosts of others are not in it.

    A host that the roll did not reach stays with what was verified on it, beside the mates that go back.
    """
    result = {}
    for replica in topology.replicas:
        records = {host: _change(found[host]) for host in replica.hosts}
        if not any(change_record.before_roll(record) for record in records.values()):
            continue
        for host, record in records.items():
            driver = change_record.before_roll(record) or record.get("verified") or {}
            back = {name: driver[key] for name in DRIVER if (key := name.rpartition("_")[2]) in driver}
            result[host] = dataclasses.replace(wanted[host], settings={**wanted[host].settings, **back})
    return result


def without_offers(found: Mapping[str, Found]) -> dict[str, Found]:
    """What was found, less whether the declared driver can be had: it is not the one that is wanted back."""
    return {
        host: dataclasses.replace(answer, state={**answer.state, "preflight": preflight})
        if answer.state and (preflight := {**answer.state.get("preflight", {}), "driver_refusal": None})
        else answer
        for host, answer in found.items()
    }


def nothing_to_abort(found: Mapping[str, Found]) -> str:
    """Why no roll can be given up, and how to go back all the same."""
    rolls = [_change(answer).get("roll") or {} for answer in found.values()]
    last = max((roll for roll in rolls if roll.get("over")), key=lambda roll: str(roll["over"]), default=None)
    said = "there is no roll to abort: no host was changed by one that is not over"
    if last is None:
        return said
    version = last["from"]["version"]
    return (
        f"{said}. The last one, which began at driver {version}, was over at {last['over']}: every replica ran what it "
        f"rolled to. To go back: ansible-playbook playbooks/upgrade_driver.yml -e nvidia_driver_version={version}"
    )


def _change(answer: Found) -> Mapping[str, Any]:
    return (answer.state or {}).get("change") or {}


def _in_waves(
    topology: Topology,
    found: Mapping[str, Found],
    needs: Mapping[str, HostNeed],
    policy: Policy,
    mode: Mode,
    now: datetime.datetime,
    limit: set[str],
    warnings: tuple[str, ...],
) -> Plan:
    replicas = [_replica_need(replica, found, needs, mode) for replica in topology.replicas]
    decided = waves(replicas, policy, now, limit)
    if isinstance(decided, Refusals):
        return Plan(refusals=decided.reasons, skipped=decided.skipped, warnings=warnings)
    inside = {host for replica in topology.replicas if replica.name in limit for host in replica.hosts}
    steps = {host: need.steps for host, need in needs.items() if need.steps and host in inside}
    taken = {name for wave in decided.waves for name in wave.replicas}
    gated = tuple(
        replica.name
        for replica in topology.replicas
        if replica.name in taken
        and (_stale(replica, found) or any("gates" in needs[host].steps for host in replica.hosts if host in needs))
    )
    left_alone = {host for replica in topology.replicas if replica.name not in taken for host in replica.hosts}
    steps = {host: due for host, due in steps.items() if host not in left_alone or set(due) == {"prepare"}}
    return Plan(
        waves=decided.waves,
        steps=steps,
        prepare=tuple(host for host, due in steps.items() if "prepare" in due),
        disturbed=tuple(
            replica.name
            for replica in topology.replicas
            if replica.name in gated
            or (replica.name in taken and any(needs[host].disturbing for host in replica.hosts if host in needs))
        ),
        gated=gated,
        skipped=decided.skipped,
        warnings=warnings,
    )


def host_need(
    host: str,
    wanted: Wanted,
    state: Mapping[str, Any],
    replica: Replica,
    head: Mapping[str, Any] | None,
    mode: Mode = "converge",
) -> HostNeed:
    """The steps that one host needs.

    Args:
        host: its name.
        wanted: what the inventory wants of it.
        state: what the survey found on it.
        replica: the replica that it belongs to.
        head: the state of the replica's head, where the replica stamp lies; None when it did not answer.
        mode: see :func:`build`.
    """
    is_head = host == replica.head
    steps: dict[str, str] = {}
    for step, role in ROLE_OF_STEP.items():
        if step == "serve" and not is_head:
            continue
        if step not in STEPS_OF_MODE[mode]:
            continue
        reason = _manifest_reason(role, wanted.inputs.get(role), state.get("manifest", {}))
        if step == "driver":
            manifest_reason = None if mode == "abort" else reason
            reason = driver_reason(wanted.settings, state.get("driver", {})) or manifest_reason
            if mode == "abort":
                reason = reason or _unfinished_reason(state)
        if reason:
            steps[step] = reason
    stamp_reason = _host_stamp_reason(host, steps, state) or (is_head and _replica_stamp_reason(replica, head))
    if mode == "verify":
        steps["gates"] = "asked for"
    elif stamp_reason:
        steps["gates"] = str(stamp_reason)
    start_reason = _start_reason(state, is_head) or ("driver" not in steps and _unfinished_reason(state))
    if start_reason:
        steps["start"] = str(start_reason)
    return HostNeed(host, steps, state.get("quarantine"))


def driver_reason(settings: Mapping[str, Any], driver: Mapping[str, Any]) -> str | None:
    """Why the driver is not the one that is wanted, whole and held; None when it is."""
    version = settings.get("nvidia_driver_version")
    if driver.get("error"):
        return f"the driver's state could not be read: {driver['error']}"
    for key, what in (("package_version", "package"), ("loaded_version", "loaded module")):
        if driver.get(key) != version:
            return f"{what} {driver.get(key) or 'absent'}, wanted {version}"
    loose = sorted(name for name, package in driver.get("packages", {}).items() if not package.get("hold"))
    if loose and settings.get("nvidia_driver_source") != "verify":
        return f"not held: {', '.join(loose)}"
    return None


def _manifest_reason(role: str, inputs: str | None, manifest: Mapping[str, Any]) -> str | None:
    known = manifest.get(role)
    if known is None:
        return "never applied"
    if known.get("inputs") != inputs:
        return "its variables, files or topology changed"
    if known.get("drifted"):
        return f"changed on the host: {', '.join(known['drifted'])}"
    return None


def router_reason(wanted: Wanted, state: Mapping[str, Any]) -> str | None:
    """Why a router is due; None when it is as wanted and running."""
    if state.get("units", {}).get("haproxy.service", {}).get("active") != "active":
        return "HAProxy is not running"
    return _manifest_reason("router", wanted.inputs.get("router"), state.get("manifest", {}))


def _host_stamp_reason(host: str, steps: Mapping[str, str], state: Mapping[str, Any]) -> str | None:
    quarantine = state.get("quarantine")
    if quarantine is not None:
        return f"in quarantine: {quarantine.get('reason') or quarantine.get('error')}"
    stamp = state.get("stamps", {}).get("host")
    if stamp is None:
        return "no host stamp"
    if stamp.get("digest") != state.get("fingerprint_digest"):
        return f"host stamp is void (given for {stamp.get('digest')}, {host} now has {state.get('fingerprint_digest')})"
    changing = sorted({"driver", "runtime"} & set(steps))
    return f"{' and '.join(changing)} will change" if changing else None


def _replica_stamp_reason(replica: Replica, head: Mapping[str, Any] | None) -> str | None:
    stamp = (head or {}).get("stamps", {}).get("replica")
    if stamp is None:
        return "no replica stamp"
    if set(stamp.get("hosts", {})) != set(replica.hosts):
        return f"replica stamp covers {', '.join(sorted(stamp.get('hosts', {})))}, not the replica's hosts of today"
    return None


def _start_reason(state: Mapping[str, Any], is_head: bool) -> str | None:
    units = state.get("units", {})
    if units.get("lockstep-ray.service", {}).get("active") != "active":
        return "Ray is not running"
    if is_head and not serves(state):
        engine = state.get("engine") or {}
        return f"the engine does not serve ({engine.get('phase', 'not running')}: {engine.get('reason') or 'no reason known'})"
    return None


def _unfinished_reason(state: Mapping[str, Any]) -> str | None:
    """What says that a run ended between the gates and the last stage, where the router may not have been told yet."""
    change = (state.get("change") or {}).get("change")
    return f"the change to driver {change['to']['version']} was not brought to its end" if change else None


def serves(head: Mapping[str, Any] | None) -> bool:
    """Whether the replica of this head answers requests: its engine says so, which it does only after a completion."""
    state = head or {}
    running = state.get("units", {}).get("lockstep-vllm.service", {}).get("active") == "active"
    return bool(running and (state.get("engine") or {}).get("phase") == "serving")


def _head_state(replica: Replica, found: Mapping[str, Found]) -> Mapping[str, Any] | None:
    return found[replica.head].state


def _replica_need(
    replica: Replica, found: Mapping[str, Found], needs: Mapping[str, HostNeed], mode: Mode
) -> ReplicaNeed:
    mine = [needs[host] for host in replica.hosts if host in needs]
    head = _head_state(replica, found)
    reasons = {
        need.host: tuple(f"{step}: {reason}" for step, reason in need.steps.items()) for need in mine if need.steps
    }
    due = any(set(need.steps) - {"prepare"} for need in mine)
    stale = _stale(replica, found) if mine else []
    for host in stale:
        reasons[host] = (*reasons.get(host, ()), "gates: the replica stamp was given for another fingerprint")
    kinds = {str(need.quarantine.get("kind")) for need in mine if need.quarantine is not None}
    return ReplicaNeed(
        name=replica.name,
        hosts=replica.hosts,
        zone=replica.zone,
        serving=serves(head),
        need=_need_word(
            kinds, bool(due or stale), any(_unfinished_reason(found[need.host].state or {}) for need in mine), mode
        ),
        reasons=reasons,
    )


def _stale(replica: Replica, found: Mapping[str, Found]) -> list[str]:
    """Hosts whose fingerprint is no longer the one that the head's replica stamp was given for."""
    head = _head_state(replica, found) or {}
    stamped = (head.get("stamps", {}).get("replica") or {}).get("hosts", {})
    present = {host: state.get("fingerprint_digest") for host in replica.hosts if (state := found[host].state)}
    return [host for host, digest in present.items() if host in stamped and stamped[host] != digest]


def _need_word(
    quarantines: set[str], due: bool, unfinished: bool, mode: Mode
) -> Literal["done", "half_done", "due", "quarantined"]:
    """``changing`` was left by a run that did not finish; ``failed`` by gates; anything else by an operator."""
    retried = {"changing", "failed"} if mode in ("converge", "abort") else {"changing"}
    if quarantines - retried:
        return "quarantined"
    if quarantines or unfinished:
        return "half_done"
    return "due" if due else "done"


def _cut_replicas(asked: Iterable[Replica], allowed: set[str]) -> Iterable[str]:
    for replica in asked:
        missing = [host for host in replica.hosts if host not in allowed]
        if missing:
            yield (
                f"--limit leaves out {', '.join(missing)} of {replica.name}: a replica is changed as a whole. "
                f"Next: ansible-playbook … --limit {replica.name}"
            )


def _unanswered(asked: Iterable[Replica], found: Mapping[str, Found]) -> Iterable[str]:
    for replica in asked:
        for host in replica.hosts:
            answer = found[host]
            if answer.state is None:
                if answer.reachable:
                    yield (
                        f"{host} ({replica.name}) cannot be surveyed: {answer.error}. "
                        f"Next: ansible {host} -m lockstep.vllm.host_probe"
                    )
                else:
                    yield (
                        f"{host} ({replica.name}) is unreachable: {answer.error}. Bring it back or take it out of the "
                        f"inventory. Next: ansible {host} -m ansible.builtin.ping"
                    )


def _judge(
    replica: Replica,
    wanted: Mapping[str, Wanted],
    found: Mapping[str, Found],
    needs: Mapping[str, HostNeed],
    issues: Sequence[Mapping[str, Any]],
) -> tuple[list[str], list[str]]:
    """Refusals and warnings for one replica."""
    refusals: list[str] = []
    warnings: list[str] = []
    for host in replica.hosts:
        state = found[host].state or {}
        refusals += host_refusals(host, wanted[host].settings, state, needs[host])
        runtime = wanted[host].runtime if "runtime" in needs[host].steps else None
        bad, suspect = known_issue_lines(host, wanted[host].settings, state, issues, runtime)
        refusals += bad
        warnings += suspect
    refusals += _uneven(replica, wanted)
    settled = {
        host: (found[host].state or {}).get("runtime", {})
        for host in replica.hosts
        if "runtime" not in needs[host].steps
    }
    if len(settled) == len(replica.hosts):
        refusals += [
            f"{replica.name}: {line}. Next: ansible-playbook playbooks/verify.yml --limit {replica.name}"
            for line in runtime_state.differences(settled)
        ]
    return refusals, warnings


def host_refusals(host: str, settings: Mapping[str, Any], state: Mapping[str, Any], need: HostNeed) -> list[str]:
    """Why this host must not be touched as the inventory wants it; each line names the cure."""
    return [
        f"{host}: {line}"
        for check in (_system_refusals, _driver_refusals, _network_refusals, _disk_refusals)
        for line in check(settings, state, need)
    ]


def _system_refusals(settings: Mapping[str, Any], state: Mapping[str, Any], need: HostNeed) -> Iterable[str]:
    system = state.get("os", {})
    family = {system.get("distribution"), *str(system.get("like", "")).split()}
    if need.steps and not family & {"debian", "ubuntu"}:
        shown = f"{system.get('distribution')} {system.get('version')}"
        yield f"{shown} is not supported: use Debian 12 or later, or Ubuntu 22.04 or 24.04"
    for name in ("gpu_host_gpus", "nvidia_driver_version"):
        if settings.get(name) in (None, ""):
            yield f"{name} is not set; see inventories/examples"


def _driver_refusals(settings: Mapping[str, Any], state: Mapping[str, Any], need: HostNeed) -> Iterable[str]:
    version, source = settings.get("nvidia_driver_version"), settings.get("nvidia_driver_source")
    driver = state.get("driver", {})
    if "driver" not in need.steps:
        return
    if source == "verify":
        reason = driver_reason(settings, driver)
        if reason:
            yield f"{reason}, and nvidia_driver_source is 'verify': the platform's owner has to install {version} here"
        return
    refusal = state.get("preflight", {}).get("driver_refusal")
    if refusal:
        yield f"{refusal}. Set nvidia_driver_version to one that is on offer, or mend the repository"


def _network_refusals(settings: Mapping[str, Any], state: Mapping[str, Any], need: HostNeed) -> Iterable[str]:
    address, interface = settings.get("gpu_host_address"), settings.get("gpu_host_interface")
    addresses = state.get("addresses", {})
    if "error" not in addresses and address not in addresses.get(interface, []):
        has = ", ".join(addresses.get(interface, [])) if interface in addresses else "no such interface"
        there = ", ".join(f"{name} {' '.join(inside)}" for name, inside in sorted(addresses.items()))
        yield f"gpu_host_address {address} is not on {interface} ({has}): set gpu_host_interface or gpu_host_address ({there})"
    preflight = state.get("preflight", {})
    if preflight.get("error"):
        yield f"its preflight could not be done: {preflight['error']}"
    if not need.steps:
        return
    for port, owner in sorted(preflight.get("taken_ports", {}).items()):
        yield f"port {port} is taken by {owner}: stop it, or choose another port"
    if not settings.get("gpu_host_manage_names", True):
        for problem in filter(None, preflight.get("names", {}).values()):
            yield f"{problem}. Mend DNS or /etc/hosts, or set gpu_host_manage_names: true"


def _disk_refusals(_settings: Mapping[str, Any], state: Mapping[str, Any], need: HostNeed) -> Iterable[str]:
    free = state.get("disk_free_mib", {})
    for step, folders in NEEDED_FREE_MIB.items():
        for folder, least in folders.items():
            if step in need.steps and free.get(folder, least) < least:
                yield f"{folder} has {free[folder]} MiB free, the {step} step needs {least}: make room"


def _fabric_manager(settings: Mapping[str, Any], driver: Mapping[str, Any]) -> str | None:
    """The version that fabric manager will have: nvidia_driver brings it to the driver's, unless it only verifies."""
    there = driver.get("fabric_manager")
    if not there or settings.get("nvidia_driver_source") == "verify":
        return (there or {}).get("package_version")
    return settings.get("nvidia_driver_version")


def known_issue_lines(
    host: str,
    settings: Mapping[str, Any],
    state: Mapping[str, Any],
    issues: Sequence[Mapping[str, Any]],
    promised: Mapping[str, str | None] | None = None,
) -> tuple[list[str], list[str]]:
    """Refusals for known-bad combinations that are not overridden by name, warnings for suspect or overridden ones.

    ``promised`` is the serving environment that the host will have, where that will change.
    """
    runtime = promised or state.get("runtime", {})
    facts = {
        "driver": settings.get("nvidia_driver_version"),
        "fabric_manager": _fabric_manager(settings, state.get("driver", {})),
        "nccl": runtime.get("nccl"),
        "cuda": runtime.get("torch_cuda"),
        "torch": runtime.get("torch"),
        "vllm": runtime.get("vllm"),
        "kernel": state.get("os", {}).get("kernel"),
        "gpu": ", ".join(sorted({str(gpu.get("name")) for gpu in state.get("driver", {}).get("gpus", [])})) or None,
    }
    overridden = set(settings.get("nvidia_driver_allow_known_bad") or [])
    refusals, warnings = [], []
    for match in known_issues.match(issues, facts):
        line = f"{host}: {match.effect} ({match.id}, {match.confidence} confidence; {match.source}). Cure: {match.cure}"
        if match.severity == "bad" and match.id not in overridden:
            refusals.append(
                f'{line}. To go on all the same: -e \'{{"nvidia_driver_allow_known_bad": ["{match.id}"]}}\''
            )
        else:
            warnings.append(line)
    unfit = driver_packages.combination_refusal(str(facts["driver"]), runtime.get("torch_cuda"))
    return ([*refusals, f"{host}: {unfit}"] if unfit else refusals), warnings


def _uneven(replica: Replica, wanted: Mapping[str, Wanted]) -> Iterable[str]:
    for name in ("nvidia_driver_version", "serving_runtime_lock", "ray_node_port"):
        values = {host: wanted[host].settings.get(name) for host in replica.hosts}
        if len({str(value) for value in values.values()}) > 1:
            shown = ", ".join(f"{host}={value}" for host, value in values.items())
            yield f"{replica.name}: {name} differs inside the replica ({shown}): set it once, for the whole replica"
