"""The driver gate's part about NVLink fabrics: fabric manager and what it needs, and what the GPUs have joined. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..driver.fabric import domain_of
from ..driver.health import GpuHealth, Health
from ..driver.state import DriverState
from ..driver.versions import upstream
from .findings import INSTALL, Finding, on_host

NVLSM, IMEX = "nvlsm", "nvidia-imex"


def is_required(setting: str, state: DriverState) -> bool:
    """Whether a host has to run fabric manager: ``present``, ``absent``, or ``auto``, where it has NVSwitches."""
    return setting == "present" or (
        setting == "auto" and bool(state["nvswitches"] or state["fabric"]["switch_managers"])
    )


def software(state: DriverState, setting: str, host: str, *, packaged: bool = True) -> Iterator[Finding]:
    """Fabric manager at the driver's version and running, with nvlsm and ib_umad where the switches are reached through them;
    IMEX where NVLink reaches other hosts."""
    fabric, required = state["fabric_manager"], is_required(setting, state)
    behind = state["fabric"]["switch_managers"]
    if fabric is None:
        if required:
            where = f" behind {behind} ConnectX functions (SW_MNG in their VPD)" if behind else ""
            yield Finding(
                "fabric_manager_missing",
                f"fabric manager is not installed, and this host has NVSwitches{where}",
                _install(packaged, "nvidia-fabricmanager and nvlsm" if behind else "nvidia-fabricmanager"),
            )
    else:
        yield from _running(state, required, host)
    if required and behind:
        if packaged and NVLSM not in state["packages"]:
            yield Finding(
                "nvlsm_missing", "nvlsm is not installed, through which fabric manager sets up the NVSwitches", INSTALL
            )
        if not state["fabric"]["ib_umad"]:
            yield Finding(
                "ib_umad_missing",
                "the module ib_umad is not loaded, through which nvlsm reaches the NVSwitches",
                f"On {host}: modprobe ib_umad && systemctl restart nvidia-fabricmanager; then {INSTALL}",
            )
    if setting != "absent" and state["fabric"]["spans_hosts"]:
        yield from _imex(state, host, packaged)


def _imex(state: DriverState, host: str, packaged: bool) -> Iterator[Finding]:
    """IMEX in the driver's version and running, with a channel for programs. It only warns: within a host nothing needs it."""
    versions = {upstream(about["version"]) for name, about in state["packages"].items() if name.startswith(IMEX)}
    if packaged and not versions:
        yield Finding("imex_inactive", "IMEX is not installed, and NVLink reaches other hosts", INSTALL, "warn")
    elif state["fabric"]["imex_active"] is False:
        yield Finding(
            "imex_inactive",
            "IMEX does not run, so no memory is shared over NVLink with other hosts",
            f"On {host}: list the addresses of the rack's hosts in /etc/nvidia-imex/nodes_config.cfg, the same on all of them, "
            "systemctl enable --now nvidia-imex, nvidia-imex-ctl -N",
            "warn",
        )
    if packaged and state["loaded_version"] and versions - {state["loaded_version"]}:
        yield Finding(
            "imex_differs",
            f"IMEX is {', '.join(sorted(versions))}, the driver {state['loaded_version']}: hosts of one rack need the same",
            INSTALL,
            "warn",
        )
    if state["fabric"]["imex_channel"] is False:
        yield Finding(
            "imex_no_channel",
            "there is no IMEX channel in /dev/nvidia-caps-imex-channels, so no program may share memory over NVLink with other "
            "hosts, and NCCL across hosts refuses to start unless NCCL_MNNVL_ENABLE is 0",
            f'On {host}: "options nvidia NVreg_CreateImexChannel0=1" in /etc/modprobe.d/nvidia-imex.conf, then reboot {host}',
            "warn",
        )


def _install(packaged: bool, names: str) -> str:
    return INSTALL if packaged else f"Have {names} installed at the driver's version by whoever installs the driver"


def _running(state: DriverState, required: bool, host: str) -> Iterator[Finding]:
    fabric = state["fabric_manager"]
    if fabric is None:
        return
    for version in dict.fromkeys((fabric["package_version"], fabric["version"])):
        if version and version != state["loaded_version"]:
            yield Finding(
                "fabric_manager_differs", f"fabric manager is {version}, the driver {state['loaded_version']}", INSTALL
            )
            return
    if required and not fabric["active"]:
        yield Finding("fabric_manager_inactive", "fabric manager does not run", _journal(state, host))


def membership(state: DriverState, health: Health, host: str) -> Iterator[Finding]:
    """Every GPU has joined the NVLink fabric, and all of a host the same domain."""
    for gpu in health.gpus:
        if gpu.fabric_state and (gpu.fabric_state != "Completed" or gpu.fabric_status not in ("Success", None)):
            yield Finding(
                "fabric_not_ready",
                f"GPU {gpu.pci}: NVLink fabric is {gpu.fabric_state} ({gpu.fabric_status})",
                _journal(state, host),
            )
    yield from _domains(state, health.gpus, host)


def _domains(state: DriverState, gpus: Sequence[GpuHealth], host: str) -> Iterator[Finding]:
    ready = [gpu for gpu in gpus if gpu.fabric_state == "Completed" and gpu.fabric_status in ("Success", None)]
    domains = {domain_of(gpu): gpu.pci for gpu in ready}
    if len(domains) > 1:
        listed = "; ".join(f"GPU {pci} in {domain or 'none'}" for domain, pci in domains.items())
        yield Finding(
            "fabric_split", f"the GPUs are in different NVLink domains: {listed}", f"Reboot {host}; {_switches(host)}"
        )
    elif state["fabric"]["spans_hosts"] and set(domains) == {None}:
        yield Finding(
            "fabric_alone",
            "the GPUs have joined no NVLink domain with other hosts (ClusterUUID is zero): across hosts NCCL takes the network",
            _switches(host),
            "warn",
        )


def _journal(state: DriverState, host: str) -> str:
    if state["fabric"]["spans_hosts"] and state["fabric_manager"] is None:
        return _switches(host)
    if state["fabric_manager"] is None:
        return f"On {host}: nvidia-smi -q, Fabric; journalctl -k -g NVLink"
    behind = " -u nvlsm" if state["fabric"]["switch_managers"] else ""
    return on_host(host, f"journalctl -b -u nvidia-fabricmanager{behind}")


def _switches(host: str) -> str:
    return f"See to fabric manager on the rack's NVLink switches, then on {host}: nvidia-smi -q, Fabric"
