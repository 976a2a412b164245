"""What an NVIDIA driver on a host is and does, read in one call that changes nothing.

Each command that is started is ended at a deadline, so that a driver that hangs becomes a finding. The probe sends this
file to every host: what is imported here costs each of them processor time at every run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Literal, TypedDict

from ..core import elf
from ..core.commands import Run, in_background, run_command
from ..core.system import read_text
from . import dpkg, kernel_log, nvidia_smi
from . import fabric as nvlink_fabric
from . import holders as driver_holders
from .versions import DRIVER_VERSION, find_driver_version, upstream, version_key

Costly = Literal["holders", "xids"]
COSTLY: tuple[Costly, ...] = ("holders", "xids")
"""The parts that cost more than all others together (every process, and the kernel's messages since boot), and that no
plan depends on: a gate, the metrics and whoever probes a single host ask for them."""
_USER_LIBRARY = rf"libnvidia-ml\.so\.({DRIVER_VERSION})$"
_LIBRARY_FOLDERS = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/lib/x86_64-linux-gnu/nvidia/current",
    "usr/lib/aarch64-linux-gnu/nvidia/current",
)


class FabricManager(TypedDict):
    """The installed fabric manager: its package, the version of that, of the program, and whether it runs."""

    package: str
    package_version: str
    version: str | None
    active: bool


class KernelModule(TypedDict):
    """A loaded module: its reference count, and the modules that use it."""

    refcount: int | None
    used_by: list[str]


class DriverState(TypedDict):
    """All that a host knows about its NVIDIA driver.

    ``package_version`` is None unless all of ``package_versions`` agree; ``persistence`` is None without GPUs;
    ``dpkg_interrupted`` is true also where a package is broken; ``smi_failure`` is None where nvidia-smi works, and where
    there is no driver at all; ``userspace_version`` is that of the libraries, wherever they lie; ``gpus_on_bus`` are the PCI
    addresses of those that the kernel sees, whether or not they answer.
    """

    packages: dict[str, dpkg.Package]
    package_versions: list[str]
    package_version: str | None
    userspace_version: str | None
    loaded_version: str | None
    loaded_flavor: str | None
    libcuda_build_id: str | None
    fabric_manager: FabricManager | None
    nvswitches: int
    fabric: nvlink_fabric.Fabric
    persistence: bool | None
    modules: dict[str, KernelModule]
    refcount: int | None
    gpus: list[nvidia_smi.Gpu]
    gpus_on_bus: list[str]
    pending_reboot: bool
    pending_reboot_packages: list[str]
    dpkg_interrupted: bool
    smi_failure: nvidia_smi.Failure | None
    smi_warnings: list[nvidia_smi.SmiWarning]


class FullDriverState(DriverState, total=False):
    """A driver's state with those of ``COSTLY`` that were asked for."""

    holders: list[driver_holders.Holder]
    xids: list[kernel_log.XidEvent]


def driver_state(
    *, deadline: float = 5.0, root: Path = Path("/"), run: Run = run_command, also: Collection[str] = COSTLY
) -> FullDriverState:
    """The driver of this host.

    Takes as long as the slowest of nvidia-smi, dpkg-query and fabric manager's version, and never longer than
    ``deadline`` seconds plus half a second. Needs root to see other users' holders. ``also`` names those of ``COSTLY``
    that are read; the others are left out.
    """
    smi = in_background(lambda: run(nvidia_smi.QUERY, deadline))
    holders = in_background(lambda: driver_holders.holders(root)) if "holders" in also else None
    xids = in_background(lambda: kernel_log.xids(root, run, deadline)) if "xids" in also else None
    nvlink = in_background(lambda: nvlink_fabric.read(root, run, deadline))
    packages = dpkg.installed(run, deadline)
    fabric = _fabric_manager(packages, run, deadline)
    loaded_modules = modules(root)
    smi_result = smi()
    loaded = loaded_version(root)
    smi_failure = nvidia_smi.failure(smi_result)
    gpus = [] if smi_failure else nvidia_smi.parse_gpus(smi_result.stdout)
    if smi_failure and smi_failure["code"] == "not_found" and not (packages or loaded):
        smi_failure = None
    state: FullDriverState = {
        "packages": packages,
        "package_versions": dpkg.driver_versions(packages),
        "package_version": dpkg.driver_version(packages),
        "userspace_version": _userspace_version(root)
        or (None if smi_failure else nvidia_smi.driver_version(smi_result.stdout)),
        "loaded_version": loaded,
        "loaded_flavor": loaded_flavor(root) if loaded else None,
        "libcuda_build_id": libcuda_build_id(root),
        "fabric_manager": fabric,
        "nvswitches": nvswitches(root),
        "fabric": nvlink(),
        "persistence": all(gpu["persistence"] for gpu in gpus) if gpus else None,
        "modules": loaded_modules,
        "refcount": loaded_modules["nvidia"]["refcount"] if "nvidia" in loaded_modules else None,
        "gpus": gpus,
        "gpus_on_bus": [card.name for card in nvlink_fabric.cards(root)],
        "pending_reboot": (root / "run/reboot-required").exists(),
        "pending_reboot_packages": sorted(
            {line for line in read_text(root / "run/reboot-required.pkgs").splitlines() if line}
        ),
        "dpkg_interrupted": dpkg.interrupted(root) or any(package["broken"] for package in packages.values()),
        "smi_failure": smi_failure,
        "smi_warnings": [] if smi_failure else nvidia_smi.warnings(smi_result),
    }
    if holders:
        state["holders"] = holders()
    if xids:
        state["xids"] = xids()
    return state


def loaded_version(root: Path = Path("/")) -> str | None:
    """The version of the kernel module that is loaded now, as the kernel reports it; None when none is."""
    proc = parse_proc_version(read_text(root / "proc/driver/nvidia/version"))
    return proc or read_text(root / "sys/module/nvidia/version").strip() or None


def libcuda_build_id(root: Path = Path("/")) -> str | None:
    """The build id of the driver's libcuda, which tells apart two builds of one version; None where there is none."""
    library = next((path for folder in _LIBRARY_FOLDERS if (path := root / folder / "libcuda.so.1").exists()), None)
    return elf.build_id(library) if library else None


def modules(root: Path = Path("/")) -> dict[str, KernelModule]:
    """The loaded kernel modules that are NVIDIA's or use its driver, by name."""
    loaded = root / "sys/module"
    result: dict[str, KernelModule] = {}
    for name in sorted(os.listdir(loaded)) if loaded.is_dir() else ():
        if name.startswith("nvidia") or name in ("gdrdrv", "nouveau"):
            count = read_text(loaded / name / "refcnt").strip()
            used_by = sorted(entry.name for entry in (loaded / name / "holders").glob("*"))
            result[name] = {"refcount": int(count) if count.isdigit() else None, "used_by": used_by}
    return result


def nvswitches(root: Path = Path("/")) -> int:
    """How many NVSwitches this host has: NVIDIA's PCI bridges of class 0x0680. They need fabric manager.

    Those of HGX B200 and later are no PCI devices: ``fabric.switch_managers``.
    """
    return sum(1 for _switch in nvlink_fabric.functions(root, "0x10de", "0x0680"))


def parse_proc_version(text: str) -> str | None:
    """The loaded module's version from ``/proc/driver/nvidia/version``; None when the text has none."""
    line = next((line for line in text.splitlines() if line.startswith("NVRM version:")), "")
    return find_driver_version(line)


def loaded_flavor(root: Path = Path("/")) -> Literal["open", "proprietary"] | None:
    """Whether the loaded module is the open or the proprietary one; None where none is, or where it does not say."""
    return parse_proc_flavor(read_text(root / "proc/driver/nvidia/version"))


def parse_proc_flavor(text: str) -> Literal["open", "proprietary"] | None:
    """From the line of ``/proc/driver/nvidia/version`` that names the kind of module."""
    line = next((line for line in text.splitlines() if line.startswith("NVRM version:")), "")
    if "Open Kernel Module" in line:
        return "open"
    return "proprietary" if "Kernel Module" in line else None


def parse_library_version(names: Iterable[str]) -> str | None:
    """The user-space version from library file names (``libnvidia-ml.so.550.127.05``); the newest of several."""
    versions = [match.group(1) for name in names if (match := re.search(_USER_LIBRARY, name))]
    return max(versions, key=version_key, default=None)


def _userspace_version(root: Path) -> str | None:
    names: list[str] = []
    for folder in _LIBRARY_FOLDERS:
        try:
            names += [name for name in os.listdir(root / folder) if name.startswith("libnvidia-ml.so.")]
        except OSError:
            continue
    return parse_library_version(names)


def _fabric_manager(packages: dpkg.Packages, run: Run, deadline: float) -> FabricManager | None:
    name = dpkg.fabric_manager(packages)
    if name is None:
        return None
    version = run(["nv-fabricmanager", "--version"], deadline)
    active = run(["systemctl", "is-active", "nvidia-fabricmanager.service"], deadline)
    return {
        "package": name,
        "package_version": upstream(packages[name]["version"]),
        "version": find_driver_version(version.stdout),
        "active": active.stdout.strip() == "active",
    }
