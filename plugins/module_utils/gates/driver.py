"""The driver gate: whether a host's driver and GPUs are fit to serve.

``evaluate`` is pure: it is given the driver's state, the GPUs' health, what the operator declared, and the known issues that
fit. ``check`` reads these on a host and evaluates them.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from ..core import data_tables
from ..core.codes import as_json
from ..driver import health as gpu_health
from ..driver import known_issues, module_file, nvidia_smi, xids
from ..driver import state as driver_state
from ..driver.cards import is_card
from ..driver.health import Health
from ..driver.links import links
from ..driver.state import DriverState, FullDriverState
from ..runtime import state as runtime_state
from . import driver_events, driver_gpus, fabric
from .codes import Code
from .findings import INSTALL, THIS_HOST, Finding, cause_and_next, on_host, verify
from .result import GateResult

DRIVER_HANGS = "driver_hangs"


class Checked(TypedDict):
    """What ``check`` gives: the gate's result, the known issues that fit, and the state that was read."""

    gate: dict[str, Any]
    issues: list[dict[str, str]]
    state: FullDriverState


@dataclasses.dataclass(frozen=True)
class Expected:
    """What the operator declared for a host.

    Attributes:
        version: exact driver version; None accepts any, as long as all its parts agree.
        gpus: how many GPUs the host has to show.
        gpu_model: words that every GPU's name has to contain, such as ``H100``.
        fabric_manager: ``present``, ``absent``, or ``auto``, which requires it where there are NVSwitches.
        packaged: whether the driver came as packages (false where a platform's owner installs it otherwise).
        flavor: ``open`` or ``proprietary`` kernel modules; None accepts either.
        allowed: ids of known-bad combinations that the operator overrides.
        pcie_width: lanes of every GPU's PCIe link; None compares with the other cards of the host.
    """

    version: str | None
    gpus: int
    gpu_model: str | None = None
    fabric_manager: str = "auto"
    packaged: bool = True
    flavor: str | None = None
    allowed: tuple[str, ...] = ()
    pcie_width: int | None = None


@dataclasses.dataclass(frozen=True)
class Modules:
    """The kernel modules: the flavour of the loaded one, and the file that modprobe would load next."""

    loaded_flavor: str | None
    next: module_file.ModuleFile


def evaluate(
    state: FullDriverState,
    health: Health,
    expected: Expected,
    *,
    modules: Modules | None = None,
    issues: Sequence[known_issues.Match] = (),
    catalogue: xids.Catalogue | None = None,
    host: str | None = None,
    seconds: float = 0.0,
) -> GateResult:
    """The gate's result: the first failure gives the code, all failures the cause; the rest are warnings."""
    name = host or THIS_HOST
    findings = [
        *_versions(state, expected, name),
        *_modules(state, modules, expected, name),
        *_packages(state, expected),
        *fabric.software(state, expected.fabric_manager, name, packaged=expected.packaged),
        *_tool(state, health, name),
        *driver_gpus.warned([*state["smi_warnings"], *health.warnings]),
        *_gpus(state, health, expected, name),
        *driver_events.findings(state["xids"], state["gpus"], catalogue or xids.parse([]), name),
        *_reboot(state, name),
        *_issues(issues, expected),
        *_holds(state, expected),
    ]
    failures = [finding for finding in findings if finding.severity == "fail"]
    warnings = tuple(f"{finding.cause}. {finding.remediation}" for finding in findings if finding.severity == "warn")
    measured = {
        "driver": state["loaded_version"],
        "gpus": len(state["gpus"]),
        "findings": [finding.code for finding in findings],
    }
    floor = {"driver": expected.version, "gpus": expected.gpus}
    if not failures:
        return GateResult("driver", "pass", seconds, host=host, measured=measured, floor=floor, warnings=warnings)
    cause, following = cause_and_next("; ".join(finding.cause for finding in failures), failures[0].remediation, host)
    return GateResult(
        "driver",
        "timeout" if failures[0].code == DRIVER_HANGS else "fail",
        seconds,
        code=Code(failures[0].code),
        host=host,
        measured=measured,
        floor=floor,
        warnings=warnings,
        cause=cause,
        next=following,
    )


def check(expected: Expected, *, host: str | None = None, deadline: float = 15.0) -> Checked:
    """Read this host and evaluate it, by the tables that gpu_host put here.

    Never longer than ``deadline`` seconds, even when nvidia-smi hangs.
    """
    start = time.monotonic()
    state = driver_state.driver_state(deadline=deadline / 2)
    health = Health() if _hangs(state["smi_failure"]) else gpu_health.health(deadline=deadline / 2)
    issues = known_issues.match(data_tables.read("known_issues"), facts(state, health, runtime_state.state()))
    result = evaluate(
        state,
        health,
        expected,
        modules=Modules(driver_state.loaded_flavor(), module_file.find(deadline=2.0)),
        issues=issues,
        catalogue=xids.parse(data_tables.read("xids"), data_tables.read("nvlink5_xids")),
        host=host,
        seconds=round(time.monotonic() - start, 3),
    )
    return {
        "gate": as_json(result),
        "issues": as_json(issues),
        "state": state,
    }


def facts(state: DriverState, health: Health, runtime: Mapping[str, str | None]) -> known_issues.Facts:
    """What known issues are matched against, from what runs on this host now."""
    manager, system = state["fabric_manager"], os.uname()
    local = [] if not health.gpus else ["nvlink"] if any(any(gpu.up) for gpu in health.nvlink) else ["pcie"]
    return known_issues.facts(
        driver=state["loaded_version"],
        fabric_manager=(manager["version"] or manager["package_version"]) if manager else None,
        runtime=runtime,
        kernel=system.release,
        gpus=[gpu["name"] for gpu in state["gpus"]],
        flavor=state["loaded_flavor"],
        arch=system.machine,
        links=[*links(), *local],
        uptime=time.clock_gettime(time.CLOCK_BOOTTIME),
    )


def _hangs(failure: nvidia_smi.Failure | None) -> bool:
    return failure is not None and failure["code"] == "timed_out"


def _versions(state: DriverState, expected: Expected, host: str) -> Iterator[Finding]:
    loaded, user = state["loaded_version"], state["userspace_version"]
    if expected.packaged:
        packages = state["package_versions"]
        if not packages:
            yield Finding("package_missing", "no driver package is installed", INSTALL)
        elif len(packages) > 1:
            yield Finding(
                "packages_mixed", f"driver packages of several versions are installed: {', '.join(packages)}", INSTALL
            )
        elif expected.version and packages[0] != expected.version:
            yield Finding(
                "package_differs", f"driver package {packages[0]} is installed, {expected.version} is declared", INSTALL
            )
        elif user and user != packages[0]:
            yield Finding(
                "userspace_differs",
                f"user-space libraries are {user}, the packages {packages[0]}: something else than apt installed them",
                f"Remove what installed driver {user} on {host}, then {INSTALL}",
            )
    if loaded is None:
        yield Finding("module_not_loaded", "the nvidia kernel module is not loaded", INSTALL)
        return
    desired = expected.version or state["package_version"] or user
    if desired and loaded != desired:
        yield Finding(
            "module_differs",
            f"the loaded kernel module is {loaded}, desired {desired}",
            f"Reboot {host}, then {verify(host)}",
        )
    elif user and user != loaded:
        yield Finding("userspace_differs", f"user-space libraries are {user}, the loaded module is {loaded}", INSTALL)


def _modules(state: DriverState, modules: Modules | None, expected: Expected, host: str) -> Iterator[Finding]:
    """What runs and what a reboot would bring, against what is declared. A platform's own driver may come from elsewhere."""
    if not modules or not expected.packaged:
        return
    loaded, declared = modules.loaded_flavor, expected.flavor
    if declared and loaded and loaded != declared:
        yield Finding(
            "flavor_differs",
            f"the loaded kernel modules are the {loaded} ones, {declared} is declared",
            "Correct nvidia_driver_flavor if that is the mistake, or ansible-playbook site.yml",
        )
    version = expected.version or state["package_version"]
    found = module_file.obstacle(modules.next, version, declared) if version else None
    if found:
        cause, remedy = found
        yield Finding("module_file", cause, f"On {host}: {remedy}, then ansible-playbook site.yml")


def _packages(state: DriverState, expected: Expected) -> Iterator[Finding]:
    if expected.packaged and state["dpkg_interrupted"]:
        yield Finding("dpkg_interrupted", "dpkg was interrupted half-way", INSTALL)


def _holds(state: DriverState, expected: Expected) -> Iterator[Finding]:
    """Last of all: a hold keeps what runs from changing, and is no sign of what is wrong now."""
    if not expected.packaged:
        return
    not_held = sorted(name for name, package in state["packages"].items() if not package["hold"])
    if not_held:
        yield Finding(
            "not_held",
            f"not held, so an upgrade of the system may change them: {', '.join(not_held)}",
            INSTALL,
        )


def _tool(state: DriverState, health: Health, host: str) -> Iterator[Finding]:
    failure = state["smi_failure"] or health.failure
    if failure is None:
        return
    if _hangs(failure):
        yield Finding(
            DRIVER_HANGS,
            failure["text"],
            f"On {host}: nvidia-bug-report.sh --safe-mode, then reboot {host}",
        )
    else:
        yield Finding("smi_fails", f"nvidia-smi: {failure['text']}", on_host(host, "journalctl -k -g NVRM"))


def _gpus(state: DriverState, health: Health, expected: Expected, host: str) -> Iterator[Finding]:
    if state["smi_failure"] or health.failure:
        return
    gpus = state["gpus"]
    if len(gpus) != expected.gpus:
        yield _count(state, expected.gpus, host)
    model = expected.gpu_model
    unexpected = sorted({gpu["name"] for gpu in gpus if model and gpu["name"] and not is_card(model, gpu["name"])})
    if unexpected:
        yield Finding(
            "gpu_model",
            f"GPU {', '.join(unexpected)} found, {model} is declared",
            "Correct gpu_host_gpu_model, or remove the host from the inventory",
        )
    switches = state["nvswitches"] + state["fabric"]["switch_managers"]
    yield from driver_gpus.findings(health, driver_gpus.Machine(host, switches, expected.pcie_width))
    yield from fabric.membership(state, health, host)


def _count(state: DriverState, declared: int, host: str) -> Finding:
    gpus = state["gpus"]
    cause = f"{len(gpus)} GPUs answer, {declared} are declared"
    answering = {driver_events.slot(gpu.get("pci")) for gpu in gpus}
    silent = [address for address in state["gpus_on_bus"] if driver_events.slot(address) not in answering]
    if silent and all(answering):
        silence = (
            "is on the PCI bus and does not answer" if len(silent) == 1 else "are on the PCI bus and do not answer"
        )
        return Finding(
            "gpu_count",
            f"{cause}: {', '.join(silent)} {silence}",
            f"On {host}: journalctl -k -g NVRM; reboot {host}, then {verify(host)}",
        )
    return Finding(
        "gpu_count",
        cause,
        f"On {host}: lspci -d 10de: and journalctl -k -g NVRM, or correct gpu_host_gpus if that is the mistake",
    )


def _reboot(state: DriverState, host: str) -> Iterator[Finding]:
    if not state["pending_reboot"]:
        return
    packages = state["pending_reboot_packages"]
    relevant = [name for name in packages if "nvidia" in name or name.startswith("linux-")]
    yield Finding(
        "pending_reboot",
        f"a reboot is pending for {', '.join(relevant or packages) or 'an unknown reason'}",
        f"Reboot {host}, then {verify(host)}",
        "fail" if relevant else "warn",
    )


def _issues(issues: Sequence[known_issues.Match], expected: Expected) -> Iterator[Finding]:
    refused = {issue.id for issue in known_issues.refusals(issues, expected.allowed)}
    for issue in issues:
        if issue.id in refused:
            yield Finding("known_bad", f"known issue {issue.id}: {issue.effect} ({issue.source})", issue.remediation)
        else:
            yield Finding(
                "suspect",
                f"known issue {issue.id} ({issue.confidence} confidence): {issue.effect} ({issue.source})",
                issue.remediation,
                "warn",
            )
