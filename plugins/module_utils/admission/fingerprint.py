"""The exact versions that a stamp is valid for, as they are on this host now.

Reads files and the package database, never CUDA, so that systemd conditions can ask at every start (tens of milliseconds).
Where the driver itself answers (``driver/gpu_identity.py``), a deadline bounds it: a hung driver cannot hang the question.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..core.system import read_text
from ..driver import dpkg, gpu_identity
from ..driver import state as driver_state
from ..driver.versions import upstream
from ..runtime import state as runtime_state

MACHINE_ID = Path("/etc/machine-id")
FIELDS = (
    "machine",
    "gpus",
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
NOT_VERSIONS = ("machine", "gpus")
"""Those that differ between hosts that run the same."""
_MOST_GPUS = 2
"""UUIDs that a change names."""


def compose(
    driver: Mapping[str, object],
    runtime: Mapping[str, object],
    kernel: str,
    machine: str | None = None,
    gpus: Iterable[str] | None = None,
) -> dict[str, str | None]:
    """The fingerprint of a host from what was read of its driver (``driver_state``), runtime, kernel, machine and GPUs.

    ``machine`` (``this_machine``) stays over reboots and goes with the machine: one that takes a dead host's name, address and
    versions has no stamp, neither its own nor its part of the replica's. ``gpus`` (``gpu_identity.uuids``) do the same for a
    card that was changed under the same installation; which slot a card is in makes no difference.

    ``driver`` is the version of the loaded module and ``driver_packages`` that of the installed packages: a host whose
    packages changed under a loaded module has another fingerprint, hence no valid stamp. Build ids tell apart two builds of
    one version of libcuda or NCCL, of which one may hang (vllm-project/vllm#41725).
    """
    fabric_manager = driver.get("fabric_manager")
    return {
        "machine": machine,
        "gpus": " ".join(gpus) if gpus is not None else None,
        "driver": _text(driver.get("loaded_version")),
        "driver_packages": _text(driver.get("package_version")),
        "libcuda_build_id": _text(driver.get("libcuda_build_id")),
        "fabric_manager": _text(fabric_manager.get("package_version")) if isinstance(fabric_manager, Mapping) else None,
        "kernel": kernel,
        **{name: _text(runtime.get(name)) for name in ("nccl", "nccl_build_id", "torch", "ray", "vllm", "python")},
    }


def current() -> dict[str, str | None]:
    """This host's fingerprint now."""
    identity = driver_identity()
    gpus = gpu_identity.uuids() if identity["loaded_version"] else None
    return compose(identity, runtime_state.state(), os.uname().release, this_machine(), gpus)


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
    """What differs, one line for each field: ``driver 550.90.07 → 550.127.05``; of GPUs, those that are not in both."""
    return [
        f"{name} {_only(name, old, new)} → {_only(name, new, old)}" for name in FIELDS if old.get(name) != new.get(name)
    ]


def _only(name: str, of: Mapping[str, str | None], other: Mapping[str, str | None]) -> str:
    value = of.get(name)
    if name != "gpus" or not value:
        return value or "absent"
    elsewhere = (other.get(name) or "").split()
    own = [gpu for gpu in value.split() if gpu not in elsewhere]
    rest = len(own) - _MOST_GPUS
    return (" ".join(own[:_MOST_GPUS]) + (f" and {rest} more" if rest > 0 else "")) or "absent"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
