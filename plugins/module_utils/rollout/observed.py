"""What a plan reads of a host: the probe's answer (module_utils/host/probe.py), parsed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ..admission import fingerprint
from ..admission.quarantine import Quarantine
from ..core.system import uptime
from ..driver.change_record import StoredRecord
from .machine import Answer, Carrier, Machine, Model, Network


@dataclasses.dataclass(frozen=True)
class Driver:
    """The installed and the loaded driver; ``error`` where its state could not be read.

    Attributes:
        unheld: packages that apt may upgrade, sorted.
        gpus: names of the GPU models, sorted.
        shown: how many GPUs the loaded driver shows; None where none is loaded or it does not say.
        uuids: of these GPUs.
        fabric_manager: whether it is installed, and ``fabric_manager_version`` as which.
        nvlink_domain: the NVLink domain, with its clique, that its GPUs have joined with those of other hosts; None for none.
    """

    package_version: str | None = None
    loaded_version: str | None = None
    unheld: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    shown: int | None = None
    uuids: tuple[str, ...] = ()
    fabric_manager: bool = False
    fabric_manager_version: str | None = None
    nvlink_domain: str | None = None
    error: str | None = None

    @classmethod
    def parse(cls, answer: Answer) -> Driver:
        manager = answer.get("fabric_manager") or {}
        gpus = answer.get("gpus", [])
        failure = (answer.get("smi_failure") or {}).get("code")
        shows = answer.get("loaded_version") is not None and failure in (None, "no_devices")
        return cls(
            package_version=answer.get("package_version"),
            loaded_version=answer.get("loaded_version"),
            unheld=tuple(sorted(name for name, about in answer.get("packages", {}).items() if not about.get("hold"))),
            gpus=tuple(sorted({str(gpu.get("name")) for gpu in gpus})),
            shown=len(gpus) if shows else None,
            uuids=tuple(str(gpu["uuid"]) for gpu in gpus if gpu.get("uuid")),
            fabric_manager=bool(manager),
            fabric_manager_version=manager.get("package_version"),
            nvlink_domain=(answer.get("fabric") or {}).get("domain"),
            error=answer.get("error"),
        )


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Whether a role was last applied with what is wanted of it now, its files that were changed on the host since, and
    whether this version of Lockstep does in it what that one did."""

    current: bool
    drifted: tuple[str, ...] = ()
    same_code: bool = True


@dataclasses.dataclass(frozen=True)
class Preflight:
    """What would keep a role from its work: refusals and owners as text, names with their resolution problem."""

    taken_ports: Mapping[str, str] = dataclasses.field(default_factory=dict)
    name_problems: tuple[str, ...] = ()
    model: Model | None = None
    carrier: Carrier | None = None
    drops_api_key: bool = False
    error: str | None = None

    @classmethod
    def parse(cls, answer: Answer) -> Preflight:
        return cls(
            taken_ports=answer.get("taken_ports", {}),
            name_problems=tuple(str(problem) for problem in answer.get("names", {}).values() if problem),
            model=Model.parse(answer["model"]) if answer.get("model") else None,
            carrier=Carrier.parse(answer.get("tunnel") or {}),
            drops_api_key=answer.get("drops_api_key") is True,
            error=answer.get("error"),
        )


@dataclasses.dataclass(frozen=True)
class HostState:
    """One host at the moment of the probe.

    Attributes:
        distribution, like, version, kernel, arch: from os-release and uname.
        uptime: seconds since it booted.
        runtime: versions in the serving environment, by what they are of.
        fingerprint: digest of what runs; what stamps were given for is compared with it.
        active: systemd units that are active.
        host_stamp: digest that the host stamp was given for; "" where it names none, None where there is no stamp.
        stamp_changes: what differs between the host stamp's fingerprint and what runs, one text for each field.
        replica_stamp: on a head, digest by host of its replica stamp; None where there is none.
        engine_phase, engine_reason: what the engine reports of itself; None where there is no engine.
        change: the driver change record (module_utils/driver/change_record.py); empty where there is none.
        unfinished_settings: whether settings are kept: a run was changing them, or was about to, when it ended.
        networks: its IPv4 addresses, by interface; None where they could not be read.
        machine: which machine it is, and what that has.
        filter_problem: why its packet filter is not the wanted one; "" where it is, or none is wanted.
        tunnel_problem: the same of its tunnel; ``tunnelled``: it has one.
        unloaded: of a router, units whose files were written and not loaded since.
    """

    distribution: str | None = None
    like: str = ""
    version: str | None = None
    kernel: str | None = None
    arch: str | None = None
    uptime: float | None = None
    driver: Driver = Driver()
    runtime: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    fingerprint: str | None = None
    active: frozenset[str] = frozenset()
    host_stamp: str | None = None
    stamp_changes: tuple[str, ...] = ()
    replica_stamp: Mapping[str, str] | None = None
    quarantine: Quarantine | None = None
    engine_phase: str | None = None
    engine_reason: str | None = None
    change: StoredRecord = dataclasses.field(default_factory=StoredRecord)
    unfinished_settings: bool = False
    manifests: Mapping[str, Manifest] = dataclasses.field(default_factory=dict)
    disk_free_mib: Mapping[str, int] = dataclasses.field(default_factory=dict)
    networks: Mapping[str, tuple[Network, ...]] | None = None
    machine: Machine = dataclasses.field(default_factory=Machine)
    filter_problem: str = ""
    tunnelled: bool = False
    tunnel_problem: str = ""
    unloaded: tuple[str, ...] = ()
    preflight: Preflight = Preflight()

    @classmethod
    def parse(cls, answer: Answer) -> HostState:
        """From the probe's answer, of which any part may be ``{"error": …}``."""
        system, stamps = answer.get("os", {}), answer.get("stamps", {})
        host_stamp, replica_stamp = stamps.get("host"), stamps.get("replica")
        engine, quarantine = answer.get("engine") or {}, answer.get("quarantine")
        return cls(
            distribution=system.get("distribution"),
            like=str(system.get("like", "")),
            version=system.get("version"),
            kernel=system.get("kernel"),
            arch=system.get("arch"),
            uptime=uptime(answer.get("clock"), answer.get("boot", {}).get("since")),
            driver=Driver.parse(answer.get("driver", {})),
            runtime=answer.get("runtime", {}),
            fingerprint=answer.get("fingerprint_digest"),
            active=frozenset(
                name
                for name, unit in answer.get("units", {}).items()
                if isinstance(unit, Mapping) and unit.get("active") == "active"
            ),
            host_stamp=None if host_stamp is None else str(host_stamp.get("digest", "")),
            stamp_changes=_stamp_changes((host_stamp or {}).get("fingerprint"), answer.get("fingerprint")),
            replica_stamp=None if replica_stamp is None else replica_stamp.get("hosts", {}),
            quarantine=None if quarantine is None else Quarantine.lenient(quarantine),
            engine_phase=engine.get("phase"),
            engine_reason=engine.get("reason"),
            change=answer.get("change") or StoredRecord(),
            unfinished_settings=bool(answer.get("previous")),
            manifests={
                role: Manifest(
                    known.get("current") is True, tuple(known.get("drifted") or ()), known.get("same_code") is not False
                )
                for role, known in answer.get("manifest", {}).items()
                if isinstance(known, Mapping)
            },
            disk_free_mib=answer.get("disk_free_mib", {}),
            networks=Network.parse_all(answer.get("networks", {})),
            machine=Machine.parse(answer.get("machine", {}), answer.get("boot", {})),
            filter_problem=str(answer.get("filter", {}).get("problem") or ""),
            tunnelled=answer.get("tunnel", {}).get("wanted") is True,
            tunnel_problem=str(answer.get("tunnel", {}).get("problem") or ""),
            unloaded=tuple(answer.get("router", {}).get("unloaded", ())),
            preflight=Preflight.parse(answer.get("preflight", {})),
        )

    @property
    def interfaces(self) -> str:
        """Its interfaces with their IPv4 addresses, for people."""
        found = sorted((self.networks or {}).items())
        return ", ".join(" ".join([name, *(each.address for each in inside)]) for name, inside in found)

    @property
    def serves(self) -> bool:
        """Whether the replica of this head answers requests: its engine reports so, which it does only after a completion."""
        return "lockstep-vllm.service" in self.active and self.engine_phase == "serving"

    @property
    def unfinished_driver(self) -> str | None:
        """The version that a run was changing this host to when it ended, or None; a router may not know yet that it serves."""
        change = self.change.get("change")
        return str(change["to"]["version"]) if change else None


@dataclasses.dataclass(frozen=True)
class Observed:
    """What one host answered: its ``state``, or the ``error`` for which there is none.

    Attributes:
        unresolved: of a host that was not reached, the name that does not resolve on the controller.
    """

    state: HostState | None = None
    error: str | None = None
    reachable: bool = True
    unresolved: str | None = None

    @classmethod
    def parse(cls, answer: Answer | None, error: str | None, reachable: bool) -> Observed:
        """What was let in has the right types; a value that means nothing, such as an address, is the host's error as well."""
        if answer is None:
            return cls(None, error, reachable)
        try:
            return cls(HostState.parse(answer), error, reachable)
        except ValueError as problem:
            return cls(None, f"its answer cannot be used: {problem}", reachable)


def _stamp_changes(stamped: Mapping[str, str | None] | None, now: Mapping[str, str | None] | None) -> tuple[str, ...]:
    return tuple(fingerprint.changes(stamped, now)) if stamped and now else ()
