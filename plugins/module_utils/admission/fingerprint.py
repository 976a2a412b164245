"""The exact versions that a stamp is valid for, as they are on this host now.

Reads files and the package database only, never CUDA, so that systemd conditions can ask at every start (tens of
milliseconds) and so that a hung driver cannot hang the question.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..core.system import read_text
from ..driver import dpkg
from ..driver import state as driver_state
from ..driver.versions import upstream
from ..runtime import state as runtime_state

MACHINE_ID = Path("/etc/machine-id")
FIELDS = (
    "machine",
    "driver",
    "driver_packages",
    "libcuda_build_id",
    "fabric_manager",
    "kernel",
    "nccl",
    "nccl_build_id",
    "torch",
    "ray",
    "vllm",
    "python",
)


def compose(
    driver: Mapping[str, object], runtime: Mapping[str, object], kernel: str, machine: str | None = None
) -> dict[str, str | None]:
    """The fingerprint of a host from what was read of its driver (``driver_state``), runtime, kernel and machine.

    ``machine`` (``this_machine``) stays over reboots and goes with the machine: one that takes a dead host's name, address and
    versions has no stamp, neither its own nor its part of the replica's.

    ``driver`` is the version of the loaded module and ``driver_packages`` that of the installed packages: a host whose
    packages changed under a loaded module has another fingerprint, hence no valid stamp. Build ids tell apart two builds of
    one version of libcuda or NCCL, of which one may hang (vllm-project/vllm#41725).
    """
    fabric_manager = driver.get("fabric_manager")
    return {
        "machine": machine,
        "driver": _text(driver.get("loaded_version")),
        "driver_packages": _text(driver.get("package_version")),
        "libcuda_build_id": _text(driver.get("libcuda_build_id")),
        "fabric_manager": _text(fabric_manager.get("package_version")) if isinstance(fabric_manager, Mapping) else None,
        "kernel": kernel,
        **{name: _text(runtime.get(name)) for name in ("nccl", "nccl_build_id", "torch", "ray", "vllm", "python")},
    }


def current() -> dict[str, str | None]:
    """This host's fingerprint now."""
    return compose(driver_identity(), runtime_state.state(), os.uname().release, this_machine())


def this_machine(path: Path = MACHINE_ID) -> str | None:
    """Which installation of which machine this is: a digest of systemd's machine id, which is not to be shown as it is."""
    identity = read_text(path).strip()
    return hashlib.sha256(f"lockstep {identity}".encode()).hexdigest()[:12] if identity else None


def driver_identity() -> dict[str, object]:
    """The part of ``driver_state`` that a fingerprint needs, without asking nvidia-smi."""
    packages = dpkg.installed()
    fabric = dpkg.fabric_manager(packages)
    return {
        "loaded_version": driver_state.loaded_version(),
        "package_version": dpkg.driver_version(packages),
        "libcuda_build_id": driver_state.libcuda_build_id(),
        "fabric_manager": {"package_version": upstream(packages[fabric]["version"])} if fabric else None,
    }


def digest(fingerprint: Mapping[str, str | None]) -> str:
    """Sixteen hex digits that change with any field (a Ray node label holds them)."""
    text = json.dumps({name: fingerprint.get(name) for name in FIELDS}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changes(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> list[str]:
    """What differs, one line for each field: ``driver 550.90.07 → 550.127.05``."""
    return [
        f"{name} {old.get(name) or 'absent'} → {new.get(name) or 'absent'}"
        for name in FIELDS
        if old.get(name) != new.get(name)
    ]


def _text(value: object) -> str | None:
    return None if value is None else str(value)
