"""Load another version of NVIDIA's kernel modules into the running kernel, or give the reasons why that takes a reboot.

``decide`` is pure. ``load`` acts: it stops the services that hold the driver, unloads the modules in order, loads the
installed ones, and starts what it stopped. It never ends a process that is not such a service: whoever else holds the
driver is named.

The order and the list of services follow NVIDIA's gpu-driver-container (``_unload_driver``).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ..core.commands import Run, run_command
from ..core.errors import StopError
from . import boot_kernels, kernel_log, module_file, package_causes
from . import fabric as nvlink_fabric
from . import holders as driver_holders
from . import state as driver_state
from .holders import Holder, describe

Policy = Literal["either", "reload", "reboot", "neither"]
Action = Literal["none", "reload", "reboot", "refused"]

SERVICES = (
    "nvidia-dcgm.service",
    "dcgm.service",
    "dcgm-exporter.service",
    "nvidia-dcgm-exporter.service",
    "nvidia_gpu_exporter.service",
    "nvidia-gridd.service",
    "nvidia-topologyd.service",
    "nvidia-imex.service",
    "nvidia-fabricmanager.service",
    "nvlsm.service",
    "nvidia-persistenced.service",
)
STARTED_ALWAYS = ("nvidia-persistenced.service", "nvidia-fabricmanager.service")
UNLOAD_ORDER = (
    "nouveau",
    "gdrdrv",
    "nvidia_fs",
    "nvidia_peermem",
    "nvidia_drm",
    "nvidia_modeset",
    "nvidia_uvm",
    "nvidia",
)
LOADED_ALWAYS = ("nvidia", "nvidia_uvm")
RELEASE_DEADLINE = 10.0
"""Seconds that a stopped service is given to release the driver."""


class LoadFailed(StopError):
    """The modules could not be exchanged, and a reboot would not help."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What is loaded now and who holds it: the part of the driver's state that a reload depends on."""

    version: str | None
    modules: Mapping[str, driver_state.KernelModule]
    holders: Sequence[Holder]
    flavor: str | None = None


@dataclasses.dataclass(frozen=True)
class Decision:
    """What is to be done about the loaded modules, and every reason for it."""

    action: Action
    reasons: tuple[str, ...] = ()


def decide(now: Loaded, version: str, policy: Policy, stoppable: Sequence[str], flavor: str | None = None) -> Decision:
    """Whether to reload, reboot or refuse.

    Args:
        now: what is loaded.
        version: the version that is to run.
        policy: what the operator allows. A host with no driver loaded needs neither reload nor reboot: it just loads.
        stoppable: units that may be stopped for it; their processes do not count as holders.
        flavor: the kernel modules that are to run; None where either will do.
    """
    loaded = now.version
    other_flavor = bool(flavor and now.flavor and now.flavor != flavor)
    if loaded == version and not other_flavor:
        return Decision("none")
    change = f"driver {loaded or 'absent'} is loaded, {version} is to run"
    if loaded == version:
        change = f"the {now.flavor} kernel modules of driver {version} are loaded, the {flavor} ones are to run"
    if policy == "neither":
        return Decision("refused", (change, "nvidia_driver_load_policy is 'neither'"))
    blocked = blockers(now, stoppable)
    if loaded is not None and policy == "reboot":
        return Decision("reboot", (change, "nvidia_driver_load_policy is 'reboot'"))
    if not blocked:
        return Decision("reload", (change,))
    return Decision("refused" if policy == "reload" else "reboot", (change, *blocked))


def blockers(now: Loaded, stoppable: Sequence[str]) -> tuple[str, ...]:
    """Reasons why the loaded modules are in use: processes, and modules that are not NVIDIA's own."""
    reasons = [describe(holder) for holder in now.holders if holder["unit"] not in stoppable]
    for name, module in now.modules.items():
        foreign = [user for user in module["used_by"] if user not in UNLOAD_ORDER]
        if foreign:
            reasons.append(f"module {name} is used by {', '.join(foreign)}")
    return tuple(reasons)


def load(
    version: str,
    policy: Policy,
    *,
    flavor: str | None = None,
    services: Sequence[str] = (),
    deadline: float = 60.0,
    run: Run = run_command,
    sleep: Callable[[float], None] = time.sleep,
) -> Decision:
    """Bring the installed modules of ``version`` into the kernel, as far as ``policy`` allows.

    Before anything is stopped or unloaded, and before a reboot is asked for, it is made sure that modprobe would load
    modules of that version and flavour. ``services`` are further units that may be stopped. ``deadline`` bounds each
    command.

    Raises:
        LoadFailed: the module that would load, or did, is not of ``version`` or not of ``flavor``, or none loads.
    """
    stoppable = (*SERVICES, *services)
    decision = decide(loaded_now(), version, policy, stoppable, flavor)
    _require_module(decision.action, version, flavor, deadline, run)
    if decision.action == "reload":
        decision = _exchange(version, policy, decision, stoppable, deadline, run, sleep)
    if decision.action in ("none", "reload"):
        if nvlink_fabric.switch_managers():
            run(["modprobe", "ib_umad"], deadline)  # before fabric manager; the driver gate says so where that fails
        start(STARTED_ALWAYS, deadline, run)
    return decision


def loaded_now() -> Loaded:
    """What is loaded on this host."""
    return Loaded(
        driver_state.loaded_version(), driver_state.modules(), driver_holders.holders(), driver_state.loaded_flavor()
    )


def _require_module(action: Action, version: str, flavor: str | None, deadline: float, run: Run) -> None:
    """A reload is of the running kernel; a reboot may end in any other that is installed, so all of those need a module."""
    if action not in ("reload", "reboot"):
        return
    kernels = boot_kernels.read().bootable
    asked = kernels[:1] if action == "reload" else kernels[1:] or kernels
    for kernel in asked:
        found = module_file.obstacle(module_file.find(kernel, run=run, deadline=deadline), version, flavor)
        if found:
            raise LoadFailed(f"{found[0]}. Nothing was unloaded", found[1])


def _exchange(version: str, policy: Policy, decision: Decision, stoppable: Sequence[str], deadline: float,
              run: Run, sleep: Callable[[float], None]) -> Decision:  # fmt: skip
    active = [unit for unit in stoppable if run(["systemctl", "is-active", "-q", unit], deadline).ok]
    try:
        if active:
            run(["systemctl", "stop", *active], deadline)
        blocked = _wait_for_release(stoppable, sleep) or _unload(deadline, run)
        if blocked:
            action: Action = "refused" if policy == "reload" else "reboot"
            return Decision(action, (*decision.reasons, *blocked))
        _insert(version, deadline, run)
    finally:
        start(active, deadline, run)
    return decision


def _wait_for_release(stoppable: Sequence[str], sleep: Callable[[float], None]) -> tuple[str, ...]:
    """Wait until stopped services have released the driver; returns who has not."""
    for _ in range(int(RELEASE_DEADLINE / 0.25)):
        now = loaded_now()
        if not now.holders:
            return blockers(now, ())
        if blockers(now, stoppable):
            break
        sleep(0.25)
    return blockers(loaded_now(), ())


def _unload(deadline: float, run: Run) -> tuple[str, ...]:
    """Unload every module, users first; returns why one stayed."""
    for name in UNLOAD_ORDER:
        if name not in driver_state.modules():
            continue
        answer = run(["modprobe", "-r", name], deadline)
        if answer.timed_out:
            return (f"modprobe -r {name} gave no answer within {deadline:g} s",)
        if not answer.ok:
            module = driver_state.modules().get(name)
            count = module["refcount"] if module else None
            return (
                f"module {name} cannot be unloaded (reference count {count}): {package_causes.of_modprobe(answer.stderr)}",
            )
    return ()


def _insert(version: str, deadline: float, run: Run) -> None:
    begun = time.clock_gettime(time.CLOCK_MONOTONIC) - 1.0
    for name in LOADED_ALWAYS:
        answer = run(["modprobe", name], deadline)
        if answer.timed_out:
            raise LoadFailed(
                f"modprobe {name} gave no answer within {deadline:g} s: reboot, once its reason was read", "dmesg"
            )
        if not answer.ok:
            hint = (
                " (Secure Boot refuses a module without an enrolled key)" if "Key was rejected" in answer.stderr else ""
            )
            said = kernel_log.refusal(begun)
            why = f"; the kernel says: {said}" if said else ""
            raise LoadFailed(f"modprobe {name}: {package_causes.of_modprobe(answer.stderr)}{hint}{why}", "dkms status")
    loaded = driver_state.loaded_version()
    if loaded != version:
        raise LoadFailed(
            f"modprobe loaded driver {loaded}, {version} is installed: another module lies below /lib/modules",
            "modinfo -n nvidia",
        )


def start(units: Sequence[str], deadline: float, run: Run) -> list[str]:
    """Start those of ``units`` that exist and do not run. Returns those that were started."""
    idle = [unit for unit in units if not run(["systemctl", "is-active", "-q", unit], deadline).ok
            and run(["systemctl", "cat", unit], deadline).ok]  # fmt: skip
    for unit in idle:
        run(["systemctl", "start", unit], deadline)
    return idle
